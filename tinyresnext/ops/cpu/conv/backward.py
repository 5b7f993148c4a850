"""The gradients of a convolution: of the input by a convolution again, of the weight by a product.

**Of the input.** An input value takes part in several results, and its gradient is the sum of their
gradients, each times the weight that connects the two. With stride 1, this is a convolution of
``dy`` with the weight flipped in both directions, its input and output channels exchanged within
each group. With a stride, the taps that reach a position depend only on the remainder of its line
and column modulo the stride. Positions with the same remainder modulo the stride are one kind of
places, so there are ``s_h * s_w`` kinds. Each kind gets a convolution of stride 1 with only the
taps that reach it, and the results are copied to its positions. So no multiplication with an
inserted zero is made, and a kind that no tap reaches (three of four in a 1x1 convolution of stride
2) is zero.

**Of the weight.** See `outer` for 1x1 convolutions with one group, `narrow.outer` for groups of
which several fill a vector, and `wide.outer` for all others.

In bfloat16 the gradient of the input is a convolution in bfloat16 (`forward.pack_rounded`). That of
a weight is a product of words of two positions (`outer.words`, `wide.pairs`) where the processor
multiplies words, but for groups of which several fill a vector: words would leave lanes idle.
These, and all weights without the instruction, are computed by the tiles of float32, which widened
values are copied for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from ...checks import Pair, Shape, pair
from ...shapes.conv import parts_padding, parts_shape
from ..elementwise import in_words
from ..interlaced import bind_join, bind_split
from ..moments import bind_channel_sums
from ..runtime.crew import Chain, Step
from ..runtime.memory import HALF, Array, changed, empty, empty_like, flat
from ..runtime.simd import copy, stored, value
from ..runtime.simd.bfloat16 import multiplies
from ..runtime.tasks import finished, in_tasks, next_task
from . import dense
from .forward import bind_geometry, pack, pack_rounded, repacking, way_of
from .geometry import Geometry, Taps, geometry, taps_of, turned
from .narrow import outer as narrow_outer
from .outer import floats
from .outer import words as paired
from .wide import outer as wide_outer

# --- kernel ---------------------------------------------------------------------------------------


class Places(NamedTuple):
    """The numbers of copying the results of one kind of places into an image."""

    h: int
    w: int
    c: int
    s_h: int
    s_w: int
    first_line: int  # of the image that has places of this kind
    first_column: int
    lines: int  # of places
    columns: int
    add: int  # 1 where the results are added to what is there
    reached: int  # 0 where there are no results and the places become zero
    tasks: int


@in_tasks(Places)
def _put(part, out, g, counters):
    """Copy the results of one kind of places to where they belong; a task is a line of places."""
    task = next_task(counters)
    while task < g.tasks:
        n, line = divmod(task, g.lines)
        place = ((n * g.h + line * g.s_h + g.first_line) * g.w + g.first_column) * g.c
        source = task * g.columns * g.c
        for _ in range(g.columns):
            if g.add:
                for c in range(g.c):
                    total = value(out[place + c]) + value(part[source + c])
                    out[place + c] = stored(total, out)
            elif g.reached:
                copy(part, source, out, place, g.c)
            else:
                out[place : place + g.c] = 0
            place += g.s_w * g.c
            source += g.c
        task = next_task(counters)
    finished(counters)


# --- launchers ------------------------------------------------------------------------------------


def bind_input_gradient(
    dy: Array, weight: Array, geo: Geometry, dx: Array, more: bool, words: bool | None = None
) -> list[Callable[[], None]]:
    """Prepare ``dx``, from the geometry of the forward convolution; ``more`` adds to ``dx``.

    For ``words`` see `forward.pack_rounded`.
    """
    if geo.s_h * geo.s_w == 1:
        return _bind_kind(dy, weight, geo, (0, 0), dx, more, words)
    # Room for the largest kind; the kinds use it one after the other. A sum is rounded once.
    kind = np.float32 if more else dx.dtype
    part = empty((geo.n * -(-geo.h // geo.s_h) * -(-geo.w // geo.s_w) * geo.c_in,), kind)
    calls: list[Callable[[], None]] = []
    for a, b in np.ndindex(geo.s_h, geo.s_w):
        down, across = _both(geo, a, b)
        reached = bool(down.taps and across.taps)
        if down.places * across.places == 0 or (more and not reached):
            continue
        if reached:
            calls += _bind_kind(dy, weight, geo, (a, b), part, False, words)
        numbers = Places(
            h=geo.h,
            w=geo.w,
            c=geo.c_in,
            s_h=geo.s_h,
            s_w=geo.s_w,
            first_line=a,
            first_column=b,
            lines=down.places,
            columns=across.places,
            add=int(more),
            reached=int(reached),
            tasks=geo.n * down.places,
        )
        calls.append(Step(_put, numbers, part=part, out=dx))
    return calls


def _both(geo: Geometry, a: int, b: int) -> tuple[Taps, Taps]:
    """Return the taps down and across."""
    return (
        taps_of(a, geo.h, geo.k_h, geo.s_h, geo.p_h),
        taps_of(b, geo.w, geo.k_w, geo.s_w, geo.p_w),
    )


def _bind_kind(
    dy: Array,
    weight: Array,
    geo: Geometry,
    kind: tuple[int, int],
    out: Array,
    more: bool,
    words: bool | None,
) -> list[Callable[[], None]]:
    """Prepare the convolution for one kind of places."""
    down, across = _both(geo, *kind)
    lay_out = partial(pack_rounded, words=words) if dy.dtype == HALF else pack
    packed, refill = repacking(
        weight, lambda w: lay_out(turned(w, geo.groups, down.taps, across.taps), geo.groups)
    )
    calls: list[Callable[[], None]] = [refill]
    source = dy.reshape(geo.n, geo.h_out, geo.w_out, geo.c_out)
    if packed.in_words:
        copied, source = in_words(source, geo.groups)
        calls += copied
    back = geometry(
        source.shape,
        (geo.n, down.places, across.places, geo.c_in),
        (len(down.taps), len(across.taps)),
        1,
        (down.padding, across.padding),
        geo.groups,
    )
    out, bias = out[: back.positions * geo.c_in], np.zeros(geo.c_in, np.float32)
    there = out if more else None
    return [*calls, bind_geometry(source.reshape(-1), packed, bias, there, out, back)]


def bind_weight_gradient(
    x: Array, dy: Array, geo: Geometry, out: Array, more: bool, words: bool | None = None
) -> list[Step]:
    """Prepare ``dweight``; for ``words`` see `forward.pack_rounded`."""
    out = changed("conv2d_backward", "the gradient of weight", out)
    shape = (geo.c_out, geo.c_in // geo.groups, geo.k_h, geo.k_w)
    multiplied = x.dtype == HALF and (multiplies() if words is None else words)
    if narrow_outer.suits(shape, geo.groups):
        return narrow_outer.weight_gradient(x, dy, out, geo, more)
    if way_of(shape, geo.groups) is not dense:
        return wide_outer.weight_gradient(x, dy, out, geo, more, multiplied)
    way = paired if multiplied else floats
    return way.weight_gradient(x, dy, out, geo, more)


# --- public op ------------------------------------------------------------------------------------


def conv2d_backward(
    dy: Array,
    y: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
) -> tuple[Array | None, ...]:
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
    dy: Array,
    y: Array,
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = 1,
    padding: Pair = 0,
    groups: int = 1,
    dilation: Pair = 1,
    out: Sequence[Array | None],
    more: Sequence[bool],
    words: bool | None = None,
) -> Callable[[], None]:
    """Prepare a step or two for each gradient that is wanted.

    ``x``, ``dy`` and the gradient of ``x`` may be bfloat16; then the weight is rounded, too, and
    laid out in ``words`` or not, as `forward.pack_rounded` says.
    """
    gradient, source = flat("conv2d_backward", "dy", dy, dy), flat("conv2d_backward", "x", x, dy)
    calls: list[Callable[[], None]] = []
    steps = pair("dilation", dilation, 1)
    if steps != (1, 1):
        lead = pair("padding", padding, 0)
        calls += _bind_dilated(
            gradient, y.shape, source, x.shape, weight, lead, groups, steps, out, more, words
        )
    else:
        geo = geometry(x.shape, y.shape, weight.shape[2:], stride, padding, groups)
        if out[1] is not None:
            calls += bind_weight_gradient(source, gradient, geo, out[1].reshape(-1), more[1], words)
        if out[0] is not None:  # last: the sums of the next norm take turns with it
            calls += bind_input_gradient(gradient, weight, geo, out[0].reshape(-1), more[0], words)
    if bias is not None and out[2] is not None:
        calls.insert(0, bind_channel_sums(dy, out[2], more[2]))
    return Chain(calls)


def _bind_dilated(
    dy: Array,
    y_shape: Shape,
    x: Array,
    x_shape: Shape,
    weight: Array,
    padding: tuple[int, int],
    groups: int,
    dilation: tuple[int, int],
    out: Sequence[Array | None],
    more: Sequence[bool],
    words: bool | None,
) -> list[Callable[[], None]]:
    """Prepare the gradients of a dilated convolution from the parts of its images."""
    x_parts = empty(parts_shape(x_shape, dilation), x.dtype)
    dy_parts = empty(parts_shape(y_shape, dilation), dy.dtype)
    inner = parts_padding(padding, dilation)
    geo = geometry(x_parts.shape, dy_parts.shape, weight.shape[2:], 1, inner, groups)
    gradient = dy_parts.reshape(-1)
    calls: list[Callable[[], None]] = [bind_split(dy, y_shape, dilation, dy_parts)]
    if out[1] is not None:
        calls.append(bind_split(x, x_shape, dilation, x_parts))
        calls += bind_weight_gradient(
            x_parts.reshape(-1), gradient, geo, out[1].reshape(-1), more[1], words
        )
    if out[0] is not None:  # in the memory of the parts of x, which are not needed any more
        if more[0] and x.dtype == HALF:
            x_parts = empty(x_parts.shape)  # a sum is rounded once
        calls += bind_input_gradient(gradient, weight, geo, x_parts.reshape(-1), False, words)
        calls.append(bind_join(x_parts, x_shape, dilation, out[0].reshape(-1), more[0]))
    return calls
