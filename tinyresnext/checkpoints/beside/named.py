"""What the name of one of timm's networks means, and the arguments with which it was made.

Source: ``ResNet`` and its entry points in timm's ``models/resnet.py`` (1.0.31); an argument stands
in place of what the name says. ``create_aa`` and ``get_norm_layer`` of its ``layers`` have the
names of layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...network.spec import FIRST_PLANES, VARIANTS, Spec
from ...system.checks import is_int

__all__ = ["Named", "named"]

# Names of networks: SE, a blur pooling, depth, a d or t for a deep stem and averaged shortcuts,
# cardinality and width
_NAME = re.compile(
    r"(?:tv_|gluon_|ig_|ssl_|swsl_|wide_|(legacy_))?(se)?res(?:net|next)(aa|blur)?(\d{1,4})([dt]?)"
    r"(?:_(\d{1,4})x(\d{1,4})d|_2)?"
)
# Arguments that change only training or the program, never what a trained network computes
_HARMLESS = {
    "drop_block_rate", "drop_path_rate", "drop_rate", "exportable", "pretrained", "scriptable",
    "zero_init_last",
}  # fmt: skip
# Others, with the values that are computed here; words are compared in small letters
_USUAL: Mapping[str, tuple[Any, ...]] = {
    "act_layer": ("relu", ""),
    "block_reduce_first": (1,),
    "down_kernel_size": (1,),
    "features_only": (False,),
    "global_pool": ("avg", "fast", "fastavg"),
    "norm_layer": ("batchnorm2d", "batchnorm", ""),
    "replace_stem_pool": (False,),
}
_BLURS = {"": "none", "avg": "average", "avgpool": "average", "avgpool2d": "average"}
_BLURS |= dict.fromkeys(("blur", "blurpool", "blurpool2d"), "binomial")
_STEMS = {"": False, "deep": True, "deep_tiered": True}
_OF_LEGACY = ("in_chans", "layers", "num_classes")  # timm's older class has no other


class Named(NamedTuple):
    """What is known of a network by its name and its arguments; None for what they do not say.

    Attributes
    ----------
    excited, deep : bool
        Whether it has squeeze and excitation, and the stem of three convolutions.
    depth, cardinality, width : int
    layers : tuple of int
        The blocks of each stage.
    stem : str, optional
    stem_channels : tuple of int, optional
    channels, classes : int, optional
    avg_down : bool, optional
    blur_pool : str
    output_stride : int
    wrong : tuple of str
        The arguments that are not understood.
    """

    excited: bool
    deep: bool
    depth: int | None
    cardinality: int
    width: int | None
    layers: tuple[int, ...] | None = None
    stem: str | None = None
    stem_channels: tuple[int, ...] | None = None
    channels: int | None = None
    classes: int | None = None
    avg_down: bool | None = None
    blur_pool: str = "none"
    output_stride: int = 32
    wrong: tuple[str, ...] = ()

    def fits(self, spec: Spec) -> bool:
        """Return whether the tensors' network is this one; they do not tell its stem's pooling."""
        pairs = (
            (self.excited, spec.se_reduction > 0),
            (self.deep, spec.stem == "deep"),
            (self.depth, spec.depth),
            (self.cardinality, spec.cardinality),
            (self.width, spec.width),
            (self.layers, spec.blocks),
            (self.stem_channels, spec.stem_channels if spec.stem == "deep" else None),
            (self.channels, spec.channels),
            (self.avg_down, spec.avg_down),
        )
        return all(told in (None, found) for told, found in pairs)

    def stem_fits(self, spec: Spec) -> bool:
        """Return whether the stem is this one; timm has no 3x3 stem as for CIFAR."""
        if self.stem is not None:
            return spec.stem == self.stem
        return spec.stem == "deep" if self.deep else spec.stem in ("imagenet", "caffe")


def named(architecture: str, arguments: Mapping[str, Any]) -> Named | None:
    """Return what a name and arguments of timm's mean; None for a name of other networks.

    timm's own networks with ``aa`` take the mean of 2x2 values, and those with ``blur`` the
    binomial filter. That is also what an ``aa`` in a name means that timm itself does not have.
    """
    match = _NAME.fullmatch(architecture)
    if match is None:
        return None
    legacy, excited, blur, depth, deep, cardinality, width = match.groups()
    found = Named(
        bool(excited), bool(deep), int(depth), int(cardinality or 1), int(width) if width else None,
        blur_pool="binomial" if blur else "none",
    )  # fmt: skip
    variant = VARIANTS.get(architecture)
    if variant is not None:  # timm counts the layers of seresnextaa201d otherwise
        found = found._replace(
            depth=None, layers=variant.blocks, stem=variant.stem, blur_pool=variant.blur_pool,
            stem_channels=variant.stem_channels if deep else None,
        )  # fmt: skip
    values, wrong = dict[str, Any](), list[str]()
    left = {key: value for key, value in arguments.items() if key not in _HARMLESS}
    stem = {key: left.pop(key) for key in ("stem_type", "stem_width") if key in left}
    if any(value is not None for value in stem.values()):
        told = None if legacy else _stem(found, deep == "t", **stem)
        values, wrong = told or {}, [] if told else [*stem]
    for key, value in left.items():
        known = _READ.get(key) if not legacy or key in _OF_LEGACY else None
        told = known(value) if known is not None else None
        if told is not None:
            values |= told
        elif not _usual(key, value):
            wrong.append(key)
    return found._replace(**values, wrong=tuple(wrong))


def _usual(key: str, value: Any) -> bool:
    """Return whether an argument has a value with which it changes nothing."""
    word = value.replace("_", "").lower() if isinstance(value, str) else value
    usual = any(word == one and type(word) is type(one) for one in _USUAL.get(key, ()))
    return value is None or usual


def _stem(
    found: Named, tiered: bool, stem_type: Any = None, stem_width: Any = None
) -> dict[str, Any] | None:
    """Read which stem there is and its channels; what one of both does not say, the name does."""
    if stem_type is None:
        stem_type = ("deep_tiered" if tiered else "deep") if found.deep else ""
    if stem_width is None:
        stem_width = found.stem_channels[1] if found.stem_channels else 32 if found.deep else 64
    if not isinstance(stem_type, str) or stem_type not in _STEMS or not is_int(stem_width, 4, 4096):
        return None
    first = 3 * (stem_width // 4) if stem_type == "deep_tiered" else stem_width
    deep = _STEMS[stem_type]
    widths = (first, stem_width, 2 * stem_width) if deep else None
    return {"deep": deep, "stem": None, "stem_channels": widths}


def _whole(name: str, least: int, most: int) -> Any:
    """Return a function that reads a whole number of a field."""
    return lambda value: {name: value} if is_int(value, least, most) else None


def _whole_numbers(value: Any) -> bool:
    """Return whether a value is a list of some whole numbers."""
    return isinstance(value, list) and 0 < len(value) <= 8 and all(is_int(n, 1) for n in value)


def _layers(value: Any) -> dict[str, Any] | None:
    """Read the blocks of each stage."""
    return {"layers": tuple(value), "depth": None} if _whole_numbers(value) else None


def _planes(value: Any) -> dict[str, Any] | None:
    """Read the planes of each stage, which double; the tensors tell how many stages there are."""
    doubled = _whole_numbers(value) and value == [FIRST_PLANES << i for i in range(len(value))]
    return {} if doubled else None


def _blur(value: Any) -> dict[str, Any] | None:
    """Read the name of a pooling against aliases, or of its class."""
    if not isinstance(value, str | None):
        return None
    word = (value or "").removeprefix("<class '").removesuffix("'>").rpartition(".")[2].lower()
    told = _BLURS.get(word.replace("_", "").replace("-", ""))
    return None if told is None else {"blur_pool": told}


def _attention(value: Any) -> dict[str, Any] | None:
    """Read the arguments of blocks: squeeze and excitation, or none."""
    if value in (None, {}) or (isinstance(value, dict) and value.keys() == {"attn_layer"}):
        layer = (value or {}).get("attn_layer")
        return {"excited": layer == "se"} if layer in (None, "", "se") else None
    return None


def _one_of(name: str, *known: Any) -> Any:
    """Return a function that reads one of some values of a field."""
    return lambda value: {name: value} if any(value is one for one in known) else None


_READ = {
    "aa_layer": _blur,
    "avg_down": _one_of("avg_down", True, False),
    "base_width": _whole("width", 1, 4096),
    "block_args": _attention,
    "cardinality": _whole("cardinality", 1, 4096),
    "channels": _planes,
    "in_chans": _whole("channels", 1, 64),
    "layers": _layers,
    "num_classes": _whole("classes", 0, 1_000_000),
    "output_stride": _one_of("output_stride", 8, 16, 32),
}
