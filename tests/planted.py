"""Kernels with one mistake each, and right ones beside them, for the tests of the emulators.

Every kernel takes ``(x, y, n)``: it reads floats, writes floats, and has blocks of 64 threads.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import cuda
from numba.core import cgutils, types

from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, floats, int32, uint32
from tinyresnext.ops.cuda.words import copies_done, copy1, copy4, load4, shared, store4
from tinyresnext.ops.cuda.words.llvm import FLOAT, INT32, intrinsic

THREADS = 64
ALL = uint32(0xFFFFFFFF)


def kernel(function) -> Kernel:
    """Return a function as a kernel of the parameters that all of them have."""
    return Kernel(function.__name__, function, (floats, floats, int32), THREADS)


def assembly(text: str):
    """Return a word that is one line of inline assembly."""

    @intrinsic
    def word(typingctx):
        def codegen(context, builder, signature, args):
            builder.asm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", [], True)
            return context.get_dummy_value()

        return types.void(), codegen

    return word


@intrinsic
def shuffle(typingctx, mask, mode, value, lane):
    """Return a value of another thread: 0 is that of a lane, 3 of the lane that differs in bits."""

    def codegen(context, builder, signature, args):
        mask, _, value, lane = args
        result = ir.LiteralStructType((INT32, ir.IntType(1)))
        kind = ir.FunctionType(result, [INT32] * 5)
        name = "llvm.nvvm.shfl.sync.i32"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        given = [mask, INT32(0 if signature.args[1].literal_value == 0 else 3)]
        bits = builder.bitcast(value, INT32)
        made = builder.call(function, [*given, bits, lane, INT32(31)])
        return builder.bitcast(builder.extract_value(made, 0), FLOAT)

    if not isinstance(mode, types.IntegerLiteral):
        return None
    return types.float32(types.uint32, mode, types.float32, types.int32), codegen


commit, wait_for_all_but_one = (
    assembly(f"cp.async.{what};") for what in ("commit_group", "wait_group 1")
)
unknown = assembly("discard.global.L2 [0], 128;")


# --- right ----------------------------------------------------------------------------------------


def reversed_in_shared(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[63 - t]


def reversed_by_copies(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    copies_done()
    cuda.syncthreads()
    y[t] = s[63 - t]


def reversed_in_warps(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    s[t] = x[t]
    cuda.syncwarp()
    y[63 - t] = s[t ^ 31] + float32(0)


def two_groups(x, y, n):
    s = shared(128)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    commit()
    copy1(s, 64 + t, x, t, True)
    commit()
    wait_for_all_but_one()
    y[t] = s[t]
    copies_done()


def rotated(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = shuffle(ALL, 0, x[t], int32((t + 1) % 32))


def zeros_where_not_inside(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    if t < 16:
        copy4(s, 4 * t, x, 4 * t + (0 if t < 8 else 1000000), t < 8)
    copies_done()
    cuda.syncthreads()
    y[t] = s[t]


RIGHT = {
    "reversed_in_shared": (reversed_in_shared, lambda x: x[::-1]),
    "reversed_by_copies": (reversed_by_copies, lambda x: x[::-1]),
    "two_groups": (two_groups, lambda x: x),
    "rotated": (rotated, lambda x: x.reshape(2, 32)[:, [*range(1, 32), 0]].reshape(-1)),
    "zeros_where_not_inside": (
        zeros_where_not_inside,
        lambda x: np.where(np.arange(64) < 32, x, 0),
    ),
}


# --- wrong ----------------------------------------------------------------------------------------


def no_barrier(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    s[t] = x[t]
    y[t] = s[63 - t]


def no_barrier_before_the_next_write(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    s[t] = x[t]
    cuda.syncthreads()
    v = s[63 - t]
    s[t] = v
    cuda.syncthreads()
    y[t] = s[t] if n > 0 else v


def two_threads_write_one_word(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = float32(0)
    y[t // 2] = x[t]


def two_blocks_write_one_word(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t] + float32(cuda.blockIdx.x)


def copy_not_waited_for(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    cuda.syncthreads()
    y[t] = s[t]


def waits_for_the_wrong_group(x, y, n):
    s = shared(128)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    commit()
    copy1(s, 64 + t, x, t, True)
    commit()
    wait_for_all_but_one()
    y[t] = s[64 + t]
    copies_done()


def copy_waited_for_without_a_barrier(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    copies_done()
    y[t] = s[63 - t]


def shared_not_written(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    if t < 60:
        s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[t]


def global_not_written(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = y[t] + x[t]


def reads_behind_the_end(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t + 1]


def writes_behind_the_end(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t]
    if t == 63:
        y[64] = float32(1)


def writes_before_the_beginning(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t - 1] = x[t]
    if t == 0:
        y[63] = float32(0)


def leaves_shared_memory(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    s[t] = x[t]
    cuda.syncthreads()
    y[t] = s[t + n]


def misaligned(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = float32(0)
    if t < 8:
        store4(y, 4 * t, load4(x, 4 * t + n, 0, 16), 16)


def some_end_before_a_barrier(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t]
    if t == 5:
        return
    cuda.syncthreads()


def some_are_at_another_barrier(x, y, n):
    t = int32(cuda.threadIdx.x)
    if t < 32:
        y[t] = x[t]
        cuda.syncthreads()
        y[t] = x[t] + float32(1)
    else:
        y[t] = x[t] * float32(2)
        cuda.syncthreads()
        y[t] = x[t] - float32(1)


def shuffles_with_who_has_ended(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t]
    if t % 32 == 7:
        return
    y[t] = shuffle(ALL, 0, x[t], int32(3))


def shuffles_with_who_is_not_named(x, y, n):
    t = int32(cuda.threadIdx.x)
    y[t] = x[t]
    if t % 32 < 16:
        y[t] = shuffle(uint32(0xFFFF), 3, x[t], int32(16))


# For each the kind of fault that the emulator of PTX finds. Of fibers: the kind that they find, or
# "values" where what is computed is wrong in one of their orders.
WRONG = {
    no_barrier: ("race", "values"),
    no_barrier_before_the_next_write: ("race", "values"),
    two_threads_write_one_word: ("race", "values"),
    two_blocks_write_one_word: ("race", None),
    copy_not_waited_for: ("unawaited copy", "values"),
    waits_for_the_wrong_group: ("unawaited copy", "values"),
    copy_waited_for_without_a_barrier: ("race", "values"),
    shared_not_written: ("unwritten", "values"),
    global_not_written: ("unwritten", "values"),
    reads_behind_the_end: ("bounds", "values"),
    writes_behind_the_end: ("bounds", "bounds"),
    writes_before_the_beginning: ("bounds", "bounds"),
    leaves_shared_memory: ("bounds", None),
    misaligned: ("misaligned", None),
    some_end_before_a_barrier: ("barrier", "barrier"),
    some_are_at_another_barrier: ("barrier", None),
    shuffles_with_who_has_ended: ("shuffle", "shuffle"),
    shuffles_with_who_is_not_named: ("shuffle", "shuffle"),
}
