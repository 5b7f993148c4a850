"""What Numba makes of local arrays, atomics and integers, which is more than the kernel says."""

from __future__ import annotations

import numpy as np
import pytest
from numba import cuda, types
from on_device import by_fibers

from tinyresnext.emulator import KernelFault, check
from tinyresnext.emulator.fibers import FiberMachine
from tinyresnext.emulator.local import UNWRITTEN, fill
from tinyresnext.emulator.ptx import PtxMachine

pytestmark = pytest.mark.device
watched = pytest.mark.usefixtures("nvvm")
KINDS = [np.int8, np.int16, np.int32, np.int64, np.float32, np.float64]


@pytest.fixture(params=["ptx", pytest.param("fibers", marks=by_fibers)])
def machine(request):
    """Give a machine of each kind."""
    if request.param == "fibers":
        return FiberMachine()
    request.getfixturevalue("nvvm")
    return PtxMachine()


# --- local arrays ---------------------------------------------------------------------------------


def histogram(x, y):
    bins = cuda.local.array(8, types.int32)  # never filled with zeros
    for i in range(64):
        bins[x[i]] += 1
    for i in range(8):
        y[8 * cuda.threadIdx.x + i] = bins[i]


def of_kind(kind):
    """Return a kernel that writes -1 to a place of a local array and reads the place given."""

    def one_of(x, y):
        own = cuda.local.array(64, kind)
        own[x[0]] = -1
        y[cuda.threadIdx.x] = own[x[1]]

    return one_of


X = np.random.default_rng(0).integers(0, 8, 64).astype(np.int32)


@watched
def test_a_local_array_that_is_not_filled_is_found():
    with pytest.raises(KernelFault, match=r"of local memory: nobody has written it, thread 0") as e:
        check(histogram, 1, 32, X, np.zeros(256, np.int32))
    assert e.value.kind == "unwritten"


@watched
@pytest.mark.parametrize("kind", KINDS)
def test_of_a_local_array_what_was_written_is_known(kind):
    """Also -1, which is what other memory is filled with."""
    y = np.zeros(32, np.float32)
    check(of_kind(getattr(types, kind.__name__)), 1, 32, np.array([5, 5]), y)
    assert (y == -1).all()
    with pytest.raises(KernelFault, match="nobody has written it"):
        check(of_kind(getattr(types, kind.__name__)), 1, 32, np.array([5, 6]), y)


@by_fibers
def test_fibers_fill_local_arrays_with_what_shows():
    y = np.zeros(256, np.int32)
    check(histogram, 1, 32, X, y, machine=FiberMachine())
    assert (y[:8] == np.bincount(X, minlength=8) - 1).all()
    for kind in (types.float32, types.float64):
        z = np.zeros(32, np.float32)
        check(of_kind(kind), 1, 32, np.array([5, 6]), z, machine=FiberMachine())
        assert np.isnan(z).all()


def test_every_value_of_a_local_array_is_filled():
    """The bits of a float32 are written as those of the float64 with the same value."""
    wide = UNWRITTEN << 32 | UNWRITTEN
    for kind, value in (
        ("i8", "i8 167, i8 125, i8 255"),
        ("i32", f"i32 {UNWRITTEN}, i32 {UNWRITTEN}, i32 {UNWRITTEN}"),
        ("double", ", ".join([f"double 0x{wide:016X}"] * 3)),
        ("float", ", ".join(["float 0xFFFFEFB4E0000000"] * 3)),
    ):
        line = f'store [3 x {kind}] %s, [3 x {kind}]* %%"_cudapy_lmem.1"'
        assert fill(line % "zeroinitializer", UNWRITTEN) == line % f"[{value}]"
    other = 'store [3 x i32] zeroinitializer, [3 x i32]* %"x"'
    assert fill(other, UNWRITTEN) == other


# --- atomics --------------------------------------------------------------------------------------


def add(x, y):
    cuda.atomic.add(y, 0, x[cuda.grid(1)])


def sub(x, y):
    cuda.atomic.sub(y, 0, x[cuda.grid(1)])


def maximum(x, y):
    cuda.atomic.max(y, 0, x[cuda.grid(1)])


def minimum(x, y):
    cuda.atomic.min(y, 0, x[cuda.grid(1)])


def nanmax(x, y):
    cuda.atomic.nanmax(y, 0, x[cuda.grid(1)])


def nanmin(x, y):
    cuda.atomic.nanmin(y, 0, x[cuda.grid(1)])


RIGHT = [(add, sum), (sub, lambda x: 2 * x[0] - sum(x)), (maximum, max), (minimum, min)]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize(("function", "right"), RIGHT, ids=lambda one: one.__name__)
def test_atomics_of_all_kinds(function, right, kind, machine):
    """The first value is there before: 50."""
    x, y = np.random.default_rng(0).permutation(64).astype(kind), np.array([50], kind)
    wanted = right([50, *x.tolist()])
    check(function, 2, 32, x, y, machine=machine)
    assert y[0] == np.array(wanted).astype(np.int64).astype(kind)


@pytest.mark.parametrize("function", [maximum, minimum, nanmax, nanmin])
def test_atomics_of_what_is_not_a_number(function, machine):
    """Numba keeps what is there, be it a number or not; ``nanmax`` and ``nanmin`` keep a number."""
    keeps = function in (nanmax, nanmin)
    x, y = np.full(32, np.nan, np.float32), np.array([5], np.float32)
    check(function, 1, 32, x, y, machine=machine)
    assert y[0] == 5
    x[:], y[:] = 5, np.nan
    check(function, 1, 32, x, y, machine=machine)
    assert (y[0] == 5) == keeps


def read_beside_a_maximum(x, y):
    cuda.atomic.max(y, 0, x[cuda.grid(1)])
    if cuda.threadIdx.x == 5:
        y[1] = y[0]


def written_before_a_maximum(x, y):
    if cuda.threadIdx.x == 5:
        y[0] = 1
    cuda.atomic.max(y, 0, x[cuda.grid(1)])


def written_after_a_maximum_that_changes_nothing(x, y):
    cuda.atomic.max(y, 0, -x[cuda.grid(1)])
    if cuda.threadIdx.x == 5:
        y[0] = 1


@watched
@pytest.mark.parametrize(
    "function",
    [
        read_beside_a_maximum,
        written_before_a_maximum,
        written_after_a_maximum_that_changes_nothing,
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_other_accesses_beside_such_atomics_are_races(function, kind):
    with pytest.raises(KernelFault) as caught:
        check(function, 1, 32, np.arange(32, dtype=kind), np.zeros(2, kind))
    assert caught.value.kind == "race"


# --- integers -------------------------------------------------------------------------------------


FLOATS = [-5.0, 2.9, 1e20, -1e20, np.nan, 300.7, 7e4, -7e4]
COUNTS = [0, 1, 7, 8, 31, 32, 33, 64]


def integers(kind):
    """Return a kernel that makes integers of floats, and one for each direction of a shift."""

    def converts(x, n, y):
        y[cuda.threadIdx.x] = kind(x[cuda.threadIdx.x])

    def to_the_left(x, n, y):
        y[cuda.threadIdx.x] = y[cuda.threadIdx.x] << n[cuda.threadIdx.x]

    def to_the_right(x, n, y):
        y[cuda.threadIdx.x] = y[cuda.threadIdx.x] >> n[cuda.threadIdx.x]

    return converts, to_the_left, to_the_right


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.uint32], ids=str)
@pytest.mark.parametrize("of", [np.float32, np.float64])
def test_numbers_that_do_not_fit(kind, of, machine):
    """A GPU takes the nearest integer that there is, and LLVM defines nothing."""
    limits, wide = np.iinfo(kind), np.dtype(kind).itemsize
    x, n = np.array(FLOATS, of), np.array(COUNTS, np.int64)
    converts, left, right = integers(kind)
    y = np.zeros(8, kind)
    check(converts, 1, 8, x, n, y, machine=machine)
    signs = limits.min < 0
    assert y[:4].tolist() == [-5 if signs else 0, 2, limits.max, limits.min]
    nothing = 0 if max(wide, of(0).itemsize) < 8 or wide == 1 else 1 << 8 * wide - 1
    assert y[4] == np.array(nothing, np.uint64).astype(kind)
    assert y[5] == (44 if wide == 1 else 300)  # the lowest of 16 bits
    for function, wanted in ((left, lambda a, by: a << by), (right, lambda a, by: a >> by)):
        y = np.full(8, 100, kind)
        check(function, 1, 8, x, n, y, machine=machine)
        bits = (wanted(100, by) & (1 << 64) - 1 for by in COUNTS)
        assert y.tolist() == np.array(list(bits), np.uint64).astype(kind).tolist()
