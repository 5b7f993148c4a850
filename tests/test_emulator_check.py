"""Kernels of one's own, run by `check` on fibers: what it takes, and what it refuses and why."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import cuda
from numba.core import types
from on_device import by_fibers

from tinyresnext.emulator import check
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.errors import DeviceError

pytestmark = by_fibers
X = np.random.default_rng(0).standard_normal(32).astype(np.float32)


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


def checked(function, *arguments, threads: int = 32):
    """Run a kernel of one block, by fibers."""
    return check(function, 1, threads, *arguments, machine=FiberMachine())


@cuda.jit
def doubled(x, y):
    i = cuda.threadIdx.x
    y[i] = 2 * x[i]


def test_one_array_may_be_given_twice():
    x = np.ones(32, np.float32)
    checked(doubled, x, x)
    assert (x == 2).all()


def test_arrays_that_share_memory_are_refused():
    x = np.ones(48, np.float32)
    with pytest.raises(DeviceError, match="argument 2 shares memory with argument 1"):
        checked(doubled, x[:32], x[16:])
    with pytest.raises(DeviceError, match="shares memory"):
        checked(doubled, x, x[:])
    checked(doubled, x[:16], x[16:32], threads=16)
    assert x.tolist() == [1] * 16 + [2] * 16 + [1] * 16


@pytest.mark.parametrize("change", [np.asfortranarray, lambda x: x[:, ::2]])
def test_other_layouts_are_refused(change):
    def copies(x, y):
        i = cuda.threadIdx.x
        y[0, i] = x[0, i]

    x, y = change(np.ones((4, 64), np.float32)), np.zeros((4, 64), np.float32)
    for given in ((x, y), (y, x)):
        with pytest.raises(DeviceError, match=r"with strides .* use np\.ascontiguousarray"):
            checked(copies, *given)


def test_an_array_that_cannot_be_written_to_stays_as_it_is():
    def adds(x, y):
        y[0] = cuda.atomic.add(x, 0, y[1])

    x, y = np.ones(32, np.float32), np.zeros(32, np.float32)
    x.setflags(write=False)
    checked(doubled, x, y)
    assert (y == 2).all()
    with pytest.raises(DeviceError, match="adds changes an array that cannot be written to"):
        checked(adds, x, y)
    assert (x == 1).all()
    assert (y == 2).all()
    with pytest.raises(DeviceError, match="Numba cannot compile the kernel doubled"):
        checked(doubled, y, x)


def test_an_array_of_no_dimensions_and_one_of_two_bytes():
    def adds(x, n, y):
        y[cuda.threadIdx.x] = x[()] + n

    y = np.zeros(32, np.uint16)
    checked(adds, np.array(3, np.uint16), True, y)
    assert (y == 4).all()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1j, "argument 2 is a complex, expected a NumPy array, a bool, an int or a float"),
        (None, "argument 2 is a NoneType, expected"),
        ([1.0], "argument 2 is a list, expected"),
        (2**70, "Numba has no type for an argument: Int value is too large"),
        (np.zeros(1, ">f4"), "Numba has no type for an argument: Unsupported array dtype: >f4"),
        (np.array([None]), "argument 2 is an array of Python objects"),
    ],
    ids=str,
)
def test_what_is_no_argument_is_refused(value, said: str):
    with pytest.raises(DeviceError, match=f"kernel doubled: {said}"):
        checked(doubled, np.zeros(1, np.float32), value)


@pytest.mark.parametrize("blocks", [0, -1, (1, 1)])
def test_a_grid_without_blocks_is_refused(blocks):
    with pytest.raises(DeviceError, match="blocks; expected a whole number from 1 on"):
        check(doubled, blocks, 32, X, X, machine=FiberMachine())


@cuda.jit(device=True)
def squared(x):
    return x * x


@cuda.jit(device=True)
def reversed_squares(x, t):
    s = cuda.shared.array(32, types.float32)
    s[t] = squared(x[t])
    cuda.syncthreads()
    return s[31 - t]


def helped(x, y):
    s = cuda.shared.array(32, types.float32)
    t = cuda.threadIdx.x
    s[t] = squared(x[t])
    y[t] = reversed_squares(x, t) - s[t]


def test_a_kernel_may_call_functions():
    """Also ones that have shared memory and a barrier of their own."""
    y = np.zeros(32, np.float32)
    checked(helped, X, y)
    assert np.array_equal(y, X[::-1] ** 2 - X**2)


def misspelt(x, y):
    y[0] = cuda.thredIdx.x


def of_no_such_type(x, y):
    y[0] = x.nothing


@pytest.mark.parametrize(
    ("function", "said"), [(misspelt, "thredIdx"), (of_no_such_type, "'nothing'")]
)
def test_what_numba_cannot_compile_is_an_error_of_ours(function, said: str):
    with pytest.raises(
        DeviceError, match=f"cannot compile the kernel {function.__name__}: .*{said}"
    ):
        checked(function, X, np.zeros(32, np.float32))


def test_arithmetic_in_float16_is_refused():
    """Numba makes assembly of it, and the package numba-cuda makes calls of NVIDIA's functions."""
    x = np.ones(32, np.float16)
    with pytest.raises(
        DeviceError, match=r"kernel .*(assembly that returns|fibers cannot emulate)"
    ):
        checked(doubled, x, x)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (None, "a NoneType is no kernel; expected a function, or what numba.cuda.jit made of one"),
        (doubled[1000, 32], "is no kernel; expected a function"),
        (squared, "kernel squared is compiled with device=True: it is no kernel"),
        (cuda.jit(debug=True, opt=False)(misspelt), "debug=True: what it raises is not emulated"),
        (cuda.jit(link=("other.cu",))(misspelt), "link: code of other languages"),
    ],
    ids=["nothing", "configured", "device", "debug", "link"],
)
def test_what_is_no_kernel_or_cannot_be_applied_is_refused(function, said: str):
    with pytest.raises(DeviceError, match=said):
        checked(function, X, np.zeros(32, np.float32))


@pytest.mark.parametrize("machine", ["fibers", FiberMachine, 3])
def test_what_is_no_machine_is_refused(machine):
    with pytest.raises(DeviceError, match=r"machine is .*; expected one, such as PtxMachine\(\)"):
        check(doubled, 1, 32, X, X, machine=machine)


@pytest.mark.parametrize("capability", ["8.0", 80, (8,), (8, 0, 0), (8.0, 0)])
def test_what_is_no_compute_capability_is_refused(capability):
    for machine in (FiberMachine, PtxMachine):
        with pytest.raises(DeviceError, match=r"expected two numbers, as \(8, 0\)"):
            machine(capability=capability)


def large(x, y):
    own = cuda.shared.array(12_289, types.float32)
    own[cuda.threadIdx.x] = x[cuda.threadIdx.x]
    y[cuda.threadIdx.x] = own[cuda.threadIdx.x]


def test_more_shared_memory_than_a_gpu_has_is_refused():
    """The limit is that of ``ptxas``: 0xc000 bytes."""
    with pytest.raises(DeviceError, match="kernel large has 49,156 bytes of shared memory"):
        checked(large, X, np.zeros(32, np.float32))


SIMULATED = """
from tinyresnext.errors import DeviceError
try:
    import tinyresnext.emulator
except DeviceError as error:
    assert "NUMBA_ENABLE_CUDASIM is set" in str(error)
else:
    raise AssertionError
"""


def test_numbas_simulator_is_refused():
    """Numba 0.68's own target does not even start as a simulator; the package's does."""
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    subprocess.run([sys.executable, "-c", SIMULATED], check=True, env=environment)
