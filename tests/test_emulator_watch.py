"""What the emulator of PTX knows of words: who wrote, read and changed them, and when."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda
from planted import ALL, kernel, shuffle

from tinyresnext.emulator import KernelFault, check
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda.runtime.arrays import download, upload
from tinyresnext.ops.cuda.runtime.kernel import Kernel, float32, int32, uint32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import shared

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
X = np.arange(64, dtype=np.float32)


def run(function, blocks: int = 1, machine: PtxMachine | None = None) -> np.ndarray:
    """Return what a kernel of 64 threads makes of two arrays of 64 floats; the second has zeros."""
    machine = machine or PtxMachine()
    x, y = upload(machine, X), upload(machine, np.zeros(64, np.float32))
    machine.launch(Launch(kernel(function), blocks, (x, y, 1)))
    return download(y)


# --- atomics --------------------------------------------------------------------------------------


def made(function, blocks: int = 1, machine: PtxMachine | None = None) -> np.ndarray:
    """As `run`, for a kernel of arrays, since an atomic takes no pointer."""
    x, y = X.copy(), np.zeros(64, np.float32)
    check(function, blocks, 64, x, y, machine=machine)
    return y


def atomic_after_a_barrier(x, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = x[0]
    cuda.syncthreads()
    cuda.atomic.add(s, 0, x[t])
    cuda.syncthreads()
    y[t] = s[0]


def atomic_beside_a_write(x, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = x[0]
    cuda.atomic.add(s, 0, x[t])
    cuda.syncthreads()
    y[t] = s[0]


def atomic_beside_a_write_of_another_block(x, y):
    if cuda.grid(1) == 0:
        y[0] = x[0]
    cuda.atomic.add(y, 0, x[cuda.threadIdx.x])


def read_beside_atomics(x, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = x[0]
    cuda.syncthreads()
    cuda.atomic.add(s, 0, x[t])
    if t == 63:  # the last of them
        y[0] = s[0]


def write_beside_atomics(x, y):
    t = cuda.threadIdx.x
    cuda.atomic.add(y, 0, x[t])
    if t == 63:
        y[0] = x[t]


def atomic_beside_a_read_by_who_made_one(x, y):
    s = cuda.shared.array(1, float32)
    t = cuda.threadIdx.x
    if t == 0:
        s[0] = x[0]
    cuda.syncthreads()
    if t == 0:
        y[0] = s[0]
    cuda.atomic.add(s, 0, x[t])


def test_atomics_after_a_barrier_compute():
    assert (made(atomic_after_a_barrier) == X.sum()).all()


@pytest.mark.parametrize(
    ("function", "blocks", "said"),
    [
        (atomic_beside_a_write, 1, "an atomic on word 0 of shared memory: another thread wrote"),
        (atomic_beside_a_write_of_another_block, 2, "an atomic on word 0 of global memory"),
        (read_beside_atomics, 1, "a load of word 0 of shared memory: another thread's atomic"),
        (write_beside_atomics, 1, "a store to word 0 of global memory: another thread's atomic"),
        (atomic_beside_a_read_by_who_made_one, 1, "another thread reads it"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_atomics_need_an_order_with_other_accesses(function, blocks: int, said: str):
    with pytest.raises(KernelFault, match=said) as caught:
        made(function, blocks)
    assert caught.value.kind == "race"


# --- readers, warps -------------------------------------------------------------------------------


def test_readers_of_other_blocks_are_not_forgotten():
    """Two barriers of block 1 say nothing of when block 0 has read."""

    def reads_twice(x, y):
        i = cuda.grid(1)
        y[i] = x[0]
        cuda.syncthreads()
        if cuda.blockIdx.x == 1:
            y[i] += x[0]
            cuda.syncthreads()
            if cuda.threadIdx.x == 0:
                x[0] = float32(5)

    with pytest.raises(KernelFault, match="another thread reads it") as caught:
        check(reads_twice, 2, 32, X.copy(), np.zeros(64, np.float32))
    assert caught.value.kind == "race"


def test_a_barrier_of_a_part_of_a_warp_is_refused():
    """It orders half of a warp, and what is known of words has one order for a warp."""

    def halves(x, y, n):
        s = shared(64)
        t = int32(cuda.threadIdx.x)
        s[t] = x[t]
        if t % 32 < 16:
            cuda.syncwarp(0xFFFF)
        else:
            cuda.syncwarp(0xFFFF0000)
        y[t] = s[t ^ 31]

    with pytest.raises(DeviceError, match="part of a warp"):
        run(halves)


def test_a_warp_that_is_not_full_has_a_whole_barrier():
    def last(x, y, n):
        s = shared(64)
        t = int32(cuda.threadIdx.x)
        s[t] = x[t]
        if t < 32:
            cuda.syncwarp()
        else:
            cuda.syncwarp(0xFFFF)
        y[t] = s[t ^ 1]

    machine, made = PtxMachine(), kernel(last)
    x, y = upload(machine, X), upload(machine, np.zeros(64, np.float32))
    machine.launch(Launch(Kernel("last", last, made.parameters, 48), 1, (x, y, 1)))
    assert np.array_equal(download(y)[:48], np.arange(48) ^ 1)


def test_threads_that_name_each_other_agree():
    def alone(x, y, n):
        t = int32(cuda.threadIdx.x)
        mask = uint32(1) << uint32(t % 32)
        y[t] = shuffle(ALL if t % 32 == 0 else uint32(mask), 0, x[t], int32(t % 32))

    with pytest.raises(KernelFault, match="names a thread that names other threads") as caught:
        run(alone)
    assert caught.value.kind == "shuffle"


# --- the end --------------------------------------------------------------------------------------


def test_a_lock_is_given_up():
    def locks(lock, x):
        while cuda.atomic.cas(lock, 0, 0, 1) != 0:
            pass
        x[0] += 1
        cuda.atomic.exch(lock, 0, 0)

    lock, x = np.zeros(1, np.int32), np.zeros(1, np.int32)
    with pytest.raises(DeviceError, match="500 pieces of code"):
        check(locks, 1, 32, lock, x, machine=PtxMachine(patience=500))


def test_a_long_loop_that_writes_is_not():
    def counts(x, y, n):
        if int32(cuda.threadIdx.x) == 0:
            for i in range(1000):
                y[i % 64] = y[i % 64] + float32(1)
                if y[i % 64] > x[63]:
                    y[i % 64] = float32(0)

    assert run(counts, machine=PtxMachine(patience=50)).sum() == 1000


# --- fences ---------------------------------------------------------------------------------------


def last_block_sums(x, y):
    last = cuda.shared.array(1, int32)
    if cuda.threadIdx.x == 0:
        y[1 + cuda.blockIdx.x] = x[cuda.blockIdx.x]
        cuda.threadfence()
        last[0] = cuda.atomic.add(y, 0, 1) == 1
        if last[0]:
            y[3] = y[1] + y[2]


def test_a_race_in_a_kernel_with_fences_says_that_they_are_not_watched():
    with pytest.raises(KernelFault, match=r"and fences are not watched\), thread 0 of block 1"):
        made(last_block_sums, 2)
    with pytest.raises(KernelFault) as caught:
        made(write_beside_atomics)
    assert "fence" not in str(caught.value)


# --- parts of words -------------------------------------------------------------------------------


def in_place(x, y):
    y[cuda.threadIdx.x] += x[cuda.threadIdx.x]


def of_a_neighbour(x, y):
    y[cuda.threadIdx.x] += y[cuda.threadIdx.x ^ 1]


@pytest.mark.parametrize("kind", [np.int8, np.uint16])
def test_each_thread_may_change_its_own_part_of_a_word(kind):
    x, y = np.arange(64).astype(kind), np.ones(64, kind)
    check(in_place, 1, 64, x, y)
    assert (y == x + 1).all()
    with pytest.raises(KernelFault, match="another thread reads it"):
        check(of_a_neighbour, 1, 64, x, y)
