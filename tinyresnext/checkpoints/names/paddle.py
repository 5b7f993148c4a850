"""The key names of Paddle: those of ``paddle.vision``, and three generations of PaddleClas.

Batch norms keep ``_mean`` and ``_variance``, and a classifier is ``[in, out]``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from ...errors import FormatError
from ...network.spec import Spec
from .layouts import AS_IT_IS, DENSE, DENSE_1X1, Layout, Reading
from .pytorch import by_key

__all__ = ["check_twins", "paddle"]

_NORM = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}
_DEEP = {"1": ("conv1.0", "conv1.1"), "2": ("conv1.3", "conv1.4"), "3": ("conv1.6", "bn1")}
_VISION = re.compile(
    r"((?:layer[1-9]\.\d{1,4}\.)?(?:conv|bn)[123]|layer[1-9]\.\d{1,4}\.downsample\.[01])\.(\w+)",
    re.ASCII,
)
# PaddleClas: stages from 0 (ResNeXt, vd and SE), or from 1 with underscores (WSL)
_CLAS = re.compile(r"bb_(\d)_(\d{1,4})\.(conv[012]|short)\.(_conv|_batch_norm)\.(\w+)", re.ASCII)
_WSL = re.compile(
    r"_conv([1-9])_(\d{1,4})\._(conv[012]|short\._conv)\.(_conv|_bn)\.(\w+)", re.ASCII
)
_SCALE = re.compile(r"bb_(\d)_(\d{1,4})\.scale\.(squeeze|excitation)\.(weight|bias)", re.ASCII)
_STEM = re.compile(r"(?:conv|conv1_([123])|_conv_stem)\.(_conv|_batch_norm|_bn)\.(\w+)", re.ASCII)
_CLASSIFIER = re.compile(r"(fc|out|_out)\.(weight|bias)", re.ASCII)


def paddle(keys: Collection[str]) -> Reading:
    """Read Paddle's names, of one system at a time: a key that only another has does not fit."""
    norms = {key.rpartition(".")[2] for key in keys}
    if not {"_mean", "_variance"} <= norms:
        return {}, [*keys]
    pooled = any(key.startswith("conv1_1.") for key in keys)
    readings = [by_key(keys, rename) for rename in (_vision, lambda key: _clas(key, pooled), _wsl)]
    return min(readings, key=lambda found: len(found[1]))


def check_twins(spec: Spec) -> None:
    """Raise `FormatError` if two networks have the names and shapes of one that was inferred.

    PaddleClas keeps no trace of a pooling in shortcuts, and its deepest SE-ResNeXt has none, but
    the stem by which the networks vd are known, which do have one.
    """
    if spec.avg_down and spec.se_reduction and spec.blocks[2:3] == (36,):
        raise FormatError(
            "the names and shapes are those of two networks of PaddleClas: of SENet154_vd, whose "
            "shortcuts pool, and of SE_ResNeXt152_64x4d, whose shortcuts do not and which is not "
            "read; if it is the first, say so in Python: load_checkpoint(path, arch=Spec("
            f"{spec.blocks}, {spec.cardinality}, {spec.width}, {spec.classes}, stem='deep', "
            f"avg_down=True, stem_channels={spec.stem_channels}, se_reduction={spec.se_reduction}))"
        )


def _vision(key: str) -> tuple[str, Layout] | None:
    """Read a name of ``paddle.vision``: torchvision's."""
    if match := _VISION.fullmatch(key):
        module, field = match.groups()
        return _of(module, "conv" in module or module.endswith(".0"), field)
    return _classifier(key, "fc")


def _clas(key: str, pooled: bool) -> tuple[str, Layout] | None:
    """Read a name of PaddleClas; ``pooled``: a network vd, with averages in its shortcuts."""
    if match := _CLAS.fullmatch(key):
        stage, block, module, kind, field = match.groups()
        at = f"layer{int(stage) + 1}.{int(block)}"
        return _in_block(at, module, kind == "_conv", field, pooled)
    if match := _SCALE.fullmatch(key):
        layer = "fc1" if match[3] == "squeeze" else "fc2"
        name = f"layer{int(match[1]) + 1}.{int(match[2])}.se.{layer}.{match[4]}"
        return name, DENSE_1X1 if match[4] == "weight" else AS_IT_IS
    return _stem(key, "_batch_norm") or _classifier(key, "out")


def _wsl(key: str) -> tuple[str, Layout] | None:
    """Read a name of PaddleClas' networks with Facebook's weights."""
    if match := _WSL.fullmatch(key):
        stage, block, module, kind, field = match.groups()
        at = f"layer{int(stage)}.{int(block)}"
        return _in_block(at, module, kind == "_conv", field, False)
    return _stem(key, "_bn") or _classifier(key, "_out")


def _in_block(
    at: str, module: str, convolution: bool, field: str, pooled: bool
) -> tuple[str, Layout] | None:
    """Return the parameter of a convolution or a norm in a block."""
    if module.startswith("short"):  # the average is timm's module 0
        name = f"downsample.{int(not convolution) + int(pooled)}"
    else:
        name = f"{'conv' if convolution else 'bn'}{int(module[-1]) + 1}"
    return _of(f"{at}.{name}", convolution, field)


def _stem(key: str, norm: str) -> tuple[str, Layout] | None:
    """Return the parameter of the stem, which is one convolution or three."""
    match = _STEM.fullmatch(key)
    if match is None or match[2] not in ("_conv", norm):
        return None
    if key.startswith("_conv_stem.") != (norm == "_bn"):
        return None
    convolution = match[2] == "_conv"
    module = ("conv1", "bn1") if match[1] is None else _DEEP[match[1]]
    return _of(module[not convolution], convolution, match[3])


def _classifier(key: str, module: str) -> tuple[str, Layout] | None:
    """Return the parameter of the classifier."""
    match = _CLASSIFIER.fullmatch(key)
    if match is None or match[1] != module:
        return None
    return f"fc.{match[2]}", DENSE if match[2] == "weight" else AS_IT_IS


def _of(module: str, convolution: bool, field: str) -> tuple[str, Layout] | None:
    """Return a parameter of a convolution, which has a weight only, or of a norm."""
    if convolution:
        return (f"{module}.weight", AS_IT_IS) if field == "weight" else None
    return (f"{module}.{_NORM[field]}", AS_IT_IS) if field in _NORM else None
