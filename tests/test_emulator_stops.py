"""What would end the process, or hold it for ever, ends one launch of fibers."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from numba import cuda
from numba.core import types
from on_device import by_fibers
from planted import kernel

from tinyresnext.emulator import KernelFault, check
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.emulator.fibers.stops import caught
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda.runtime.arrays import upload
from tinyresnext.ops.cuda.runtime.machine import Launch

pytestmark = by_fibers


def ran(function, *arrays, threads: int = 32, blocks: int = 1):
    """Run a kernel by fibers."""
    return check(function, blocks, threads, *arrays, machine=FiberMachine())


def arrays(count: int = 32):
    """Return an array of numbers and one of zeros."""
    return np.arange(count, dtype=np.float32), np.zeros(count, np.float32)


def works() -> None:
    """Check that fibers still run, with a barrier and without."""

    def waits(x, y):
        own = cuda.shared.array(32, types.float32)
        own[cuda.threadIdx.x] = x[cuda.threadIdx.x]
        cuda.syncthreads()
        y[cuda.threadIdx.x] = own[31 - cuda.threadIdx.x]

    def plain(x, y):
        y[cuda.threadIdx.x] = x[31 - cuda.threadIdx.x]

    for function in (waits, plain):
        x, y = arrays()
        ran(function, x, y)
        assert np.array_equal(y, x[::-1])


def one_too_far(x, y):
    own = cuda.shared.array(128, types.float32)
    t = cuda.threadIdx.x
    own[t + 1] = x[t]
    cuda.syncthreads()
    y[t] = own[t]


def test_a_write_behind_shared_memory_is_found():
    said = "it wrote to byte 512 of 512 bytes of shared memory"
    with pytest.raises(KernelFault, match=said) as caught:
        ran(one_too_far, *arrays(128), threads=128)
    assert caught.value.kind == "bounds"
    works()


def too_large(x, y):
    own = cuda.shared.array(20_000, types.float32)
    own[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = own[cuda.threadIdx.x]


def test_a_refused_kernel_leaves_the_processor_to_others():
    """LLVM frees the description of the processor with the code that was made with it."""
    for _ in range(2):
        with pytest.raises(DeviceError, match="shared"):
            ran(too_large, *arrays())
        works()


def far_away(x, y):
    if cuda.grid(1) == 37:
        x[1_000_000_000_000] = 1


def far_away_between_barriers(x, y):
    cuda.syncthreads()
    if cuda.grid(1) == 37:
        y[0] = x[1_000_000_000_000]
    cuda.syncthreads()


@pytest.mark.parametrize("function", [far_away, far_away_between_barriers])
def test_memory_that_is_not_there_is_found_with_the_thread(function):
    with pytest.raises(KernelFault, match="thread 5 of block 1 accesses memory that is not there"):
        ran(function, *arrays(), blocks=2)
    works()


def over_its_stack(x, y):
    own = cuda.local.array(8, types.float32)
    for i in range(64):
        own[i + int(x[3])] = x[i % 3]
    y[0] = own[int(x[2])]


def test_a_local_array_that_is_left_does_not_end_the_process():
    with pytest.raises(KernelFault, match="or has written over its own stack"):
        ran(over_its_stack, *arrays(), threads=4)
    works()


def waits_for_ever(x, y, n):
    if cuda.threadIdx.x == 0:
        while n > 0:
            n = n * 1 if x[0] == y[0] else n


def waits_for_ever_between_barriers(x, y, n):
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        while n > 0:
            n = n * 1 if x[0] == y[0] else n
    cuda.syncthreads()


@pytest.mark.parametrize("function", [waits_for_ever, waits_for_ever_between_barriers])
def test_a_kernel_that_never_ends_can_be_interrupted(function):
    machine, kernel_ = FiberMachine(), kernel(function)
    x, y = (upload(machine, array) for array in arrays(64))
    machine.launch(Launch(kernel_, 1, (x, y, 0)))  # compiled, and it ends
    handler = signal.getsignal(signal.SIGINT)
    press = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))

    def interrupted():
        press.start()
        machine.launch(Launch(kernel_, 1, (x, y, 1)))

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    press.join()
    assert signal.getsignal(signal.SIGINT) is handler
    works()


def test_an_interrupt_that_the_program_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with caught(0):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def printing(x, y):
    print(x[0])


def test_a_function_of_the_c_library_is_not_nvidias_of_that_name():
    with pytest.raises(DeviceError, match="kernel printing calls print, which fibers cannot"):
        ran(printing, *arrays())


def of_nine(a, b, c, d, e, f, g, h, i, y):
    y[0] = a[0, 0, 0] + b[0, 0, 1] + i[1, 1, 1]


def test_more_numbers_than_a_few_arrays_have():
    """Each of the nine arrays takes eleven."""
    given, y = [np.full((2, 2, 2), i, np.float32) for i in range(9)], np.zeros(1, np.float32)
    ran(of_nine, *given, y, threads=1)
    assert y[0] == 0 + 1 + 8
