"""What transformers writes beside weights: names of classes, the head, how images are prepared.

The names are ``id2label`` in ``config.json``, and ``problem_type`` says what outputs mean: also for
timm's networks, which transformers trains and saves too. ``preprocessor_config.json`` has the rest.
A value that cannot be followed here makes all of it passed over, since a part of it would be
another preprocessing.

Source: ``ConvNextImageProcessor``, which its ResNets use, and ``BitImageProcessor`` of
transformers, with their ``resize`` and ``center_crop``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import FormatError, UsageError
from ...images.preprocess import Preprocess
from ...system.checks import is_int
from ...system.files import shown
from .folder import CONFIG, json_object

__all__ = ["FILE", "check", "head", "in_order", "is_of_resnets", "labels", "preprocessing"]

FILE = "preprocessor_config.json"
_FILTERS = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers
# Processors whose rules are one of the two below; others with the same fields have other rules
_KINDS = ("ConvNext", "Bit", "CLIP", "MobileNetV1", "MobileNetV2")
_SQUEEZED = 384  # from this size on, ConvNext's processor squeezes images to squares
# What transformers' ResNets compute otherwise, and the usual values
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": (None, "relu"),
    "downsample_in_bottleneck": (None, False),
}
_HEADS = {
    None: "",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def is_of_resnets(values: Mapping[str, Any]) -> bool:
    """Return whether a ``config.json`` is that of one of transformers' ResNets, or like it."""
    names = [values.get("model_type"), *_listed(values.get("architectures"))]
    return any(isinstance(one, str) and re.search("resne", one, re.IGNORECASE) for one in names)


def check(path: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Raise `FormatError` if a ``config.json`` says what this version cannot compute."""
    if not is_of_resnets(values):
        return
    for name, usual in _USUAL.items():
        if not any(values.get(name) is one or values.get(name) == one for one in usual):
            raise FormatError(
                f"{shown(path)}: {CONFIG} beside it says {name} {_short(values[name])}, which this "
                "version cannot compute, though its tensors may look like those of a plain "
                f"network; use a plain ResNeXt, or move the file away from {CONFIG} if it is one"
            )


def head(path: str | os.PathLike[str], values: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the head that ``problem_type`` means, "" for none, and what of it is passed over.

    Raises
    ------
    FormatError
        The outputs are no classes.
    """
    kind = values.get("problem_type")
    if kind == "regression":
        raise FormatError(
            f"{shown(path)}: {CONFIG} beside it says problem_type 'regression': the outputs are "
            "measures, and those of a network here are classes or labels; to have them as logits "
            f"all the same, move the file away from {CONFIG}, or take that field out of it"
        )
    if isinstance(kind, str | None) and kind in _HEADS:
        return _HEADS[kind], ()
    return "", (f"{CONFIG}: problem_type {_short(kind)}: it is not known here",)


def labels(values: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names in ``id2label``, None if there are none but those that stand for none."""
    names = in_order("id2label", values.get("id2label"))
    if names is None or all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        return None
    return tuple(names)


def in_order(field: str, names: Any) -> list[str] | None:
    """Return names that are a list, or an object from numbers; None if there are none.

    Raises
    ------
    FormatError
        They are anything else, or their numbers have gaps.
    """
    if isinstance(names, dict):
        if {*names} != {str(i) for i in range(len(names))}:
            raise FormatError(
                f"{field} in {CONFIG} does not number the classes from 0 without gaps; give "
                "the labels with --labels FILE"
            )
        names = [names[str(i)] for i in range(len(names))]
    if not names:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise FormatError(
            f"{field} in {CONFIG} are not all texts; give the labels with --labels FILE"
        )
    return names


def preprocessing(folder: Path) -> tuple[Preprocess | None, str]:
    """Return how ``preprocessor_config.json`` prepares images, None if that cannot be done here.

    The second value says what cannot be done; it is empty if there is no such file.
    """
    if not os.path.isfile(folder / FILE):
        return None, ""
    values = json_object(folder, FILE)
    if values is None:
        return None, "its form: it is no JSON object"
    for name, wanted in (
        ("do_resize", True),
        ("do_rescale", True),
        ("do_pad", False),
        ("do_flip_channel_order", False),
    ):
        if values.get(name, wanted) is not wanted and values.get(name) is not None:
            return None, f"{name} {_short(values[name])}"
    factor = values.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not abs(factor * 255 - 1) <= 1e-6:
        return None, f"rescale_factor {_short(factor)}: values are divided by 255 here"
    how = values.get("resample")
    if type(how) is not int or how not in _FILTERS:
        return None, f"resample {_short(how)}: expected 2 (bilinear) or 3 (bicubic)"
    sides, reason = _sides(values)
    if sides is None:
        return None, reason
    mean, std = values.get("image_mean"), values.get("image_std")
    if values.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    if not isinstance(mean, list) or not isinstance(std, list):
        return None, f"image_mean {_short(mean)} and image_std {_short(std)}: no lists"
    try:
        return Preprocess(*sides, _FILTERS[how], tuple(mean), tuple(std)), ""
    except UsageError as error:
        return None, str(error)


def _sides(values: Mapping[str, Any]) -> tuple[tuple[int, int] | None, str]:
    """Return the shorter side after resizing, and that of the crop; or None, and why."""
    size, crop = values.get("size"), values.get("crop_size")
    kind = values.get("image_processor_type") or values.get("feature_extractor_type") or ""
    if not isinstance(kind, str) or (kind and not kind.startswith(_KINDS)):
        return None, f"image_processor_type {_short(kind)}: it is not known here"
    part = values.get("crop_pct")
    convnext = kind.startswith("ConvNext") or (not kind and part is not None)
    short = size.get("shortest_edge") if isinstance(size, dict) and len(size) == 1 else None
    if convnext:
        short = size if short is None else short
        part = 224 / 256 if part is None else part
        if not is_int(short, 1, _SQUEEZED - 1) or type(part) not in (int, float):
            return None, f"size {_short(size)}: such images are squeezed to squares, or it is none"
        if not 0.1 <= part <= 10:
            return None, f"crop_pct {_short(part)}: no part of an image"
        return (int(short / part), short), ""
    if not is_int(short, 1):
        return None, f"size {_short(size)}: expected the shortest_edge, as images keep their form"
    both = [crop, crop]
    if isinstance(crop, dict) and crop.keys() == {"height", "width"}:
        both = [crop["height"], crop["width"]]
    if values.get("do_center_crop") is not True or both[0] != both[1] or not is_int(both[0], 1):
        cut = values.get("do_center_crop")
        return None, f"do_center_crop {_short(cut)}, crop_size {_short(crop)}: no square is cut"
    return (short, both[0]), ""


def _listed(value: Any) -> list[Any]:
    """Return a list, or an empty one for anything else."""
    return value if isinstance(value, list) else []


def _short(value: object) -> str:
    """Return a value for a message."""
    return shown(ascii(value)[:60])
