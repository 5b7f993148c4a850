"""Who runs when: the threads of a block take turns, each until it needs the others."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.typing import signature
from numba.extending import intrinsic

from ..memory import POISON
from .words import BARRIER, COPIES, DONE, SHUFFLE, VOTE

WHOLE, DIVERGENT, ABSENT = 0, 1, 2  # how a launch ends


@intrinsic
def call(typing, address, thread):
    """Call the C function at an address with the number of a thread."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
        place = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(place, [arguments[1]])
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int32), generate


@intrinsic
def prepare(typing, address, thread, top):
    """Call the C function at an address with the number of a thread and the end of its stack."""

    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(32), ir.IntType(64)])
        place = builder.inttoptr(arguments[0], kind.as_pointer())
        builder.call(place, arguments[1:])
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int32, types.int64), generate


@intrinsic
def move(typing, to, of, taken, size):
    """Copy ``taken`` bytes and fill up to ``size`` with zeros."""

    def generate(context, builder, signature, arguments):
        byte = ir.IntType(8).as_pointer()
        to, of = (builder.inttoptr(place, byte) for place in arguments[:2])
        cgutils.memset(builder, to, arguments[3], 0)
        cgutils.raw_memcpy(builder, to, of, arguments[2], 1)
        return context.get_dummy_value()

    return signature(types.void, *[types.int64] * 4), generate


@intrinsic
def fill(typing, address, size):
    """Poison ``size`` bytes."""

    def generate(context, builder, signature, arguments):
        place = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        cgutils.memset(builder, place, arguments[1], POISON)
        return context.get_dummy_value()

    return signature(types.void, types.int64, types.int64), generate


@njit(nogil=True)
def plain(run, block, order, first, last):
    """Run blocks whose threads never wait: one thread after the other."""
    for number in range(first, last):
        block[0] = number
        for thread in order:
            call(run, thread)


@njit(nogil=True)
def finish(queue, queued, thread, groups):
    """Make the copies of a thread until no more than that many groups of them are under way."""
    entries, count = queue[thread], queued[thread]
    under_way = 0
    for i in range(count):
        under_way += entries[i, 0] == 0
    done = 0
    while done < count and (groups == 0 or under_way > groups):
        if entries[done, 0] == 0:
            under_way -= 1
        else:
            move(entries[done, 0], entries[done, 1], entries[done, 2], entries[done, 3])
        done += 1
    for i in range(done, count):
        entries[i - done] = entries[i]
    queued[thread] = count - done


@njit(nogil=True)
def source(mode, lane, b, c):
    """Return the lane that a shuffle reads, and whether it is in range, as PTX defines it."""
    segment = (c >> 8) & 31
    low, last = lane & segment, (lane & segment) | (c & 31 & ~segment)
    if mode == 0:  # idx
        other = low | (b & 31 & ~segment)
    elif mode == 1:  # up
        other = lane - (b & 31)
        return (other, True) if other >= last else (lane, False)
    elif mode == 2:  # down
        other = lane + (b & 31)
    else:  # bfly
        other = lane ^ (b & 31)
    return (other, True) if other <= last else (lane, False)


@njit(nogil=True)
def vote(mode, yes, mask):
    """Return the result of a vote: all, any, all the same, or who."""
    if mode == 3:
        return yes
    if mode == 0:
        return yes == mask
    if mode == 1:
        return yes != 0
    return yes == 0 or yes == mask


@njit(nogil=True)
def complete(asked, thread, first, last):
    """Return whether all threads of a warp that a request names have made the same request."""
    mask = asked[thread, 1]
    for lane in range(32):
        if mask >> lane & 1:
            other = first + lane
            if other >= last or asked[other, 0] != asked[thread, 0] or asked[other, 1] != mask:
                return False
    return mask >> (thread - first) & 1 == 1


@njit(nogil=True)
def respond(asked, answer, thread, first):
    """Answer a shuffle or a vote that is complete; return whether it reads a thread it names."""
    mask = asked[thread, 1]
    if asked[thread, 0] == SHUFFLE:
        lane, inside = source(asked[thread, 2], thread - first, asked[thread, 4], asked[thread, 5])
        if not mask >> lane & 1:
            return False
        answer[thread, 0], answer[thread, 1] = asked[first + lane, 3], inside
    elif asked[thread, 0] == VOTE:
        yes = 0
        for lane in range(32):
            if mask >> lane & 1:
                yes |= (asked[first + lane, 3] != 0) << lane
        result = vote(asked[thread, 2], yes, mask & 0xFFFFFFFF)
        answer[thread, 0], answer[thread, 1] = result, result != 0
    return True


@njit(nogil=True)
def exchange(asked, answer, ready, first, last):
    """Answer what the threads of a warp ask each other; return a thread that asks in vain, or -1."""
    waiting = -1
    answered = False
    for thread in range(first, last):
        if asked[thread, 0] == BARRIER or asked[thread, 0] == DONE:
            continue
        waiting = thread
        if complete(asked, thread, first, last):
            if not respond(asked, answer, thread, first):
                return thread
            ready[thread] = answered = True
    return -1 if answered else waiting


@njit(nogil=True)
def settle(asked, answer, ready, threads):
    """Answer a barrier that all threads reached."""
    total = 0
    for thread in range(threads):
        total += asked[thread, 3] != 0
    for thread in range(threads):
        how = asked[thread, 2]
        answer[thread, 0] = total if how == 1 else (total == threads if how == 2 else total > 0)
        ready[thread] = True


@njit(nogil=True)
def run_warp(resume, asked, answer, ready, queue, queued, order, first, last):
    """Run a warp until all its threads are at a barrier or have ended; as `exchange` returns."""
    while True:
        ran = False
        for thread in order:
            if ready[thread]:
                ready[thread], ran = False, True
                call(resume, thread)
                while asked[thread, 0] == COPIES:
                    finish(queue, queued, thread, asked[thread, 1])
                    call(resume, thread)
        if not ran:
            return -1
        absent = exchange(asked, answer, ready, first, last)
        if absent >= 0:
            return absent


@njit(nogil=True)
def run_block(resume, asked, answer, ready, queue, queued, order, threads):
    """Run one block whose fibers are prepared; return how it ended, and a thread."""
    while True:
        for begin in range(0, threads, 32):
            end = min(begin + 32, threads)
            first = order[begin] // 32 * 32
            last = min(first + 32, threads)
            absent = run_warp(
                resume, asked, answer, ready, queue, queued, order[begin:end], first, last
            )
            if absent >= 0:
                return ABSENT, absent
        ended = 0
        for thread in range(threads):
            ended += asked[thread, 0] == DONE
        if ended == threads:
            return WHOLE, 0
        if ended:
            for thread in range(threads):
                if asked[thread, 0] == DONE:
                    return DIVERGENT, thread
        settle(asked, answer, ready, threads)


@njit(nogil=True)
def waiting(start, resume, block, asked, answer, queue, queued, shared, order, stacks, first, last):
    """Run blocks whose threads wait for each other; return how that ended, the block, a thread."""
    threads = len(order)
    ready = np.empty(threads, np.bool_)
    for number in range(first, last):
        block[0] = number
        for i in range(len(shared) // 2):
            fill(shared[2 * i], shared[2 * i + 1])
        for thread in range(threads):
            prepare(start, thread, stacks[thread])
            ready[thread], queued[thread] = True, 0
        how, thread = run_block(resume, asked, answer, ready, queue, queued, order, threads)
        if how != WHOLE:
            return how, number, thread
    return WHOLE, 0, 0
