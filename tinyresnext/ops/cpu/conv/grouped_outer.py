"""The gradient of a grouped convolution's weight, where groups fill blocks: `grouped`, the other way round.

``dweight[o, c, i, j] = sum over positions of dy[position, o] * x[position + (i, j), c]``, with
``c`` in the group of ``o``. The lanes are output channels, as in the forward pass: a value of the
picture is permuted within its groups (or broadcast, where a group fills the block) so that each
output channel meets one input channel of its group, and now it is multiplied with the gradient
``dy`` of the pixel instead of with a weight. The sums, one vector for each tap and each input
channel of the group, stay in registers along a whole line. A permuted value serves all the taps of
a line of the kernel that meet it, as there.

With 16 lanes, width 4 and three taps these are 12 sums; where there are more than fit, the line is
walked again for the next channels of the group.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import get_num_threads
from numba.core import types
from numba.extending import intrinsic, overload

from ..runtime.crew import Step, Work, compiled, take
from ..runtime.kernel import kernel
from ..runtime.memory import Array, empty
from ..runtime.simd import FLOATS, Emit, aligned, copy, machine

# Pixels of the result that are written out: lines of 32-pixel pictures are 32, 16 and 8 long
PIXELS = 8
STRIP = 16 * 1024  # most values of a strip, about


def some_channels(width: int, taps: int) -> int:
    """How many input channels of a group are done at once: all their sums must fit the registers."""
    m = machine()
    room = m.registers - (6 if m.registers > 16 else 3)
    fit = [
        n
        for n in range(1, width + 1)
        if width % n == 0 and taps * n * max(1, width // m.lanes) <= room
    ]
    return max(fit, default=1)


def line_tile(width, taps, stride, strip, at, line, line_at, tiles, sums, s_at) -> None:
    """Add what one line of ``dy`` says about one line of the kernel, for some channels of each group.

    Parameters
    ----------
    width, taps, stride : int
        Channels of a group, columns of the kernel, columns from pixel to pixel; constants where it
        is called.
    strip : ``[columns, block]``, from ``at``
        A line of the picture, from the first of the channels on.
    line : ``[pixels, block]``, from ``line_at``
        The line of the gradient, with zeros behind its end.
    tiles : int
        Of ``PIXELS`` pixels.
    sums : ``[taps, channels, block]``, from ``s_at``
    """
    block, some = max(width, machine().lanes), some_channels(width, taps)
    first = np.arange(block) // width * width  # the first channel of each channel's group
    total = sums[s_at : s_at + taps * some * block].reshape(taps, some, block)
    for p in range(tiles * PIXELS):
        dy = line[line_at + p * block :][:block]
        for tap in range(taps):
            pixel = strip[at + (p * stride + tap) * block :]
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
        some, vectors, block = some_channels(w, k), max(1, w // e.lanes), max(w, e.lanes)

        def value(x, q, n):
            if w < e.lanes:
                return e.permute(
                    e.load(e.after(x, q * block)), [lane // w * w + n for lane in range(e.lanes)]
                )
            return e.broadcast(builder.load(e.after(x, q * block + n)))

        def tile(carried):
            x, dy, *total = carried
            pixels = [
                [e.load(e.after(dy, p * block + j * e.lanes)) for j in range(vectors)]
                for p in range(PIXELS)
            ]
            for q in range((PIXELS - 1) * s + k):
                meet = [
                    (t, (q - t) // s)
                    for t in range(k)
                    if (q - t) % s == 0 and 0 <= (q - t) // s < PIXELS
                ]
                for n in range(some if meet else 0):
                    seen = value(x, q, n)
                    for t, p in meet:
                        for j in range(vectors):
                            which = (t * some + n) * vectors + j
                            total[which] = e.multiply_add(seen, pixels[p][j], total[which])
            return [e.after(x, PIXELS * s * block), e.after(dy, PIXELS * block), *total]

        target = e.address(sums, s_at)
        places = [e.after(target, which * e.lanes) for which in range(k * some * vectors)]
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
    """Wherever compiled code calls."""
    return lambda width, taps, stride, strip, at, line, line_at, tiles, sums, s_at: _line_tile(
        width, taps, stride, strip, at, line, line_at, tiles, sums, s_at
    )


# --- kernels --------------------------------------------------------------------------------------


@kernel()
def _cut_line(source, start, pitch, left, count, columns, channels, block, target, t):
    """One line with ``left`` zero columns before its ``count`` and zeros behind, ``channels`` of each column."""
    target[t : t + left * block] = 0
    for q in range(left, left + count):
        copy(source, start, target, t + q * block, channels)
        start += pitch
    target[t + (left + count) * block : t + columns * block] = 0


@functools.cache
def lines_kernel(width: int, taps: int, stride: int) -> Any:
    """Compile for one width of group, one width of kernel and one stride."""
    some = some_channels(width, taps)

    def lines(x, dy, bias, residual, out, g, counters):
        """A thread's share. ``g``: ``blocks`` of ``size`` channels, each in ``parts`` tasks; ``length`` lines of dy at once."""
        tiles = (g.w_out + PIXELS - 1) // PIXELS
        columns, pixels = (tiles * PIXELS - 1) * stride + taps, tiles * PIXELS
        strip = aligned(((g.length - 1) * g.s_h + g.k_h) * columns * g.size + width)
        line, values = aligned(pixels * g.size), g.k_h * width * taps * g.size
        sums = aligned(values)
        strip[:], line[:] = 0, 0
        strips = (g.h_out + g.length - 1) // g.length
        task = take(counters, 0)
        while task < g.tasks:
            block, part = divmod(task, g.parts)
            c0 = block * g.size
            channels = min(g.size, g.c_in - c0)
            out[task * values : (task + 1) * values] = 0
            for some_lines in range(
                part * g.n * strips // g.parts, (part + 1) * g.n * strips // g.parts
            ):
                n, first = divmod(some_lines, strips)
                first *= g.length
                last = min(first + g.length, g.h_out)
                top = first * g.s_h - g.p_h
                for k in range((last - first - 1) * g.s_h + g.k_h):
                    count = min(g.w, columns - g.p_w) if 0 <= top + k < g.h else 0
                    start = ((n * g.h + top + k) * g.w) * g.c_in + c0
                    _cut_line(
                        x,
                        start,
                        g.c_in,
                        min(g.p_w, columns),
                        count,
                        columns,
                        channels,
                        g.size,
                        strip,
                        k * columns * g.size,
                    )
                sums[:] = 0
                for y in range(first, last):
                    start = ((n * g.h_out + y) * g.w_out) * g.c_out + c0
                    _cut_line(dy, start, g.c_out, 0, g.w_out, pixels, channels, g.size, line, 0)
                    for i in range(g.k_h):
                        at = ((y - first) * g.s_h + i) * columns * g.size
                        for m in range(width // some):
                            s_at = (i * width // some + m) * taps * some * g.size
                            line_tile(
                                width,
                                taps,
                                stride,
                                strip,
                                at + m * some,
                                line,
                                0,
                                tiles,
                                sums,
                                s_at,
                            )
                for v in range(values):
                    out[task * values + v] += sums[v]
            task = take(counters, 0)
        take(counters, 1)

    return compiled(lines, width, taps, stride)


def _gather(partial, weight, bias, residual, out, g, counters):
    """Add the partial sums of all tasks of a block, and put them where they belong. A task is a row of the weight.

    ``g.length`` is how many channels of a group were done at once; ``g.add`` whether to add to what
    is there.
    """
    width = g.c_in // g.groups
    values = g.k_h * width * g.k_w * g.size
    task = take(counters, 0)
    while task < g.tasks:
        block, lane = divmod(task, g.size)
        for i in range(g.k_h):
            for n in range(width):
                for t in range(g.k_w):
                    m, channel = divmod(n, g.length)
                    at = block * g.parts * values + lane
                    at += (
                        (i * (width // g.length) + m) * g.k_w * g.length + t * g.length + channel
                    ) * g.size
                    total = np.float32(0)
                    for _ in range(g.parts):
                        total += partial[at]
                        at += values
                    place = ((task * width + n) * g.k_h + i) * g.k_w + t
                    out[place] = out[place] + total if g.add else total
        task = take(counters, 0)
    take(counters, 1)


# --- launcher -------------------------------------------------------------------------------------


@functools.cache
def _gather_kernel() -> Any:
    """Compiled when it is first needed."""
    return compiled(_gather)


def cut(g: Work) -> Work:
    """Strips that fit the cache, and about eight tasks for each thread."""
    size = max(machine().lanes, g.c_in // g.groups)
    length = max(1, min(g.h_out, STRIP // (g.w * size * g.s_h)))
    blocks, strips = -(-g.c_in // size), g.n * -(-g.h_out // length)
    parts = max(1, min(strips, -(-8 * get_num_threads() // blocks)))
    return g._replace(size=size, length=length, blocks=blocks, parts=parts, tasks=blocks * parts)


def weight_gradient(x: Array, dy: Array, out: Array, g: Work) -> list[Step]:
    """The steps that compute ``dweight``; see `outer.weight_gradient`."""
    width = g.c_in // g.groups
    partial = empty((g.tasks * g.k_h * width * g.k_w * g.size,))
    rows = g._replace(length=some_channels(width, g.k_w), tasks=g.c_out)
    return [
        Step(lines_kernel(width, g.k_w, g.s_w), x, dy, dy, dy, partial, g),
        Step(_gather_kernel(), partial, dy, dy, dy, out, rows),
    ]
