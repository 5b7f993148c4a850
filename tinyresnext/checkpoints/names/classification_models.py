"""The layer names of classification_models for Keras: ``bn_data``, ``stage1_unit1_conv1``.

Each of the 32 convolutions of a group is a layer of its own. In the first generation they have
names (``stage1_unit1_conv2_0``), later numbers that count all convolutions of a session
(``conv2d_17``, the first perhaps ``conv2d``): only their order tells. All layers of an SE-ResNeXt
have such numbers, in the order in which they were made; the order in the file is another.

The norm of the input, ``bn_data``, is the preprocessing of images of 0 to 255. Padding comes behind
it, so it is no part of the first convolution, but exactly a mean and a deviation.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, UsageError
from ...images.preprocess import Preprocess
from .layouts import AS_IT_IS, DENSE, KERNEL, PATHS, Layout, Part, Reading

__all__ = ["INPUT", "classification_models", "classification_models_se", "preprocessing"]

INPUT = "input."  # before the names of the parameters of the norm of the input
_UNIT = re.compile(
    r"stage([1-9])_unit([1-9]\d{0,3})_(?:(conv|bn)([123])|(sc)|(sc_bn)|conv2_(\d{1,4}))", re.ASCII
)
_ANONYMOUS = re.compile(r"(conv2d|dense)(?:_(\d{1,9}))?", re.ASCII)
_NUMBERED = re.compile(r"(conv2d|batch_normalization|dense)(?:_(\d{1,9}))?", re.ASCII)
GROUPS = 32  # in all of these networks
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_PLACES = {"conv0": "conv1", "bn0": "bn1", "fc1": "fc", "bn_data": INPUT[:-1]}
_INPUT = {f"{INPUT}bias", f"{INPUT}running_mean", f"{INPUT}running_var"}


def classification_models(keys: Collection[str]) -> Reading:
    """Read the names of a ResNeXt of classification_models.

    Its parameters that begin with `INPUT` are those of the norm of the input.
    """
    parts: dict[str, Part] = {}
    paths: dict[str, list[tuple[int, str]]] = {}  # grouped convolutions: number and key of each
    anonymous: list[tuple[int, str]] = []
    foreign = []
    for key in keys:
        layer, _, field = key.removesuffix(":0").rpartition("/")
        unit, other = _UNIT.fullmatch(layer), _ANONYMOUS.fullmatch(layer)
        if unit is not None and unit[7] is not None and field == "kernel":
            at = f"layer{unit[1]}.{int(unit[2]) - 1}"
            paths.setdefault(f"{at}.conv2.weight", []).append((int(unit[7]), key))
        elif other is not None and other[1] == "conv2d" and field == "kernel":
            anonymous.append((int(other[2] or 0), key))
        elif (found := _parameter(layer, unit, field)) is None or found[0] in parts:
            foreign.append(key)
        else:
            parts[found[0]] = (key,), found[1]
    if not parts.keys() >= _INPUT or f"{INPUT}weight" in parts:
        return {}, [*keys]
    foreign += _dealt(parts, anonymous, paths)
    for name, found_paths in paths.items():
        in_order = sorted(found_paths)
        parts[name] = tuple(key for _, key in in_order), PATHS
    return parts, foreign


def _parameter(layer: str, unit: re.Match[str] | None, field: str) -> tuple[str, Layout] | None:
    """Return the parameter of a layer that is no path of a grouped convolution."""
    if unit is not None and unit[7] is None:
        kind, number, shortcut = unit[3], unit[4], unit[5]
        if kind == "conv" and number == "2":
            return None
        inner = f"{kind}{number}" if kind else "downsample.0" if shortcut else "downsample.1"
        module = f"layer{unit[1]}.{int(unit[2]) - 1}.{inner}"
    elif layer in _PLACES or re.fullmatch(r"dense(?:_\d{1,9})?", layer, re.ASCII):
        module = _PLACES.get(layer, "fc")
    else:
        return None
    if module == "fc":
        layouts = {"kernel": ("weight", DENSE), "bias": ("bias", AS_IT_IS)}
        return (f"fc.{layouts[field][0]}", layouts[field][1]) if field in layouts else None
    if module.endswith((".downsample.0", "conv1", "conv3")):
        return (f"{module}.weight", KERNEL) if field == "kernel" else None
    return (f"{module}.{_NORM[field]}", AS_IT_IS) if field in _NORM else None


def _dealt(
    parts: Mapping[str, Part],
    anonymous: list[tuple[int, str]],
    paths: dict[str, list[tuple[int, str]]],
) -> list[str]:
    """Give each block its share of the convolutions without names; return those that are over.

    They were made block by block, so in the order of their numbers they are those of the blocks.
    """
    blocks = sorted(
        tuple(int(number) for number in match.groups())
        for name in parts
        if (match := re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", name))
    )
    if not anonymous:
        return []
    if not blocks or paths or len(anonymous) % len(blocks):
        return [key for _, key in anonymous]
    share, in_order = len(anonymous) // len(blocks), sorted(anonymous)
    for i, (stage, block) in enumerate(blocks):
        paths[f"layer{stage}.{block}.conv2.weight"] = in_order[i * share : (i + 1) * share]
    return []


def classification_models_se(keys: Collection[str]) -> Reading:
    """Read the names of an SE-ResNeXt of classification_models, which are numbers.

    In order, the convolutions are the stem, and for each block a 1x1, 32 of a group, a 1x1, perhaps
    a shortcut's, and the two of squeeze and excitation, which alone have biases. The norms are the
    stem's, and for each block three, and one of its shortcut.
    """
    layers: dict[str, dict[int, dict[str, str]]] = {}  # by kind and number: the key of each field
    for key in keys:
        layer, _, field = key.removesuffix(":0").rpartition("/")
        if (match := _NUMBERED.fullmatch(layer)) is None:
            return {}, [*keys]
        layers.setdefault(match[1], {}).setdefault(int(match[2] or 0), {})[field] = key
    convs, norms, dense = (
        [found for _, found in sorted(layers.get(kind, {}).items())]
        for kind in ("conv2d", "batch_normalization", "dense")
    )
    names = _se_modules([{*conv} for conv in convs])
    if not names or len(dense) > 1 or len(names[1]) != len(norms):
        return {}, [*keys]
    parts: dict[str, Part] = {}
    for name, conv in zip(names[0], convs, strict=True):
        before = parts.get(f"{name}.weight", ((), KERNEL))[0]
        layout = PATHS if name.endswith(".conv2") else KERNEL
        parts[f"{name}.weight"] = (*before, conv["kernel"]), layout
        parts |= {f"{name}.bias": ((conv["bias"],), AS_IT_IS)} if "bias" in conv else {}
    for name, norm in zip(names[1], norms, strict=True):
        parts |= {f"{name}.{_NORM[f]}": ((key,), AS_IT_IS) for f, key in norm.items() if f in _NORM}
    if dense and dense[0].keys() == {"kernel", "bias"}:
        parts["fc.weight"] = (dense[0]["kernel"],), DENSE
        parts["fc.bias"] = (dense[0]["bias"],), AS_IT_IS
    used = {key for pieces, _ in parts.values() for key in pieces}
    return parts, [key for key in keys if key not in used]


def _se_modules(convs: list[set[str]]) -> tuple[list[str], list[str]] | None:
    """Return the modules of convolutions and of norms in order, None if it is no such network.

    ``convs`` has the fields of each convolution.
    """
    named, norms, stage, block, at = ["conv1"], ["bn1"], 0, 0, 1
    if not convs or convs[0] != {"kernel"}:
        return None
    while at < len(convs):
        plain = next((i for i, conv in enumerate(convs[at:]) if "bias" in conv), -1)
        shortcut = plain == GROUPS + 3
        if plain not in (GROUPS + 2, GROUPS + 3) or len(convs) < at + plain + 2:
            return None
        if any(conv != {"kernel"} for conv in convs[at : at + plain]) or any(
            conv != {"kernel", "bias"} for conv in convs[at + plain : at + plain + 2]
        ):
            return None
        stage, block = (stage + 1, 0) if shortcut else (stage, block + 1)
        if not stage:
            return None
        here = f"layer{stage}.{block}"
        named += [f"{here}.conv1", *[f"{here}.conv2"] * GROUPS, f"{here}.conv3"]
        named += [f"{here}.downsample.0"] * shortcut + [f"{here}.se.fc1", f"{here}.se.fc2"]
        norms += [f"{here}.bn{i}" for i in (1, 2, 3)] + [f"{here}.downsample.1"] * shortcut
        at += plain + 2
    return named, norms


def preprocessing(arrays: Mapping[str, NDArray], eps: float, channels: int) -> Preprocess:
    """Return the preprocessing that the norm of the input is.

    The norm computes ``(x - running_mean) / sqrt(running_var + eps) + bias`` of bytes; images are
    cut as the README of classification_models says, from 256 to 224.

    Parameters
    ----------
    arrays : mapping of str to array
        The parameters, under torchvision's names.
    eps : float
        Of the norm.
    channels : int
        Of an image.

    Raises
    ------
    FormatError
        The numbers are none of a preprocessing.
    """
    mean, variance, shift = (
        arrays[f"{INPUT}{field}"].astype(np.float64)
        for field in ("running_mean", "running_var", "bias")
    )
    if {mean.shape, variance.shape, shift.shape} != {(channels,)}:
        raise FormatError(f"the norm of the input, bn_data, has not {channels} channels")
    std = np.sqrt(variance + eps)
    means = (mean - shift * std) / 255
    try:
        return Preprocess(256, 224, mean=tuple(means.tolist()), std=tuple((std / 255).tolist()))
    except UsageError as error:
        raise FormatError(f"the norm of the input, bn_data, is none of images: {error}") from None
