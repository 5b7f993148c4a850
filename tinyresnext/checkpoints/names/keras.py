"""The key names of keras-applications: ``conv2_block1_1_conv/kernel:0``; blocks count from 1."""

from __future__ import annotations

import re
from collections.abc import Collection

from .layouts import AS_IT_IS, DENSE, DEPTHWISE, KERNEL, Layout, Reading
from .pytorch import by_key

__all__ = ["keras"]

_LAYER = re.compile(
    r"(?:conv(?:1|([2-9])_block([1-9]\d{0,3})_([0-3]))_(conv|bn|gconv)|probs|predictions)", re.ASCII
)
_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_SHORTCUT = {"conv": "downsample.0", "bn": "downsample.1"}


def keras(keys: Collection[str]) -> Reading:
    """Read Keras' names; the weights lie in the file as TensorFlow lays them out."""
    parts, foreign = by_key(keys, _from_keras)
    # the fixed convolution behind a depthwise one
    for name in [name for name in parts if name.endswith(".sum")]:
        weight = name.replace(".sum", ".weight")
        if weight in parts and parts[weight][1] is DEPTHWISE:
            parts[weight] = parts[weight][0] + parts[name][0], DEPTHWISE
        else:
            foreign += parts[name][0]
        del parts[name]
    return parts, foreign


def _from_keras(key: str) -> tuple[str, Layout] | None:
    """Translate one key: ``LAYER/WEIGHT:0``, below more groups where HDF5 nests them."""
    *groups, layer, field = key.removesuffix(":0").split("/") if "/" in key else ("", "", "")
    match = _LAYER.fullmatch(layer)
    if match is None or not set(groups) <= {layer, "model_weights"}:
        return None
    stage, block, place, kind = match.groups()
    at = "" if block is None else f"layer{int(stage) - 1}.{int(block) - 1}."
    module = "fc"
    if kind in _SHORTCUT:
        module = at + (_SHORTCUT[kind] if place == "0" else f"{kind}{place or 1}")
    match kind, field:
        case None, "kernel":
            return "fc.weight", DENSE
        case None, "bias":
            return "fc.bias", AS_IT_IS
        case "bn", _ if field in _NORM:
            return f"{module}.{_NORM[field]}", AS_IT_IS
        case "conv", "kernel":
            return f"{module}.weight", KERNEL
        case "conv", "depthwise_kernel" if place == "2":
            return f"{module}.weight", DEPTHWISE
        case "gconv", "kernel" if place == "2":
            return f"{at}conv2.sum", AS_IT_IS
    return None
