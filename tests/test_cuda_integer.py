"""Convolutions of integers on the backend of GPUs: the reference's bits, on emulators and on a GPU.

Sums are exact, and what follows them is one operation in float32 after the other. So every result
is compared bit by bit, and a difference is a mistake. All cases of `test_integer_ops` run with all
ends, but for those that are slow on emulators: there a few ends are enough.
"""

from __future__ import annotations

import inspect
import itertools
import pkgutil
from importlib import import_module

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

import test_cuda_conv_faults as faults
from numba import cuda as nc
from on_device import by_fibers
from test_integer_ops import CASES, arrays

from tinyresnext.emulator.fault import KernelFault
from tinyresnext.emulator.ptx.source.arithmetic import dot_bytes
from tinyresnext.errors import DeviceError
from tinyresnext.ops import cuda, integer, reference, shapes
from tinyresnext.ops.cuda.runtime.kernel import Kernel, floats, int32, octets
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.tensor import integer as kernels
from tinyresnext.ops.cuda.tensor.integer import ends, forward, grouped, product, rounding
from tinyresnext.ops.cuda.words import get, put, registers
from tinyresnext.ops.cuda.words.integer import dot4, put_word, word_if, words4

on_device = pytest.mark.device
BOTH = [
    pytest.param("emulated", marks=on_device),
    pytest.param("on_gpu", marks=pytest.mark.gpu),
]
UNSIGNED, SIGNED = False, True
# What is read, what is added, and what is stored: bytes without and with a sign, and float32.
RELU = UNSIGNED, np.uint8, True, 0.02
LINEAR = SIGNED, np.int8, False, 0.02
REAL = SIGNED, None, False, None
ENDS = [
    (signed, *end)
    for signed in (UNSIGNED, SIGNED)
    for end in (RELU[1:], LINEAR[1:], REAL[1:], (np.uint8, True, None))
]
EMULATORS = {"fibers", "ptx"}
SLOW = {  # on emulators, with a tile for each of many groups
    "3x3 of groups of 1",
    "3x3 of groups of 2",
    "3x3 of groups of 6",
    "groups that widen",
}


@pytest.fixture(scope="module", params=BOTH)
def device(request):
    """Return the backend on the emulator that is asked for, and on a GPU."""
    return request.getfixturevalue(request.param).backend


def tile_case(tile, kernel: int, c_in: int, more: int):
    """Return a case of a tile and a part of one in each direction."""
    x = 1, 3, tile.BM // 3 + 2, c_in
    return (*x, tile.BN + more, kernel, 1, kernel // 2, 1)


def computed(ops, case, signed, other, relu, scale):
    """Return what a backend makes of a case, and what is right."""
    x, weight, factor, bias, attrs = arrays(case, signed)
    shape = shapes.conv2d_int8(x, weight, factor, bias, **attrs)
    attrs |= {"relu": relu, "scale": scale, "residual_scale": 0.01}
    residual = None
    if other is not None:
        low, high = (-127, 128) if other == np.int8 else (0, 256)
        residual = np.random.default_rng(1).integers(low, high, shape).astype(other)
    wanted = reference.conv2d_int8(x, weight, factor, bias, residual=residual, **attrs)
    packed = ops.pack_int8(weight, attrs["groups"])
    there = None if residual is None else ops.upload(residual)
    given = ops.upload(x), packed, ops.upload(factor), ops.upload(bias)
    out = ops.empty(wanted.shape, wanted.dtype)
    made = ops.conv2d_int8(*given, residual=there, out=out, **attrs)
    assert made is out
    return ops.download(made), wanted


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(device, case):
    for end in ENDS[::3] if case in SLOW and device.machine.name in EMULATORS else ENDS:
        found, wanted = computed(device, case, *end)
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted), end


@pytest.mark.parametrize("signed", [UNSIGNED, SIGNED], ids=["unsigned", "signed"])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("tile", product.TILES, ids=str)
def test_every_tile(device, tile, kernel, signed, monkeypatch):
    """Cut on both sides, with each end: bytes, float32, and sums that another kernel ends."""
    monkeypatch.setattr(product, "TILES", {tile: 1.0})
    for more, end in ((32, RELU), (8, REAL), (6, LINEAR)):  # whole sectors, but for the last
        monkeypatch.setitem(CASES, "tile", tile_case(tile, kernel, 20, more))
        assert np.array_equal(*computed(device, "tile", signed, *end[1:])), end


@pytest.mark.parametrize(("kind", "signed"), [(np.uint8, False), (np.int8, True)])
def test_every_integer_comes_back_and_what_is_beyond_becomes_an_end(device, kind, signed):
    q = np.arange(-127 if signed else 0, 128 if signed else 256).astype(kind)
    some = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 254.5, 1e9, -1e9, np.inf, -np.inf]
    there = device.upload(q)
    back = device.dequantise(there, scale=0.1)
    assert np.array_equal(device.download(back), reference.dequantise(q, scale=0.1))
    assert np.array_equal(device.download(device.quantise(back, scale=0.1, signed=signed)), q)
    x = np.array(some, np.float32)
    found = device.download(device.quantise(device.upload(x), scale=1.0, signed=signed))
    assert np.array_equal(found, reference.quantise(x, scale=1.0, signed=signed))


def test_arrays_may_begin_anywhere(device):
    """What does not begin at a multiple of 16 bytes is copied, there and back."""
    x, weight, factor, bias, attrs = arrays("3x3 of groups of 4", UNSIGNED)
    wanted = reference.conv2d_int8(x, weight, factor, bias, relu=True, scale=0.02, **attrs)

    def shifted(a):
        flat = device.upload(np.concatenate([np.zeros(1, a.dtype), a.reshape(-1)]))
        return device.view(flat, a.shape, 1)

    out = shifted(np.zeros_like(wanted))
    given = shifted(x), device.pack_int8(weight, attrs["groups"]), shifted(factor), shifted(bias)
    device.conv2d_int8(*given, relu=True, scale=0.02, out=out, **attrs)
    assert np.array_equal(device.download(out), wanted)


# --- the instruction ------------------------------------------------------------------------------


def dots_kernel(signed: int) -> Kernel:
    """Return a kernel of one `dot4` for each of 64 threads."""
    SIGNED = signed

    def run(a, b, c, y, n):
        t = int32(nc.threadIdx.x)
        v, sums = registers(1), registers(4)
        put_word(v, 0, word_if(a, t, t < n))
        for q in range(4):
            put_word(sums, q, word_if(c, t, t < n))
        dot4(sums, 0, v, 0, words4(b, 4 * t, 0), SIGNED)
        for q in range(4):
            put_word(y, int32(4 * t + q), word_if(sums, q, t < n))

    return Kernel(f"dots {signed}", run, (floats, floats, floats, floats, int32), 64)


def test_products_of_bytes_are_those_of_the_ptx_isa(device):
    """With all ends of the ranges, and sums that lose their upper bits."""
    rng = np.random.default_rng(7)
    edges = np.array([0, 1, 127, 128, 129, 255], np.uint8)
    a = rng.choice(edges, (64, 4)).astype(np.uint8)
    b, c = rng.integers(0, 256, (64, 4, 4)).astype(np.uint8), rng.integers(-(2**31), 2**31, 64)
    c[:2] = 2**31 - 1, -(2**31)
    there = [device.upload(one.view(np.int32)) for one in (a, b)]
    there += [device.upload(c.astype(np.int32)), device.empty((64, 4), np.int32)]
    for signed, kind in enumerate((np.uint8, np.int8)):
        device.machine.launch(Launch(dots_kernel(signed), 1, (*there, 64)))
        left, right = (one.astype(np.int64) for one in (a.view(kind), b.view(np.int8)))
        want = c[:, None] + (left[:, None] * right).sum(2)
        assert np.array_equal(device.download(there[-1]), want.astype(np.int32))


def test_dp4a_of_the_emulator_knows_all_signs():
    a, b, c = np.uint32(0xFF01807F), np.uint32(0x80FF7F02), np.uint32(10)
    for left, right in itertools.product((np.uint8, np.int8), repeat=2):
        u, v = (np.array([w]).view(kind).astype(int) for w, kind in ((a, left), (b, right)))
        want = (int((u * v).sum()) + 10) % 2**32
        assert int(dot_bytes(a, b, c, left == np.int8, right == np.int8)) == want


# --- what is moved --------------------------------------------------------------------------------


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(
    ("case", "end"),
    [
        (("3x3", (1, 12, 12, 64), 64, 3, 1, 1, 1), RELU),
        (("width 4, stride", (1, 6, 7, 128), 128, 3, 2, 1, 32), REAL),
        (("width 14", (1, 3, 7, 112), 112, 3, 1, 1, 8), RELU),
        (("20 to 72", (2, 9, 11, 20), 72, 1, 1, 0, 1), RELU),
        (("20 to 72, real", (2, 9, 11, 20), 72, 3, 1, 1, 1), REAL),
        (("50 to 70", (2, 9, 11, 50), 70, 3, 2, 1, 1), RELU),
        (("64 to 20", (2, 9, 11, 64), 20, 1, 1, 0, 1), RELU),
        (("groups of 12", (2, 9, 11, 36), 36, 3, 1, 1, 3), REAL),
        (("groups of 5 to 40", (2, 9, 11, 10), 80, 1, 1, 0, 2), RELU),
    ],
    ids=lambda given: given[0] if isinstance(given[0], str) else None,
)
def test_whole_sectors_are_moved(case, end, monkeypatch):
    """With all kernels: the last case also fills groups up, and ends its sums later."""
    from test_cuda_counts import counting, moved

    name, x, *sizes = case
    monkeypatch.setitem(CASES, name, (*x, *sizes))
    ops = cuda.CudaBackend(counting(1 if name == "3x3" else 8))
    assert np.array_equal(*computed(ops, name, *end))
    there = ops.quantise(ops.upload(np.ones((2, 4, 4, 64), np.float32)), scale=0.1)
    ops.dequantise(there, scale=0.1)
    moved(ops.machine)


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("tile", product.TILES, ids=str)
def test_whole_sectors_are_moved_by_every_tile(tile, kernel, monkeypatch):
    from test_cuda_counts import counting, moved

    monkeypatch.setattr(product, "TILES", {tile: 1.0})
    monkeypatch.setitem(CASES, "tile", tile_case(tile, kernel, 64, 32))
    ops = cuda.CudaBackend(counting(1))
    assert np.array_equal(*computed(ops, "tile", *RELU))
    moved(ops.machine)


# --- mistakes -------------------------------------------------------------------------------------

DENSE, GROUPED = ("groups that widen", *LINEAR), ("3x3 of groups of 4", *RELU)
PLANTED = [
    (product, faults.BARRIER, "", DENSE, faults.RACE),
    (product, faults.WAIT, "", DENSE, faults.COPY),
    (product, "and uint32(left[i] + (tap & 65535)) < uint32(w)", "", DENSE, None),
    (product, "if m < positions:", "if True:", DENSE, faults.OUT),
    (grouped, faults.BARRIER, "", GROUPED, faults.RACE),
    (grouped, faults.WAIT, "", GROUPED, faults.COPY),
    (grouped, "seen = inside and uint32(left + j) < uint32(w)", "seen = inside", GROUPED, None),
    (ends, "if at < last:", "if True:", ("5 x 2 kernel", *RELU), "nobody has written it"),
    (ends, "        cuda.syncthreads()\n", "", ("5 x 2 kernel", *RELU), faults.RACE),
]
ROUNDING = [
    ("quantise_kernel", "if i < count:", "if True:", faults.OUT),
    ("quantise_kernel", "byte(x[i]", "byte(x[first]", None),
    ("dequantise_kernel", "if i < count:", "if True:", faults.OUT),
    ("dequantise_kernel", "sign != 0", "sign == 0", None),
]


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(("module", "old", "new", "case", "said"), PLANTED)
def test_a_mistake_is_found(module, old, new, case, said, monkeypatch):
    from tinyresnext.emulator.ptx import PtxMachine

    assert old in inspect.getsource(module)
    made = faults.changed(module, old, new, monkeypatch)
    if module is product:
        monkeypatch.setattr(forward, "product", made.product)
    elif module is grouped:
        monkeypatch.setattr(forward, "direct", made.direct)
    else:
        monkeypatch.setattr(product, "ended", made.ended)
    ops = cuda.CudaBackend(PtxMachine())
    if said is not None:
        with pytest.raises(KernelFault, match=said):
            computed(ops, *case)
        return
    try:
        values = computed(ops, *case)
    except KernelFault:
        return
    assert not np.array_equal(*values), "the values are right all the same"


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(("name", "old", "new", "said"), ROUNDING)
def test_a_mistake_of_rounding_is_found(name, old, new, said, monkeypatch):
    """Of 300 values, so that a thread has several and the last of a block have none."""
    from tinyresnext.emulator.ptx import PtxMachine

    made = faults.changed(rounding, old, new, monkeypatch, name)
    monkeypatch.setattr(rounding, name, getattr(made, name))
    ops, x = cuda.CudaBackend(PtxMachine()), np.linspace(-3, 3, 300, dtype=np.float32)
    q = reference.quantise(x, scale=0.02, signed=True)

    def computed() -> list[np.ndarray]:
        found = ops.quantise(ops.upload(x), scale=0.02, signed=True)
        back = ops.dequantise(ops.upload(q), scale=0.02)
        return [ops.download(found), ops.download(back)]

    if said is not None:
        with pytest.raises(KernelFault, match=said):
            computed()
        return
    found, back = computed()
    same = np.array_equal(found, q), np.array_equal(back, reference.dequantise(q, scale=0.02))
    assert sorted(same) == [False, True]


def test_every_kernel_of_integers_has_a_mistake():
    """Each module has one kernel, but for that of rounding."""
    found = {}
    for info in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}."):
        module = import_module(info.name)
        names = [name for name in vars(module) if name.endswith("_kernel")]
        own = [name for name in names if getattr(module, name).__module__ == info.name]
        if own:
            found[module] = set(own)
    assert found.pop(rounding) == {row[0] for row in ROUNDING}
    assert {row[0] for row in PLANTED} == set(found)
    assert all(len(names) == 1 for names in found.values())


BYTES = {
    "neighbours": ("put(y, t, get(x, t))", None),
    "one place twice": ("put(y, int32(t // 2), get(x, t))", "race"),
    "a byte that nobody wrote": ("put(y, 2 * t, get(x, t)); put(x, t, get(y, 2 * t + 1))",
                                 "unwritten"),
    "behind the end": ("put(y, t + 65, get(x, t))", "bounds"),
}  # fmt: skip


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize("name", BYTES)
def test_bytes_of_a_word_are_watched_apart(name: str):
    from tinyresnext.emulator.ptx import PtxMachine

    line, kind = BYTES[name]
    names = {"get": get, "put": put, "cuda": nc, "int32": int32}
    exec(f"def run(x, y, n):\n    t = int32(cuda.threadIdx.x)\n    {line}", names)
    ops = cuda.backend(PtxMachine())
    x = ops.upload(np.arange(64, dtype=np.uint8))
    y = ops.empty((128 if "2 * t" in line else 64,), np.uint8)
    launch = Launch(Kernel(name, names["run"], (octets, octets, int32), 64), 1, (x, y, 0))
    if kind is None:
        ops.machine.launch(launch)
        assert np.array_equal(ops.download(y), np.arange(64))
        return
    with pytest.raises(KernelFault) as caught:
        ops.machine.launch(launch)
    assert caught.value.kind == kind


# --- what is refused ------------------------------------------------------------------------------


def test_a_gpu_computes_with_integers_in_float32_only(device):
    assert integer(device) is device
    half = cuda.backend(device.machine, "float16")
    with pytest.raises(DeviceError, match="does not compute with integers of 8 bits"):
        integer(half)


def test_what_is_no_array_of_8_bits_is_refused(device):
    x, weight, factor, bias, attrs = arrays("one channel", UNSIGNED)
    there = device.upload(x), weight, device.upload(factor), device.upload(bias)
    wide = device.upload(x.astype(np.float32))
    with pytest.raises(TypeError, match="x is float32, expected int8 or uint8"):
        device.conv2d_int8(wide, *there[1:], **attrs)
    with pytest.raises(TypeError, match="weight is float32"):
        device.pack_int8(weight.astype(np.float32), 1)
    five = arrays("3x3 of groups of 1", UNSIGNED)
    given = device.upload(five[0]), device.pack_int8(five[1], 1), *map(device.upload, five[2:4])
    with pytest.raises(ValueError, match=f"packed for 1 groups, expected {five[4]['groups']}"):
        device.conv2d_int8(*given, **five[4])
    out = device.empty(x.shape, np.int8)
    with pytest.raises(TypeError, match="out is int8, expected uint8"):
        device.conv2d_int8(*there, relu=True, scale=0.1, out=out, **attrs)
    with pytest.raises(ValueError, match="expected a positive number"):
        device.quantise(wide, scale=0.0)


# --- a network ------------------------------------------------------------------------------------


@pytest.fixture
def machine(request):
    """Return the backend of fibers, which are fast enough for a network, or of a GPU."""
    if request.param != "fibers":
        return request.getfixturevalue(request.param).backend
    from tinyresnext.emulator.fibers import FiberMachine

    return cuda.backend(FiberMachine())


@pytest.mark.parametrize(
    "machine", [pytest.param("fibers", marks=[on_device, by_fibers]), BOTH[1]], indirect=True
)
def test_a_quantised_network(machine):
    """Float32 layers differ in their last bits, so single integers do, and no more than those.

    The bound is what all roundings together take from the float32 network's logits.
    """
    from test_quantise import images, made

    from tinyresnext.inference.model import Model

    model, found = made()
    x = np.stack(images(count=2, seed=5))
    there = found.model
    fields = there.spec, there.params, there.preprocess, there.labels, there.provenance
    moved = Model(*fields, machine, None, there.quantisation)
    want, real, logits = there(x), model(x), moved(x)
    assert np.abs(logits - want).max() < np.abs(real - want).max()
    assert (logits.argmax(1) == want.argmax(1)).all()
    assert "int8" in repr(moved)
    steps = [step.name for step in moved.plan(x.shape).calls if step.op == "conv2d_int8"]
    assert len(steps) > 3
