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
# How far threads are apart: those who read a word since it was written, or changed it by atomics.
ONE, WARP, BLOCK, GRID = 0, 1, 2, 3
# What can be wrong.
GOOD, RACE_WRITTEN, RACE_READ, RACE_CHANGED, UNWRITTEN, WAITING, COPIED = 0, 1, 2, 3, 4, 5, 6
SAID = {
    RACE_WRITTEN: ("race", "another thread wrote it, and no barrier lies between"),
    RACE_READ: ("race", "another thread reads it, and no barrier lies between"),
    RACE_CHANGED: ("race", "another thread's atomic changes it, and no barrier lies between"),
    COPIED: ("unawaited copy", "an asynchronous copy of it is under way"),
    UNWRITTEN: ("unwritten", "nobody has written it"),
    WAITING: ("unawaited copy", "an asynchronous copy to it is under way"),
}


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
def comes_after(thread, stamp, last, before, spread, size, first):
    """Return whether an access of a thread comes after those of others.

    ``last``, ``before`` and ``spread`` are one of the others, its stamp, and how far they are
    apart. Those of an earlier launch have ended.
    """
    if last < first:
        return True
    return ordered(max(apart(last, thread, size, first), spread), before, stamp)


@njit(nogil=True)
def joined(thread, stamp, last, before, spread, size, first):
    """Return how far threads are apart when another one joins them; as `comes_after`.

    Those whose accesses come before the new one are left out: who comes after the new one comes
    after them.
    """
    if last < first:
        return ONE
    distance = apart(last, thread, size, first)
    if distance == GRID or spread == GRID:
        return GRID
    if before // WARPS != stamp // WARPS:
        return ONE
    if before != stamp and distance <= WARP and spread <= WARP:
        return ONE
    return max(distance, spread)


@njit(nogil=True)
def of_writers(state, word, thread, stamp, size, first):
    """Return the race of a plain access with those that wrote a word, plainly or by atomics."""
    last, before = state.writer[word], state.written[word]
    if not comes_after(thread, stamp, last, before, ONE, size, first):
        return RACE_WRITTEN
    if state.changed[word]:
        last, before, spread = state.changer[word], state.change[word], state.changers[word]
        if not comes_after(thread, stamp, last, before, spread, size, first):
            return RACE_CHANGED
    return GOOD


@njit(nogil=True)
def note_reader(state, word, thread, stamp, size, first):
    """Note that a thread has read a word, beside those that did so before."""
    last, before, spread = state.reader[word], state.read[word], state.readers[word]
    spread = joined(thread, stamp, last, before, spread, size, first)
    state.reader[word], state.read[word], state.readers[word] = thread, stamp, spread


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
                thread, stamp = threads[i], stamps[i]
                race = of_writers(state, word, thread, stamp, size, first)
                if race != GOOD:
                    return race, i, word
                note_reader(state, word, thread, stamp, size, first)
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
                if state.copied[word] > 0:
                    return COPIED, i, word
                thread, stamp = threads[i], stamps[i]
                race = of_writers(state, word, thread, stamp, size, first)
                if race != GOOD:
                    return race, i, word
                last, before, spread = state.reader[word], state.read[word], state.readers[word]
                if not comes_after(thread, stamp, last, before, spread, size, first):
                    return RACE_READ, i, word
                state.writer[word], state.written[word] = thread, stamp
                state.reader[word], state.changed[word] = -1, False
            state.known[word] = True
            state.pending[word] = pending
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
def lend(state, words):
    """Note that copies of words are under way: a row for each thread, where -1 is none."""
    for i in range(words.shape[0]):
        for q in range(words.shape[1]):
            if words[i, q] >= 0:
                state.copied[words[i, q]] += 1


@kept(__file__)
def give_back(state, words, threads, stamps, size, first):
    """Note that copies of words have ended: their threads may have read them until now."""
    for i in range(words.shape[0]):
        for q in range(words.shape[1]):
            word = words[i, q]
            if word >= 0:
                state.copied[word] -= 1
                note_reader(state, word, threads[i], stamps[i], size, first)


@kept(__file__)
def touch(state, words, threads, stamps, size, first):
    """Check atomic accesses to words, and note them; as `store`. Atomics need no order."""
    for i in range(len(words)):
        word = words[i]
        if not state.known[word]:
            return UNWRITTEN, i, word
        if state.pending[word]:
            return WAITING, i, word
        if state.copied[word] > 0:
            return COPIED, i, word
        thread, stamp = threads[i], stamps[i]
        last, before = state.writer[word], state.written[word]
        if not comes_after(thread, stamp, last, before, ONE, size, first):
            return RACE_WRITTEN, i, word
        last, before, spread = state.reader[word], state.read[word], state.readers[word]
        if not comes_after(thread, stamp, last, before, spread, size, first):
            return RACE_READ, i, word
        last = state.changer[word] if state.changed[word] else -1
        before, spread = state.change[word], state.changers[word]
        spread = joined(thread, stamp, last, before, spread, size, first)
        state.changed[word], state.changers[word] = True, spread
        state.changer[word], state.change[word] = thread, stamp
    return GOOD, 0, 0
