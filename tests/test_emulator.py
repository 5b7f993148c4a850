"""Kernels on the processor, threads as fibers: right ones compute, and planted mistakes show."""

from __future__ import annotations

import numpy as np
import pytest
from planted import RIGHT, THREADS, WRONG, kernel, unknown

from tinyresnext.emulator.fault import KernelFault
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.errors import DeviceError
from tinyresnext.ops.cuda.runtime.arrays import download, empty, upload
from tinyresnext.ops.cuda.runtime.machine import Launch

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


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_planted_mistakes_show(function):
    found = WRONG[function][1]
    if found is None:
        pytest.skip("fibers do not see this; the emulator of PTX does")
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


def test_memory_is_finite_and_given_back():
    machine = FiberMachine(memory=1000)
    held = machine.allocate(600)
    with pytest.raises(DeviceError, match="400 bytes left"):
        machine.allocate(401)
    del held
    assert machine.free_bytes() == 1000
    assert machine.allocate(1000).address % 256 == 0


def test_memory_that_nobody_wrote_is_not_a_number():
    assert np.isnan(download(empty(FiberMachine(), (5,)))).all()


def test_other_processors_are_refused(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(DeviceError, match="riscv64"):
        FiberMachine()
