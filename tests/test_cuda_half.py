"""Inference in float16 and bfloat16 on the backend of GPUs: rounded once, and summed in float32.

The reference computes in float64 with values that are rounded at the same places. Two errors are
left. A sum of k products of float16, each exact in float32, errs by ``k 2^-23`` times the sum of
their magnitudes: twice the bound of `test_ops`, since NVIDIA does not say that tensor cores round
to nearest. The result is then rounded once: by ``2^-11`` of itself, or half of the smallest step.
In bfloat16, which has three bits less, it is ``2^-8`` of itself. Its kernels are those of float16
with another type; on a GPU every case runs in both, on emulators some do in bfloat16, with which
every kernel is executed.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

import test_cuda_conv_faults as faults
from numba import cuda as nc
from on_device import by_fibers
from op_cases import (
    ANY_SHAPES,
    BLURS,
    CHANNEL_SHAPES,
    CONVS,
    LINEAR_SHAPES,
    MEAN_SHAPES,
    POOLS,
    SCALED,
    Conv,
    conv_data,
    generator,
    ident,
    normal,
    result_shape,
)
from planted import kernel as planted_kernel

from tinyresnext.cli.main import main
from tinyresnext.emulator.fault import KernelFault
from tinyresnext.errors import DeviceError, PrecisionError, UsageError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.inputs import check_precision
from tinyresnext.inference.verify import verify
from tinyresnext.ops import backend, cuda, reference
from tinyresnext.ops.bfloat16 import limits, rounded, widened
from tinyresnext.ops.cuda.conv import forward
from tinyresnext.ops.cuda.conv.windows import Windows
from tinyresnext.ops.cuda.runtime.kernel import (
    KINDS,
    Kernel,
    bfloats,
    ending,
    float32,
    floats,
    halves,
    int32,
    ints,
)
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.tensor import pairs as pairs_of
from tinyresnext.ops.cuda.tensor import product as tensor
from tinyresnext.ops.cuda.words import get, load4, put, put2, registers, store4
from tinyresnext.ops.cuda.words.tensor import multiply

SUM = 2.0**-23
ROUND, STEP = {"float16": 2.0**-11, "bfloat16": 2.0**-8}, {"float16": 2.0**-25, "bfloat16": 0.0}
on_device = pytest.mark.device


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("emulated", "float16"), marks=on_device),
        pytest.param(("on_gpu", "float16"), marks=pytest.mark.gpu),
        pytest.param(("on_gpu", "bfloat16"), marks=pytest.mark.gpu),
    ],
    ids=" ".join,
)
def half(request):
    """Return the backend in float16 on the emulator that is asked for, and both on a GPU."""
    where, precision = request.param
    machine = request.getfixturevalue(where).backend.machine
    return in_bfloat16(machine) if precision == "bfloat16" else cuda.backend(machine, precision)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("emulated", marks=on_device),
        pytest.param("on_gpu", marks=pytest.mark.gpu),
    ],
)
def brain(request):
    """Return the backend in bfloat16 on the emulator that is asked for, and on a GPU."""
    return in_bfloat16(request.getfixturevalue(request.param).backend.machine)


def in_bfloat16(machine):
    """Return the backend of a machine in bfloat16."""
    if machine.capability < cuda.BFLOAT16:
        pytest.skip("it has no instructions for bfloat16")
    return cuda.backend(machine, "bfloat16")


def narrow(array, ops):
    """Return an array as float16 or bfloat16 has it, in float64."""
    if array is None:
        return None
    if ops.precision == "bfloat16":
        return widened(rounded(array)).astype(np.float64)
    return np.asarray(array, np.float16).astype(np.float64)


def up(ops, array, precision: str = ""):
    there = precision or ops.precision
    return None if array is None else ops.upload(array, out=ops.empty(array.shape, there))


def inside(found, want, size, terms: int, ops) -> bool:
    """Return whether each value is within its bound; ``size`` is the sum of magnitudes."""
    bound = terms * SUM * size
    bound = bound + ROUND[ops.precision] * (np.abs(want) + bound) + STEP[ops.precision]
    found = np.asarray(found, np.float64)
    return found.shape == want.shape and bool((np.abs(found - want) <= bound).all())


def three(ops, case: Conv):
    """Compute a convolution; return it, what is right, its size, its terms, and the backend."""
    x, weight, bias, residual = conv_data(case, result_shape(case))
    relu = "relu" in case.epilogue
    packed = ops.pack(ops.upload(weight), case.groups)
    there = None if bias is None else ops.upload(bias)
    found = ops.conv2d(
        up(ops, x), packed, there, **case.attrs, residual=up(ops, residual), relu=relu
    )
    assert found.dtype == limits(ops.precision).dtype
    given = narrow(x, ops), narrow(weight, ops), None if bias is None else bias.astype(np.float64)
    other = narrow(residual, ops)
    want = reference.conv2d(*given, **case.attrs, residual=other, relu=relu)
    sizes = [None if a is None else np.abs(a) for a in (*given, other)]
    size = reference.conv2d(*sizes[:3], **case.attrs, residual=sizes[3])
    return ops.download(found), want, size, case.terms, ops


WIDE = "r101 64x4d widest"  # the one of more than 1,024 filters that emulators run
ANYWHERE = [  # by float32's multiply-adds, and by tensor cores
    Conv("groups of 8", (1, 5, 9, 16), 16, 3, 1, 1, 2, "bias residual relu"),
    Conv("3x3", (1, 5, 6, 16), 16, 3, 1, 1, epilogue="bias residual relu"),
]

# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVS, ids=ident)
def test_conv2d(half, case: Conv, request):
    left_out = case.c_out > 1024 and case.name != WIDE
    if left_out and "emulated" in request.node.callspec.params["half"]:
        pytest.skip("narrower layers have the same kernels, and the emulators are slow")
    assert inside(*three(half, case))


@pytest.mark.parametrize("tile", tensor.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile(half, tile, kernel: int, monkeypatch):
    """Rows of 144 filters end in their tile, those of 136 are no whole sectors and end later."""
    monkeypatch.setattr(tensor, "TILES", {tile: 1.0})
    channels, end = 40 if kernel == 1 else 16, "bias residual relu"
    for c_out in (144, 136):
        case = Conv("tile", (1, 10, 15, channels), c_out, kernel, 1, kernel // 2, epilogue=end)
        assert inside(*three(half, case))


@pytest.mark.parametrize("case", [CONVS[1], CONVS[2]], ids=ident)
def test_a_weight_that_is_not_packed_makes_the_same_bits(half, case):
    x, weight, *_ = conv_data(case, result_shape(case))
    there = half.upload(weight)
    found = half.conv2d(up(half, x), there, **case.attrs)
    packed = half.conv2d(up(half, x), half.pack(there, case.groups), **case.attrs)
    assert np.array_equal(half.download(found), half.download(packed))


@pytest.mark.parametrize("case", ANYWHERE, ids=ident)
def test_arrays_may_begin_anywhere(half, case):
    """What does not begin at a multiple of 16 bytes is read and stored in smaller words."""
    x, weight, bias, residual = conv_data(case, result_shape(case))

    def shifted(array):
        flat = np.concatenate([np.full(1, np.nan, np.float32), array.reshape(-1)])
        return half.view(up(half, flat), array.shape, 1)

    packed, out = half.pack(half.upload(weight), case.groups), shifted(np.zeros_like(residual))
    attrs = {**case.attrs, "relu": True}
    half.conv2d(shifted(x), packed, half.upload(bias), residual=shifted(residual), out=out, **attrs)
    given = up(half, x), packed, half.upload(bias)
    want = half.download(half.conv2d(*given, residual=up(half, residual), **attrs))
    assert np.array_equal(half.download(out), want)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_convolution_that_is_not_rounded(half, dilation: int):
    """Its result is float32; dilated ones are put together from parts that are not rounded."""
    case = Conv("logits", (1, 6, 7, 16), 24, 3, 1, dilation, dilation=dilation)
    x, weight, *_ = conv_data(case, result_shape(case))
    packed, out = half.pack(half.upload(weight), 1), half.empty(result_shape(case), "float32")
    found = half.download(half.conv2d(up(half, x), packed, **case.attrs, out=out))
    given = [narrow(a, half) for a in (x, weight)]
    size = reference.conv2d(*map(np.abs, given), **case.attrs)
    error = np.abs(found - reference.conv2d(*given, **case.attrs))
    assert found.dtype == np.float32
    assert (error <= case.terms * SUM * size).all()


@pytest.mark.parametrize("shape", ANY_SHAPES, ids=str)
def test_relu_and_add(half, shape):
    rng = generator(shape)
    x, y = normal(rng, *shape), normal(rng, *shape)
    a, b = up(half, x), up(half, y)
    relu = half.download(half.relu(a))
    assert np.array_equal(relu, np.maximum(narrow(x, half), 0))
    total = (narrow(x, half) + narrow(y, half)).astype(np.float32)
    assert np.array_equal(half.download(half.add(a, b)), narrow(total, half))


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_pools(half, case):
    x = normal(generator(case.name), *case.x)
    exact = narrow(x, half)
    want = reference.max_pool2d(exact, **case.attrs)
    assert np.array_equal(half.download(half.max_pool2d(up(half, x), **case.attrs)), want)
    attrs = {**case.attrs, "count_include_pad": case.include_pad}
    want, size = (reference.avg_pool2d(a, **attrs) for a in (exact, np.abs(exact)))
    found = half.download(half.avg_pool2d(up(half, x), **attrs))
    assert inside(found, want, size, case.x[1] * case.x[2] + 1, half)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(half, shape, stride: int):
    x = normal(generator(shape), *shape)
    exact = narrow(x, half)
    want, size = (reference.blur_pool(a, stride=stride) for a in (exact, np.abs(exact)))
    assert inside(half.download(half.blur_pool(up(half, x), stride=stride)), want, size, 9, half)


@pytest.mark.parametrize("end", ["", "residual relu"])
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_excite(half, shape, end: str):
    """Twelve roundings in float32 as in `test_ops`, half a unit each, and one in float16."""
    rng = generator((shape, end))
    x, residual = normal(rng, *shape), normal(rng, *shape) if end else None
    s = normal(rng, shape[0], 1, 1, shape[-1]) * np.float32(4)
    found = half.excite(up(half, x), up(half, s), up(half, residual), relu=bool(end))
    x, s, residual = (narrow(a, half) for a in (x, s, residual))
    want = reference.excite(x, s, residual, relu=bool(end))
    size = reference.excite(np.abs(x), s, None if residual is None else np.abs(residual))
    assert inside(half.download(found), want, size, 6, half)


@pytest.mark.parametrize("shape", MEAN_SHAPES, ids=str)
def test_mean_pool(half, shape):
    x = normal(generator(shape), *shape)
    want, size = (reference.mean_pool(a) for a in (narrow(x, half), np.abs(narrow(x, half))))
    found = half.download(half.mean_pool(up(half, x)))
    assert inside(found, want, size, shape[1] * shape[2] + 1, half)


@pytest.mark.parametrize("shape", CHANNEL_SHAPES, ids=str)
def test_batch_norm(half, shape):
    """Seven roundings in float32 as in `test_ops`, and one in float16."""
    rng = generator(shape)
    x, (scale, shift, mean) = normal(rng, *shape), (normal(rng, shape[-1]) for _ in range(3))
    var = rng.uniform(0.1, 2, shape[-1]).astype(np.float32)
    vectors = [a.astype(np.float64) for a in (scale, shift, mean, var)]
    want = reference.batch_norm(narrow(x, half), *vectors)
    found = half.batch_norm(up(half, x), *map(half.upload, (scale, shift, mean, var)))
    size = np.abs(want - vectors[1]) + np.abs(vectors[1])
    assert inside(half.download(found), want, size, 7, half)


@pytest.mark.parametrize("sizes", LINEAR_SHAPES, ids=str)
@pytest.mark.parametrize("stored", ["16 bits", "float32"])
def test_logits_are_not_rounded(half, sizes, stored: str):
    n, c_in, c_out = sizes
    rng = generator(sizes)
    x, weight, bias = normal(rng, n, c_in), normal(rng, c_out, c_in), normal(rng, c_out)
    there = up(half, weight) if stored == "16 bits" else half.upload(weight)
    found = half.download(half.linear(up(half, x), there, half.upload(bias)))
    exact = stored == "float32" and n <= 8  # more samples go to tensor cores, which need 16 bits
    w, x = weight.astype(np.float64) if exact else narrow(weight, half), narrow(x, half)
    want = reference.linear(x, w, bias.astype(np.float64))
    size = reference.linear(np.abs(x), np.abs(w), np.abs(bias).astype(np.float64))
    assert found.dtype == np.float32
    assert (np.abs(found - want) <= (c_in + 1) * SUM * size).all()


# --- tensor cores ---------------------------------------------------------------------------------


def product_kernel(kind, swap: str = "") -> Kernel:
    """Return a kernel of one product of one warp; ``swap`` names a mistake in the layout."""
    TYPE = KINDS.index(kind)
    A1, A2 = (8, 0) if swap != "rows and depths" else (0, 8)
    STEP_B = 8 if swap != "depths of the right matrix" else 0
    BY_T = 1 if swap == "g and t" else 0
    TURNED = 1 if swap == "columns of the sums" else 0

    def run(a, b, c, y, n):
        lane = int32(nc.threadIdx.x)
        g, t = int32(lane // 4), int32(lane % 4)
        if BY_T:
            g, t = int32(lane % 8), int32(lane // 8)
        sums = registers(4)
        for i in range(4):
            column = int32(2 * t + i % 2) if TURNED == 0 else int32(2 * t + 1 - i % 2)
            sums[i] = get(c, int32((g + i // 2 * 8) * 8 + column))
        row = int32(g * 8 + t)  # words of [16, 16] float16
        multiply(
            sums, 0, a[row], a[row + A1 * 8 + (8 - A1) // 2], a[row + A2 * 8 + (8 - A2) // 2],
            a[row + 68], b[int32(g * 8 + t)], b[int32(g * 8 + t + STEP_B // 2)],
            TYPE,
        )  # fmt: skip
        for i in range(4):
            put(
                y, int32((int32(lane // 4) + i // 2 * 8) * 8 + 2 * int32(lane % 4) + i % 2), sums[i]
            )

    return Kernel(f"product{ending(kind)} {swap}", run, (ints, ints, floats, floats, int32), 32)


def multiplied(ops, swap: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Return what a kernel makes of small whole numbers, and the product: both are exact."""
    kernel = product_kernel(bfloats if ops.precision == "bfloat16" else halves, swap)
    rng = np.random.default_rng(5)
    a, b, c = (
        rng.integers(-8, 9, (16, 16)),
        rng.integers(-8, 9, (16, 8)),
        rng.integers(-9, 9, (16, 8)),
    )
    there = [up(ops, a.astype("f4")), up(ops, np.ascontiguousarray(b.T).astype("f4"))]
    there += [ops.upload(c.astype("f4")), ops.empty((16, 8))]
    ops.machine.launch(Launch(kernel, 1, (*there, 0)))
    return ops.download(there[-1]), a @ b + c


def test_fragments_are_dealt_as_the_ptx_isa_says(half):
    found, want = multiplied(half)
    assert np.array_equal(found, want)


@pytest.mark.parametrize(
    "swap", ["rows and depths", "depths of the right matrix", "g and t", "columns of the sums"]
)
def test_a_mistake_in_the_layout_shows(half, swap: str):
    found, want = multiplied(half, swap)
    assert not np.array_equal(found, want)


@on_device
def test_a_product_without_the_whole_warp_is_found(emulated):
    ops = emulated.backend

    def run(x, y, n):
        sums, t = registers(4), int32(nc.threadIdx.x)
        for i in range(4):
            sums[i] = float32(0)
        if t % 32 < 31:
            multiply(sums, 0, t, t, t, t, t, t, 1)
        y[t] = sums[0]

    arrays = ops.upload(np.zeros(64, "f4")), ops.empty((64,))
    with pytest.raises(KernelFault) as caught:
        ops.machine.launch(Launch(planted_kernel(run), 1, (*arrays, 0)))
    assert caught.value.kind == "shuffle"


def test_columns_of_a_group_are_dealt_once():
    assert sorted(map(pairs_of.column_of, range(32))) == list(range(32))
    for t in range(4):  # what two instructions give to a thread stands side by side
        for half in range(2):
            places = [8 * j + 2 * t + q for j in (2 * half, 2 * half + 1) for q in range(2)]
            first = 16 * half + 4 * t
            assert [pairs_of.column_of(place) for place in places] == list(range(first, first + 4))


def test_the_tile_is_large_where_there_is_much_work_and_small_where_blocks_are_few():
    def win(n: int, size: int, c_out: int, groups: int = 1):
        shape = (n, size, size, 64 * groups), (n, size, size, c_out)
        return Windows(*shape[0], *shape[1][1:], 1, 1, 1, 1, 0, 0, groups)

    assert tensor.chosen(win(256, 56, 256), 132) == (128, 128, 64)
    assert tensor.chosen(win(1, 7, 2048), 132) == (32, 32, 16)
    assert tensor.chosen(win(256, 56, 32 * 16, 32), 132) == (64, 32, 16)


# --- bfloat16 -------------------------------------------------------------------------------------

BRAIN = [  # by float32's multiply-adds, and by tensor cores
    Conv("groups of 8", (1, 5, 9, 16), 16, 3, 1, 1, 2, "bias residual relu"),
    Conv("3x3, filled up, folded", (2, 5, 6, 3), 21, 3, 1, 1, epilogue="bias residual relu"),
    Conv("groups of 8, stride", (1, 6, 7, 16), 16, 3, 2, 1, 2, "bias"),
    Conv("dilated", (1, 5, 6, 8), 16, 3, 1, 2, 1, "bias residual relu", dilation=2),
    Conv("narrowed", (1, 4, 5, 12), 20, epilogue="residual"),
]


@pytest.mark.parametrize("case", BRAIN, ids=ident)
def test_convolutions_in_bfloat16(brain, case: Conv):
    assert inside(*three(brain, case))


@pytest.mark.parametrize("tile", tensor.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile_in_bfloat16(brain, tile, kernel: int, monkeypatch):
    test_every_tile(brain, tile, kernel, monkeypatch)


@pytest.mark.parametrize("case", ANYWHERE, ids=ident)
def test_arrays_may_begin_anywhere_in_bfloat16(brain, case):
    test_arrays_may_begin_anywhere(brain, case)


def test_the_other_ops_in_bfloat16(brain):
    test_relu_and_add(brain, ANY_SHAPES[-1])
    test_pools(brain, POOLS[0])
    test_blur_pool(brain, *BLURS[1])
    test_mean_pool(brain, MEAN_SHAPES[1])
    test_batch_norm(brain, CHANNEL_SHAPES[0])
    test_excite(brain, SCALED[0], "residual relu")
    for sizes in ((2, 40, 10), (10, 40, 10)):
        test_logits_are_not_rounded(brain, sizes, "16 bits")


def test_fragments_of_bfloat16_are_dealt_as_those_of_float16(brain):
    found, want = multiplied(brain)
    assert np.array_equal(found, want)
    found, want = multiplied(brain, "g and t")
    assert not np.array_equal(found, want)


def stores_kernels() -> list[Kernel]:
    """Return kernels that round 512 values: one by one, in pairs, and in fours of both kinds."""

    def ones(x, y, n):
        i = int32(nc.blockIdx.x * nc.blockDim.x + nc.threadIdx.x)
        put(y, i, x[i])

    def pairs(x, y, n):
        i = int32(2 * (nc.blockIdx.x * nc.blockDim.x + nc.threadIdx.x))
        if i < n:
            put2(y, i, x[i], x[i + 1])

    def fours(align):
        def run(x, y, n):
            i = int32(4 * (nc.blockIdx.x * nc.blockDim.x + nc.threadIdx.x))
            if i < n:
                store4(y, i, load4(x, i, 0, 4), align)

        return run

    made = {"ones": ones, "pairs": pairs, "fours": fours(16), "four ones": fours(4)}
    return [Kernel(name, run, (floats, bfloats, int32), 256) for name, run in made.items()]


def test_what_is_stored_is_the_nearest_bfloat16_and_of_two_the_even(brain):
    """What is not a number becomes ``0x7FFF``; what is nearest to 2^128 is infinite."""
    some = [0.0, -0.0, 1, -2, 3.39e38, -3.39e38, 1e-40, np.inf, np.nan]
    normals = normal(generator("bfloat16"), 247)
    bits = np.concatenate([np.array(some, np.float32), normals]).view(np.uint32) & 0xFFFF0000
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    x = (bits[:, None] | lower).reshape(-1).view(np.float32)
    bits = np.repeat(bits, len(lower))
    low, high = bits.view(np.float32), (bits + np.uint32(1 << 16)).view(np.float32)
    with np.errstate(invalid="ignore"):
        edge = np.where(np.isinf(high), np.copysign(2.0**128, x.astype(np.float64)), high)
        down, up = np.abs(x - low.astype(np.float64)), np.abs(edge - x)
    even = (bits >> 16) % 2 == 0
    want = np.where((down < up) | ((down == up) & even) | np.isinf(x), low, high)
    want = (want.view(np.uint32) >> 16).astype(np.uint16)
    want[np.isnan(x)] = 0x7FFF
    for kernel in stores_kernels():
        found, there = brain.empty(x.shape, "bfloat16"), brain.upload(x)
        brain.machine.launch(Launch(kernel, x.size // 256, (there, found, x.size)))
        stored = np.empty(x.shape, np.uint16)
        brain.machine.read(found.address, stored)
        assert np.array_equal(stored, want), kernel.name


def test_what_is_read_is_every_bfloat16(brain):
    """All 65,536, by single values and by fours."""
    halves = np.arange(1 << 16, dtype=np.uint16)
    there = brain.upload(halves, out=brain.empty(halves.shape, "bfloat16"))

    def ones(x, y, n):
        i = int32(nc.blockIdx.x * nc.blockDim.x + nc.threadIdx.x)
        y[i] = get(x, i)

    def fours(x, y, n):
        i = int32(4 * (nc.blockIdx.x * nc.blockDim.x + nc.threadIdx.x))
        if i < n:
            store4(y, i, load4(x, i, 0, 16), 16)

    for name, run in (("read ones", ones), ("read fours", fours)):
        found = brain.empty(halves.shape)
        kernel = Kernel(name, run, (bfloats, floats, int32), 256)
        brain.machine.launch(Launch(kernel, halves.size // 256, (there, found, halves.size)))
        assert np.array_equal(brain.download(found), widened(halves), equal_nan=True)


@pytest.mark.parametrize("capability", [(7, 5), (7, 0)])
def test_a_gpu_without_instructions_for_bfloat16_refuses_it(capability):
    machine = SimpleNamespace(name="cuda:0", capability=capability)
    with pytest.raises(DeviceError, match=r"compute capability 7\.\d, and bfloat16 .* from 8\.0"):
        cuda.CudaBackend(machine, "bfloat16")


# --- mistakes -------------------------------------------------------------------------------------

DENSE = Conv("dense", (2, 5, 6, 16), 24, 3, 1, 1, epilogue="bias residual")
ODD = Conv("odd", (2, 5, 6, 3), 21, 3, 1, 1, epilogue="bias residual")
BROAD = Conv("broad", (1, 5, 6, 16), 96, 3, 1, 1)  # a tile of 64 columns, and half of one
POINT = Conv("point", (2, 5, 6, 40), 24, epilogue="bias residual")
PLANTED = [
    (faults.BARRIER, "", DENSE, faults.RACE),
    (faults.WAIT, "", DENSE, faults.COPY),
    ("and uint32(left[i] + (tap & 65535)) < uint32(w)", "", DENSE, None),
    ("inside = top[i] != OUTSIDE and k < depth", "inside = top[i] != OUTSIDE", POINT, None),
    ("b_inside = o0 + column_b < wide", "b_inside = True", BROAD, faults.OUT),
    ("if m < positions:", "if True:", DENSE, faults.OUT),
    ("            if o < width:", "            if True:", BROAD, None),
    ("c_out = win.groups * rounded(win.width, 8)", "c_out = win.c_out", ODD, None),
    ("if k < rows and o < columns:", "if k < rows:", DENSE, faults.OUT),
    ("int32(at + columns)", "at", DENSE, None),
    ("deep + q // 2 * 4", "deep + (3 - q) // 2 * 4", DENSE, None),
    ("(deep + 4) * PITCH_B", "deep * PITCH_B", DENSE, None),
    ("uint32(2) * uint32(4) + g", "uint32(2) * uint32(8) + g", DENSE, None),
    ("PITCH = BK // 2 + 4", "PITCH = BK // 2 + 2", DENSE, "multiple"),
]

# What can go wrong with another type beside: it is multiplied as float16.
IN_BFLOAT16 = [*PLANTED[:2], ("TYPE, floored = KINDS.index(of)", "TYPE, floored = 1", DENSE, None)]


def lay_out_with(made):
    """Return what lays a weight out by a module that was changed; the type is the right one's."""

    def lay_out(*given):
        [layout], launches = made.pairs(*given)
        return [pairs_of.Pairs(*layout)], launches

    return lay_out


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(
    ("precision", "old", "new", "case", "said"),
    [*(("float16", *row) for row in PLANTED), *(("bfloat16", *row) for row in IN_BFLOAT16)],
)
def test_a_mistake_is_found(precision, old, new, case, said, monkeypatch):
    from tinyresnext.emulator.ptx import PtxMachine

    if old in inspect.getsource(tensor):
        made = faults.changed(tensor, old, new, monkeypatch)
        monkeypatch.setattr(forward, "tensor_product", made.product)
    else:
        monkeypatch.setattr(
            forward, "pairs", lay_out_with(faults.changed(pairs_of, old, new, monkeypatch))
        )
    ops = cuda.CudaBackend(PtxMachine(multiprocessors=1), precision)
    if said is not None:
        with pytest.raises(KernelFault, match=said):
            three(ops, case)
        return
    try:
        values = three(ops, case)
    except KernelFault:
        return
    assert not inside(*values), "the values are right all the same"


HALVES = {
    "neighbours": ("put(y, t, get(x, t))", None),
    "one place twice": ("put(y, t // 2, get(x, t))", "race"),
    "a word over two halves": ("put(y, t, get(x, t)); put(w, t // 2, float32(1))", "race"),
    "a half that nobody wrote": (
        "put(y, 2 * t, get(x, t)); put(x, t, get(y, 2 * t + 1))",
        "unwritten",
    ),
    "behind the end": ("put(y, t + 65, get(x, t))", "bounds"),
}


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize("name", HALVES)
def test_halves_of_a_word_are_watched_apart(name: str):
    from tinyresnext.emulator.ptx import PtxMachine

    line, kind = HALVES[name]
    names = {"get": get, "put": put, "cuda": nc, "int32": int32, "float32": float32}
    text = f"def run(x, y, w):\n    t = int32(cuda.threadIdx.x)\n    {line}"
    exec(compile(text.replace("t // 2", "int32(t // 2)"), "halves", "exec"), names)
    ops = cuda.backend(PtxMachine())
    x = up(ops, np.ones(64, "f4"), "float16")
    y = ops.empty((128 if "2 * t" in line else 64,), np.float16)
    launch = Launch(Kernel(name, names["run"], (halves, halves, floats), 64), 1, (x, y, y))
    if kind is None:
        ops.machine.launch(launch)
        assert (ops.download(y) == 1).all()
        return
    with pytest.raises(KernelFault) as caught:
        ops.machine.launch(launch)
    assert caught.value.kind == kind


# --- networks, and what is too large --------------------------------------------------------------


@on_device
@by_fibers
@pytest.mark.parametrize("name", ["resnext14", "bundled"])
def test_whole_networks(name: str, tmp_path):
    """The error is that of the reference in float32, as many times larger as float16 is coarser."""
    from test_cuda_networks import apart, images, machine, network, wide

    from tinyresnext.inference.model import Model
    from tinyresnext.network.resnext import forward

    spec, params, shape = network(name)
    x, found = images(shape), []
    want = forward(wide(params), spec, x.astype(np.float64), reference)
    own = apart(forward(params, spec, x, reference), want) * 2**13
    labels = tuple(map(str, range(spec.classes)))
    for order in ("ascending", "descending"):
        ops = cuda.backend(machine(order), "float16")
        model = Model(spec, params, Preprocess(), labels, {}, ops)
        found.append(model(x))
        assert 0 < apart(found[-1], want) <= own
        assert found[-1].dtype == np.float32
    assert np.array_equal(*found)
    assert (found[0].argmax(1) == want.argmax(1)).all()
    assert apart(model.trace(x)["fc"], want) <= own
    assert model.features(x, ["layer2"])["layer2"].dtype == np.float32
    large = {key: v * 3e4 if key.endswith("bn1.weight") else v for key, v in params.items()}
    with pytest.raises(PrecisionError, match="largest number is 65,504"):
        Model(spec, large, Preprocess(), labels, {}, ops)(x)


def test_a_relu_does_not_hide_what_was_too_large(half):
    """Minus infinity would become zero, which looks like any other."""
    x = up(half, np.array([-1e6, -1, 1, 1e6], np.float32))
    if half.precision == "bfloat16":  # which has the range of float32
        assert half.download(half.relu(x)).tolist() == [0, 0, 1, narrow(1e6, half)]
        return
    assert np.array_equal(half.download(half.relu(x)), [np.nan, 0, 1, np.inf], equal_nan=True)
    image = half.upload(np.full((1, 1, 1, 8), 1e6, np.float32), out=half.empty((1, 1, 1, 8), "f2"))
    weight = half.upload(np.full((8, 8, 1, 1), -1, np.float32))
    assert np.isnan(half.download(half.conv2d(image, weight, relu=True))).all()
    s = half.upload(np.ones((1, 1, 1, 4), np.float32), out=half.empty((1, 1, 1, 4), "f2"))
    found = half.excite(half.view(x, (1, 1, 1, 4)), s, relu=True)
    assert np.isnan(half.download(found)).tolist() == [[[[True, False, False, False]]]]


def test_results_that_are_not_finite_are_the_precisions_fault_only_for_finite_images():
    fine, too_large = np.ones(3, np.float32), np.array([1, np.inf], np.float32)
    check_precision("float16", fine, fine)
    check_precision("float16", too_large, too_large)
    check_precision("float32", fine, too_large)
    with pytest.raises(PrecisionError, match="--precision float32"):
        check_precision("float16", fine, too_large)


# --- how it is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_other_devices_refuse_float16(device: str, capsys):
    with pytest.raises(DeviceError, match=f"device '{device}' computes in float32 and bfloat16,"):
        backend(device, "float16")
    photo = "tests/data/chelsea.jpg"
    assert main(["classify", photo, "--device", device, "--precision", "float16"]) == 4
    assert "or on an NVIDIA GPU, which has it (device 'cuda')" in capsys.readouterr().err


def test_what_is_computed_in_float32_only_is_refused(half):
    x = up(half, np.ones((1, 4, 4, 8), np.float32))
    weight = half.upload(np.ones((8, 8, 3, 3), np.float32))
    for call in (
        lambda: half.relu_backward(x, x, x),
        lambda: half.conv2d_backward(x, x, x, weight, padding=1),
        lambda: half.blur_pool_backward(x, x, x),
    ):
        with pytest.raises(DeviceError, match="is computed in float32 only"):
            call()


def test_an_unknown_precision_is_refused():
    with pytest.raises(UsageError, match="precision is 'half'"):
        backend("cpu", "half")


def test_a_backend_is_pickled_with_its_precision():
    for precision in ("float16", "bfloat16"):
        machine = SimpleNamespace(name="cuda:0", capability=(8, 0))
        made = cuda.CudaBackend(machine, precision)
        assert made.__reduce__()[1] == ("cuda:0", precision)
        assert f"in {precision}" in made.described()


def test_verify_allows_what_the_rounding_does(half, monkeypatch, tmp_path):
    from tinyresnext.hub.bundled import shipped_model
    from tinyresnext.inference import verify as module
    from tinyresnext.inference.verify import make_reference

    to = tmp_path / "reference.npz"
    error = make_reference(shipped_model(), to, pictures=1)
    monkeypatch.setattr(module, "backend", lambda device, precision: half)
    report = verify(shipped_model(), to, "cuda", precision=half.precision)
    assert report.passed
    coarser = 8_192 if half.precision == "float16" else 65_536
    assert f"allowed {3 * error * coarser:.1e}" in str(report)
