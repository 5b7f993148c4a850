"""Narrow groups that share a vector: each lane has the word of its own group.

In a tile, a word of a position is in all lanes of a register. With groups of four channels only
four of these lanes have a filter of the group, and the others are idle. So as many groups as have
room are a *block*, one vector wide, and a strip has a *cell* where it would have a word: the words
of all groups of the block, each as often as its group has filters::

      words of a pixel, 2 groups of 4 channels   [ a0 a1 | b0 b1 ]       (words of two)
      its cells                                  [ a0 a0 a0 a0 | b0 b0 b0 b0 ]
                                                 [ a1 a1 a1 a1 | b1 b1 b1 b1 ]

The tile then loads a cell, where it would load a word and copy it to all lanes: as many
instructions for several groups as for one before. The words are spread when a strip is cut, once
for all taps and for all positions that see a pixel. All else is a convolution of fewer, wider
groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

from ...runtime.kernel import as_part
from ...runtime.simd import FLOATS, I32, Emit, machine


class Block(NamedTuple):
    """How groups lie in a block.

    Attributes
    ----------
    groups : int
        Of a block; with one, words are not spread.
    width : int
        Filters of a group.
    deep : int
        Words of a group's channels.
    """

    groups: int
    width: int
    deep: int

    @property
    def cell(self) -> int:
        """Return the words of a cell."""
        return machine().lanes if self.groups > 1 else 1

    @property
    def kind(self) -> Block:
        """Return what kernels differ in: groups that are alone share one kernel."""
        return self if self.groups > 1 else Block(1, 1, 1)


def block_of(shape: tuple[int, ...], groups: int, ways: int) -> Block:
    """Return the block for a weight ``[c_out, c_in / groups, k_h, k_w]``, and words of ``ways``.

    All blocks have the same number of groups, and the words of their channels fit a vector.
    """
    lanes, width, deep = machine().lanes, shape[0] // groups, -(-shape[1] // ways)
    most = min(lanes // width, lanes // deep)
    return Block(max((n for n in range(1, most + 1) if groups % n == 0), default=1), width, deep)


def lanes_of(block: Block) -> list[int]:
    """Return for each lane how many words before its own the words of its group begin."""
    return [
        min(lane // block.width, block.groups - 1) * block.deep for lane in range(machine().lanes)
    ]


def spread_words(groups, width, deep, source, s, target, t):
    """Make a cell: copy the word ``source[s + lane's]`` to ``target[t + lane]``.

    Parameters
    ----------
    groups, width, deep : int
        Of a `Block`; constants where it is called.
    source : words
        A vector is read from ``s``, so something has to be there.
    target : words
    """
    lanes = np.array(lanes_of(Block(groups, width, deep)))
    target.view(np.int32)[t : t + len(lanes)] = source.view(np.int32)[s + lanes]


@intrinsic(prefer_literal=True)
def _spread(typing, groups, width, deep, source, s, target, t):
    """Emit `spread_words`: a load, a permutation and a store."""
    signature = types.void(groups, width, deep, FLOATS, types.intp, FLOATS, types.intp)
    block = Block(*(one.literal_value for one in (groups, width, deep)))

    def codegen(context, builder, signature, args):
        source, s, target, t = args[3:]
        e = Emit(context, builder)
        whole = ir.VectorType(I32, e.lanes)
        read = e.load(e.address(source, s), whole)
        e.store(e.permute(read, lanes_of(block)), e.address(target, t))
        return context.get_dummy_value()

    return signature, codegen


@overload(spread_words, prefer_literal=True, jit_options=as_part(inline=True))
def _spread_overload(groups, width, deep, source, s, target, t):
    """Replace `spread_words` in compiled code."""

    def compiled(groups, width, deep, source, s, target, t):
        _spread(groups, width, deep, source, s, target, t)

    return compiled
