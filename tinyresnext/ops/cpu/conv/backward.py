"""The gradients of a convolution: that of the input is a convolution again, that of the weight a product (`outer`).

**Of the input.** Where the forward pass sends the value of a place to several results, the gradient
of the place is the sum of what comes back from them: a convolution of ``dy`` with the weight turned
round, its input and output channels exchanged within each group. With a stride, which results a
place has sent its value to depends on where it lies between two steps; so each of the ``s_h * s_w``
kinds of places gets a convolution of stride 1 of its own, with only those taps that reach it, and
their results are put where they belong. No multiplication with an inserted zero is ever made, and a
kind that no tap reaches (three of four in a 1x1 convolution of stride 2) is zero.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...shapes import Pair, pair
from ..norm_train import channel_sums
from ..runtime.crew import Step, Work, chain, compiled, take
from ..runtime.memory import Array, empty, flat
from ..runtime.simd import copy
from . import grouped, grouped_outer, outer
from .forward import bind_work, geometry, pack, repacking


class Taps(NamedTuple):
    """Along one direction: which taps reach the places ``offset``, ``offset + stride`` ... and how.

    Attributes
    ----------
    taps : list of int or None
        The columns of the turned kernel: taps of the forward kernel, or None for a column of zeros.
    padding : int
        Of the convolution of ``dy`` with them.
    count : int
        How many such places there are.
    """

    taps: list[int | None]
    padding: int
    count: int


def taps_of(offset: int, length: int, kernel: int, stride: int, padding: int) -> Taps:
    """Place ``stride * q + offset`` receives tap ``i`` of result ``r`` where ``r * stride + i - padding`` is that place."""
    reach = {
        (offset + padding - i) // stride: i
        for i in range(kernel)
        if (offset + padding - i) % stride == 0
    }
    count = len(range(offset, length, stride))
    if not reach:
        return Taps([], 0, count)
    low = min(0, *reach)
    return Taps([reach.get(step) for step in range(low, max(reach) + 1)], -low, count)


def turned(weight: Array, groups: int, rows: list[int | None], columns: list[int | None]) -> Array:
    """The weight of a convolution back to the input, ``[c_in, c_out / groups, rows, columns]``."""
    c_out, c_group, k_h, k_w = weight.shape
    split = weight.reshape(groups, c_out // groups, c_group, k_h, k_w).swapaxes(1, 2)
    made = np.zeros((groups, c_group, c_out // groups, len(rows), len(columns)), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if row is not None and column is not None:
                made[..., i, j] = split[..., row, column]
    return made.reshape(groups * c_group, c_out // groups, len(rows), len(columns))


# --- kernels --------------------------------------------------------------------------------------


def _put(part, weight, bias, residual, out, g, counters):
    """Put the results of one kind of places where they belong. A task is a line of them.

    The kind begins at line ``p_h`` and column ``p_w`` and has ``h_out`` lines of ``w_out`` places.
    With ``g.add`` the results are added to what is there; without ``g.parts`` there are none and
    the places become zero.
    """
    task = take(counters, 0)
    while task < g.tasks:
        n, line = divmod(task, g.h_out)
        place = ((n * g.h + line * g.s_h + g.p_h) * g.w + g.p_w) * g.c_in
        source = task * g.w_out * g.c_in
        for _ in range(g.w_out):
            if g.add:
                for c in range(g.c_in):
                    out[place + c] += part[source + c]
            elif g.parts:
                copy(part, source, out, place, g.c_in)
            else:
                out[place : place + g.c_in] = 0
            place += g.s_w * g.c_in
            source += g.c_in
        task = take(counters, 0)
    take(counters, 1)


@functools.cache
def _put_kernel() -> Any:
    """Compiled when it is first needed."""
    return compiled(_put)


# --- launchers ------------------------------------------------------------------------------------


def bind_input_gradient(
    dy: Array, weight: Array, g: Work, dx: Array, more: bool
) -> list[Callable[[], None]]:
    """Prepare ``dx`` for the geometry ``g`` of the forward convolution; with ``more`` it is added to what ``dx`` holds."""
    if g.s_h * g.s_w == 1:
        return _bind_kind(dy, weight, g, (0, 0), dx, more)
    part = empty(
        (g.n * -(-g.h // g.s_h) * -(-g.w // g.s_w) * g.c_in,)
    )  # room for the largest kind, taken by one after the other
    calls: list[Callable[[], None]] = []
    for a in range(g.s_h):
        for b in range(g.s_w):
            down, across = _both(g, a, b)
            reached, lines = bool(down.taps and across.taps), down.count
            if lines * across.count == 0 or (more and not reached):
                continue
            if reached:
                calls += _bind_kind(dy, weight, g, (a, b), part, False)
            where = g._replace(
                p_h=a,
                p_w=b,
                h_out=lines,
                w_out=across.count,
                add=int(more),
                parts=int(reached),
                tasks=g.n * lines,
            )
            calls.append(Step(_put_kernel(), part, dy, dy, dy, dx, where))
    return calls


def _both(g: Work, a: int, b: int) -> tuple[Taps, Taps]:
    """Down and across."""
    return taps_of(a, g.h, g.k_h, g.s_h, g.p_h), taps_of(b, g.w, g.k_w, g.s_w, g.p_w)


def _bind_kind(
    dy: Array, weight: Array, g: Work, kind: tuple[int, int], out: Array, more: bool
) -> list[Callable[[], None]]:
    """The convolution for one kind of places."""
    down, across = _both(g, *kind)
    shape = (g.n, down.count, across.count, g.c_in)
    kernel, bias = (len(down.taps), len(across.taps)), np.zeros(g.c_in, np.float32)
    out = out[: int(np.prod(shape))]
    work = geometry(
        (g.n, g.h_out, g.w_out, g.c_out),
        shape,
        kernel,
        (1, 1),
        (down.padding, across.padding),
        g.groups,
        more,
        False,
    )
    packed, refill = repacking(
        weight, lambda values: pack(turned(values, g.groups, down.taps, across.taps), g.groups)
    )
    return [refill, bind_work(dy, packed, bias, out, out, work)]


def bind_weight_gradient(x: Array, dy: Array, g: Work, out: Array, more: bool) -> list[Step]:
    """Prepare ``dweight``."""
    narrow = grouped.suits((g.c_out, g.c_in // g.groups, g.k_h, g.k_w), g.groups)
    way = grouped_outer if narrow else outer
    return way.weight_gradient(x, dy, out, way.cut(g._replace(add=int(more))))


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
    out: tuple[Array | None, ...],
    more: tuple[bool, ...],
) -> Callable[[], None]:
    """Each gradient that is wanted is a step or two of its own."""
    g = geometry(
        x.shape,
        y.shape,
        weight.shape[2:],
        pair("stride", stride, 1),
        pair("padding", padding, 0),
        groups,
        False,
        False,
    )
    gradient, source, calls = flat("conv2d_backward", "dy", dy), flat("conv2d_backward", "x", x), []
    if out[0] is not None:
        calls += bind_input_gradient(gradient, weight, g, out[0].reshape(-1), more[0])
    if out[1] is not None:
        calls += bind_weight_gradient(source, gradient, g, out[1].reshape(-1), more[1])
    if bias is not None and out[2] is not None:
        calls.append(lambda: channel_sums(dy, out[2], more[2]))
    return chain(calls)


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
) -> tuple[Array | None, ...]:
    """All gradients."""
    out = (empty(x.shape), empty(weight.shape), None if bias is None else empty(bias.shape))
    bind_conv2d_backward(
        dy,
        y,
        x,
        weight,
        bias,
        stride=stride,
        padding=padding,
        groups=groups,
        out=out,
        more=(False,) * 3,
    )()
    return out
