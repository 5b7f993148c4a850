"""What `check` makes of options, of compute capabilities and of a machine that is used again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import cuda

from tinyresnext.emulator import check
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.errors import DeviceError

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
X = np.linspace(1, 2, 32).astype(np.float32)


def quotient(x, y):
    i = cuda.grid(1)
    y[i] = math.sin(x[i]) / x[0]


def test_fastmath_is_applied():
    y = np.zeros(32, np.float32)
    plain = check(quotient, 1, 32, X, y)
    assert plain.instructions["div.f32"]
    assert not plain.instructions["sin.f32"]
    fast = check(cuda.jit(fastmath=True)(quotient), 1, 32, X, y)
    assert fast.instructions["sin.f32"]
    assert fast.threads.total() < plain.threads.total()
    assert np.allclose(y, np.sin(X), atol=1e-6)


def test_no_optimisation_is_applied():
    y, slowly = np.zeros(32, np.float32), cuda.jit(opt=False)(copied(1))
    quick = check(copied(1), 1, 32, X, y)
    if "numba_cuda" not in str(cuda.__file__):  # there the kernel calls its own body
        with pytest.raises(DeviceError, match="takes no kernel that calls functions"):
            check(slowly, 1, 32, X, y)
        return
    slow = check(slowly, 1, 32, X, y)
    assert slow.threads.total() > quick.threads.total()


def test_bounds_of_a_launch_are_held():
    bound = cuda.jit(launch_bounds=16)(quotient)
    with pytest.raises(DeviceError, match="launch_bounds: it allows blocks of 16 threads"):
        check(bound, 1, 32, X, np.zeros(32, np.float32))


def copied(step: int):
    """Return a kernel that reads values so many apart."""

    def copy(x, y):
        i = cuda.threadIdx.x
        y[i] = x[step * i % 32]

    return copy


def test_a_machine_that_is_used_again_counts_anew():
    machine, y = PtxMachine(count=True), np.zeros(32, np.float32)
    first, second = (check(copied(1), 1, 32, X, y, machine=machine) for _ in range(2))
    assert first.sectors == second.sectors == 8
    assert machine.counters["copy"] is second


@pytest.mark.parametrize("capability", [(10, 0), (12, 0)])
def test_later_compute_capabilities(capability):
    """The compiler declares pointers in another way for them."""
    y = np.zeros(32, np.float32)
    check(copied(3), 1, 32, X, y, machine=PtxMachine(capability))
    assert np.array_equal(y, X[3 * np.arange(32) % 32])


def test_shared_memory_up_to_the_limit_of_the_assembler():
    def of(count: int):
        def whole(x, y):
            own = cuda.shared.array(count, np.float32)
            own[cuda.threadIdx.x] = x[cuda.threadIdx.x]
            y[cuda.threadIdx.x] = own[cuda.threadIdx.x]

        return whole

    y = np.zeros(32, np.float32)
    check(of(12_288), 1, 32, X, y)
    assert np.array_equal(y, X)
    with pytest.raises(DeviceError, match="expected at most 49,152"):
        check(of(12_289), 1, 32, X, y)
