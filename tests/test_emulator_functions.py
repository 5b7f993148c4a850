"""Mathematics, bits, constants and calls in PTX: what is computed, and what is refused by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numba import cuda

from tinyresnext.emulator import KernelFault, check
from tinyresnext.errors import DeviceError

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("nvvm")]
X = np.linspace(-0.9, 0.9, 32).astype(np.float32)


def of_float(x, y):
    t = cuda.threadIdx.x
    y[0, t] = math.tanh(x[t])
    y[1, t] = math.sinh(x[t])
    y[2, t] = math.cosh(x[t])
    y[3, t] = math.atan(x[t])
    y[4, t] = math.asin(x[t])
    y[5, t] = math.erf(x[t])
    y[6, t] = math.fmod(x[t], x[3])
    y[7, t] = math.copysign(x[t], x[31 - t])


RIGHT = [
    *(np.tanh, np.sinh, np.cosh, np.arctan, np.arcsin),
    np.vectorize(math.erf),
    lambda x: np.fmod(x, x[3]),
    lambda x: np.copysign(x, x[::-1]),
]


def test_mathematics_with_a_sign():
    """NVIDIA's functions of float32 err by a few units of the last place, and those are 2^-24."""
    y = np.zeros((8, 32), np.float32)
    check(of_float, 1, 32, X, y)
    for made, right in zip(y, RIGHT, strict=True):
        wanted = right(X.astype(np.float64))
        assert (np.abs(made - wanted) <= 4 * 2.0**-23 * np.abs(wanted)).all()


def sine(x, y):
    y[cuda.threadIdx.x] = math.sin(x[cuda.threadIdx.x])


def test_a_sine_of_large_numbers():
    """It is reduced by a table and by products whose carry goes into the next one."""
    x = np.logspace(5, 30, 32).astype(np.float32)
    y = np.zeros(32, np.float32)
    check(sine, 1, 32, x, y)
    wanted = [math.sin(one) for one in x.tolist()]
    assert np.allclose(y, wanted, rtol=4 * 2.0**-23, atol=0)


def of_bits(x, wide, y, z):
    t = cuda.threadIdx.x
    y[0, t] = cuda.brev(x[t])
    y[1, t] = cuda.ffs(np.int32(x[t]))
    y[2, t] = cuda.lanemask_lt()
    z[t] = cuda.brev(wide[t])


def test_bits():
    rng = np.random.default_rng(0)
    x, wide = rng.integers(0, 1 << 32, 32, np.uint32), rng.integers(0, 1 << 63, 32, np.uint64)
    x[:3] = 0, 1, 1 << 31
    y, z = np.zeros((3, 32), np.uint32), np.zeros(32, np.uint64)
    check(of_bits, 1, 32, x, wide, y, z)
    assert y[0].tolist() == [int(f"{one:032b}"[::-1], 2) for one in x.tolist()]
    assert y[1].tolist() == [(one & -one).bit_length() for one in x.tolist()]
    assert y[2].tolist() == [(1 << i) - 1 for i in range(32)]
    assert z.tolist() == [int(f"{one:064b}"[::-1], 2) for one in wide.tolist()]


TABLE = np.arange(40, dtype=np.float32)[::-1].copy()


def by_table(x, y):
    t = cuda.threadIdx.x
    y[t] = TABLE[t] + cuda.const.array_like(TABLE)[x[t]]


def test_arrays_of_the_module_are_constants():
    x, y = np.arange(32) + 7, np.zeros(32, np.float32)
    check(by_table, 1, 32, x, y)
    assert np.array_equal(y, TABLE[:32] + TABLE[x])
    with pytest.raises(KernelFault, match="of constant memory, which has 320"):
        check(by_table, 1, 32, x + 2, y)


def power(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x] ** 2.5


def printing(x, y):
    print(x[0])


def cooperating(x, y):
    cuda.cg.this_grid().sync()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (power, r"calls \*\* and math.pow of float64, which x \*\* 2.5 is for a float32, too"),
        (printing, "calls print"),
        (cooperating, "calls cooperative groups"),
    ],
)
def test_calls_are_refused_with_kernel_function_and_line(function, said: str):
    line = function.__code__.co_firstlineno + 1
    place = rf"\(test_emulator_functions.py:{line}\)"
    with pytest.raises(DeviceError, match=f"kernel {function.__name__} {said} {place}"):
        check(function, 1, 32, X, np.zeros(32, np.float32))
