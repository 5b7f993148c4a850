"""The specification of a network: one dataclass for the whole family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ...errors import UsageError
from ...system.checks import from_fields, is_int

# Table 1: widths are given for a first stage of 64 planes and double with every stage
FIRST_PLANES = 64
STEMS = ("imagenet", "deep", "cifar", "pooled", "caffe")
HEADS = ("softmax", "sigmoid")
BLUR_POOLS = ("none", "binomial", "average")
MOST_REDUCTION, MOST_DIVISOR = 4096, 64  # of squeeze and excitation
# Fields that most networks have no use for: a model file leaves them out where they are as usual.
_RARE = ("head", "stem_channels", "se_reduction", "se_divisor", "blur_pool", "dilated")


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
    stem : {"imagenet", "deep", "cifar", "pooled", "caffe"}
        One 7x7 convolution of stride 2 and a max pooling; three 3x3 convolutions instead of the one
        (ResNet-D, He et al. 2018, "Bag of Tricks"); one 3x3 convolution of stride 1 and no pooling
        (section 5.3); the same with the max pooling, for small images too, which leaves a quarter
        of the work to the stages (ours); or "imagenet" with a max pooling as Caffe has it, without
        padding, and with a last window that may end outside the image (Cadene's SE-ResNeXt, and
        timm's names that begin with ``legacy_``).
    shortcut : {"A", "B", "C"}
        Where a block changes the shape, its shortcut subsamples and pads with zero channels (A) or
        has a convolution (B); with C, every shortcut has one (He et al. 2015, "Deep Residual
        Learning", section 4.1).
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
    head : {"softmax", "sigmoid"}
        What the logits mean. Under a softmax, each image is of exactly one class. Under a sigmoid,
        each output has a probability of its own: a single one tells two labels apart, several are
        labels of which an image has any number.
    stem_channels : tuple of int
        The channels of the three convolutions of the stem "deep"; all other stems have 64.
    se_reduction : int
        Squeeze and excitation (Hu et al. 2018) behind the last norm of each block: the channels of
        the block over those of the squeezed layer. 16 in all published networks; 0 has none.
    se_divisor : int
        The channels of the squeezed layer are a multiple of it, the nearest one and at least one of
        them: 8 in timm. With 1 they are rounded down, as in the paper's own code and Cadene's.
    blur_pool : {"none", "binomial", "average"}
        What is done with strides of 3x3 convolutions and of the stem's max pooling. They stride;
        or they do not, and the fixed filter [1 2 1] x [1 2 1] / 16 that follows does (Zhang 2019;
        timm's resnetblur); or the mean of 2x2 values follows, which also replaces the max pooling
        (timm's resnetaa, resnextaa and seresnextaa).
    dilated : int
        How many of the last stages dilate their 3x3 convolutions and do not stride, so that the
        result of the last stage is larger: torchvision's ``replace_stride_with_dilation``. 1 and 2
        make an output stride of 16 and 8 in a network of four stages. With ``avg_down``, the means
        of their shortcuts lose the stride and stay, as in timm. Not with ``stride_on`` 1, where
        systems differ in what the network computes.

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
    head: str = "softmax"
    stem_channels: tuple[int, int, int] = (32, 32, 64)
    se_reduction: int = 0
    se_divisor: int = 1
    blur_pool: str = "none"
    dilated: int = 0

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
            "se_reduction": MOST_REDUCTION,
            "se_divisor": MOST_DIVISOR,
            "dilated": len(self.blocks) - 1,
        }
        if not isinstance(self.stem_channels, (tuple, list)) or len(self.stem_channels) != 3:
            raise UsageError(
                f"stem_channels is {self.stem_channels!r}: expected three numbers, such as "
                "(32, 32, 64)"
            )
        object.__setattr__(self, "stem_channels", tuple(self.stem_channels))
        counts = [(f"blocks[{i}]", count, 1000) for i, count in enumerate(self.blocks)]
        counts += [(f"stem_channels[{i}]", c, 4096) for i, c in enumerate(self.stem_channels)]
        for name, value, most in counts + [
            (name, getattr(self, name), most) for name, most in ranges.items()
        ]:
            least = 0 if name in ("classes", "se_reduction", "dilated") else 1
            if not is_int(value, least, most):
                raise UsageError(
                    f"{name} is {value!r}: expected a whole number from {least} to {most}"
                )
        words = {
            "stem": STEMS,
            "shortcut": ("A", "B", "C"),
            "head": HEADS,
            "blur_pool": BLUR_POOLS,
        }
        for name, choices in words.items():
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}: expected one of "
                    f"{', '.join(map(repr, choices))}"
                )
        if type(self.avg_down) is not bool:
            raise UsageError(f"avg_down is {self.avg_down!r}: expected True or False")
        if type(self.eps) is not float or not math.isfinite(self.eps) or not 0 < self.eps < 1:
            raise UsageError(f"eps is {self.eps!r}: expected a number between 0 and 1")
        self._check_together()

    def _check_together(self) -> None:
        """Raise `UsageError` for what no system computes, or each in its own way."""
        if self.blur_pool != "none" and self.stride_on == 1:
            raise UsageError(
                f"blur_pool is {self.blur_pool!r} and stride_on is 1: a blur pooling takes the "
                "stride of the 3x3 convolution; expected stride_on 2"
            )
        if self.blur_pool != "none" and self.stem == "caffe":
            raise UsageError(
                f"blur_pool is {self.blur_pool!r} and stem is 'caffe': no network has both; "
                "expected another stem, or no blur pooling"
            )
        if self.dilated and self.stride_on == 1:
            raise UsageError(
                f"dilated is {self.dilated} and stride_on is 1: systems differ in what such a "
                "network computes; expected stride_on 2"
            )
        if self.stem != "deep" and self.stem_channels != Spec.stem_channels:
            raise UsageError(
                f"stem_channels is {self.stem_channels} and stem is {self.stem!r}: only the stem "
                "'deep' has three convolutions"
            )
        if self.se_divisor != 1 and not self.se_reduction:
            raise UsageError(
                f"se_divisor is {self.se_divisor} and se_reduction is 0: expected both, or neither"
            )

    @property
    def output_stride(self) -> int:
        """Return how many pixels of the image a step in the result of the last stage is."""
        stem = {"cifar": 1, "pooled": 2}.get(self.stem, 4)
        return int(stem * 2 ** (len(self.blocks) - 1 - self.dilated))

    def squeezed(self, channels: int) -> int:
        """Return the channels of the squeezed layer of a block with so many channels."""
        return squeezed(channels, self.se_reduction, self.se_divisor)

    @property
    def small(self) -> bool:
        """Return whether the network is for images of 32 x 32."""
        return self.stem in ("cifar", "pooled")

    @property
    def labels(self) -> int:
        """Return how many labels the outputs have: two for a single one under a sigmoid."""
        return 2 if self.head == "sigmoid" and self.classes == 1 else self.classes

    @property
    def several(self) -> bool:
        """Return whether an image has any number of the labels, each with its own probability."""
        return self.head == "sigmoid" and self.classes > 1

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
        """Return the short name, such as ``resnext50_32x4d``.

        A dilated network has it too, and one with another epsilon or with another convolution that
        strides.
        """
        from .variants import VARIANTS  # which are made of this class

        plain = replace(self, dilated=0, stride_on=2)
        for name, spec in VARIANTS.items():
            if spec.blocks != self.blocks:
                continue  # making a network only to compare it takes long
            untold = {key: getattr(spec, key) for key in ("classes", "channels", "head", "eps")}
            if replace(plain, **untold) == spec:
                return name
        blur = {"binomial": "blur", "average": "aa"}.get(self.blur_pool, "")
        kind = ("se" if self.se_reduction else "") + "resnext" + blur
        return f"{kind}{self.depth}_{self.cardinality}x{self.width}d"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them, for the model file; what is usual is left out."""
        usual = _usual()
        values = {name: v for name, v in asdict(self).items() if usual.get(name) != v}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}

    @classmethod
    def from_json(cls, values: Any) -> Spec:
        """Read what `to_json` wrote.

        Raises
        ------
        FormatError
            A field is missing, unknown, or of the wrong kind.
        """
        names = [f.name for f in fields(cls)]
        if isinstance(values, Mapping):
            values = _usual() | dict(values)
        return from_fields(cls, names, values, "the architecture")


def squeezed(channels: int, reduction: int, divisor: int) -> int:
    """Return the channels of the squeezed layer of a block with so many channels."""
    wanted = channels // reduction
    if divisor > 1:
        wanted = int(channels / reduction + divisor / 2) // divisor * divisor
    return max(divisor, wanted)


def _usual() -> dict[str, Any]:
    """Return the defaults of the fields that a model file may leave out."""
    return {name: getattr(Spec, name) for name in _RARE}
