"""Kernels on the processor, threads as fibers: right ones compute, and planted mistakes show."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda
from numba.core import types
from on_device import by_fibers
from planted import RIGHT, THREADS, WRONG, assembly, kernel, no_barrier, shuffle, unknown

from tinyresnext.emulator import KernelFault
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.errors import DeviceError, OutOfMemoryError, UsageError
from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload
from tinyresnext.ops.cuda.runtime.kernel import Kernel, floats, int32, uint32
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.words import copies_done, copy1, shared

pytestmark = by_fibers
ORDERS = [("ascending", "early"), ("descending", "late"), (7, "early"), (8, "late")]
X = np.random.default_rng(0).standard_normal(THREADS).astype(np.float32)


def run(machine, function, blocks: int = 1) -> np.ndarray:
    """Return what a kernel makes of X, in memory of its own."""
    x, y = upload(machine, X), empty(machine, X.shape)
    machine.launch(Launch(kernel(function), blocks, (x, y, 1)))
    return download(y)


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_compute_the_same_in_every_order(name: str, order):
    function, wanted = RIGHT[name]
    assert np.array_equal(run(FiberMachine(*order), function), wanted(X))


@pytest.mark.parametrize(
    "function",
    [function for function, found in WRONG.items() if found[1] is not None],
    ids=lambda function: function.__name__,
)
def test_planted_mistakes_show(function):
    """The others are seen by the emulator of PTX only."""
    found = WRONG[function][1]
    if found == "values":
        made = [run(FiberMachine(*order), function) for order in ORDERS]
        assert any(not np.array_equal(one, made[0]) or np.isnan(one).any() for one in made)
        return
    with pytest.raises(KernelFault, match=function.__name__) as caught:
        run(FiberMachine(), function)
    assert caught.value.kind == found


def test_a_missing_barrier_shows_in_several_blocks():
    """Shared memory is not what the block before has left there."""
    assert np.isnan(run(FiberMachine(), no_barrier, blocks=4)).any()


def test_a_copy_in_no_group_is_not_waited_for_with_the_groups():
    wait_for_all_groups = assembly("cp.async.wait_group 0;")

    def waits(x, y, n):
        s = shared(64)
        t = int32(cuda.threadIdx.x)
        copy1(s, t, x, t, True)
        wait_for_all_groups()
        y[t] = s[t]
        copies_done()
        y[64 + t] = s[t]

    machine = FiberMachine(copies="late")
    x, y = upload(machine, X), empty(machine, (128,))
    machine.launch(Launch(kernel(waits), 1, (x, y, 1)))
    made = download(y)
    assert np.isnan(made[:64]).all()
    assert np.array_equal(made[64:], X)


@pytest.mark.parametrize("order", ["ascending", "descending", *range(4)])
def test_the_last_warp_may_be_smaller(order):
    def neighbours(x, y, n):
        t = int32(cuda.threadIdx.x)
        y[t] = shuffle(uint32(0xFFFFFFFF if t < 32 else 0xFFFF), 3, x[t], int32(1))

    machine = FiberMachine(order)
    x, y = upload(machine, X[:48]), empty(machine, (48,))
    kernel_ = Kernel("neighbours", neighbours, (floats, floats, int32), 48)
    machine.launch(Launch(kernel_, 1, (x, y, 1)))
    assert np.array_equal(download(y), X[:48].reshape(-1, 2)[:, ::-1].reshape(-1))


def test_what_cannot_be_emulated_is_named():
    def discards(x, y, n):
        unknown()

    with pytest.raises(DeviceError, match=r"discard\.global\.L2"):
        run(FiberMachine(), discards)


@pytest.mark.parametrize("count", [0, -32, 1025, 2048, (16, 16)])
def test_blocks_that_no_gpu_has_are_refused(count):
    with pytest.raises(DeviceError, match="threads; expected a whole number from 1 to 1,024"):
        Kernel("rotated", RIGHT["rotated"][0], (floats, floats, int32), count)


def test_arrays_of_a_thread_that_are_too_large_are_refused():
    def large(x, y, n):
        a = cuda.local.array(20_000, types.float32)
        for i in range(n):
            a[i * i] = x[i]
        y[0] = a[n]

    with pytest.raises(KernelFault, match="80,000 bytes") as caught:
        run(FiberMachine(), large)
    assert caught.value.kind == "stack"


# --- the machine ----------------------------------------------------------------------------------


def test_arguments_that_do_not_fit_are_refused():
    machine, kernel_ = FiberMachine(), kernel(RIGHT["rotated"][0])
    y = empty(machine, X.shape)
    with pytest.raises(DeviceError, match="takes 3 arguments, and 2 are given"):
        machine.launch(Launch(kernel_, 1, (y, y)))
    with pytest.raises(DeviceError, match="takes float32"):
        machine.launch(Launch(kernel_, 1, (y, 5, 1)))


def test_memory_is_finite_and_given_back():
    machine = FiberMachine(memory=1000)
    held = machine.allocate(600)
    with pytest.raises(OutOfMemoryError, match="400 bytes left") as caught:
        machine.allocate(401)
    assert (caught.value.wanted, caught.value.free) == (401, 400)
    del held
    assert machine.free_bytes() == 1000
    assert machine.allocate(1000).address % 256 == 0


def test_memory_that_nobody_wrote_is_not_a_number():
    assert np.isnan(download(empty(FiberMachine(), (5,)))).all()


@pytest.mark.parametrize("given", [{"order": "reverse"}, {"order": -1}, {"order": 0.5}])
def test_an_unknown_order_is_refused(given):
    with pytest.raises(UsageError, match="expected ascending or descending, or a whole number"):
        FiberMachine(**given)


def test_an_unknown_time_of_copies_is_refused():
    with pytest.raises(UsageError, match="copies is 'soon': expected one of early, late"):
        FiberMachine(copies="soon")


def test_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(DeviceError, match="riscv64"):
        FiberMachine()
