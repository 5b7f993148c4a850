"""The tile of a grouped convolution: some neighbouring pixels of one block of channels.

**Narrow groups** (narrower than a vector). In the vector of a pixel every output channel needs the
input channels of its own group, one after the other. A permutation by constants puts an input
channel in the lanes of its group, in all groups at once::

      width 4, 16 lanes                                                           meets
      vector of a pixel  [ a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3 ]
      permuted, i = 0    [ a0 a0 a0 a0 | b0 b0 b0 b0 | c0 c0 c0 c0 | d0 d0 d0 d0 ] weight[.., i = 0]
      permuted, i = 1    [ a1 a1 a1 a1 | b1 b1 b1 b1 | c1 c1 c1 c1 | d1 d1 d1 d1 ] weight[.., i = 1]

Groups whose width does not divide the lanes follow each other all the same, and the last lanes stay
idle: in 8 lanes there are 2 groups of 3, and 2 idle lanes. A group may also have more filters than
channels, or fewer: a lane belongs to the group of its filter, and finds the channels of that group.

Within a quarter of a vector, 128 bits, a permutation is one quick instruction; across quarters it
is slow. So in groups of two quarters there are two sums: in the first an output quarter meets the
inputs of its own quarter, in the second those of the other::

      width 8, 16 lanes
      permuted, i = 0    [ a0 a0 a0 a0 | a4 a4 a4 a4 | b0 b0 b0 b0 | b4 b4 b4 b4 ]
      first sum          [ for a0..a3  | for a4..a7  | for b0..b3  | for b4..b7  ]
      second sum         [ for a4..a7  | for a0..a3  | for b4..b7  | for b0..b3  ]

At the end the quarters of the second sum change places.

**Wider groups** (more than half a vector, at most two vectors). The block is one group, so all
lanes need the same input channel: it is broadcast.

Either way a value that has been permuted or broadcast is used for all the taps of a line of the
kernel that need it: for 7 pixels of a 3x3 kernel, 9 values take part in 21 products. Seven sums (or
7 x 2), three taps of two to four channels and the value itself stay in registers.

**How many pixels** follows from the length of a line (`pixels_of`): a last tile that is wider than
what is left computes pixels that nobody reads, for lines of 16 five of 21 with tiles of 7.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.kernel import as_part
from ...runtime.simd import F32, FLOATS, I64, Emit, machine
from ...runtime.simd.words import ended, multiplied

PIXELS = (7, 8)  # of a tile: images of 224 pixels have lines of 56, 28, 14, 7; of 32: 32, 16, 8


class Block(NamedTuple):
    """How groups lie in a block of vectors.

    Attributes
    ----------
    groups : int
        Whole groups of a block.
    lanes : int
        Of a block, the idle ones included.
    near : int
        Input channels of a group that a quick permutation reaches.
    sums : int
        How many sums that takes.
    """

    groups: int
    lanes: int
    near: int
    sums: int


def block_of(inputs: int, width: int) -> Block:
    """Return the block of groups of ``inputs`` channels and ``width`` filters."""
    lanes = machine().lanes
    size = -(-max(inputs, width) // lanes) * lanes
    quick = inputs == width and 4 < width < lanes and lanes % width == 0
    near = 4 if quick else inputs
    return Block(size // max(inputs, width), size, near, inputs // near)


def pixels_of(line: int) -> int:
    """Return how long the tiles of a line are: they compute as few pixels as possible."""
    return min(PIXELS, key=lambda pixels: -(-line // pixels) * pixels)


def source_lanes(inputs: int, width: int) -> list[int]:
    """Return for each lane of a vector the first input channel that it reaches."""
    groups, lanes, near, sums = block_of(inputs, width)
    if sums > 1:
        return [lane // near * near for lane in range(lanes)]
    return [min(lane // width, groups - 1) * inputs for lane in range(lanes)]


def strip_tile(
    inputs, width, taps, stride, pixels, strip, at, line, lines, weight, w_at, bias, c, c_at, pitch,
    residual, add, floor,
):  # fmt: skip
    """Compute one block of channels of some neighbouring pixels of the result.

    Parameters
    ----------
    inputs, width, taps, stride, pixels : int
        Channels and filters of a group, columns of the kernel, columns from pixel to pixel, pixels
        of the tile; constants where it is called.
    strip : ``[lines, columns, block]``, from ``at``, ``line`` values from line to line
    lines : int
        Of the kernel.
    weight : ``[lines, inputs, taps, block]``, from ``w_at``, as `strips.pack` orders them
    bias : ``[block]``
    c, residual : flat, from ``c_at``, pixels ``pitch`` apart
        These may be bfloat16, and ``strip`` and ``weight`` words of two channels.
    add : whether to add the residual
    floor : 0 for a ReLU, minus infinity for none
    """
    _, block, near, sums = block_of(inputs, width)
    filters = weight[w_at : w_at + lines * inputs * taps * block].reshape(
        lines, near, sums, taps, block
    )
    first = np.array(source_lanes(inputs, width))
    for p in range(pixels):
        value = bias[:block].copy()
        with np.errstate(all="ignore"):  # idle lanes, and pixels that nobody reads, hold anything
            for i in range(lines):
                for tap in range(taps):
                    pixel = strip[at + i * line + (p * stride + tap) * block :][:block]
                    for channel, some in np.ndindex(near, sums):
                        products = multiplied(
                            pixel[first + channel], filters[i, channel, some, tap]
                        )
                        value += products[turned(width, block, near * some)]
            ended(value, residual, c, c_at + p * pitch, add, floor)


def turned(width: int, block: int, by: int) -> np.ndarray:
    """Return for each output channel the lane ``by`` further in its group.

    Behind the last lane of a group comes its first.
    """
    lane = np.arange(block)
    return lane // width * width + (lane % width + by) % width if by else lane


@intrinsic(prefer_literal=True)
def _strip_tile(
    typing, inputs, width, taps, stride, pixels, strip, at, line, lines, weight, w_at, bias, c,
    c_at, pitch, residual, add, floor,
):  # fmt: skip
    """Emit `strip_tile`: a loop over the lines of the kernel; all else is written out."""
    i, of, kind = types.intp, weight, c
    constants = inputs, width, taps, stride, pixels
    signature = types.void(
        *constants, of, i, i, i, of, i, FLOATS, kind, i, i, kind, i, types.float32
    )

    def codegen(context, builder, signature, args):
        strip, at, line, lines, weight, w_at, bias, c, c_at, pitch, residual, add, floor = args[5:]
        e = Emit(context, builder, kind, of)
        sizes = tuple(constant.literal_value for constant in constants)
        (groups, block, near, several), count = block_of(*sizes[:2]), sizes[-1]
        one_line, vectors = _permuted if groups > 1 else _broadcast, block // e.lanes

        def kernel_line(carried):
            x, w, *sums = carried
            w, *sums = one_line(e, sizes, x, w, sums)
            return [e.after(x, line), w, *sums]

        first = [e.load(e.after(e.address(bias, I64(0)), j * e.lanes)) for j in range(vectors)]
        start = [
            e.address(strip, at, of),
            e.address(weight, w_at, of),
            *first * count,
            *[e.broadcast(F32(0))] * count * (several - 1),
        ]
        _, _, *sums = e.loop(lines, start, kernel_line)
        for some in range(1, several):
            lanes = turned(sizes[1], e.lanes, near * some).tolist()
            these = sums[some * count : (some + 1) * count]
            moved = [e.permute(value, lanes) for value in these]
            sums[:count] = [builder.fadd(*both) for both in zip(sums, moved, strict=False)]
        sums = sums[: count * vectors]
        result, other = e.address(c, c_at, kind), e.address(residual, c_at, kind)
        e.finish(sums, vectors, result, other, [pitch, add, floor])
        return context.get_dummy_value()

    return signature, codegen


def _meetings(q: int, taps: int, stride: int, pixels: int) -> list[tuple[int, int]]:
    """Return the taps that meet column ``q`` of a strip, each with its pixel of the result."""
    return [
        ((q - t) // stride, t)
        for t in range(taps)
        if (q - t) % stride == 0 and 0 <= (q - t) // stride < pixels
    ]


def _permuted(e: Emit, sizes: tuple[int, ...], x: Any, w: Any, sums: list) -> list:
    """Emit one line of the kernel for several groups in a vector: a loop over the channels.

    Each round takes as many channels as registers allow.

    In a vector that begins ``some`` values further, the next channels are where the first were, so
    every round permutes alike. The last one reads up to a group beyond the pixel, which is the next
    pixel, or the end of the strip.
    """
    inputs, width, taps, stride, pixels = sizes
    _, _, near, several = block_of(inputs, width)
    lanes = source_lanes(inputs, width)
    room = [
        n
        for n in range(1, near + 1)
        if near % n == 0 and several * (pixels + taps * n) + 2 <= machine().registers
    ]
    some = max(room, default=1)

    def channels(carried):
        x, w, *sums = carried
        weights = [e.load(e.after(w, i * e.lanes)) for i in range(some * several * taps)]
        for q in range((pixels - 1) * stride + taps):
            pixel = e.load(e.after(x, q * e.lanes))
            for n in range(some):
                value = e.permute(pixel, [lane + n for lane in lanes])
                for p, t in _meetings(q, taps, stride, pixels):
                    for s in range(several):
                        weight, i = weights[(n * several + s) * taps + t], s * pixels + p
                        sums[i] = e.product(value, weight, sums[i])
        return [e.after(x, some), e.after(w, some * several * taps * e.lanes), *sums]

    _, w, *sums = e.loop(I64(near // some), [x, w, *sums], channels)
    return [w, *sums]


def _broadcast(e: Emit, sizes: tuple[int, ...], x: Any, w: Any, sums: list) -> list:
    """Emit one line of the kernel for one group in one or two vectors: a loop over the channels."""
    inputs, width, taps, stride, pixels = sizes
    _, block, _, _ = block_of(inputs, width)
    vectors = block // e.lanes

    def channel(carried):
        x, w, *sums = carried
        weights = [
            [e.load(e.after(w, t * block + j * e.lanes)) for j in range(vectors)]
            for t in range(taps)
        ]
        for q in range((pixels - 1) * stride + taps):
            value = e.broadcast(e.builder.load(e.after(x, q * block)))
            for p, t in _meetings(q, taps, stride, pixels):
                for j in range(vectors):
                    sums[p * vectors + j] = e.product(value, weights[t][j], sums[p * vectors + j])
        return [e.after(x, 1), e.after(w, taps * block), *sums]

    _, w, *sums = e.loop(I64(inputs), [x, w, *sums], channel)
    return [w, *sums]


@overload(strip_tile, prefer_literal=True, jit_options=as_part(inline=True))
def _strip_overload(
    inputs, width, taps, stride, pixels, strip, at, line, lines, weight, w_at, bias, c, c_at, pitch,
    residual, add, floor,
):  # fmt: skip
    """Replace `strip_tile` in compiled code."""

    def compiled(
        inputs, width, taps, stride, pixels, strip, at, line, lines, weight, w_at, bias, c, c_at,
        pitch, residual, add, floor,
    ):  # fmt: skip
        _strip_tile(
            inputs, width, taps, stride, pixels, strip, at, line, lines, weight, w_at, bias, c,
            c_at, pitch, residual, add, floor,
        )  # fmt: skip

    return compiled
