"""The gradient of a grouped convolution's weight, where several groups fill a vector.

``dweight[o, c, i, j] = sum over positions of dy[position, o] * x[position + (i, j), c]``, with
``c`` in the group of ``o``. The lanes are output channels, as in the forward pass: a value of the
image is permuted within its groups so that each output channel meets one input channel of its
group, and it is multiplied by the gradient ``dy`` of the pixel instead of by a weight. The sums,
one vector for each tap and each input channel of the group, stay in registers along a whole line.
A permuted value is used for all the taps of a line of the kernel that meet it, as in the forward
pass. Groups that fill a vector alone are mostly quicker with `wide.outer`, whose tile has more
sums.

With 16 lanes, width 4 and three taps these are 12 sums; where there are more than fit, the line is
walked again for the next channels of the group.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.crew import Step
from ...runtime.kernel import part
from ...runtime.launch import threads_now
from ...runtime.memory import Array, empty
from ...runtime.simd import FLOATS, Emit, aligned, copy, machine
from ...runtime.tasks import Kernel, finished, in_tasks, next_task
from ..geometry import Geometry

PIXELS = 8  # of the result, that are written out: images of 32 pixels have lines of 32, 16 and 8
TAPS = 7  # the widest kernel whose sums are held in registers
STRIP = 16 * 1024  # most values of a strip, about


class Lines(NamedTuple):
    """The numbers of a grouped weight's gradient: the geometry, and how the sums are cut.

    For each block of channels there are ``shares`` tasks, each with its share of the strips, and
    each leaves its partial sums; `_add_up` has a task for each filter instead.
    """

    n: int
    h: int
    w: int
    c_in: int
    h_out: int
    w_out: int
    c_out: int
    k_h: int
    k_w: int
    s_h: int
    s_w: int
    p_h: int
    p_w: int
    groups: int
    add: int  # 1 where the gradient is added to what is there
    lanes: int  # of a vector, which are the channels of a block
    at_once: int  # input channels of a group whose sums are in registers together
    lines: int  # of dy, in a strip
    shares: int
    tasks: int


def suits(shape: tuple[int, ...], groups: int) -> bool:
    """Return whether a weight of that shape is for this file.

    Several of its groups must fill a vector, and be as wide at the output as at the input.
    """
    c_out, width, _, taps = shape
    lanes = machine().lanes
    several = 0 < width < lanes and lanes % width == 0
    return groups > 1 and c_out == groups * width and several and taps <= TAPS


def some_channels(width: int, taps: int) -> int:
    """Return for how many input channels of a group all sums fit the registers."""
    m = machine()
    room = m.registers - (6 if m.registers > 16 else 3)
    fit = [n for n in range(1, width + 1) if width % n == 0 and taps * n <= room]
    return max(fit, default=1)


def line_tile(width, taps, stride, strip, at, line, line_at, tiles, sums, s_at):
    """Add the products of one line of ``dy`` to the sums of one line of the kernel.

    Parameters
    ----------
    width, taps, stride : int
        Channels of a group, columns of the kernel, columns from pixel to pixel; constants where it
        is called.
    strip : ``[columns, lanes]``, from ``at``
        A line of the image, from the first of the channels on.
    line : ``[pixels, lanes]``, from ``line_at``
        The line of the gradient, with zeros behind its end.
    tiles : int
        Of ``PIXELS`` pixels.
    sums : ``[taps, channels, lanes]``, from ``s_at``
    """
    lanes, some = machine().lanes, some_channels(width, taps)
    first = np.arange(lanes) // width * width  # the first channel of each channel's group
    total = sums[s_at : s_at + taps * some * lanes].reshape(taps, some, lanes)
    for p in range(tiles * PIXELS):
        dy = line[line_at + p * lanes :][:lanes]
        for tap in range(taps):
            pixel = strip[at + (p * stride + tap) * lanes :]
            for n in range(some):
                total[tap, n] += dy * pixel[first + n]


@intrinsic(prefer_literal=True)
def _line_tile(typing, width, taps, stride, strip, at, line, line_at, tiles, sums, s_at):
    """Emit `line_tile`: a loop over tiles of ``PIXELS`` pixels; all else is written out."""
    i, constants = types.intp, (width, taps, stride)

    def codegen(context, builder, signature, args):
        strip, at, line, line_at, tiles, sums, s_at = args[3:]
        e = Emit(context, builder)
        w, k, s = (constant.literal_value for constant in constants)
        some = some_channels(w, k)

        def value(x, q, n):
            turns = [lane // w * w + n for lane in range(e.lanes)]
            return e.permute(e.load(e.after(x, q * e.lanes)), turns)

        def tile(carried):
            x, dy, *total = carried
            pixels = [e.load(e.after(dy, p * e.lanes)) for p in range(PIXELS)]
            for q in range((PIXELS - 1) * s + k):
                meet = [
                    (t, (q - t) // s)
                    for t in range(k)
                    if (q - t) % s == 0 and 0 <= (q - t) // s < PIXELS
                ]
                for n in range(some if meet else 0):
                    seen = value(x, q, n)
                    for t, p in meet:
                        which = t * some + n
                        total[which] = e.multiply_add(seen, pixels[p], total[which])
            return [e.after(x, PIXELS * s * e.lanes), e.after(dy, PIXELS * e.lanes), *total]

        target = e.address(sums, s_at)
        places = [e.after(target, which * e.lanes) for which in range(k * some)]
        start = [
            e.address(strip, at),
            e.address(line, line_at),
            *(e.load(place) for place in places),
        ]
        _, _, *total = e.loop(tiles, start, tile)
        for value_, place in zip(total, places, strict=True):
            e.store(value_, place)
        return context.get_dummy_value()

    return types.void(*constants, FLOATS, i, FLOATS, i, i, FLOATS, i), codegen


@overload(line_tile, prefer_literal=True)
def _line_overload(width, taps, stride, strip, at, line, line_at, tiles, sums, s_at):
    """Replace `line_tile` in compiled code."""
    return lambda width, taps, stride, strip, at, line, line_at, tiles, sums, s_at: _line_tile(
        width, taps, stride, strip, at, line, line_at, tiles, sums, s_at
    )


# --- kernels --------------------------------------------------------------------------------------


@part()
def _cut_line(source, start, pitch, left, count, columns, channels, block, target, t):
    """Copy ``channels`` of ``count`` columns, after ``left`` columns of zeros and before others."""
    target[t : t + left * block] = 0
    for q in range(left, left + count):
        copy(source, start, target, t + q * block, channels)
        start += pitch
    target[t + (left + count) * block : t + columns * block] = 0


@functools.cache
def lines_kernel(width: int, taps: int, stride: int) -> Kernel:
    """Make the kernel for one width of group, one width of kernel and one stride."""
    some = some_channels(width, taps)

    @in_tasks(Lines, key=(width, taps, stride))
    def lines(x, dy, out, g, counters):
        """Compute partial sums of the gradient: ``out`` has those of each task."""
        tiles = (g.w_out + PIXELS - 1) // PIXELS
        columns, pixels = (tiles * PIXELS - 1) * stride + taps, tiles * PIXELS
        strip = aligned(((g.lines - 1) * g.s_h + g.k_h) * columns * g.lanes + width)
        line, values = aligned(pixels * g.lanes), g.k_h * width * taps * g.lanes
        sums = aligned(values)
        strip[:], line[:] = 0, 0
        strips = (g.h_out + g.lines - 1) // g.lines
        task = next_task(counters)
        while task < g.tasks:
            block, share = divmod(task, g.shares)
            c0 = block * g.lanes
            channels = min(g.lanes, g.c_in - c0)
            out[task * values : (task + 1) * values] = 0
            begin, end = share * g.n * strips // g.shares, (share + 1) * g.n * strips // g.shares
            for strip_number in range(begin, end):
                n, first = divmod(strip_number, strips)
                first *= g.lines
                last = min(first + g.lines, g.h_out)
                top = first * g.s_h - g.p_h
                for k in range((last - first - 1) * g.s_h + g.k_h):
                    count = min(g.w, columns - g.p_w) if 0 <= top + k < g.h else 0
                    start = ((n * g.h + top + k) * g.w) * g.c_in + c0
                    left, at = min(g.p_w, columns), k * columns * g.lanes
                    _cut_line(x, start, g.c_in, left, count, columns, channels, g.lanes, strip, at)
                sums[:] = 0
                for y in range(first, last):
                    start = ((n * g.h_out + y) * g.w_out) * g.c_out + c0
                    _cut_line(dy, start, g.c_out, 0, g.w_out, pixels, channels, g.lanes, line, 0)
                    for i in range(g.k_h):
                        at = ((y - first) * g.s_h + i) * columns * g.lanes
                        for m in range(width // some):
                            s_at = (i * width // some + m) * taps * some * g.lanes
                            line_tile(
                                width, taps, stride, strip, at + m * some, line, 0, tiles, sums,
                                s_at,
                            )  # fmt: skip
                for v in range(values):
                    out[task * values + v] += sums[v]
            task = next_task(counters)
        finished(counters)

    return lines


@in_tasks(Lines)
def _add_up(partial, out, g, counters):
    """Add the partial sums of all shares of a block, and store them; a task is a filter."""
    width = g.c_in // g.groups
    values = g.k_h * width * g.k_w * g.lanes
    task = next_task(counters)
    while task < g.tasks:
        block, lane = divmod(task, g.lanes)
        for i in range(g.k_h):
            for n in range(width):
                for t in range(g.k_w):
                    m, channel = divmod(n, g.at_once)
                    turn = i * (width // g.at_once) + m
                    at = block * g.shares * values + lane
                    at += (turn * g.k_w * g.at_once + t * g.at_once + channel) * g.lanes
                    total = np.float32(0)
                    for _ in range(g.shares):
                        total += partial[at]
                        at += values
                    place = ((task * width + n) * g.k_h + i) * g.k_w + t
                    out[place] = out[place] + total if g.add else total
        task = next_task(counters)
    finished(counters)


# --- launcher -------------------------------------------------------------------------------------


def cut(geo: Geometry, add: bool) -> Lines:
    """Cut into strips that fit the cache, and about eight tasks for each thread."""
    width, lanes = geo.c_in // geo.groups, machine().lanes
    lines = max(1, min(geo.h_out, STRIP // (geo.w * lanes * geo.s_h)))
    blocks, strips = -(-geo.c_in // lanes), geo.n * -(-geo.h_out // lines)
    shares = max(1, min(strips, -(-8 * threads_now() // blocks)))
    return Lines(
        *geo,
        add=int(add),
        lanes=lanes,
        at_once=some_channels(width, geo.k_w),
        lines=lines,
        shares=shares,
        tasks=blocks * shares,
    )


def weight_gradient(x: Array, dy: Array, out: Array, geo: Geometry, add: bool) -> list[Step]:
    """Return the steps that compute ``dweight``; see `outer.floats`."""
    g, width = cut(geo, add), geo.c_in // geo.groups
    partial = empty((g.tasks * g.k_h * width * g.k_w * g.lanes,))
    return [
        Step(lines_kernel(width, g.k_w, g.s_w), g, x=x, dy=dy, out=partial),
        Step(_add_up, g._replace(tasks=g.c_out), partial=partial, out=out),
    ]
