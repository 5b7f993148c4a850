"""The named networks, and what a network is called.

The numbers are those of the paper's Tables 1, 3, 4, 5 and 7 and of the published checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ...errors import UsageError
from ...system.checks import is_int
from ...system.words import similar
from .fields import Spec


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
    if not is_int(depth, 11) or (depth - 2) % 9:
        raise UsageError(
            f"depth is {depth!r:.80}: a CIFAR ResNeXt has 9 n + 2 layers: 20, 29, 38, 47, 56 ..."
        )
    return Spec(
        ((depth - 2) // 9,) * 3, cardinality, width, classes, stem="cifar", expansion=widen_factor
    )


_26, _50, _101, _152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

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
    # Paddle's, plain and deep (vd)
    "resnext50_64x4d": Spec(_50, 64, 4),
    "resnext152_64x4d": Spec(_152, 64, 4),
    "resnext50d_64x4d": Spec(_50, 64, 4, stem="deep", avg_down=True),
    "resnext101d_32x4d": Spec(_101, 32, 4, stem="deep", avg_down=True),
    "resnext101d_64x4d": Spec(_101, 64, 4, stem="deep", avg_down=True),
    "resnext152d_32x4d": Spec(_152, 32, 4, stem="deep", avg_down=True),
    "resnext152d_64x4d": Spec(_152, 64, 4, stem="deep", avg_down=True),
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
    # Squeeze and excitation (Hu et al. 2018): timm's names, and those that it keeps for Cadene's.
    "seresnext26d_32x4d": Spec(_26, 32, 4, stem="deep", avg_down=True, se_reduction=16),
    "seresnext26t_32x4d": Spec(
        _26, 32, 4, stem="deep", stem_channels=(24, 32, 64), avg_down=True, se_reduction=16
    ),
    "seresnext50_32x4d": Spec(_50, 32, 4, se_reduction=16),
    "seresnext101_32x4d": Spec(_101, 32, 4, se_reduction=16),
    "seresnext101_64x4d": Spec(_101, 64, 4, se_reduction=16),
    "seresnext101_32x8d": Spec(_101, 32, 8, se_reduction=16),
    "seresnext101d_32x8d": Spec(_101, 32, 8, stem="deep", avg_down=True, se_reduction=16),
    "seresnext50vd_32x4d": Spec(  # of PaddleClas
        _50, 32, 4, stem="deep", stem_channels=(64, 64, 128), avg_down=True, se_reduction=16
    ),
    "legacy_seresnext26_32x4d": Spec(_26, 32, 4, stem="caffe", se_reduction=16),
    "legacy_seresnext50_32x4d": Spec(_50, 32, 4, stem="caffe", se_reduction=16),
    "legacy_seresnext101_32x4d": Spec(_101, 32, 4, stem="caffe", se_reduction=16),
    # Blur pooling: the binomial filter of Zhang (2019), and the mean in timm's names with "aa".
    "resnetblur50": Spec(_50, 1, 64, blur_pool="binomial"),
    "resnetaa50": Spec(_50, 1, 64, blur_pool="average"),
    "resnetaa50d": Spec(_50, 1, 64, stem="deep", avg_down=True, blur_pool="average"),
    "resnetaa101d": Spec(_101, 1, 64, stem="deep", avg_down=True, blur_pool="average"),
    "seresnetaa50d": Spec(
        _50, 1, 64, stem="deep", avg_down=True, se_reduction=16, blur_pool="average"
    ),
    "seresnextaa101d_32x8d": Spec(
        _101, 32, 8, stem="deep", avg_down=True, se_reduction=16, blur_pool="average"
    ),
    "seresnextaa201d_32x8d": Spec(
        (3, 24, 36, 4),
        32,
        8,
        stem="deep",
        stem_channels=(64, 64, 128),
        avg_down=True,
        se_reduction=16,
        blur_pool="average",
    ),
    # Ours, for small images and a short training: few blocks, a stem with a pooling. With four
    # times the paths of half the width, 3x3 convolutions cost the same, and the 1x1 beside them
    # twice as much. The third has twice the paths of half the width again, and twice the channels
    # between blocks: the same cost. It is the bundled model, and those before it taught it.
    "resnext20_2x64d": Spec(
        (2, 2, 2), 2, 64, classes=10, stem="pooled", avg_down=True, expansion=1
    ),
    "resnext20_8x32d": Spec(
        (2, 2, 2), 8, 32, classes=10, stem="pooled", avg_down=True, expansion=1
    ),
    "resnext20_16x16d": Spec(
        (2, 2, 2), 16, 16, classes=10, stem="pooled", avg_down=True, expansion=2
    ),
}


# timm's networks with ResNeXt in their names that are others, and what they have
_OTHERS = {
    r"skresnext\w+": "selective kernels (SK): blocks weigh two convolutions against each other",
    r"(?:eca_?|gc|bat_)resnext\w+": "another attention than squeeze and excitation",
    r"cspresnext\w+": "stages that are split and joined again (cross stage partial)",
    r"(?:se)?resnext\d+ts": "SiLU in place of ReLU",
}


def other(name: str) -> str:
    """Return what a published network has that no network here has; empty if that is not known.

    Parameters
    ----------
    name : str
        Of an architecture, or of weights of it behind a dot.
    """
    architecture = name.partition(".")[0]
    return next((why for form, why in _OTHERS.items() if re.fullmatch(form, architecture)), "")


def variant(name: str, classes: int | None = None) -> Spec:
    """Return the network of that name.

    Parameters
    ----------
    name : str
        A key of `VARIANTS`.
    classes : int, optional
        The number of its classes, 0 for a network without a classifier; by default that of the
        published network.

    Raises
    ------
    UsageError
        There is none, and the message has the nearest names; or ``classes`` is no such number.
    """
    if not isinstance(name, str):
        raise UsageError(
            f"the name of an architecture was expected, found {name!r:.80}; "
            "`tinyresnext models` lists all"
        )
    if name in VARIANTS:
        return VARIANTS[name] if classes is None else replace(VARIANTS[name], classes=classes)
    if why := other(name):
        raise UsageError(f"{name!r:.80} is another network than those here: it has {why}")
    raise UsageError(
        f"there is no architecture called {name!r}; {similar(name, VARIANTS)}`tinyresnext models` "
        "lists all"
    )


def dilated(spec: Spec, output_stride: int) -> Spec:
    """Return the network whose last stages dilate so far that it has that output stride.

    Raises
    ------
    UsageError
        No number of dilated stages makes it.
    """
    possible = {}
    for count in range(len(spec.blocks)):
        stride = replace(spec, dilated=0).output_stride >> count
        possible[stride] = count
    if output_stride not in possible:
        raise UsageError(
            f"the output stride is {output_stride!r}: expected one of "
            f"{', '.join(map(str, possible))} for {spec.name}"
        )
    return replace(spec, dilated=possible[output_stride])


def describe(spec: Spec) -> str:
    """Return a sentence that describes a network for people."""
    stems = {"imagenet": "7x7 stem", "deep": "deep 3x3 stem", "cifar": "3x3 stem of stride 1"}
    stems["pooled"] = stems["cifar"] + " and a pooling"
    stems["caffe"] = stems["imagenet"] + " and Caffe's pooling"
    more = ", average-pooled shortcuts" if spec.avg_down else ""
    if spec.se_reduction:
        more += f", squeeze and excitation by {spec.se_reduction}"
    if spec.blur_pool != "none":
        more += f", blur pooling ({spec.blur_pool})"
    if spec.dilated:
        more += f", output stride {spec.output_stride} (dilated)"
    result = f"{spec.classes} classes" if spec.classes else "no classifier"
    if spec.head == "sigmoid" and spec.classes:
        one = "one output for two labels" if spec.classes == 1 else f"{spec.classes} labels"
        result = f"{one}, sigmoid"
    return (
        f"{spec.name}: {spec.depth} layers (blocks {', '.join(map(str, spec.blocks))}), "
        f"cardinality {spec.cardinality}, width {spec.width}, {stems[spec.stem]}, "
        f"shortcuts of type {spec.shortcut}{more}, {spec.channels} input channels, {result}"
    )
