"""What is known of each word of memory, and what may not happen to it.

A thread's access comes after another thread's if a barrier lies between them: one of the block for
threads of one block, one of the warp for threads of one warp. Two accesses to one word, one of
which writes, have to be in order. A *stamp* is the number of barriers that a block and then a warp
has passed. The functions run one access after the other, compiled by Numba.
"""

from __future__ import annotations

from numba import njit

from ..compiled import kept

# A stamp, of 64 bits, is the barriers of the block times this, and those of the warp since then.
WARPS = 1 << 32
# How far those are apart who read a word since it was written: the reader is one of them.
ONE, WARP, BLOCK, GRID = 0, 1, 2, 3
# What can be wrong.
GOOD, RACE_WRITTEN, RACE_READ, UNWRITTEN, WAITING = 0, 1, 2, 3, 4


@njit(nogil=True)
def apart(one, other, size, first):
    """Return how far apart two threads are; ``first`` is the first thread of this launch."""
    if one == other:
        return ONE
    one, other = one - first, other - first
    if one // size != other // size:
        return GRID
    return WARP if one % size // 32 == other % size // 32 else BLOCK


@njit(nogil=True)
def ordered(distance, before, now):
    """Return whether an access with the stamp ``before`` comes before one with ``now``."""
    if distance == ONE:
        return True
    if distance == GRID:
        return False
    return before // WARPS != now // WARPS or (distance == WARP and before != now)


@njit(nogil=True)
def written_before(state, word, thread, stamp, size, first):
    """Return whether what a word holds was written before this access."""
    writer = state.writer[word]
    if writer < first:
        return True
    return ordered(apart(writer, thread, size, first), state.written[word], stamp)


@njit(nogil=True)
def read_before(state, word, thread, stamp, size, first):
    """Return whether those who read a word did so before this access."""
    reader = state.reader[word]
    if reader < first:
        return True
    distance = max(apart(reader, thread, size, first), state.spread[word])
    return ordered(distance, state.read[word], stamp)


@njit(nogil=True)
def note_read(state, word, thread, stamp, size, first):
    """Add a reader to what is known of a word."""
    reader, before = state.reader[word], state.read[word]
    spread = ONE
    if reader >= first:
        distance = apart(reader, thread, size, first)
        if distance == GRID or before // WARPS == stamp // WARPS:
            same = distance <= WARP and state.spread[word] <= WARP and before != stamp
            spread = ONE if same else max(distance, state.spread[word])
    state.reader[word], state.read[word], state.spread[word] = thread, stamp, spread


@kept(__file__)
def load(state, data, words, threads, stamps, size, first, out, watched):
    """Read words in the order of the threads; return what is wrong, and with which access.

    ``words`` has a row for each thread; ``out`` is filled in the same shape.
    """
    for i in range(words.shape[0]):
        for q in range(words.shape[1]):
            word = words[i, q]
            out[q, i] = data[word]
            if watched:
                if not state.known[word]:
                    return UNWRITTEN, i, word
                if state.pending[word]:
                    return WAITING, i, word
                if not written_before(state, word, threads[i], stamps[i], size, first):
                    return RACE_WRITTEN, i, word
                note_read(state, word, threads[i], stamps[i], size, first)
    return GOOD, 0, 0


@kept(__file__)
def store(state, data, words, threads, stamps, size, first, values, watched, pending):
    """Write words; as `load`. ``pending`` says that they are a copy under way."""
    for i in range(words.shape[0]):
        for q in range(words.shape[1]):
            word = words[i, q]
            if watched:
                if state.pending[word]:
                    return WAITING, i, word
                if not written_before(state, word, threads[i], stamps[i], size, first):
                    return RACE_WRITTEN, i, word
                if not read_before(state, word, threads[i], stamps[i], size, first):
                    return RACE_READ, i, word
                state.writer[word], state.written[word] = threads[i], stamps[i]
                state.reader[word] = -1
            state.known[word] = True
            state.pending[word], state.atomic[word] = pending, False
            if not pending:
                data[word] = values[q, i]
    return GOOD, 0, 0


@kept(__file__)
def land(state, data, words, threads, stamps, values):
    """End copies that were under way: from now on their words hold them."""
    for i in range(words.shape[0]):
        for q in range(words.shape[1]):
            word = words[i, q]
            data[word] = values[q, i]
            state.pending[word] = False
            state.writer[word], state.written[word] = threads[i], stamps[i]


@kept(__file__)
def touch(state, words, threads, stamps, size, first):
    """Check atomic accesses to words, and note them; as `store`. Atomics need no order."""
    for i in range(len(words)):
        word = words[i]
        if not state.known[word]:
            return UNWRITTEN, i, word
        if state.pending[word]:
            return WAITING, i, word
        if not read_before(state, word, threads[i], stamps[i], size, first):
            return RACE_READ, i, word
        before = written_before(state, word, threads[i], stamps[i], size, first)
        if not before and not state.atomic[word]:
            return RACE_WRITTEN, i, word
        state.atomic[word] = True
        state.writer[word], state.written[word], state.reader[word] = threads[i], stamps[i], -1
    return GOOD, 0, 0
