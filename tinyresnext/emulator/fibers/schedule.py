"""Who runs when: the threads of a block take turns, each until it needs the others.

These functions get raw pointers: Numba compiles them in a fraction of the time that arrays take.
``asked`` has six numbers a thread, its request, and ``answer`` two (see `words`).
"""

from __future__ import annotations

import ctypes

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic

from ..compiled import kept_c
from ..memory import POISON
from .words import BARRIER, COPIES, DONE, QUEUE, SHUFFLE, STOPPED, VOTE

WHOLE, DIVERGENT, ABSENT = 0, 1, 2  # how a launch ends
MASK, MODE, VALUE, B, C = 1, 2, 3, 4, 5  # of a request, after what it is
int32, int64, ints = types.int32, types.int64, types.CPointer(types.int32)
longs = types.CPointer(types.int64)


# --- what Python lacks ----------------------------------------------------------------------------


@intrinsic
def call(typing, address, thread):
    """Call the C function at an address with the number of a thread."""

    def generate(context, builder, sig, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return signature(types.void, int64, int32), generate


@intrinsic
def prepare(typing, address, thread, top):
    """Call the C function at an address with the number of a thread and the end of its stack."""

    def generate(context, builder, sig, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32), ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return signature(types.void, int64, int32, int64), generate


@intrinsic
def move(typing, to, of, taken, size):
    """Copy ``taken`` bytes between two addresses, and fill up to ``size`` with zeros."""

    def generate(context, builder, sig, arguments):
        byte = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(place, byte) for place in arguments[:2])
        cgutils.memset(builder, to, arguments[3], 0)
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return signature(types.void, int64, int64, int64, int64), generate


@intrinsic
def poison(typing, address, size):
    """Poison bytes from an address on."""

    def generate(context, builder, sig, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        cgutils.memset(builder, place, arguments[1], POISON)
        return context.get_dummy_value()

    return signature(types.void, int64, int64), generate


# --- what a thread asks for -----------------------------------------------------------------------


@njit(nogil=True)
def finish(queue, queued, thread, groups):
    """Make a thread's copies until only so many ended groups are under way; -1: make them all."""
    first, count = 4 * QUEUE * thread, queued[thread]
    under_way = 0
    for i in range(count):
        if queue[first + 4 * i] == 0:
            under_way += 1
    done = 0
    while done < count and (groups < 0 or under_way > groups):
        at = first + 4 * done
        if queue[at] == 0:  # the end of a group
            under_way -= 1
        else:
            move(queue[at], queue[at + 1], queue[at + 2], queue[at + 3])
        done += 1
    for i in range(4 * done, 4 * count):
        queue[first + i - 4 * done] = queue[first + i]
    queued[thread] = count - done


@njit(nogil=True)
def source(mode, lane, b, c):
    """Return the lane that a shuffle reads, or -1 if that is out of range, as PTX defines it."""
    segment = (c >> 8) & 31
    low, last = lane & segment, (lane & segment) | (c & 31 & ~segment)
    b &= 31
    if mode == 1:  # up
        return lane - b if lane - b >= last else -1
    other = lane ^ b  # bfly
    if mode == 0:  # idx
        other = low | (b & ~segment)
    if mode == 2:  # down
        other = lane + b
    return other if other <= last else -1


@njit(nogil=True)
def complete(asked, thread, first, last):
    """Return whether all threads of a warp that a request names have made the same request."""
    mask = asked[6 * thread + MASK]
    for lane in range(32):
        if mask >> lane & 1:
            other = 6 * (first + lane)
            if first + lane >= last or asked[other] != asked[6 * thread]:
                return False
            if asked[other + MASK] != mask:
                return False
    return mask >> (thread - first) & 1 == 1


@njit(nogil=True)
def shuffle(asked, answer, thread, first):
    """Answer a shuffle; return whether the thread that it reads is one that it names."""
    at, lane = 6 * thread, thread - first
    other = source(asked[at + MODE], lane, asked[at + B], asked[at + C])
    answer[2 * thread + 1] = 0 if other < 0 else 1
    other = lane if other < 0 else other
    answer[2 * thread] = asked[6 * (first + other) + VALUE]
    return asked[at + MASK] >> other & 1 == 1


@njit(nogil=True)
def vote(asked, answer, thread, first):
    """Answer a vote: all, any, all the same, or who."""
    mask, mode, yes = asked[6 * thread + MASK] & 0xFFFFFFFF, asked[6 * thread + MODE], 0
    for lane in range(32):
        if mask >> lane & 1 and asked[6 * (first + lane) + VALUE] != 0:
            yes |= 1 << lane
    result = (int(yes == mask), int(yes != 0), int(yes == 0 or yes == mask), yes)[mode]
    answer[2 * thread], answer[2 * thread + 1] = int32(result), int32(result != 0)


@njit(nogil=True)
def exchange(asked, answer, ready, first, last):
    """Answer what the threads of a warp ask each other; return one that asks in vain, or -1."""
    waiting, answered = -1, False
    for thread in range(first, last):
        what = asked[6 * thread]
        if what in (BARRIER, DONE):
            continue
        waiting = thread
        if complete(asked, thread, first, last):
            if what == SHUFFLE and not shuffle(asked, answer, thread, first):
                return thread
            if what == VOTE:
                vote(asked, answer, thread, first)
            ready[thread], answered = 1, True
    return -1 if answered else waiting


@njit(nogil=True)
def settle(asked, answer, ready, threads):
    """Answer a barrier that all threads reached: how many say yes, whether all or any do."""
    total = 0
    for thread in range(threads):
        if asked[6 * thread + VALUE] != 0:
            total += 1
    for thread in range(threads):
        how, result = asked[6 * thread + MODE], total
        if how == 2:
            result = int(total == threads)
        if how == 3:
            result = int(total > 0)
        answer[2 * thread], ready[thread] = int32(result), 1


# --- turns ----------------------------------------------------------------------------------------


@njit(nogil=True)
def run_warp(resume, asked, answer, ready, queue, queued, order, begin, end, first, last):
    """Run a warp until all its threads are at a barrier or have ended; as `exchange` returns."""
    absent, ran = -1, True
    while ran and absent < 0:
        ran = False
        for i in range(begin, end):
            thread = order[i]
            if ready[thread] != 0:
                ready[thread], ran = 0, True
                call(resume, thread)
                while asked[6 * thread] == COPIES:
                    finish(queue, queued, thread, asked[6 * thread + 1])
                    call(resume, thread)
                if asked[6 * thread] == STOPPED:
                    return thread
        waits = False
        for thread in range(first, last):
            waits = waits or (asked[6 * thread] != BARRIER and asked[6 * thread] != DONE)
        if waits:
            absent = exchange(asked, answer, ready, first, last)
        else:
            ran = False
    return absent


@njit(nogil=True)
def run_block(resume, asked, answer, ready, queue, queued, order, threads):
    """Run one block whose fibers are prepared; return ``how * 1024 + thread``, how it ended."""
    while True:
        begin = 0
        while begin < threads:
            first = order[begin] // 32 * 32
            last = min(first + 32, threads)
            end = begin + last - first  # the last warp may be smaller, and may come before others
            absent = run_warp(
                resume, asked, answer, ready, queue, queued, order, begin, end, first, last
            )
            if absent >= 0:
                return ABSENT * 1024 + absent
            begin = end
        ended, one = 0, 0
        for thread in range(threads):
            if asked[6 * thread] == DONE:
                ended, one = ended + 1, thread
        if ended == threads:
            return WHOLE
        if ended > 0:
            return DIVERGENT * 1024 + one
        settle(asked, answer, ready, threads)


@kept_c(
    types.int64(int64, int64, *[ints] * 6, longs, longs, int64, longs, ints, int64, int64), __file__
)
def waiting(
    start,
    resume,
    block,
    asked,
    answer,
    ready,
    queued,
    order,
    queue,
    shared,
    arrays,
    stacks,
    ended,
    threads,
    blocks,
):
    """Run blocks whose threads wait for each other, until one fails; as `run_block` returns."""
    for number in range(blocks):
        block[0] = number
        for i in range(arrays):
            poison(shared[2 * i], shared[2 * i + 1])
        for thread in range(threads):
            prepare(start, thread, stacks[thread])
            ready[thread], queued[thread] = 1, 0
        how = run_block(resume, asked, answer, ready, queue, queued, order, threads)
        if how != WHOLE:
            ended[0] = number
            return how
    return WHOLE


@kept_c(types.int64(int64, ints, ints, int64, int64), __file__)
def plain(run, block, order, threads, blocks):
    """Run blocks whose threads never wait: one thread after the other."""
    for number in range(blocks):
        block[0] = number
        for i in range(threads):
            call(run, order[i])
    return WHOLE


def c_function(made):
    """Return a C function for Python to call; Numba's own takes no addresses."""
    count = len(made._sig.args)
    return ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * count)(made.address)


run_waiting, run_plain = c_function(waiting), c_function(plain)
