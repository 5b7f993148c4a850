"""The gradients of a convolution: of the input by convolutions again, of the weight by a product.

**Of the input.** A place of the image takes part in several results, and its gradient is the sum of
theirs, each times the weight that connects the two. With stride 1 this is a convolution of ``dy``,
with the taps in reverse order and input and output channels exchanged within each group. With a
stride, the taps that reach a place depend on the remainder of its line and column. Places of equal
remainders are one kind, and each kind gets a convolution of stride 1 with the taps that reach it,
so no zero is inserted and multiplied; their weights are laid out in one pass, and their results
are put together in one (`interlaced`). A place that no tap reaches becomes zero.

**Of the weight.** See `outer`, and `grouped_outer` for narrow groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

from ...checks import Pair, Shape, pair
from ...shapes.conv import parts_padding, parts_shape
from .. import elementwise
from ..runtime.arrays import DeviceArray, check, empty_like, scratch, view
from ..runtime.call import Call
from ..runtime.machine import ALIGNED, Launch
from . import fold
from .forward import Layout, convolution, lay_out
from .grouped import suits
from .grouped_outer import grouped_outer
from .interlaced import few, gathered, join, split
from .outer import outer
from .pack import BK, RUN, Columns, backward
from .windows import Windows, aligned, beside, filled, rounded, windows


class Taps(NamedTuple):
    """The taps that reach every few places of an image, in one direction.

    Attributes
    ----------
    taps : list of int
        Of the forward convolution, as the convolution of ``dy`` takes them.
    padding : int
        Of that convolution; below zero where its windows begin inside ``dy``.
    """

    taps: list[int]
    padding: int


def kinds(kernel: int, stride: int, padding: int) -> list[Taps]:
    """Return the kinds of places that any tap reaches.

    Tap i of result r reaches the place ``r * stride + i - padding``. So kind i has the places
    ``first``, ``first + stride``, ... and tap i of result ``(first + padding - i) / stride``
    reaches the first of them.
    """
    found = []
    for i in range(min(stride, kernel)):  # the smallest tap of a kind
        first = (i - padding) % stride
        taps = list(range(i, kernel, stride))[::-1]
        found.append(Taps(taps, (taps[0] - first - padding) // stride))
    return found


def input_gradient(
    dy: DeviceArray, weight: DeviceArray, win: Windows, dx: DeviceArray, more: bool
) -> list[Launch]:
    """Return the launches of ``dx``; with ``more`` it is added to what is there."""
    if dy.size == 0 or dx.size == 0:
        return [] if more else zero(dx)
    rows, columns = kinds(win.k_h, win.s_h, win.p_h), kinds(win.k_w, win.s_w, win.p_w)
    pairs = [(r, c) for r in rows for c in columns]
    layouts, launches = _layouts(weight, win, pairs)
    if win.s_h == win.s_w == 1:
        residual = dx if more else None
        back = _back(win, *pairs[0], win.c_in)
        return [*launches, *convolution(dy, layouts[0], None, residual, dx, back)]
    # Each kind is an image of equal remainders of lines and columns.
    groups = win.groups, few(win, suits(_exchanged(win)))
    shape = win.n, -(-win.h // win.s_h), -(-win.w // win.s_w), prod(groups)
    apart = rounded(prod(shape), ALIGNED)
    parts = scratch(dy.machine, (len(pairs) * apart,))
    for k, ((r, c), layout) in enumerate(zip(pairs, layouts, strict=True)):
        part = view(parts, shape, k * apart)
        launches += convolution(dy, layout, None, None, part, _back(win, r, c, prod(groups)))
    ahead = win.p_h % win.s_h, win.p_w % win.s_w
    there = len(rows), len(columns)
    return [*launches, *join(parts, (win.s_h, win.s_w), dx, more, ahead, there, groups)]


def _back(win: Windows, rows: Taps, columns: Taps, c_in: int) -> Windows:
    """Return the convolution of ``dy`` for one kind of places, with ``c_in`` filters."""
    return Windows(
        win.n, win.h_out, win.w_out, win.c_out, -(-win.h // win.s_h), -(-win.w // win.s_w), c_in,
        len(rows.taps), len(columns.taps), 1, 1, rows.padding, columns.padding, win.groups,
    )  # fmt: skip


def _exchanged(win: Windows) -> Windows:
    """Return the convolution with all taps whose filters are the channels of the image."""
    return win._replace(c_in=win.c_out, c_out=win.c_in)


def _layouts(
    weight: DeviceArray, win: Windows, pairs: Sequence[tuple[Taps, Taps]]
) -> tuple[Sequence[Layout], list[Launch]]:
    """Return the weight for each kind of places, laid out by launches that read it once."""
    if not pairs:
        return [], []
    every = _exchanged(win)
    # The weight of a 1x1 convolution is the matrix already: a row for each filter.
    whole = every.depth % BK == 0 and beside(every.width, every.groups) == every.width
    if whole and win.k_h == win.k_w == 1 and aligned(weight) and not suits(every):
        return [Columns(weight, every.depth, every.width)], []
    source = backward(win, [(r.taps, c.taps) for r, c in pairs])
    return lay_out(weight, source, every, scratch)


def zero(x: DeviceArray) -> list[Launch]:
    """Return the launch that sets all values to zero."""
    return [Launch(elementwise.zero_kernel(), elementwise.blocks_of(x.size), (x, x.size))]


def weight_gradient(
    x: DeviceArray, dy: DeviceArray, win: Windows, out: DeviceArray, more: bool
) -> list[Launch]:
    """Return the launches of ``dweight``; with ``more`` it is added to what is there."""
    if dy.size == 0 or out.size == 0:
        return [] if more else zero(out)
    if suits(win):
        return grouped_outer(x, dy, out, win, more)
    x, win, first = gathered(x, win)
    return [*first, *outer(x, dy, out, win, more)]


# --- public op ------------------------------------------------------------------------------------


def conv2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> tuple[DeviceArray | None, ...]:
    """Compute all gradients."""
    out = empty_like(x, weight, bias)
    bind_conv2d_backward(
        dy,
        y,
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        groups=groups,
        dilation=dilation,
        out=out,
        more=(False,) * 3,
    )()
    return out


def bind_conv2d_backward(
    dy: DeviceArray,
    y: DeviceArray,
    x: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    out: Sequence[DeviceArray | None],
    more: Sequence[bool],
) -> Call:
    """Bind the calls of the gradients that are wanted."""
    dx, dweight, *rest = out  # without a bias there is no place for its gradient
    dbias = rest[0] if rest and bias is not None else None
    machine = check(
        "conv2d_backward", dy=dy, x=x, weight=weight, dx=dx, dweight=dweight, dbias=dbias
    )
    launches: list[Launch] = []
    steps = pair("dilation", dilation, 1)
    if steps != (1, 1):
        inner = pair("padding", padding, 0)
        launches += _dilated(dy, y.shape, x, weight, inner, groups, steps, (dx, dweight), more)
        dx = dweight = None
    win = windows(x.shape, y.shape, weight.shape[2:], stride, padding, groups)
    if groups == 1 and dy.size > 0:  # once for all three
        dy, first = filled(dy, 1, RUN)
        launches += first
    if dx is not None:
        launches += input_gradient(dy, weight, win, dx, more[0])
    if dweight is not None:
        launches += weight_gradient(x, dy, win, dweight, more[1])
    if dbias is not None:
        launches += fold.channels(dy, dbias, more[2])
    return Call(machine, launches)


def _dilated(
    dy: DeviceArray,
    y_shape: Shape,
    x: DeviceArray,
    weight: DeviceArray,
    padding: tuple[int, int],
    groups: int,
    dilation: tuple[int, int],
    out: tuple[DeviceArray | None, DeviceArray | None],
    more: Sequence[bool],
) -> list[Launch]:
    """Return the launches of a dilated convolution's gradients, from the parts of its images."""
    dx, dweight = out
    x_parts = scratch(x.machine, parts_shape(x.shape, dilation))
    dy_parts = scratch(x.machine, parts_shape(y_shape, dilation))
    inner = parts_padding(padding, dilation)
    win = windows(x_parts.shape, dy_parts.shape, weight.shape[2:], 1, inner, groups)
    launches = split(dy, dilation, dy_parts)
    if dweight is not None:
        launches += split(x, dilation, x_parts)
        launches += weight_gradient(x_parts, dy_parts, win, dweight, more[1])
    if dx is not None:  # in the memory of the parts of x, which are not needed any more
        launches += input_gradient(dy_parts, weight, win, x_parts, False)
        launches += join(x_parts, dilation, dx, more[0])
    return launches
