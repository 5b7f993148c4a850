"""ResNeXt (Xie et al. 2017, arXiv:1611.05431): the architecture, and nothing else.

`forward` is Table 1; the three functions before it are the three equal forms of a block in Figure
3; `parameters` names the weights. None of them computes anything itself: they call the functions of
``ops``, and the module that is passed as ``ops`` decides whether the network is run, recorded or
planned. A `Spec` says which network it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from types import ModuleType
from typing import Any

import numpy as np

from .spec import FIRST_PLANES, Spec

Array = Any  # an array of whichever backend is handed in
STEM_CHANNELS = 64  # both of the paper's networks and all later ones begin with 64 channels


@dataclass(frozen=True)
class Block:
    """One bottleneck block: its place in the network and its numbers of channels."""

    name: str
    c_in: int
    channels: int  # of the grouped convolution: cardinality times the width of a path
    c_out: int
    stride: int
    strides: tuple[int, int]  # of the first 1x1 and of the 3x3: one of them strides
    shortcut: str  # "identity", "projection" (types B and C) or "padding" (type A)


def blocks(spec: Spec) -> Iterator[Block]:
    """Yield the blocks in order.

    Widths follow torchvision's formula, ``int(planes * width / 64) * cardinality``.
    """
    c_in = STEM_CHANNELS
    for stage, count in enumerate(spec.blocks):
        planes = FIRST_PLANES * 2**stage
        channels = int(planes * (spec.width / 64.0)) * spec.cardinality
        c_out = planes * spec.expansion
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            if spec.shortcut == "C" or (spec.shortcut == "B" and (stride != 1 or c_in != c_out)):
                shortcut = "projection"
            else:
                shortcut = "padding" if stride != 1 or c_in != c_out else "identity"
            strides = (stride, 1) if spec.stride_on == 1 else (1, stride)
            name = f"layer{stage + 1}.{index}"
            yield Block(name, c_in, channels, c_out, stride, strides, shortcut)
            c_in = c_out


def parameters(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every parameter.

    Order and names are those of torchvision, or of timm for the deep variants.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for conv, norm, shape in _convolutions(spec):
        shapes[f"{conv}.weight"] = shape
        shapes |= {
            f"{norm}.{part}": shape[:1]
            for part in ("weight", "bias", "running_mean", "running_var")
        }
    if spec.classes:
        shapes |= {"fc.weight": (spec.classes, spec.features), "fc.bias": (spec.classes,)}
    return shapes


def _convolutions(spec: Spec) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield the names of each convolution and its batch norm, and the shape of the weight."""
    if spec.stem == "deep":
        half = STEM_CHANNELS // 2
        yield "conv1.0", "conv1.1", (half, spec.channels, 3, 3)
        yield "conv1.3", "conv1.4", (half, half, 3, 3)
        yield "conv1.6", "bn1", (STEM_CHANNELS, half, 3, 3)
    else:
        kernel = 7 if spec.stem == "imagenet" else 3
        yield "conv1", "bn1", (STEM_CHANNELS, spec.channels, kernel, kernel)
    for b in blocks(spec):
        yield f"{b.name}.conv1", f"{b.name}.bn1", (b.channels, b.c_in, 1, 1)
        yield f"{b.name}.conv2", f"{b.name}.bn2", (b.channels, b.channels // spec.cardinality, 3, 3)
        yield f"{b.name}.conv3", f"{b.name}.bn3", (b.c_out, b.channels, 1, 1)
        if b.shortcut == "projection":
            conv, norm = _projection(spec, b)
            yield conv, norm, (b.c_out, b.c_in, 1, 1)


def _projection(spec: Spec, block: Block) -> tuple[str, str]:
    """Return the names of the shortcut's convolution and norm, which a pooling may precede."""
    first = 1 if spec.avg_down else 0
    return f"{block.name}.downsample.{first}", f"{block.name}.downsample.{first + 1}"


@dataclass(frozen=True)
class Walk:
    """One walk through the network.

    Attributes
    ----------
    params, spec, ops, training, at, frozen
        As for `forward`.
    """

    params: Mapping[str, Array]
    spec: Spec
    ops: ModuleType | Any
    training: bool = False
    at: Callable[[str, Array], Array] = lambda name, value: value
    frozen: Collection[str] = ()

    def conv(
        self, x: Array, name: str, *, stride: int = 1, padding: int = 0, groups: int = 1
    ) -> Array:
        """Apply the convolution of that name."""
        y = self.ops.conv2d(
            x, self.params[f"{name}.weight"], stride=stride, padding=padding, groups=groups
        )
        return self.at(name, y)

    def norm(self, x: Array, name: str) -> Array:
        """Apply the batch norm of that name.

        In training it normalises with the statistics of the mini-batch, else with the running ones.
        """
        scale, shift = self.params[f"{name}.weight"], self.params[f"{name}.bias"]
        if self.training and name.partition(".")[0] not in self.frozen:
            return self.at(name, self.ops.batch_norm_train(x, scale, shift, eps=self.spec.eps))
        mean, var = self.params[f"{name}.running_mean"], self.params[f"{name}.running_var"]
        return self.at(name, self.ops.batch_norm(x, scale, shift, mean, var, eps=self.spec.eps))

    def relu(self, x: Array, name: str) -> Array:
        """Apply a ReLU; ``name`` is what torchvision's graph calls the result."""
        return self.at(name, self.ops.relu(x))


def grouped(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(c): split, transform and merge are one grouped convolution.

    This is the form that is computed in practice.
    """
    y = _two_layers(walk, block, x, groups=walk.spec.cardinality)
    return walk.norm(walk.conv(y, f"{block.name}.conv3"), f"{block.name}.bn3")


def concatenated(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(b): a 1x1 convolution merges the concatenated paths.

    For NumPy arrays only.
    """
    y = np.concatenate([path(walk, block, x, i) for i in range(walk.spec.cardinality)], axis=3)
    return walk.norm(walk.conv(y, f"{block.name}.conv3"), f"{block.name}.bn3")


def summed(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(a), Equation 2: the sum of ``T_i(x)`` over the paths.

    The batch norm comes after the sum (footnote 6). It equals Figure 3(b) because
    ``A1 B1 + A2 B2 = [A1, A2] [B1; B2]``: a sum of products is one product over all columns. For
    NumPy arrays only.
    """
    weight, d = walk.params[f"{block.name}.conv3.weight"], block.channels // walk.spec.cardinality
    total = 0
    for i in range(walk.spec.cardinality):
        columns = np.ascontiguousarray(weight[:, i * d : (i + 1) * d])
        total = total + walk.ops.conv2d(path(walk, block, x, i), columns)
    return walk.norm(total, f"{block.name}.bn3")


def path(walk: Walk, block: Block, x: Array, i: int) -> Array:
    """Compute T_i of Equation 2 without its last layer.

    The two layers are those of the block with the path's own rows of their weights.
    """
    d = block.channels // walk.spec.cardinality
    two_layers = re.compile(re.escape(block.name) + r"\.(conv|bn)[12]\.")
    own = {
        key: value[i * d : (i + 1) * d]
        for key, value in walk.params.items()
        if two_layers.match(key)
    }
    return _two_layers(replace(walk, params=own), block, x, groups=1)


def _two_layers(walk: Walk, block: Block, x: Array, groups: int) -> Array:
    """Compute the 1x1 and the 3x3 layer, with norms and ReLUs, of a block or of one path."""
    name, (first, second) = block.name, block.strides
    y = walk.norm(walk.conv(x, f"{name}.conv1", stride=first), f"{name}.bn1")
    y = walk.relu(y, f"{name}.relu")
    y = walk.conv(y, f"{name}.conv2", stride=second, padding=1, groups=groups)
    return walk.relu(walk.norm(y, f"{name}.bn2"), f"{name}.relu_1")


def joined(walk: Walk, block: Block, y: Array, shortcut: Array) -> Array:
    """Compute Equation 3, ``y = x + sum of T_i(x)``, and the ReLU behind it."""
    y = walk.at(f"{block.name}.add", walk.ops.add(y, shortcut))
    return walk.relu(y, f"{block.name}.relu_2")


def forward(
    params: Mapping[str, Array],
    spec: Spec,
    x: Array,
    ops: ModuleType | Any,
    *,
    training: bool = False,
    frozen: Collection[str] = (),
    at: Callable[[str, Array], Array] = lambda name, value: value,
    block: Callable[[Walk, Block, Array], Array] = grouped,
    join: Callable[[Walk, Block, Array, Array], Array] = joined,
) -> Array:
    """Compute the logits of images: Table 1, top to bottom.

    Parameters
    ----------
    params : mapping of str to array
        Named and shaped as `parameters` says.
    spec : Spec
    x : [n, h, w, channels]
        Normalised images, large enough that the last stage is not empty.
    ops : backend
        A module such as `tinyresnext.ops.reference`, or a `tinyresnext.network.tape.Tape` over one.
    training : bool
        Normalise with the statistics of the mini-batch.
    frozen : collection of str
        First parts of names, such as ``conv1``, ``bn1`` and ``layer1``: there, training keeps the
        running statistics.
    at : callable
        It is called with the name and the value of every intermediate result, and returns the value
        to continue with. Names are those of torchvision's graph, and ``stem``, ``layer1`` ...,
        ``pooled`` for the results of the stages. In the forms (a) and (b) of the block every path
        has the same names.
    block : callable
        The form of the block: `grouped`, `concatenated` or `summed`.
    join : callable
        How its result and its shortcut become the input of the next block: `joined`.

    Returns
    -------
    [n, classes]
        Of a network without a classifier: the pooled features [n, features].
    """
    walk = Walk(params, spec, ops, training, at, frozen)
    x = at("stem", _stem(walk, x))
    for stage, members in groupby(blocks(spec), key=lambda b: b.name.partition(".")[0]):
        for b in members:
            x = join(walk, b, block(walk, b, x), _shortcut(walk, b, x))
        x = at(stage, x)
    x = at("pooled", at("avgpool", ops.mean_pool(x)))
    if not spec.classes:
        return x
    return at("fc", ops.linear(x, params["fc.weight"], params["fc.bias"]))


def _stem(walk: Walk, x: Array) -> Array:
    """Compute conv1 of Table 1, and the max pooling that conv2 begins with."""
    if walk.spec.small:
        x = walk.conv(x, "conv1", padding=1)
    elif walk.spec.stem == "imagenet":
        x = walk.conv(x, "conv1", stride=2, padding=3)
    else:
        x = walk.relu(walk.norm(walk.conv(x, "conv1.0", stride=2, padding=1), "conv1.1"), "conv1.2")
        x = walk.relu(walk.norm(walk.conv(x, "conv1.3", padding=1), "conv1.4"), "conv1.5")
        x = walk.conv(x, "conv1.6", padding=1)
    x = walk.relu(walk.norm(x, "bn1"), "relu")
    if walk.spec.stem == "cifar":
        return x
    return walk.at("maxpool", walk.ops.max_pool2d(x, size=3, stride=2, padding=1))


def _shortcut(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the shortcut: the identity where the shapes allow it, else by the shortcut's type."""
    if block.shortcut == "identity":
        return x
    if block.shortcut == "padding":
        # Skipping pixels and adding zero channels is a 1x1 convolution whose weight is the
        # identity, cut or padded.
        eye = np.eye(block.c_out, block.c_in, dtype=walk.params["bn1.weight"].dtype)
        weight = walk.ops.upload(eye[:, :, None, None])
        y = walk.ops.conv2d(x, weight, stride=block.stride)
        return walk.at(f"{block.name}.downsample", y)
    stride, (conv, norm) = block.stride, _projection(walk.spec, block)
    if walk.spec.avg_down and stride > 1:
        x = walk.ops.avg_pool2d(x, size=2, stride=stride, ceil_mode=True, count_include_pad=False)
        x, stride = walk.at(f"{block.name}.downsample.0", x), 1
    return walk.norm(walk.conv(x, conv, stride=stride), norm)
