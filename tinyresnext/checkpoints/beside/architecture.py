"""The architecture that a ``config.json`` beside a checkpoint names, as timm's folders have it.

Blur pooling, another activation and dilation leave no trace in the tensors, so a network that has
them has the names and shapes of a plain one. Only the name of the architecture tells.
"""

from __future__ import annotations

import os
import re

from ...errors import FormatError, ShapeError, UsageError
from ...network.spec import VARIANTS, Spec, describe
from ...system.files import shown
from .config import Config
from .folder import CONFIG

__all__ = ["blur_pool", "check"]

# Names of networks: SE, a blur pooling, depth, a d or t for a deep stem and averaged shortcuts,
# cardinality and width
_NAME = re.compile(
    r"(?:tv_|gluon_|ig_|ssl_|swsl_|wide_|legacy_)?(se)?res(?:net|next)(aa|blur)?(\d{1,4})([dt]?)"
    r"(?:_(\d{1,4})x(\d{1,4})d|_2)?"
)
# Arguments of timm's networks that change nothing of what is computed, or only what tensors show
_HARMLESS = {
    "avg_down", "base_width", "block_reduce_first", "cardinality", "channels", "down_kernel_size",
    "drop_block_rate", "drop_path_rate", "drop_rate", "in_chans", "layers", "num_classes",
    "stem_type", "stem_width", "zero_init_last",
}  # fmt: skip
# Others, with the one value that is computed here
_USUAL = {"global_pool": "avg", "output_stride": 32}


def check(
    path: str | os.PathLike[str], config: Config, spec: Spec, given: bool, stem_given: bool
) -> None:
    """Raise unless the architecture that is named beside a checkpoint is this one.

    Parameters
    ----------
    path : path
        Of the checkpoint.
    config : Config
        What is said beside it.
    spec : Spec
        What the tensors are.
    given : bool
        Whether the user has named the architecture, which then counts.
    stem_given : bool
        The same of the stem alone.

    Raises
    ------
    FormatError
        This version cannot compute what is named.
    ShapeError
        It is another network than the tensors are.
    """
    name, file = config.architecture, shown(path)
    named, changes = _NAME.fullmatch(name), _changes(config)
    if named is None or changes:
        what = f"{ascii(name)[:80]}{' with ' + ', '.join(changes) if changes else ''}"
        raise FormatError(
            f"{file}: {CONFIG} beside it names the architecture {what}, which this version "
            "cannot compute, though its tensors may look like those of a plain network; use a "
            "plain ResNeXt"
        )
    if given:
        return
    variant = VARIANTS.get(name)
    if not _is(spec, named, variant) or not (stem_given or _has_stem(spec, named, variant)):
        raise ShapeError(
            f"{file}: {CONFIG} beside it names the architecture {name!r}, and the tensors are "
            f"{describe(spec)}; if the tensors are right, say --arch NAME, or move the file away "
            f"from {CONFIG}"
        )
    if config.classes not in (None, spec.classes):
        raise ShapeError(
            f"{file}: {CONFIG} beside it says {config.classes} classes, and the tensors have "
            f"{spec.classes}; if the tensors are right, move the file away from {CONFIG}"
        )


def blur_pool(path: str | os.PathLike[str], config: Config, given: Spec | None) -> str:
    """Return the blur pooling of the network that is named, and which the user may have named too.

    timm's own networks with ``aa`` take the mean of 2x2 values, and those with ``blur`` the
    binomial filter. That is also what an ``aa`` in a name means that timm itself does not have.

    Raises
    ------
    UsageError
        The user has named a network with another one.
    """
    named = _NAME.fullmatch(config.architecture)
    told = "binomial" if named is not None and named[2] else "none"
    if config.architecture in VARIANTS:
        told = VARIANTS[config.architecture].blur_pool
    if given is not None and given.blur_pool != told:
        raise UsageError(
            f"{shown(path)}: the architecture has the blur pooling {given.blur_pool!r}, and "
            f"{CONFIG} beside the file names {config.architecture!r}, which has {told!r}; say "
            "which with --blur-pool"
        )
    return told


def _changes(config: Config) -> list[str]:
    """Return the arguments that change what is computed, or may."""
    return [
        ascii(key)[1:-1][:40]
        for key, value in config.arguments.items()
        if (value != _USUAL[key] and value is not None if key in _USUAL else value)
        and key not in _HARMLESS
    ]


def _is(spec: Spec, named: re.Match[str], variant: Spec | None) -> bool:
    """Return whether a network is the one of that name."""
    excited, _, depth, deep, cardinality, width = named.groups()
    paths = int(cardinality or 1), int(width or spec.width)
    if variant is not None and spec.blocks != variant.blocks:
        return False
    # timm counts the layers of seresnextaa201d otherwise.
    layers = spec.depth if variant is not None else int(depth)
    same = (spec.depth, spec.cardinality, spec.width) == (layers, *paths)
    same = same and (variant is None or spec.stem_channels == variant.stem_channels)
    return same and (spec.stem == "deep", spec.se_reduction > 0) == (bool(deep), bool(excited))


def _has_stem(spec: Spec, named: re.Match[str], variant: Spec | None) -> bool:
    """Return whether a network has the stem of that name; timm has no 3x3 stem as for CIFAR."""
    if variant is not None:
        return spec.stem == variant.stem
    return spec.stem == "deep" if named[4] else spec.stem in ("imagenet", "caffe")
