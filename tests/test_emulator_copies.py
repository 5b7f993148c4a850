"""Asynchronous copies on the emulator of PTX: what they fill, what they read, and until when."""

from __future__ import annotations

import numpy as np
import pytest
from llvmlite import ir
from numba import cuda
from numba.core import types
from planted import kernel

from tinyresnext.emulator import KernelFault
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda.runtime.arrays import download, upload
from tinyresnext.ops.cuda.runtime.kernel import float32, floats, int32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import copies_done, copy1, shared
from tinyresnext.ops.cuda.words.llvm import FLOAT, GLOBAL, INT32, INT64, SHARED, intrinsic, place

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
X = np.arange(64, dtype=np.float32)


def run(function) -> np.ndarray:
    """Return what a kernel of 64 threads makes of two arrays of 64 floats; the second has zeros."""
    machine = PtxMachine()
    x, y = upload(machine, X), upload(machine, np.zeros(64, np.float32))
    machine.launch(Launch(kernel(function), 1, (x, y, 1)))
    return download(y)


def copy_of(size: int):
    """Return a word that starts a copy of ``size`` bytes that reads ``taken`` of them."""

    @intrinsic
    def word(typingctx, to, i, of, j, taken):
        def codegen(context, builder, signature, args):
            to, i, of, j, taken = args
            to = builder.addrspacecast(place(builder, to, i, FLOAT), FLOAT.as_pointer(SHARED))
            of = builder.addrspacecast(place(builder, of, j, FLOAT), FLOAT.as_pointer(GLOBAL))
            to, of = builder.ptrtoint(to, INT32), builder.ptrtoint(of, INT64)
            kind = ir.FunctionType(ir.VoidType(), [INT32, INT64, INT32])
            cached = "cg" if size == 16 else "ca"
            text = f"cp.async.{cached}.shared.global [$0], [$1], {size}, $2;"
            builder.asm(kind, text, "r,l,r", [to, of, taken], True)
            return context.get_dummy_value()

        return types.void(floats, types.int32, floats, types.int32, types.int32), codegen

    return word


copy_4, copy_16 = copy_of(4), copy_of(16)


def taking(bytes_: int, offset: int = 0, copy=copy_16):
    """Return a kernel in which 8 threads copy ``bytes_`` of each 16 and fill up with zeros."""
    taken = int32(bytes_)

    def takes(x, y, n):
        s = shared(64)
        t = int32(cuda.threadIdx.x)
        if t < 8:
            copy(s, int32(4 * t), x, int32(4 * t + offset), taken)
            copies_done()
            for i in range(4):
                y[4 * t + i] = s[4 * t + i] if copy is copy_16 or i == 0 else float32(0)

    return takes


@pytest.mark.parametrize("bytes_", [0, 4, 8, 12, 16])
def test_a_copy_is_filled_up_with_zeros(bytes_: int):
    wanted = np.zeros((16, 4), np.float32)
    wanted[:8, : bytes_ // 4] = X.reshape(16, 4)[:8, : bytes_ // 4]
    assert np.array_equal(run(taking(bytes_)), wanted.reshape(-1))


def test_what_a_copy_cannot_take_is_refused():
    with pytest.raises(KernelFault, match="16 bytes at an address that is no multiple") as caught:
        run(taking(4, offset=1))
    assert caught.value.kind == "misaligned"
    with pytest.raises(KernelFault, match="a copy of 16 bytes that reads 20") as caught:
        run(taking(20))
    assert caught.value.kind == "bounds"
    with pytest.raises(DeviceError, match="copy of 2 bytes is not emulated"):
        run(taking(2, copy=copy_4))


def source_written_before_the_wait(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    cuda.syncthreads()
    x[63 - t] = float32(-1)
    copies_done()
    y[t] = s[t]


def source_written_without_a_barrier(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    cuda.syncthreads()
    copies_done()
    x[63 - t] = float32(-1)
    y[t] = s[t]


def source_written_after_a_barrier(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)
    copies_done()
    cuda.syncthreads()
    x[63 - t] = float32(-1)
    y[t] = s[t]


def nobody_waits(x, y, n):
    s = shared(64)
    t = int32(cuda.threadIdx.x)
    copy1(s, t, x, t, True)


def test_what_a_copy_reads_is_its_own_until_it_has_ended():
    assert np.array_equal(run(source_written_after_a_barrier), X)
    with pytest.raises(KernelFault, match="an asynchronous copy of it is under way") as caught:
        run(source_written_before_the_wait)
    assert caught.value.kind == "unawaited copy"
    with pytest.raises(KernelFault, match="another thread reads it") as caught:
        run(source_written_without_a_barrier)
    assert caught.value.kind == "race"


def test_a_copy_ends_with_its_launch():
    def clears(x, y, n):
        x[int32(cuda.threadIdx.x)] = float32(0)

    machine = PtxMachine()
    x, y = upload(machine, X), upload(machine, X)
    for function in (nobody_waits, clears):
        machine.launch(Launch(kernel(function), 1, (x, y, 1)))
    assert not download(x).any()
