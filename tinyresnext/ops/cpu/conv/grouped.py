"""Grouped convolution without tiny matrix products: ResNeXt's own layer (Equation 2 with Figure 3c).

With 32 groups of width 4 the matrix product of a group has 4 columns, a quarter of a vector, and
im2col would copy 36 values for 144 multiplications. So no matrices here: one *block* of channels,
as many as a vector has lanes, is computed at once for some neighbouring pixels of a line, and the
block holds whole groups.

**Narrow groups** (narrower than a vector). In the vector of a pixel every output channel needs the
input channels of its own group, the first of the group first. A permutation by constants brings it
there, in all groups at once::

      vector of a pixel     [ a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3 ]     width 4, 16 lanes
      permuted for i = 0    [ a0 a0 a0 a0 | b0 b0 b0 b0 | c0 c0 c0 c0 | d0 d0 d0 d0 ]     times weight[.., i = 0]
      permuted for i = 1    [ a1 a1 a1 a1 | b1 b1 b1 b1 | c1 c1 c1 c1 | d1 d1 d1 d1 ]     times weight[.., i = 1] ...

Within a quarter of a vector, 128 bits, a permutation is one quick instruction; across quarters it
is slow. So in groups of two quarters an output quarter first meets the inputs of its own place, and
in a second sum those of the other::

      permuted for i = 0    [ a0 a0 a0 a0 | a4 a4 a4 a4 | b0 b0 b0 b0 | b4 b4 b4 b4 ]     width 8, 16 lanes
      first sum             [ for a0..a3  | for a4..a7  | for b0..b3  | for b4..b7  ]
      second sum            [ for a4..a7  | for a0..a3  | for b4..b7  | for b0..b3  ]     its quarters change places at the end

**Wider groups** (one or two vectors). The block is one group, so all lanes need the same input
channel: it is broadcast.

Either way a value that has been permuted or broadcast serves all the taps of a line of the kernel
that meet it: for ``PIXELS`` = 7 pixels of a 3x3 kernel, 9 values meet 21 times. Seven sums (or 7 x
2), three taps of two to four channels and the value itself stay in registers.

**Strips.** The picture is not padded. A task copies the lines it needs, one block of channels of
them, into a strip with zeros at both ends of each line, ``[lines, columns, block]``: the same reads
that a padding pass would need, but the strip stays in the cache and is read many times. All that
the tile reads lies in the strip, also where the last tile of a line computes more pixels than there
are.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import get_num_threads
from numba.core import types
from numba.extending import intrinsic, overload

from ..runtime.crew import Work, compiled, take
from ..runtime.kernel import kernel
from ..runtime.memory import upload
from ..runtime.simd import F32, FLOATS, I64, Emit, aligned, copy, machine

Array = np.ndarray
PIXELS = 7  # pixels of a tile: 224-pixel pictures have lines of 56, 28, 14 and 7
STRIP = 8 * 1024  # most values of a strip's output lines, about: 48 KiB
TAPS = 7  # the widest kernel whose taps are all held in registers


def strip_tile(
    width,
    taps,
    stride,
    strip,
    at,
    line,
    lines,
    weight,
    w_at,
    bias,
    c,
    c_at,
    pitch,
    residual,
    add,
    floor,
) -> None:
    """One block of channels of ``PIXELS`` neighbouring pixels of the result.

    Parameters
    ----------
    width, taps, stride : int
        Channels of a group, columns of the kernel, columns from pixel to pixel; constants where it
        is called.
    strip : ``[lines, columns, block]``, from ``at``, ``line`` values from line to line
    lines : int
        Of the kernel.
    weight : ``[lines, width, taps, block]``, from ``w_at``, as `pack` orders them
    bias : ``[block]``
    c, residual : flat, from ``c_at``, pixels ``pitch`` apart
    add : whether to add the residual
    floor : 0 for a ReLU, minus infinity for none
    """
    block, (near, sums) = max(width, machine().lanes), _quarters(width)
    filters = weight[w_at : w_at + lines * width * taps * block].reshape(
        lines, near, sums, taps, block
    )
    first = np.arange(block) // near * near  # the first channel of each channel's quarter
    for p in range(PIXELS):
        value = bias[:block].copy()
        for i in range(lines):
            for tap in range(taps):
                pixel = strip[at + i * line + (p * stride + tap) * block :][:block]
                for channel, some in np.ndindex(near, sums):
                    value += (pixel[first + channel] * filters[i, channel, some, tap])[
                        _turned(width, block, some)
                    ]
        place = slice(c_at + p * pitch, c_at + p * pitch + block)
        with np.errstate(all="ignore"):  # pixels that nobody takes hold anything
            value = value + residual[place] if add else value
            c[place] = np.where(value < floor, floor, value)


def _quarters(width: int) -> tuple[int, int]:
    """Input channels that are near enough for a quick permutation, and how many sums a group therefore needs."""
    near = 4 if 4 < width < machine().lanes else width
    return near, width // near


def _turned(width: int, block: int, some: int) -> np.ndarray:
    """For each output channel, in which lane of sum ``some`` it is: so many quarters further, round and round a group."""
    lane, (near, _) = np.arange(block), _quarters(width)
    return lane // width * width + (lane % width + some * near) % width


@intrinsic(prefer_literal=True)
def _strip_tile(
    typing,
    width,
    taps,
    stride,
    strip,
    at,
    line,
    lines,
    weight,
    w_at,
    bias,
    c,
    c_at,
    pitch,
    residual,
    add,
    floor,
):
    """Emit `strip_tile`: a loop over the lines of the kernel; all else is written out."""
    i, constants = types.intp, (width, taps, stride)
    signature = types.void(
        *constants, FLOATS, i, i, i, FLOATS, i, FLOATS, FLOATS, i, i, FLOATS, i, types.float32
    )

    def codegen(context, builder, signature, args):
        strip, at, line, lines, weight, w_at, bias, c, c_at, pitch, residual, add, floor = args[3:]
        e = Emit(context, builder)
        one_line = _permuted if width.literal_value < e.lanes else _broadcast
        vectors = max(1, width.literal_value // e.lanes)

        def kernel_line(carried):
            x, w, *sums = carried
            w, *sums = one_line(e, *(constant.literal_value for constant in constants), x, w, sums)
            return [e.after(x, line), w, *sums]

        first = [e.load(e.after(e.address(bias, I64(0)), j * e.lanes)) for j in range(vectors)]
        more = _quarters(width.literal_value)[1] - 1
        start = [
            e.address(strip, at),
            e.address(weight, w_at),
            *first * PIXELS,
            *[e.broadcast(F32(0))] * PIXELS * more,
        ]
        _, _, *sums = e.loop(lines, start, kernel_line)
        for some in range(1, more + 1):
            lanes = _turned(width.literal_value, e.lanes, some).tolist()
            turned = [
                e.permute(value, lanes) for value in sums[some * PIXELS : (some + 1) * PIXELS]
            ]
            sums[:PIXELS] = [builder.fadd(*both) for both in zip(sums, turned, strict=False)]
        sums = sums[: PIXELS * vectors]
        e.finish(sums, vectors, e.address(c, c_at), e.address(residual, c_at), [pitch, add, floor])
        return context.get_dummy_value()

    return signature, codegen


def _meetings(q: int, taps: int, stride: int) -> list[tuple[int, int]]:
    """The taps that meet column ``q`` of a strip, each with the pixel of the result for which it does."""
    return [
        ((q - t) // stride, t)
        for t in range(taps)
        if (q - t) % stride == 0 and 0 <= (q - t) // stride < PIXELS
    ]


def _permuted(e: Emit, width: int, taps: int, stride: int, x: Any, w: Any, sums: list) -> list:
    """One line of the kernel for groups narrower than a vector: a loop over the channels, as many as registers allow.

    In a vector that begins ``some`` values further, the next channels are where the first were, so
    every round permutes alike. The last one reads up to a group beyond the pixel, which is the next
    pixel, or the end of the strip.
    """
    near, several = _quarters(width)
    room = [
        n
        for n in range(1, near + 1)
        if near % n == 0 and several * (PIXELS + taps * n) + 2 <= machine().registers
    ]
    some = max(room, default=1)

    def channels(carried):
        x, w, *sums = carried
        weights = [e.load(e.after(w, i * e.lanes)) for i in range(some * several * taps)]
        for q in range((PIXELS - 1) * stride + taps):
            pixel = e.load(e.after(x, q * e.lanes))
            for n in range(some):
                value = e.permute(pixel, [lane // near * near + n for lane in range(e.lanes)])
                for p, t in _meetings(q, taps, stride):
                    for s in range(several):
                        weight, i = weights[(n * several + s) * taps + t], s * PIXELS + p
                        sums[i] = e.multiply_add(value, weight, sums[i])
        return [e.after(x, some), e.after(w, some * several * taps * e.lanes), *sums]

    _, w, *sums = e.loop(I64(near // some), [x, w, *sums], channels)
    return [w, *sums]


def _broadcast(e: Emit, width: int, taps: int, stride: int, x: Any, w: Any, sums: list) -> list:
    """One line of the kernel for groups of one or more vectors: a loop over the channels of the group."""
    vectors = width // e.lanes

    def channel(carried):
        x, w, *sums = carried
        weights = [
            [e.load(e.after(w, t * width + j * e.lanes)) for j in range(vectors)]
            for t in range(taps)
        ]
        for q in range((PIXELS - 1) * stride + taps):
            value = e.broadcast(e.builder.load(e.after(x, q * width)))
            for p, t in _meetings(q, taps, stride):
                for j in range(vectors):
                    sums[p * vectors + j] = e.multiply_add(
                        value, weights[t][j], sums[p * vectors + j]
                    )
        return [e.after(x, 1), e.after(w, taps * width), *sums]

    _, w, *sums = e.loop(I64(width), [x, w, *sums], channel)
    return [w, *sums]


@overload(strip_tile, prefer_literal=True)
def _strip_overload(
    width,
    taps,
    stride,
    strip,
    at,
    line,
    lines,
    weight,
    w_at,
    bias,
    c,
    c_at,
    pitch,
    residual,
    add,
    floor,
):
    """Wherever compiled code calls."""
    return (
        lambda width, taps, stride, strip, at, line, lines, weight, w_at, bias, c, c_at, pitch, residual, add, floor: (
            _strip_tile(
                width,
                taps,
                stride,
                strip,
                at,
                line,
                lines,
                weight,
                w_at,
                bias,
                c,
                c_at,
                pitch,
                residual,
                add,
                floor,
            )
        )
    )


# --- kernels --------------------------------------------------------------------------------------


@kernel()
def _cut_strip(x, g, n, y, lines, c0, count, columns, strip):
    """Copy ``count`` channels from ``c0`` of ``lines`` lines from ``y`` on, ``columns`` wide with the zeros around them.

    Channels of the block beyond ``count`` keep what they have: they are other groups, whose results
    nobody takes.
    """
    for line in range(lines):
        at, inside = line * columns * g.size, 0 <= y + line < g.h
        left = min(g.p_w, columns) if inside else columns
        right = min(left + g.w, columns)
        strip[at : at + left * g.size] = 0
        strip[at + right * g.size : at + columns * g.size] = 0
        source = (n * g.h + y + line) * g.w * g.c_in + c0
        for q in range(left, right):
            copy(x, source, strip, at + q * g.size, count)
            source += g.c_in


@functools.cache
def strips_kernel(width: int, taps: int, stride: int) -> Any:
    """Compile for one width of group, one width of kernel and one stride."""

    def strips(x, weight, bias, residual, out, g, counters):
        """A thread's share. ``g``: ``blocks`` of ``size`` channels; ``parts`` of ``length`` lines of the result."""
        columns = ((g.w_out + PIXELS - 1) // PIXELS * PIXELS - 1) * stride + taps
        line = columns * g.size
        strip = aligned(((g.length - 1) * g.s_h + g.k_h) * line + width)  # see _permuted
        scratch = aligned((PIXELS + 1) * g.size)
        strip[:], scratch[:] = 0, 0
        shift, floor = scratch[PIXELS * g.size :], np.float32(0 if g.relu else -np.inf)
        count = (g.c_in + g.size - 1) // g.size
        task = take(counters, 0)
        while task < g.tasks:
            part, some = divmod(task, g.blocks)
            n, part = divmod(part, g.parts)
            first, last = part * g.length, min((part + 1) * g.length, g.h_out)
            for block in range(some * count // g.blocks, (some + 1) * count // g.blocks):
                c0 = block * g.size
                channels, w_at = min(g.size, g.c_in - c0), c0 * width * g.k_h * taps
                _cut_strip(
                    x,
                    g,
                    n,
                    first * g.s_h - g.p_h,
                    (last - first - 1) * g.s_h + g.k_h,
                    c0,
                    channels,
                    columns,
                    strip,
                )
                copy(bias, c0, shift, 0, channels)
                whole = g.w_out // PIXELS if channels == g.size else 0  # tiles that are all result
                for y in range(first, last):
                    at, start = (
                        ((n * g.h_out + y) * g.w_out) * g.c_out + c0,
                        (y - first) * g.s_h * line,
                    )
                    for _ in range(whole):
                        strip_tile(
                            width, taps, stride, strip, start, line, g.k_h, weight, w_at, shift, out, at, g.c_out, residual,
                            g.add, floor,
                        )  # fmt: skip
                        at += PIXELS * g.c_out
                        start += PIXELS * stride * g.size
                    for p in range(whole * PIXELS, g.w_out, PIXELS):
                        pixels = min(PIXELS, g.w_out - p)
                        if g.add:
                            for q in range(pixels):
                                copy(residual, at + q * g.c_out, scratch, q * g.size, channels)
                        strip_tile(
                            width, taps, stride, strip, start, line, g.k_h, weight, w_at, shift, scratch, 0, g.size, scratch,
                            g.add, floor,
                        )  # fmt: skip
                        for q in range(pixels):
                            copy(scratch, q * g.size, out, at + q * g.c_out, channels)
                        at += PIXELS * g.c_out
                        start += PIXELS * stride * g.size
            task = take(counters, 0)
        take(counters, 1)

    return compiled(strips, width, taps, stride)


# --- launcher -------------------------------------------------------------------------------------


def suits(shape: tuple[int, ...], groups: int) -> bool:
    """Whether a weight of that shape is for this file: groups that fill blocks, as wide at the end as at the start."""
    c_out, width, _, taps = shape
    m = machine()
    whole = width > 0 and (m.lanes % width == 0 or (width == 2 * m.lanes and m.registers == 32))
    return groups > 1 and c_out == groups * width and whole and taps <= TAPS


def cut(g: Work) -> Work:
    """Strips that fit the cache, and about eight tasks for each thread."""
    size = max(g.lanes, g.c_in // g.groups)
    count, wanted = -(-g.c_in // size), 8 * get_num_threads()
    parts = min(g.h_out, -(-g.h_out * g.w * g.s_h * size // STRIP)) if g.h_out else 0
    blocks = min(count, max(1, -(-wanted // max(1, g.n * parts))))
    length = -(-g.h_out // max(1, parts))
    parts = -(-g.h_out // max(1, length))
    return g._replace(
        size=size, blocks=blocks, parts=parts, length=length, tasks=g.n * blocks * parts
    )


def pack(weight: Array) -> Array:
    """Blocks of output channels as ``[k_h, near, sums, k_w, block]``, the last filled up with zeros; flat.

    ``near * sums`` is the width: what stands there for a lane are the input channels of the lane's
    quarter, and the output channels that `_turned` says.
    """
    c, width, k_h, k_w = weight.shape
    size, (near, sums) = max(machine().lanes, width), _quarters(width)
    filled = np.zeros((-(-c // size) * size, width, k_h, k_w), np.float32)
    filled[:c] = weight
    filled = filled.reshape(-1, size, width, k_h, k_w).transpose(0, 3, 2, 4, 1)
    if sums > 1:
        lane, made = (
            np.arange(size),
            np.empty((*filled.shape[:2], near, sums, k_w, size), np.float32),
        )
        for n, some in np.ndindex(near, sums):
            reached = np.empty(size, np.intp)
            reached[_turned(width, size, some)] = lane
            inputs = lane % width // near * near + n
            made[:, :, n, some] = np.moveaxis(filled[:, :, inputs, :, reached], 0, -1)
        filled = made
    return upload(filled).reshape(-1)
