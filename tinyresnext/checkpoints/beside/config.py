"""A ``config.json`` as timm writes it beside weights: architecture, labels, preprocessing, licence.

Only what is understood is used. A value of an unusual kind is passed over, and a note says so.
Source: ``save_config_for_hf`` and ``_parse_model_cfg`` of timm's ``models/_hub.py``, and
``resolve_data_config`` of its ``data/config.py``.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import FormatError, UsageError
from ...images.preprocess import Preprocess
from ...system.files import regular, shown
from ..readers.parts import of_the_folder
from .folder import CONFIG

__all__ = ["Config", "read"]

MOST = 1 << 20  # bytes; one with 20,000 labels has less
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
    """What a ``config.json`` says.

    Attributes
    ----------
    architecture : str
        Timm's name of the network.
    arguments : dict
        With which timm makes it.
    classes : int, optional
    labels : tuple of str, optional
        One for each class.
    preprocess : Preprocess, optional
    licence : str
        Its name in SPDX where that is known; may be empty.
    passed_over : tuple of str
        What it says and is not used, for people.
    """

    architecture: str
    arguments: dict[str, Any]
    classes: int | None
    labels: tuple[str, ...] | None
    preprocess: Preprocess | None
    licence: str
    passed_over: tuple[str, ...]

    def summary(self) -> str:
        """Return what was found, for people."""
        found = [f"architecture {self.architecture}"]
        found += [f"{len(self.labels)} labels"] if self.labels else []
        found += ["preprocessing"] if self.preprocess else []
        found += [f"licence {self.licence}"] if self.licence else []
        return f"found in {CONFIG}: {', '.join(found)}"


def read(
    path: str | os.PathLike[str], *, wanted: bool = False, labels: bool = True
) -> Config | None:
    """Return what the ``config.json`` beside a checkpoint says, None if there is none of timm's.

    ``wanted``: the user has named it, or its folder. Else it may be a file of another program.
    ``labels``: whether its labels are needed.

    Raises
    ------
    FormatError
        It is wanted and no JSON object; or its labels are not names.
    UnsafeError
        It is a link that leaves the folder.
    """
    folder = Path(path).parent
    if not os.path.isfile(folder / CONFIG):
        return None
    values = _json(of_the_folder(folder, CONFIG))
    if values is None and wanted:
        raise FormatError(
            f"{shown(folder / CONFIG)} is no JSON object of at most {MOST:,} bytes; fetch it "
            "again, or name the file with the weights"
        )
    values = values or {}
    name = values.get("architecture")
    if not isinstance(name, str) or not name:
        return None
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
        passed_over = (f"all that it says of images, because of {reason}",)
    licence = inner.get("license")
    if licence is not None and (type(licence) is not str or len(licence) > 80):
        licence, passed_over = None, (*passed_over, f"license {_short(licence)}: no name of one")
    if classes is not None and type(classes) is not int:
        classes, passed_over = None, (*passed_over, f"num_classes {_short(classes)}: no number")
    licence = licence or ""
    return Config(
        name,
        arguments,
        classes,
        _labels(both) if labels else None,
        preprocess,
        _LICENCES.get(licence.lower(), licence),
        passed_over,
    )


def _json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file, None if it is anything else."""
    with regular(path) as file:
        text = file.read(MOST + 1)
    try:
        found = json.loads(text.decode("utf-8-sig")) if len(text) <= MOST else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _labels(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of the classes; WordNet ids become their descriptions, if all have one."""
    names = values.get("label_names", values.get("labels"))
    if isinstance(names, dict):  # from number to name, where timm allows gaps
        if {*names} != {str(i) for i in range(len(names))}:
            raise FormatError(
                f"label_names in {CONFIG} does not number the classes from 0 without gaps; give "
                "the labels with --labels FILE"
            )
        names = [names[str(i)] for i in range(len(names))]
    if not names:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise FormatError(
            f"label_names in {CONFIG} are not all texts; give the labels with --labels FILE"
        )
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
