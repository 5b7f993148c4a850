"""The blocks of a network, and the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import gcd

from ...errors import UsageError
from .fields import FIRST_PLANES, MOST_DIVISOR, MOST_REDUCTION, Spec, squeezed


@dataclass(frozen=True)
class Block:
    """One bottleneck block: its place in the network and its numbers of channels."""

    name: str
    c_in: int
    channels: int  # of the grouped convolution: cardinality times the width of a path
    c_out: int
    stride: int
    strides: tuple[int, int]  # of the first 1x1 and of the 3x3: one of them strides
    dilation: int  # of the 3x3
    blur: bool  # whether a blur pooling follows the 3x3 and has its stride
    smooth: bool  # whether the shortcut takes means of 2x2 values without a stride
    shortcut: str  # "identity", "projection" (types B and C) or "padding" (type A)


def check_spec(spec: object) -> Spec:
    """Return a specification.

    Raises
    ------
    UsageError
        It is something else, such as the name of an architecture, or a model.
    """
    if not isinstance(spec, Spec):
        raise UsageError(
            f"a Spec was expected, found {spec!r:.80}; tinyresnext.variant returns one for a name, "
            "and that of a model is model.spec"
        )
    return spec


def blocks(spec: Spec) -> Iterator[Block]:
    """Yield the blocks in order.

    Widths follow torchvision's formula, ``int(planes * width / 64) * cardinality``. A dilated stage
    doubles the dilation from its second block on, as torchvision and timm have it: the 3x3 of its
    first block reads what a network that strides there would have read. An average-pooled shortcut
    keeps its means there, without their stride, as timm has it.
    """
    c_in, dilation = spec.stem_channels[-1], 1
    for stage, count in enumerate(spec.blocks):
        planes = FIRST_PLANES * 2**stage
        channels = int(planes * (spec.width / 64.0)) * spec.cardinality
        c_out = planes * spec.expansion
        dilated = stage >= len(spec.blocks) - spec.dilated
        for index in range(count):
            first = stage > 0 and index == 0
            stride = 2 if first and not dilated else 1
            if spec.shortcut == "C" or (spec.shortcut == "B" and (stride != 1 or c_in != c_out)):
                shortcut = "projection"
            else:
                shortcut = "padding" if stride != 1 or c_in != c_out else "identity"
            strides = (stride, 1) if spec.stride_on == 1 else (1, stride)
            name, blur = f"layer{stage + 1}.{index}", first and spec.blur_pool != "none"
            smooth = first and dilated and spec.avg_down and shortcut == "projection"
            yield Block(
                name, c_in, channels, c_out, stride, strides, dilation, blur, smooth, shortcut
            )
            c_in = c_out
            if first and dilated:
                dilation *= 2


def parameters(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter.

    Order and names are those of torchvision, or of timm for what torchvision does not have: the
    deep stem, and squeeze and excitation.

    Raises
    ------
    UsageError
        ``spec`` is something else, such as the name of an architecture.
    """
    check_spec(spec)
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, norm, shape in _convolutions(spec):
        shapes[f"{conv}.weight"] = shape
        shapes |= {
            f"{norm}.{part}": shape[:1]
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        if spec.se_reduction and conv.endswith(".conv3"):
            shapes |= _excitation(spec, conv.removesuffix("conv3"), shape[0])
    if spec.classes:
        shapes |= {"fc.weight": (spec.classes, spec.features), "fc.bias": (spec.classes,)}
    return shapes


def excitation(layers: Collection[tuple[int, int]]) -> tuple[int, int]:
    """Return the reduction and the divisor of squeeze and excitation.

    Several may give the same layers: the divisors of published networks come first, 1 and then 8,
    and with each the reduction nearest to that of the block with the most channels, whose squeezed
    layer is the least rounded. Where none fits, that reduction is returned.

    Parameters
    ----------
    layers : collection of (int, int)
        The channels of every squeezed layer, and of its block; none makes a reduction of 0.
    """
    if not layers:
        return 0, 1
    few, many = max(layers, key=lambda layer: layer[1])
    likely = min(max(1, round(many / max(1, few))), MOST_REDUCTION)
    found = set(layers)
    common = gcd(*(few for few, _ in found))
    divisors = [d for d in range(1, MOST_DIVISOR + 1) if common and common % d == 0]
    for divisor in sorted(divisors, key=lambda d: d not in (1, 8)):
        for reduction in sorted(range(1, MOST_REDUCTION + 1), key=lambda r: abs(r - likely)):
            if all(squeezed(c, reduction, divisor) == few for few, c in found):
                return reduction, divisor
    return likely, 1


def _excitation(spec: Spec, block: str, channels: int) -> dict[str, tuple[int, ...]]:
    """Return name and shape of the weights of a block's squeeze and excitation."""
    few = spec.squeezed(channels)
    return {
        f"{block}se.fc1.weight": (few, channels, 1, 1),
        f"{block}se.fc1.bias": (few,),
        f"{block}se.fc2.weight": (channels, few, 1, 1),
        f"{block}se.fc2.bias": (channels,),
    }


def _convolutions(spec: Spec) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield the names of each convolution and its batch norm, and the shape of the weight."""
    if spec.stem == "deep":
        first, second, last = spec.stem_channels
        yield "conv1.0", "conv1.1", (first, spec.channels, 3, 3)
        yield "conv1.3", "conv1.4", (second, first, 3, 3)
        yield "conv1.6", "bn1", (last, second, 3, 3)
    else:
        kernel = 3 if spec.small else 7
        yield "conv1", "bn1", (spec.stem_channels[-1], spec.channels, kernel, kernel)
    for b in blocks(spec):
        yield f"{b.name}.conv1", f"{b.name}.bn1", (b.channels, b.c_in, 1, 1)
        yield f"{b.name}.conv2", f"{b.name}.bn2", (b.channels, b.channels // spec.cardinality, 3, 3)
        yield f"{b.name}.conv3", f"{b.name}.bn3", (b.c_out, b.channels, 1, 1)
        if b.shortcut == "projection":
            conv, norm = projection(spec, b)
            yield conv, norm, (b.c_out, b.c_in, 1, 1)


def projection(spec: Spec, block: Block) -> tuple[str, str]:
    """Return the names of the shortcut's convolution and norm, which a pooling may precede."""
    first = 1 if spec.avg_down else 0
    return f"{block.name}.downsample.{first}", f"{block.name}.downsample.{first + 1}"
