"""The addends of a block: Equations 2 and 3 of Xie et al., with the batch norm folded.

Form (a) of Figure 3 adds the results of C paths, and one batch norm comes after the sum (footnote
6). In inference a batch norm is ``a z + b`` for each channel, so it can be folded: the factor goes
into the last layer of every path, and the shift is an addend of its own. A block is then

    y = T_0(x) + ... + T_{C-1}(x) + shift + shortcut(x),    output = relu(y)

and every addend can be looked at, and left out. Squeeze and excitation multiplies each channel of
the sum of the paths and the shift by a number that depends on the image. For one image it is a
factor of the last layer too, and the addends still add up; it stays as it is when one is left out.
Paths are counted from 0, in the paper from 1. Here these addends are called terms: the paths in
their order, the shift, the shortcut.

A term has as many channels as the block's output. To show it as one map, it is projected on a
direction: for each position, its product with a vector of c_out numbers. Because a projection is
linear, the maps of the terms still add up to the map of the sum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..network.resnext import Block
from .recorded import Recorded

__all__ = ["Last", "addends", "last_layer", "projections"]


class Last(NamedTuple):
    """The last layer of a block's paths, with the batch norm folded.

    Attributes
    ----------
    weight : [c_out, channels, 1, 1]
        Path i has the columns ``i * d`` to ``(i + 1) * d``.
    shift : [c_out]
    """

    weight: np.ndarray
    shift: np.ndarray


def last_layer(recorded: Recorded, block: Block) -> Last:
    """Return the last layer of a block's paths, into which the batch norm is folded.

    So is what squeeze and excitation multiplies each channel by, for this image.
    """
    last, scale = Last(*recorded.last[block.name].args[1:]), recorded.scale(block)
    if scale is None:
        return last
    return Last(last.weight * scale[:, None, None, None], last.shift * scale)


def addends(
    recorded: Recorded, block: Block, first: int = 0, stop: int | None = None
) -> np.ndarray:
    """Compute the addends of some paths of a block: T_i(x) of Equation 2.

    All are computed by one grouped convolution, in which each path is a group with c_out results.

    Parameters
    ----------
    recorded : Recorded
    block : Block
    first, stop : int
        The paths, from ``first`` to before ``stop``; by default all.

    Returns
    -------
    [paths, h, w, c_out]
    """
    cardinality, ops = recorded.model.spec.cardinality, recorded.ops
    last = last_layer(recorded, block)
    stop = cardinality if stop is None else stop
    count, d = stop - first, block.channels // cardinality
    inner = recorded.inner(block)[None, :, :, first * d : stop * d]
    columns = last.weight[:, first * d : stop * d, 0, 0].reshape(-1, count, d)
    weight = columns.swapaxes(0, 1).reshape(-1, d, 1, 1)
    with recorded.running():
        found = ops.conv2d(
            ops.upload(np.ascontiguousarray(inner)),
            ops.upload(np.ascontiguousarray(weight)),
            groups=count,
        )
        _, h, w, _ = found.shape
        return np.moveaxis(ops.download(found).reshape(h, w, count, -1), 2, 0)


def projections(recorded: Recorded, block: Block, directions: np.ndarray) -> np.ndarray:
    """Project every term of a block on some directions, position by position.

    The addends themselves are not needed for it: with ``T = W h``, ``v . (W h) = (W^T v) . h``, and
    ``W^T v`` is one convolution for all paths.

    Parameters
    ----------
    recorded : Recorded
    block : Block
    directions : [k, h, w, c_out]

    Returns
    -------
    [k, terms, h, w] float64
        Of the paths in their order, of the shift, and of the shortcut.
    """
    ops, last = recorded.ops, last_layer(recorded, block)
    back = np.ascontiguousarray(last.weight.swapaxes(0, 1))
    with recorded.running():
        v = ops.upload(np.ascontiguousarray(directions, np.float32))
        pulled = np.asarray(ops.download(ops.conv2d(v, ops.upload(back))), np.float64)
    products = pulled * recorded.inner(block)
    paths = products.reshape(*products.shape[:3], recorded.model.spec.cardinality, -1).sum(4)
    wide = directions.astype(np.float64)
    shift = wide @ last.shift.astype(np.float64)
    shortcut = np.einsum("khwc,hwc->khw", wide, recorded.shortcut(block).astype(np.float64))
    return np.concatenate([np.moveaxis(paths, 3, 1), shift[:, None], shortcut[:, None]], axis=1)
