"""ResNeXt (Xie et al. 2017, arXiv:1611.05431): the architecture, and nothing else.

`forward` is Table 1; `grouped`, `concatenated` and `summed` are the three equal forms of a block in
Figure 3. `grouped` and `forward` compute nothing themselves: they call the functions of ``ops``,
and the module that is passed as ``ops`` decides whether the network is run, recorded or planned. A
`Spec` says which network it is, `blocks` which blocks it has, and `parameters` names the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import groupby
from types import ModuleType
from typing import Any

import numpy as np

from .spec import Block, Spec, blocks, parameters, projection
from .tape import check_seen

__all__ = ["Block", "Walk", "blocks", "concatenated", "forward", "grouped", "parameters", "path"]
__all__ += ["summed"]
Array = Any  # an array of whichever backend is handed in
# A gate [n, 1, 1, c], infinite where a value is kept and minus infinite where it is left out, and
# scale, shift, mean and variance of a norm that multiplies by 1 / (1 - p).
Drop = tuple[Array, tuple[Array, Array, Array, Array]]


@dataclass(frozen=True)
class Walk:
    """One walk through the network.

    Attributes
    ----------
    params, spec, ops, training, at, frozen, drops
        As for `forward`.
    """

    params: Mapping[str, Array]
    spec: Spec
    ops: ModuleType | Any
    training: bool = False
    at: Callable[[str, Array], Array] = lambda name, value: value
    frozen: Collection[str] = ()
    drops: Mapping[str, Drop] = field(default_factory=dict)

    def conv(
        self,
        x: Array,
        name: str,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        dilation: int = 1,
    ) -> Array:
        """Apply the convolution of that name."""
        # What most networks have no use for is not said, and their plans do not show it.
        more = {} if dilation == 1 else {"dilation": dilation}
        weight = self.params[f"{name}.weight"]
        y = self.ops.conv2d(x, weight, stride=stride, padding=padding, groups=groups, **more)
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

    def blur(self, x: Array, name: str, *, stride: int) -> Array:
        """Apply the network's blur pooling, which strides in place of what is before it."""
        if self.spec.blur_pool == "binomial":
            return self.at(name, self.ops.blur_pool(x, stride=stride))
        if stride == 1:
            return x
        return self.at(name, self.ops.avg_pool2d(x, size=stride, stride=stride))


def grouped(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(c): split, transform and merge are one grouped convolution.

    This is the form that is computed in practice.
    """
    y = _two_layers(walk, block, x, groups=walk.spec.cardinality)
    return walk.norm(walk.conv(y, f"{block.name}.conv3"), f"{block.name}.bn3")


def concatenated(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(b): a 1x1 convolution merges the concatenated paths.

    For NumPy arrays and without a tape: `UsageError`.
    """
    check_seen(walk.ops, x)
    y = np.concatenate([path(walk, block, x, i) for i in range(walk.spec.cardinality)], axis=3)
    return walk.norm(walk.conv(y, f"{block.name}.conv3"), f"{block.name}.bn3")


def summed(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the block as Figure 3(a), Equation 2: the sum of ``T_i(x)`` over the paths.

    The batch norm comes after the sum (footnote 6). It equals Figure 3(b) because
    ``A1 B1 + A2 B2 = [A1, A2] [B1; B2]``: a sum of products is one product over all columns. For
    NumPy arrays and without a tape: `UsageError`.
    """
    check_seen(walk.ops, x)
    weight, d = walk.params[f"{block.name}.conv3.weight"], block.channels // walk.spec.cardinality
    columns = [np.ascontiguousarray(weight[:, i : i + d]) for i in range(0, block.channels, d)]
    paths = [walk.ops.conv2d(path(walk, block, x, i), own) for i, own in enumerate(columns)]
    return walk.norm(reduce(walk.ops.add, paths), f"{block.name}.bn3")


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
    own, d = 1 if block.blur else second, block.dilation
    y = walk.conv(y, f"{name}.conv2", stride=own, padding=d, groups=groups, dilation=d)
    y = walk.relu(walk.norm(y, f"{name}.bn2"), f"{name}.relu_1")
    return walk.blur(y, f"{name}.aa", stride=second) if block.blur else y


def excited(walk: Walk, block: Block, x: Array) -> Array:
    """Scale each channel of a block's result: squeeze and excitation (Hu et al. 2018).

    The mean of each channel over all positions (squeeze, their Equation 2) passes two small layers,
    and the sigmoid of their result scales the channel (excitation, Equations 3 and 4). A network
    without ``se_reduction`` has ``x`` as it is.
    """
    if not walk.spec.se_reduction:
        return x
    name, params, ops = f"{block.name}.se", walk.params, walk.ops
    z = walk.at(f"{name}.mean", ops.mean_pool(x, keepdims=True))
    z = ops.conv2d(z, params[f"{name}.fc1.weight"], params[f"{name}.fc1.bias"])
    z = walk.relu(walk.at(f"{name}.fc1", z), f"{name}.relu")
    z = ops.conv2d(z, params[f"{name}.fc2.weight"], params[f"{name}.fc2.bias"])
    return walk.at(name, ops.excite(x, walk.at(f"{name}.fc2", z)))


def dropped(walk: Walk, name: str, x: Array) -> Array:
    """Leave a part of a value out in training, and scale what is kept: ``x * kept / (1 - p)``.

    Of a block's result whole samples are left out (stochastic depth, Huang et al. 2016), of the
    features single ones (dropout, Srivastava et al. 2014). The expectation stays, so inference
    leaves nothing out.
    """
    if name not in walk.drops:
        return x
    gate, norm = walk.drops[name]
    x = walk.at(f"{name}.scaled", walk.ops.batch_norm(x, *norm, eps=0.0))
    return walk.at(f"{name}.dropped", walk.ops.excite(x, gate))


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
    drops: Mapping[str, Drop] | None = None,
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
    drops : mapping of str to Drop, optional
        In training: what is left out of which block's result, and under ``pooled``, of the
        features; see `dropped`.
    at : callable
        It is called with the name and the value of every intermediate result, and returns the value
        to continue with. Names are those of torchvision's graph, and ``stem``, ``layer1`` ...,
        ``pooled`` for the results of the stages. In the forms (a) and (b) of the block every path
        has the same names. On a tape, what anything but its ops has computed is a constant.
    block : callable
        The form of the block: `grouped`, `concatenated` or `summed`.
    join : callable
        How its result and its shortcut become the input of the next block: `joined`.

    Returns
    -------
    [n, classes]
        Of a network without a classifier: the pooled features [n, features].
    """
    walk = Walk(params, spec, ops, training, at, frozen, drops or {})
    x = at("stem", _stem(walk, x))
    for stage, members in groupby(blocks(spec), key=lambda b: b.name.partition(".")[0]):
        for b in members:
            y = dropped(walk, b.name, excited(walk, b, block(walk, b, x)))
            x = join(walk, b, y, _shortcut(walk, b, x))
        x = at(stage, x)
    if "pooled" in walk.drops:
        x = dropped(walk, "pooled", at("features", ops.mean_pool(x, keepdims=True)))
    x = at("pooled", at("avgpool", ops.mean_pool(x)))
    if not spec.classes:
        return x
    return at("fc", ops.linear(x, params["fc.weight"], params["fc.bias"]))


def _stem(walk: Walk, x: Array) -> Array:
    """Compute conv1 of Table 1, and the max pooling that conv2 begins with."""
    if walk.spec.small:
        x = walk.conv(x, "conv1", padding=1)
    elif walk.spec.stem != "deep":
        x = walk.conv(x, "conv1", stride=2, padding=3)
    else:
        x = walk.relu(walk.norm(walk.conv(x, "conv1.0", stride=2, padding=1), "conv1.1"), "conv1.2")
        x = walk.relu(walk.norm(walk.conv(x, "conv1.3", padding=1), "conv1.4"), "conv1.5")
        x = walk.conv(x, "conv1.6", padding=1)
    x = walk.relu(walk.norm(x, "bn1"), "relu")
    if walk.spec.stem == "cifar":
        return x
    if walk.spec.stem == "caffe":
        return walk.at("maxpool", walk.ops.max_pool2d(x, size=3, stride=2, ceil_mode=True))
    if walk.spec.blur_pool == "average":
        return walk.blur(x, "maxpool", stride=2)
    if walk.spec.blur_pool == "binomial":
        x = walk.at("maxpool.0", walk.ops.max_pool2d(x, size=3, stride=1, padding=1))
        return walk.blur(x, "maxpool", stride=2)
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
    stride, (conv, norm) = block.stride, projection(walk.spec, block)
    if walk.spec.avg_down and stride > 1:
        x = walk.ops.avg_pool2d(x, size=2, stride=stride, ceil_mode=True, count_include_pad=False)
        x, stride = walk.at(f"{block.name}.downsample.0", x), 1
    elif block.smooth:
        x = walk.at(f"{block.name}.downsample.0", _smoothed(walk, block, x))
    return walk.norm(walk.conv(x, conv, stride=stride), norm)


def _smoothed(walk: Walk, block: Block, x: Array) -> Array:
    """Compute the mean of each value and of those to the right, below, and right below.

    Zeros lie beyond the edges, and count: timm's ``AvgPool2dSame`` of 2x2 values with a stride of
    1. It is a convolution of each channel with a constant weight.
    """
    weight = np.zeros((block.c_in, 1, 3, 3), walk.params["bn1.weight"].dtype)
    weight[:, :, 1:, 1:] = 0.25
    return walk.ops.conv2d(x, walk.ops.upload(weight), padding=1, groups=block.c_in)
