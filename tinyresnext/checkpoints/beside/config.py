"""A ``config.json`` as timm writes it beside weights: architecture, labels, preprocessing, licence.

What its outputs mean is read too, as transformers writes it when it saves one of timm's networks.
Only what is understood is used. A value of an unusual kind is passed over, and a note says so. What
transformers writes is read by `processor`, and completes what timm's file does not say.
Source: ``save_config_for_hf`` and ``_parse_model_cfg`` of timm's ``models/_hub.py``, and
``resolve_data_config`` of its ``data/config.py``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import FormatError, UsageError
from ...images.preprocess import Preprocess
from ...system.files import shown
from . import processor
from .folder import CONFIG, MOST, json_object

__all__ = ["Config", "read"]

# As the Hub writes licences, and SPDX
_LICENCES = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
_SIDES = (1, 4096)
_MOST_VALUE = 1e6  # of a mean or a deviation; a whole number of 400 digits is no float at all


class Config(NamedTuple):
    """What a ``config.json`` says, and a ``preprocessor_config.json`` beside it.

    Attributes
    ----------
    architecture : str
        Timm's name of the network; empty if it does not say one.
    arguments : dict
        With which timm makes it.
    classes : int, optional
    labels : tuple of str, optional
        One for each class.
    preprocess : Preprocess, optional
    licence : str
        Its name in SPDX where that is known; may be empty.
    passed_over : tuple of str
        What it says and is not used, for people, with the name of the file.
    prepared_in : str
        The name of the file that says how images are prepared; empty if none does.
    head : str
        What the outputs mean, one of `tinyresnext.network.spec.HEADS`; empty if it does not say it.
    """

    architecture: str
    arguments: dict[str, Any]
    classes: int | None
    labels: tuple[str, ...] | None
    preprocess: Preprocess | None
    licence: str
    passed_over: tuple[str, ...]
    prepared_in: str = ""
    head: str = ""

    def summary(self) -> str:
        """Return what was found, for people."""
        own = self.prepared_in == CONFIG
        found = [f"architecture {self.architecture}"] if self.architecture else []
        found += [f"{len(self.labels)} labels"] if self.labels else []
        found += ["labels of which any may be right"] if self.head == "sigmoid" else []
        found += ["preprocessing"] if self.preprocess and own else []
        found += [f"licence {self.licence}"] if self.licence else []
        said = [f"in {CONFIG}: {', '.join(found)}"] if found else []
        if self.preprocess and not own:
            said.append(f"in {self.prepared_in}: preprocessing")
        return f"found {'; '.join(said)}" if said else ""


def read(
    path: str | os.PathLike[str], *, wanted: bool = False, labels: bool = True
) -> Config | None:
    """Return what the files beside a checkpoint say, None if there are none that are known.

    ``wanted``: the user has named ``config.json``, or its folder. Else it may be a file of another
    program. ``labels``: whether its labels are needed.

    Raises
    ------
    FormatError
        It is wanted and no JSON object; its labels are not names; its outputs are no classes; or it
        is that of transformers' for a network that cannot be computed.
    UnsafeError
        It is a link that leaves the folder.
    """
    folder = Path(path).parent
    values = json_object(folder, CONFIG)
    if values is None and wanted and os.path.isfile(folder / CONFIG):
        raise FormatError(
            f"{shown(folder / CONFIG)} is no JSON object of at most {MOST:,} bytes; fetch it "
            "again, or name the file with the weights"
        )
    values = values or {}
    name = values.get("architecture")
    if isinstance(name, str) and name:
        found = _of_timm(name, values, labels)
    elif wanted or processor.is_of_resnets(values):
        found = Config("", {}, None, processor.labels(values) if labels else None, None, "", ())
    else:
        return None
    processor.check(path, values)
    head, untold = processor.head(path, values)
    found = found._replace(head=head, passed_over=(*found.passed_over, *untold))
    if not found.prepared_in:
        preprocess, reason = processor.preprocessing(folder)
        over = (f"{processor.FILE}: all of it, because of {reason}",) if reason else ()
        over = (*found.passed_over, *over)
        found = found._replace(preprocess=preprocess, passed_over=over, prepared_in=processor.FILE)
    return found if found.summary() or found.passed_over else None


def _of_timm(name: str, values: dict[str, Any], labels: bool) -> Config:
    """Return what timm's own ``config.json`` says."""
    # an older form has everything in one object
    inner = values.get("pretrained_cfg", values)
    inner = inner if isinstance(inner, dict) else {}
    arguments = values.get("model_args")
    arguments = dict(arguments) if isinstance(arguments, dict) else {}
    if "global_pool" in values:
        arguments.setdefault("global_pool", values["global_pool"])
    both = {**inner, **values}
    classes = both.get("num_classes")
    preprocess, reason = _preprocess(inner, arguments)
    passed_over: tuple[str, ...] = ()
    if reason:  # a part of it would be another preprocessing, which nobody has measured
        passed_over = (f"{CONFIG}: all that it says of images, because of {reason}",)
    licence = inner.get("license")
    if licence is not None and (type(licence) is not str or len(licence) > 80):
        over = f"{CONFIG}: license {_short(licence)}: no name of one"
        licence, passed_over = None, (*passed_over, over)
    if classes is not None and type(classes) is not int:
        over = f"{CONFIG}: num_classes {_short(classes)}: no number"
        classes, passed_over = None, (*passed_over, over)
    licence = licence or ""
    return Config(
        name,
        arguments,
        classes,
        (_labels(both) or processor.labels(values)) if labels else None,
        preprocess,
        _LICENCES.get(licence.lower(), licence),
        passed_over,
        CONFIG if preprocess or reason else "",
    )


def _labels(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes; WordNet ids become their descriptions, if all have one."""
    names = processor.in_order("label_names", values.get("label_names", values.get("labels")))
    if names is None:
        return None
    said = values.get("label_descriptions")
    said = said if isinstance(said, dict) else {}
    meant = [said.get(name) for name in names if re.fullmatch(r"n\d{8}", name)]
    if len(meant) == len(names) and all(isinstance(text, str) and text for text in meant):
        return tuple(map(str, meant))
    return tuple(names)


def _preprocess(
    values: Mapping[str, Any], arguments: Mapping[str, Any]
) -> tuple[Preprocess | None, str]:
    """Return how timm prepares images with these values, None if that cannot be done here.

    The second value says which of them cannot be used, and why.
    """
    size, channels = values.get("input_size"), arguments.get("in_chans")
    if size is None:
        return None, ""
    whole = isinstance(size, list) and len(size) == 3 and all(type(n) is int for n in size)
    if not whole or size[1] != size[2] or not _SIDES[0] <= size[1] <= _SIDES[1]:
        return None, f"input_size {_short(size)}: images are cut to squares here"
    mode, how = values.get("crop_mode") or "center", values.get("interpolation") or "bicubic"
    if mode != "center":
        return None, f"crop_mode {_short(mode)}: images are cut from the centre here"
    if how not in ("bilinear", "bicubic"):
        return None, f"interpolation {_short(how)}: it is not computed here"
    part = values.get("crop_pct") or 0.875
    if type(part) not in (int, float) or not 0.1 <= part <= 10:
        return None, f"crop_pct {_short(part)}: no part of an image"
    count = channels if type(channels) is int else size[0]
    numbers = {}
    for name, usual in (("mean", (0.485, 0.456, 0.406)), ("std", (0.229, 0.224, 0.225))):
        found = values.get(name) or usual
        single = not isinstance(found, Sequence) or len(found) != count
        if single or not all(type(n) in (int, float) and abs(n) < _MOST_VALUE for n in found):
            return None, f"{name} {_short(found)}: expected a number for each of {count} channels"
        numbers[name] = tuple(float(n) for n in found)
    try:
        return Preprocess(math.floor(size[1] / part), size[1], how, **numbers), ""
    except UsageError as error:
        return None, str(error)


def _short(value: object) -> str:
    """Return a value for a message."""
    return shown(ascii(value)[:60])
