"""The specification of a network: one dataclass for the whole family, and the named networks.

The numbers are those of the paper's Tables 1, 3, 4, 5 and 7 and of the published checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import UsageError
from ..system.checks import from_fields, is_int
from ..system.words import similar

# Table 1: widths are given for a first stage of 64 planes and double with every stage
FIRST_PLANES = 64
STEMS = ("imagenet", "deep", "cifar", "pooled")


@dataclass(frozen=True)
class Spec:
    """The specification of a network: every architecture of the family is one of these.

    Parameters
    ----------
    blocks : tuple of int
        Bottleneck blocks in each stage; (3, 4, 6, 3) makes 50 layers.
    cardinality : int
        C: the number of paths of a block (section 3.1). 1 makes a ResNet.
    width : int
        d: the channels of each path in the first stage. A ResNet has 64.
    classes : int
        0 makes a network without a classifier, whose result is the pooled features.
    channels : int
        Of the image.
    stem : {"imagenet", "deep", "cifar", "pooled"}
        One 7x7 convolution of stride 2 and a max pooling; three 3x3 convolutions instead of the one
        (ResNet-D, He et al. 2018); one 3x3 convolution of stride 1 and no pooling (section 5.3); or
        the same with the max pooling, for small images too, which leaves a quarter of the work to
        the stages (ours).
    shortcut : {"A", "B", "C"}
        Where a block changes the shape, its shortcut subsamples and pads with zero channels (A) or
        has a convolution (B); with C, every shortcut has one (He et al. 2015, section 4.1).
    avg_down : bool
        Convolutions in shortcuts average 2x2 values rather than skip three of four (ResNet-D).
    stride_on : {1, 2}
        Which convolution of a block strides: the 3x3 (2), or the first 1x1 (1, as in Caffe's
        ResNet).
    expansion : int
        Channels of a block's result over its planes, which are 64 in the first stage and double
        with every other. The CIFAR code of prlz77 calls it ``widen_factor``.
    eps : float
        Of every batch norm.

    Raises
    ------
    UsageError
        A value is outside what can be built.
    """

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    cardinality: int = 32
    width: int = 4
    classes: int = 1000
    channels: int = 3
    stem: str = "imagenet"
    shortcut: str = "B"
    avg_down: bool = False
    stride_on: int = 2
    expansion: int = 4
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if not isinstance(self.blocks, (tuple, list)):
            raise UsageError(
                f"blocks is {self.blocks!r}: expected the number of blocks of each stage, such as "
                "(3, 4, 6, 3)"
            )
        object.__setattr__(self, "blocks", tuple(self.blocks))
        if not 1 <= len(self.blocks) <= 8:
            raise UsageError(f"blocks is {self.blocks}: expected one to eight stages")
        # The bounds are far beyond any published network; they keep a malicious file from
        # describing an unbounded network.
        ranges = {
            "cardinality": 4096,
            "width": 4096,
            "classes": 1_000_000,
            "channels": 64,
            "expansion": 64,
            "stride_on": 2,
        }
        counts = [(f"blocks[{i}]", count, 1000) for i, count in enumerate(self.blocks)]
        for name, value, most in counts + [
            (name, getattr(self, name), most) for name, most in ranges.items()
        ]:
            least = 0 if name == "classes" else 1
            if not is_int(value, least, most):
                raise UsageError(
                    f"{name} is {value!r}: expected a whole number from {least} to {most}"
                )
        for name, choices in {"stem": STEMS, "shortcut": ("A", "B", "C")}.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}: expected one of "
                    f"{', '.join(map(repr, choices))}"
                )
        if type(self.avg_down) is not bool:
            raise UsageError(f"avg_down is {self.avg_down!r}: expected True or False")
        if type(self.eps) is not float or not math.isfinite(self.eps) or not 0 < self.eps < 1:
            raise UsageError(f"eps is {self.eps!r}: expected a number between 0 and 1")

    @property
    def small(self) -> bool:
        """Return whether the network is for images of 32 x 32."""
        return self.stem in ("cifar", "pooled")

    @property
    def outputs(self) -> int:
        """Return how many numbers the network computes of an image: logits, or pooled features."""
        return self.classes or self.features

    @property
    def features(self) -> int:
        """Return the channels of the last stage."""
        return FIRST_PLANES * 2 ** (len(self.blocks) - 1) * self.expansion

    @property
    def depth(self) -> int:
        """Return how many layers have weights, as the paper counts them.

        They are three in each block, the stem and the classifier, also where that is missing.
        """
        return 3 * sum(self.blocks) + 2

    @property
    def name(self) -> str:
        """Return the short name, such as ``resnext50_32x4d``."""
        for name, spec in VARIANTS.items():
            if replace(spec, classes=self.classes, channels=self.channels) == self:
                return name
        return f"resnext{self.depth}_{self.cardinality}x{self.width}d"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them, for the model file."""
        return asdict(self) | {"blocks": list(self.blocks)}

    @classmethod
    def from_json(cls, values: Any) -> Spec:
        """Read what `to_json` wrote.

        Raises
        ------
        FormatError
            A field is missing, unknown, or of the wrong kind.
        """
        return from_fields(cls, [f.name for f in fields(cls)], values, "the architecture")


def cifar(
    depth: int, cardinality: int, width: int, *, widen_factor: int = 4, classes: int = 10
) -> Spec:
    """Return a ResNeXt for 32 x 32 images (section 5.3): three equal stages of blocks.

    Parameters
    ----------
    depth : int
        29 in the paper; 20, 29, 38, 47, 56 ...
    cardinality, width : int
        8 and 64 for the paper's 8x64d.
    widen_factor : int
        Channels of a block's result over its planes.
    classes : int

    Raises
    ------
    UsageError
        The depth is not ``9 n + 2``.
    """
    if depth < 11 or (depth - 2) % 9:
        raise UsageError(
            f"depth is {depth}: a CIFAR ResNeXt has 9 n + 2 layers: 20, 29, 38, 47, 56 ..."
        )
    return Spec(
        ((depth - 2) // 9,) * 3, cardinality, width, classes, stem="cifar", expansion=widen_factor
    )


_50, _101, _152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

VARIANTS: Mapping[str, Spec] = {
    "resnext50_32x4d": Spec(_50, 32, 4),  # Table 1, right
    "resnext50d_32x4d": Spec(_50, 32, 4, stem="deep", avg_down=True),
    "resnext101_32x4d": Spec(_101, 32, 4),
    "resnext101_64x4d": Spec(_101, 64, 4),  # Table 5
    "resnext101_32x8d": Spec(_101, 32, 8),
    "resnext101_32x16d": Spec(_101, 32, 16),
    "resnext101_32x32d": Spec(_101, 32, 32),
    "resnext101_32x48d": Spec(_101, 32, 48),
    "resnext152_32x4d": Spec(_152, 32, 4),
    "resnet50": Spec(_50, 1, 64),  # Table 1, left
    "resnet101": Spec(_101, 1, 64),
    "resnet152": Spec(_152, 1, 64),
    "wide_resnet50_2": Spec(_50, 1, 128),
    "wide_resnet101_2": Spec(_101, 1, 128),
    "resnext50_2x40d": Spec(_50, 2, 40),  # Table 3: the same cost, more and more paths
    "resnext50_4x24d": Spec(_50, 4, 24),
    "resnext50_8x14d": Spec(_50, 8, 14),
    "resnext101_2x40d": Spec(_101, 2, 40),
    "resnext101_4x24d": Spec(_101, 4, 24),
    "resnext101_8x14d": Spec(_101, 8, 14),
    "resnext101_2x64d": Spec(_101, 2, 64),  # Table 4: twice the cost
    "resnext101_1x100d": Spec(_101, 1, 100),
    "resnext29_8x64d": cifar(29, 8, 64),  # Table 7
    "resnext29_16x64d": cifar(29, 16, 64),  # Table 7
    "resnext29_32x4d": cifar(29, 32, 4),
    "resnext29_1x64d": cifar(29, 1, 64),
    # The bundled model: small images, few blocks, a stem with a pooling (ours).
    "resnext20_2x64d": Spec(
        (2, 2, 2), 2, 64, classes=10, stem="pooled", avg_down=True, expansion=1
    ),
}


def variant(name: str) -> Spec:
    """Return the network of that name.

    Raises
    ------
    UsageError
        There is none; the message has the nearest names.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    raise UsageError(
        f"there is no architecture called {name!r}; {similar(name, VARIANTS)}`tinyresnext models` "
        "lists all"
    )


def describe(spec: Spec) -> str:
    """Return a sentence that describes a network for people."""
    stems = {"imagenet": "7x7 stem", "deep": "deep 3x3 stem", "cifar": "3x3 stem of stride 1"}
    stems["pooled"] = stems["cifar"] + " and a pooling"
    down = ", average-pooled shortcuts" if spec.avg_down else ""
    result = f"{spec.classes} classes" if spec.classes else "no classifier"
    return (
        f"{spec.name}: {spec.depth} layers (blocks {', '.join(map(str, spec.blocks))}), "
        f"cardinality {spec.cardinality}, width {spec.width}, {stems[spec.stem]}, "
        f"shortcuts of type {spec.shortcut}{down}, {spec.channels} input channels, {result}"
    )
