"""Kernels on the processor, threads as fibers: right ones compute, and planted mistakes show."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda
from numba.core import types
from on_device import by_fibers
from planted import RIGHT, THREADS, WRONG, kernel, unknown

from tinyresnext.emulator import KernelFault, check
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.errors import DeviceError, OutOfMemoryError
from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload
from tinyresnext.ops.cuda.runtime.machine import Launch

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


def test_what_cannot_be_emulated_is_named():
    def discards(x, y, n):
        unknown()

    with pytest.raises(DeviceError, match=r"discard\.global\.L2"):
        run(FiberMachine(), discards)


def test_arrays_of_a_thread_that_are_too_large_are_refused():
    def large(x, y, n):
        a = cuda.local.array(20_000, types.float32)
        for i in range(n):
            a[i * i] = x[i]
        y[0] = a[n]

    with pytest.raises(KernelFault, match="80,000 bytes") as caught:
        run(FiberMachine(), large)
    assert caught.value.kind == "stack"


# --- kernels of one's own -------------------------------------------------------------------------


@cuda.jit
def histogram(x, sums, counts):
    i = cuda.grid(1)
    if i < x.size:
        cuda.atomic.add(sums, 0, x[i])
        cuda.atomic.add(counts, i % 7, 1)


def test_a_kernel_with_arrays_and_atomics():
    x, sums, counts = (
        np.arange(100, dtype=np.float32),
        np.zeros(1, np.float32),
        np.zeros(7, np.int32),
    )
    assert check(histogram, 2, 64, x, sums, counts, machine=FiberMachine()) is None
    assert sums[0] == x.sum()
    assert counts.tolist() == np.bincount(np.arange(100) % 7).tolist()


def test_arguments_that_do_not_fit_are_refused():
    machine, kernel_ = FiberMachine(), kernel(RIGHT["rotated"][0])
    y = empty(machine, X.shape)
    with pytest.raises(DeviceError, match="takes 3 arguments, and 2 are given"):
        machine.launch(Launch(kernel_, 1, (y, y)))
    with pytest.raises(DeviceError, match="takes float32"):
        machine.launch(Launch(kernel_, 1, (y, 5, 1)))


# --- the machine ----------------------------------------------------------------------------------


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


def test_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(DeviceError, match="riscv64"):
        FiberMachine()
