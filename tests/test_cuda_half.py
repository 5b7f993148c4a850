"""Inference in float16 on the backend of GPUs: rounded where it says, and summed in float32.

The reference computes in float64 with values that are rounded at the same places. Two errors are
left. A sum of k products of float16, each exact in float32, errs by ``k 2^-23`` times the sum of
their magnitudes: twice the bound of `test_ops`, since NVIDIA does not say that tensor cores round
to nearest. The result is then rounded once: by ``2^-11`` of itself, or half of the smallest step.
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
from tinyresnext.inference.inputs import check_precision
from tinyresnext.inference.verify import verify
from tinyresnext.ops import backend, cuda, reference
from tinyresnext.ops.cuda.conv import forward
from tinyresnext.ops.cuda.conv.windows import Windows
from tinyresnext.ops.cuda.runtime.kernel import (
    Kernel,
    float32,
    floats,
    halves,
    int32,
    ints,
)
from tinyresnext.ops.cuda.runtime.machine import Launch
from tinyresnext.ops.cuda.tensor import pairs as pairs_of
from tinyresnext.ops.cuda.tensor import product as tensor
from tinyresnext.ops.cuda.words import get, put, registers
from tinyresnext.ops.cuda.words.tensor import multiply

ROUND, SUM, STEP = 2.0**-11, 2.0**-23, 2.0**-25
on_device = pytest.mark.device


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("emulated", marks=on_device),
        pytest.param("on_gpu", marks=pytest.mark.gpu),
    ],
)
def half(request):
    """Return the backend in float16 on the emulator that is asked for, and on a GPU."""
    return cuda.backend(request.getfixturevalue(request.param).backend.machine, "float16")


def narrow(array):
    """Return an array as float16 has it, in float64."""
    return None if array is None else np.asarray(array, np.float16).astype(np.float64)


def up(ops, array):
    return None if array is None else ops.upload(array, out=ops.empty(array.shape, np.float16))


def inside(found, want, size, terms: int) -> bool:
    """Return whether each value is within its bound; ``size`` is the sum of magnitudes."""
    bound = terms * SUM * size
    bound = bound + ROUND * (np.abs(want) + bound) + STEP
    found = np.asarray(found, np.float64)
    return found.shape == want.shape and bool((np.abs(found - want) <= bound).all())


def three(ops, case: Conv):
    """Compute a convolution; return it, what is right, its size, and its terms."""
    x, weight, bias, residual = conv_data(case, result_shape(case))
    relu = "relu" in case.epilogue
    packed = ops.pack(ops.upload(weight), case.groups)
    there = None if bias is None else ops.upload(bias)
    found = ops.conv2d(
        up(ops, x), packed, there, **case.attrs, residual=up(ops, residual), relu=relu
    )
    assert found.dtype == np.float16
    given = narrow(x), narrow(weight), None if bias is None else bias.astype(np.float64)
    want = reference.conv2d(*given, **case.attrs, residual=narrow(residual), relu=relu)
    sizes = [None if a is None else np.abs(a) for a in (*given, narrow(residual))]
    size = reference.conv2d(*sizes[:3], **case.attrs, residual=sizes[3])
    return ops.download(found), want, size, case.terms


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVS, ids=ident)
def test_conv2d(half, case: Conv):
    assert inside(*three(half, case))


@pytest.mark.parametrize("tile", tensor.TILES, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_every_tile(half, tile, kernel: int, monkeypatch):
    monkeypatch.setattr(tensor, "TILES", {tile: 1.0})
    case = Conv("tile", (1, 10, 15, 40), 136, kernel, 1, kernel // 2, epilogue="bias residual relu")
    assert inside(*three(half, case))


@pytest.mark.parametrize("case", [CONVS[1], CONVS[2]], ids=ident)
def test_a_weight_that_is_not_packed_makes_the_same_bits(half, case):
    x, weight, *_ = conv_data(case, result_shape(case))
    there = half.upload(weight)
    found = half.conv2d(up(half, x), there, **case.attrs)
    packed = half.conv2d(up(half, x), half.pack(there, case.groups), **case.attrs)
    assert np.array_equal(half.download(found), half.download(packed))


@pytest.mark.parametrize("shape", ANY_SHAPES, ids=str)
def test_relu_and_add(half, shape):
    rng = generator(shape)
    x, y = normal(rng, *shape), normal(rng, *shape)
    a, b = up(half, x), up(half, y)
    relu = half.download(half.relu(a))
    assert np.array_equal(relu, np.maximum(narrow(x), 0))
    total = narrow(x) + narrow(y)
    assert np.array_equal(half.download(half.add(a, b)), total.astype(np.float32).astype("f2"))


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_pools(half, case):
    x = normal(generator(case.name), *case.x)
    want = reference.max_pool2d(narrow(x), **case.attrs)
    assert np.array_equal(half.download(half.max_pool2d(up(half, x), **case.attrs)), want)
    attrs = {**case.attrs, "count_include_pad": case.include_pad}
    want, size = (reference.avg_pool2d(a, **attrs) for a in (narrow(x), np.abs(narrow(x))))
    found = half.download(half.avg_pool2d(up(half, x), **attrs))
    assert inside(found, want, size, case.x[1] * case.x[2] + 1)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(half, shape, stride: int):
    x = normal(generator(shape), *shape)
    want, size = (reference.blur_pool(a, stride=stride) for a in (narrow(x), np.abs(narrow(x))))
    assert inside(half.download(half.blur_pool(up(half, x), stride=stride)), want, size, 9)


@pytest.mark.parametrize("end", ["", "residual relu"])
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_excite(half, shape, end: str):
    """Twelve roundings in float32 as in `test_ops`, half a unit each, and one in float16."""
    rng = generator((shape, end))
    x, residual = normal(rng, *shape), normal(rng, *shape) if end else None
    s = normal(rng, shape[0], 1, 1, shape[-1]) * np.float32(4)
    found = half.excite(up(half, x), up(half, s), up(half, residual), relu=bool(end))
    want = reference.excite(narrow(x), narrow(s), narrow(residual), relu=bool(end))
    size = None if residual is None else np.abs(narrow(residual))
    size = reference.excite(np.abs(narrow(x)), narrow(s), size)
    assert inside(half.download(found), want, size, 6)


@pytest.mark.parametrize("shape", MEAN_SHAPES, ids=str)
def test_mean_pool(half, shape):
    x = normal(generator(shape), *shape)
    want, size = (reference.mean_pool(a) for a in (narrow(x), np.abs(narrow(x))))
    found = half.download(half.mean_pool(up(half, x)))
    assert inside(found, want, size, shape[1] * shape[2] + 1)


@pytest.mark.parametrize("shape", CHANNEL_SHAPES, ids=str)
def test_batch_norm(half, shape):
    """Seven roundings in float32 as in `test_ops`, and one in float16."""
    rng = generator(shape)
    x, (scale, shift, mean) = normal(rng, *shape), (normal(rng, shape[-1]) for _ in range(3))
    var = rng.uniform(0.1, 2, shape[-1]).astype(np.float32)
    vectors = [a.astype(np.float64) for a in (scale, shift, mean, var)]
    want = reference.batch_norm(narrow(x), *vectors)
    found = half.batch_norm(up(half, x), *map(half.upload, (scale, shift, mean, var)))
    size = np.abs(want - vectors[1]) + np.abs(vectors[1])
    assert inside(half.download(found), want, size, 7)


@pytest.mark.parametrize("sizes", LINEAR_SHAPES, ids=str)
@pytest.mark.parametrize("rounded", [True, False], ids=["float16", "float32"])
def test_logits_are_not_rounded(half, sizes, rounded: bool):
    n, c_in, c_out = sizes
    rng = generator(sizes)
    x, weight, bias = normal(rng, n, c_in), normal(rng, c_out, c_in), normal(rng, c_out)
    there = up(half, weight) if rounded else half.upload(weight)
    found = half.download(half.linear(up(half, x), there, half.upload(bias)))
    exact = not rounded and n <= 8  # more samples go to tensor cores, which need float16
    w = weight.astype(np.float64) if exact else narrow(weight)
    want = reference.linear(narrow(x), w, bias.astype(np.float64))
    size = reference.linear(np.abs(narrow(x)), np.abs(w), np.abs(bias).astype(np.float64))
    assert found.dtype == np.float32
    assert (np.abs(found - want) <= (c_in + 1) * SUM * size).all()


# --- tensor cores ---------------------------------------------------------------------------------


def product_kernel(swap: str = "") -> Kernel:
    """Return a kernel of one product of one warp; ``swap`` names a mistake in the layout."""
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
        )  # fmt: skip
        for i in range(4):
            put(
                y, int32((int32(lane // 4) + i // 2 * 8) * 8 + 2 * int32(lane % 4) + i % 2), sums[i]
            )

    return Kernel(f"product {swap}", run, (ints, ints, floats, floats, int32), 32)


def multiplied(ops, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    """Return what a kernel makes of small whole numbers, and the product: both are exact."""
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
    found, want = multiplied(half, product_kernel())
    assert np.array_equal(found, want)


@pytest.mark.parametrize(
    "swap", ["rows and depths", "depths of the right matrix", "g and t", "columns of the sums"]
)
def test_a_mistake_in_the_layout_shows(half, swap: str):
    found, want = multiplied(half, product_kernel(swap))
    assert not np.array_equal(found, want)


@on_device
def test_a_product_without_the_whole_warp_is_found(emulated):
    ops = emulated.backend

    def run(x, y, n):
        sums, t = registers(4), int32(nc.threadIdx.x)
        for i in range(4):
            sums[i] = float32(0)
        if t % 32 < 31:
            multiply(sums, 0, t, t, t, t, t, t)
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


def lay_out_with(made):
    """Return what lays a weight out by a module that was changed; the type is the right one's."""

    def lay_out(*given):
        [layout], launches = made.pairs(*given)
        return [pairs_of.Pairs(*layout)], launches

    return lay_out


@on_device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(("old", "new", "case", "said"), PLANTED)
def test_a_mistake_is_found(old, new, case, said, monkeypatch):
    from tinyresnext.emulator.ptx import PtxMachine

    if old in inspect.getsource(tensor):
        made = faults.changed(tensor, old, new, monkeypatch)
        monkeypatch.setattr(forward, "tensor_product", made.product)
    else:
        monkeypatch.setattr(
            forward, "pairs", lay_out_with(faults.changed(pairs_of, old, new, monkeypatch))
        )
    ops = cuda.CudaBackend(PtxMachine(multiprocessors=1), "float16")
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
    x, y = up(ops, np.ones(64, "f4")), ops.empty((128 if "2 * t" in line else 64,), np.float16)
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
        model = Model(spec, params, None, labels, {}, ops)
        found.append(model(x))
        assert 0 < apart(found[-1], want) <= own
        assert found[-1].dtype == np.float32
    assert np.array_equal(*found)
    assert (found[0].argmax(1) == want.argmax(1)).all()
    assert apart(model.trace(x)["fc"], want) <= own
    assert model.features(x, ["layer2"])["layer2"].dtype == np.float32
    large = {key: v * 3e4 if key.endswith("bn1.weight") else v for key, v in params.items()}
    with pytest.raises(PrecisionError, match="largest number is 65,504"):
        Model(spec, large, None, labels, {}, ops)(x)


def test_a_relu_does_not_hide_what_was_too_large(half):
    """Minus infinity would become zero, which looks like any other."""
    x = up(half, np.array([-1e6, -1, 1, 1e6], np.float32))
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
    assert "on an NVIDIA GPU, which has float32 and float16" in capsys.readouterr().err


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
    made = cuda.CudaBackend(SimpleNamespace(name="cuda:0"), "float16")
    assert made.__reduce__()[1] == ("cuda:0", "float16")
    assert "float16" in made.described()


def test_verify_allows_what_the_rounding_does(half, monkeypatch, tmp_path):
    from tinyresnext.hub.bundled import shipped_model
    from tinyresnext.inference import verify as module
    from tinyresnext.inference.verify import make_reference

    to = tmp_path / "reference.npz"
    make_reference(shipped_model(), to, pictures=1)
    monkeypatch.setattr(module, "backend", lambda device, precision: half)
    report = verify(shipped_model(), to, "cuda", precision="float16")
    assert report.passed
    assert "allowed 1.7e-02" in str(report)
