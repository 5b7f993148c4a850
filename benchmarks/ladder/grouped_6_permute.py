"""Lane permutation: spreading, but inside a register, where it costs one instruction and no memory.

A vector of 16 channels holds whole groups, four of width 4. One shuffle by constants brings the
first channel of every group to all lanes of its group, another the second, and so on. Each permuted
vector is multiplied by the weights of its channel::

      vector of a pixel     [ a0 a1 a2 a3 | b0 b1 b2 b3 | c0 c1 c2 c3 | d0 d1 d2 d3 ]
      permuted for i = 0    [ a0 a0 a0 a0 | b0 b0 b0 b0 | c0 c0 c0 c0 | d0 d0 d0 d0 ]
      permuted for i = 1    [ a1 a1 a1 a1 | b1 b1 b1 b1 | c1 c1 c1 c1 | d1 d1 d1 d1 ]

Seven neighbouring pixels of the result are computed at once, so a permuted value is used for up to
three of them and a weight for all seven; their sums stay in registers. The image is padded with
zeros first, which costs a copy. Groups wider than a vector, and widths that do not divide it,
delegate to the previous rung. Expect three to five times its speed.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import grouped_5_threads as before
import numpy as np
import vectors as v
from numba import njit, prange
from numba.core import types
from numba.extending import intrinsic

PIXELS, TAPS = 7, 3


class Packed(NamedTuple):
    """Flat blocks of 16 output channels, or what the previous rung packs.

    The blocks are ``[c_out / 16, k_h, c_in/groups, k_w, 16]``.
    """

    blocks: np.ndarray | None
    other: np.ndarray


def pack(weight: np.ndarray, groups: int) -> Packed:
    """Pack 3x3 weights whose groups fill vectors, and others as the previous rung does."""
    c_out, width, k_h, k_w = weight.shape
    suits = (
        c_out == width * groups
        and v.LANES % width == 0
        and c_out % v.LANES == 0
        and k_h == k_w == TAPS
    )
    blocks = (
        weight.reshape(-1, v.LANES, width, k_h, k_w).transpose(0, 3, 2, 4, 1) if suits else None
    )
    return Packed(
        None if blocks is None else np.ascontiguousarray(blocks).reshape(-1),
        before.pack(weight, groups),
    )


@functools.cache
def _kernel(width: int, stride: int) -> Any:
    """Compile a kernel for one width of group and one stride, which are constants in it."""
    columns = (PIXELS - 1) * stride + TAPS

    @intrinsic
    def tile(typing, x, at, line, c_in, weight, w_at, sums):
        def codegen(context, b, signature, args):
            x, at, line, c_in, weight, w_at, sums = args
            tile = [v.ir.Constant(v.VECTOR, None)] * PIXELS

            def line_of_kernel(carried):
                row, w, *tile = carried
                for i in range(width):
                    filters = [v.load(b, w, (i * TAPS + t) * v.LANES) for t in range(TAPS)]
                    pixel = row
                    for q in range(columns):
                        value = v.permute(
                            b,
                            v.load(b, pixel),
                            [lane // width * width + i for lane in range(v.LANES)],
                        )
                        for t in range(TAPS):
                            p, rest = divmod(q - t, stride)
                            if rest == 0 and 0 <= p < PIXELS:
                                tile[p] = v.multiply_add(b, value, filters[t], tile[p])
                        pixel = b.gep(pixel, [c_in])
                return [b.gep(row, [line]), b.gep(w, [v.I64(width * TAPS * v.LANES)]), *tile]

            start = [v.address(context, b, x, at), v.address(context, b, weight, w_at), *tile]
            _, _, *tile = v.repeat(b, v.I64(TAPS), start, line_of_kernel)
            for p, value in enumerate(tile):
                v.store(b, value, v.address(context, b, sums, v.I64(0)), p * v.LANES)
            return context.get_dummy_value()

        i = types.intp
        return types.void(v.FLAT, i, i, i, v.FLAT, i, v.FLAT), codegen

    @njit(parallel=True)
    def kernel(x, weight, bias, out):
        # x is padded, on the right so far that the last tile stays inside.
        n, h_out, w_out, c_out = out.shape
        _, h, w, c_in = x.shape
        blocks = c_out // v.LANES
        for task in prange(n * h_out):
            sums = np.empty(PIXELS * v.LANES, np.float32)
            b, y = np.int64(task) // h_out, np.int64(task) % h_out
            for block in range(blocks):
                c0 = block * v.LANES
                for z in range(0, w_out, PIXELS):
                    at = ((b * h + y * stride) * w + z * stride) * c_in + c0
                    tile(x.reshape(-1), at, w * c_in, c_in, weight, c0 * TAPS * TAPS * width, sums)
                    for p in range(min(PIXELS, w_out - z)):
                        v.finish(
                            sums[p * v.LANES :], bias[c0:], out[b, y, z + p, c0 : c0 + v.LANES]
                        )

    return kernel


def conv2d(
    x: np.ndarray, weight: Packed, bias: np.ndarray, stride: int, groups: int, out: np.ndarray
) -> None:
    """Compute the convolution with bias and ReLU."""
    if weight.blocks is None:
        before.conv2d(x, weight.other, bias, stride, groups, out)
        return
    tiles = -(-out.shape[2] // PIXELS)
    right = max(1, (tiles * PIXELS - 1) * stride + TAPS - 1 - x.shape[2])
    padded = np.pad(x, ((0, 0), (1, 1), (1, right), (0, 0)))
    _kernel(x.shape[3] // groups, stride)(padded, weight.blocks, bias, out)
