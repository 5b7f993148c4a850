"""Inference in bfloat16 on the processor: rounded where it says, and summed in float32.

A result is the rounding of a sum in float32. The product of two numbers of 8 bits is exact there,
so a sum of k terms errs by ``g_k`` times the sum of their magnitudes, as in `test_ops`. The
instruction of AVX512-BF16 also counts what is below 2^-126 as zero: twice for each term, its
product and its sum. Rounding never turns the order of two numbers round, so a result lies between
the roundings of the two ends of that interval.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import contextmanager

import cases
import numba
import numpy as np
import pytest
from llvmlite import binding, ir
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
    Pool,
    conv_data,
    gamma,
    generator,
    ident,
    normal,
    result_shape,
)

import tinyresnext
from tinyresnext.cli.main import main
from tinyresnext.errors import DeviceError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.model import Model
from tinyresnext.inference.verify import make_reference, verify
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.resnext import forward, parameters
from tinyresnext.network.spec import Spec
from tinyresnext.network.step import Step
from tinyresnext.network.trace import replay
from tinyresnext.ops import backend, bfloat16, cpu, reference
from tinyresnext.ops.bfloat16 import rounded, widened
from tinyresnext.ops.cpu.elementwise import bind_convert
from tinyresnext.ops.cpu.runtime.simd import HALVES, WORDS, emit
from tinyresnext.ops.cpu.runtime.simd import bfloat16 as emitted

SMALLEST = 2.0**-126
SPEC = Spec((1, 1), 4, 4, 7)
MORE = Spec(
    (1, 1, 1), 4, 4, 7, stem="deep", stem_channels=(8, 12, 24), se_reduction=8,
    blur_pool="binomial", dilated=1, avg_down=True,
)  # fmt: skip
SLOW = pytest.mark.slow
TOO_MUCH = "too much work for the interpreter"
COMPILED = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason=TOO_MUCH)
# On the CPU each size of groups is a kernel of its own: compiling all of them takes minutes.
QUICK = {"cpu": "epilogue of 1x1", "words": "epilogue:"}
SOME = ("epilogue", "r50", "1x1", "prime", "dilated", "half the filters", "width 40", "depthwise")


def convolutions() -> list:
    """Return a parameter for each way to compute, and each case of it."""
    found = [pytest.param("reference", case, id=f"reference-{ident(case)}") for case in CONVS]
    for way, quick in QUICK.items():
        for case in (case for case in CONVS if case.name.startswith(SOME)):
            marks = [] if case.name.startswith(quick) else SLOW
            found.append(pytest.param(way, case, id=f"{way}-{ident(case)}", marks=marks))
    return found


def backend_of(way: str):
    """Return a backend; ``words`` has the layouts for the instruction of AVX512-BF16.

    They are multiplied by instructions that every processor has.
    """
    if way == "words":
        return bfloat16.BFloat16("cpu", cpu, words=True)
    return backend(way, "bfloat16")


@pytest.fixture(params=["reference", pytest.param("cpu", marks=SLOW)])
def ops(request):
    return backend_of(request.param)


def narrow(a):
    """Return the values of an array in bfloat16, in float64."""
    return None if a is None else widened(rounded(a)).astype(np.float64)


def up(ops, a):
    return None if a is None else ops.upload(a, out=ops.empty(a.shape, "bfloat16"))


def between(found: np.ndarray, want: np.ndarray, size: np.ndarray, terms: int) -> bool:
    """Return whether results are roundings of what lies as near to the right sums as it must."""
    return near(found, want, gamma(terms) * size + (2 * terms + 1) * SMALLEST)


def near(found: np.ndarray, want: np.ndarray, off: np.ndarray) -> bool:
    """Return whether results are roundings of what is at most ``off`` from the right values."""
    with np.errstate(over="ignore"):
        low, high = ((want + sign * off).astype(np.float32) for sign in (-1, 1))
    low, high = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
    least, most = widened(rounded(low)), widened(rounded(high))
    right = found.dtype == np.float32 and found.shape == want.shape
    return right and bool(((least <= found) & (found <= most)).all())


def skip_if_slow(ops, work: int) -> None:
    if ops.device == "cpu" and numba.config.DISABLE_JIT and work > 20_000:
        pytest.skip(TOO_MUCH)


# --- rounding -------------------------------------------------------------------------------------


def patterns() -> np.ndarray:
    """Return float32 of every upper half, with the lower halves at which rounding changes."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper[:, None] | lower).reshape(-1).view(np.float32)


def test_every_number_is_widened_exactly_and_comes_back():
    halves = np.arange(1 << 16, dtype=np.uint16)
    wide = widened(halves)
    kept = ~np.isnan(wide)
    assert np.array_equal(rounded(wide)[kept], halves[kept])
    assert np.isnan(widened(rounded(wide[~kept]))).all()
    one = bfloat16.limits("bfloat16")
    assert one.largest == wide[np.isfinite(wide)].max() == (2 - 2.0**-7) * 2.0**127
    assert one.epsilon == widened(rounded(np.float32(1)) + np.uint16(1)) - 1


def test_rounding_is_to_the_nearest_and_of_two_to_the_even():
    """Compare with the two neighbours, which NumPy's float64 has exactly."""
    x = patterns()
    x = x[np.isfinite(x)]
    down = widened((x.view(np.uint32) >> 16).astype(np.uint16)).astype(np.float64)
    with np.errstate(over="ignore"):
        up_bits = (x.view(np.uint32) >> 16).astype(np.uint16) + np.uint16(1)
    up_to = widened(up_bits).astype(np.float64)
    beyond = np.isinf(up_to)  # it would be the next power of two
    up_to[beyond] = np.copysign(2.0**128, up_to[beyond])
    with np.errstate(invalid="ignore"):
        first, second = np.abs(x - down), np.abs(up_to - x)
    even = (x.view(np.uint32) >> 16) & 1 == 0
    want = np.where((first < second) | ((first == second) & even), down, up_to)
    want[np.abs(want) == 2.0**128] *= np.inf
    assert np.array_equal(widened(rounded(x)), want.astype(np.float32))


def test_kernels_round_as_numpy_does():
    x = patterns() if not numba.config.DISABLE_JIT else patterns()[::997].copy()
    out, back = np.empty(x.shape, np.uint16), np.empty(x.shape, np.float32)
    bind_convert(x, out)()
    assert np.array_equal(out, rounded(x))
    bind_convert(out, back)()
    assert np.array_equal(back.view(np.uint32), widened(out).view(np.uint32))


# --- ops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "case"), convolutions())
def test_conv2d(way: str, case: Conv):
    ops = backend_of(way)
    skip_if_slow(ops, case.work)
    x, weight, bias, residual = conv_data(case, result_shape(case))
    relu = "relu" in case.epilogue
    packed = ops.pack(weight, case.groups)
    assert tuple(packed.shape) == weight.shape
    assert way == "reference" or packed.in_words == (way == "words" or emitted.multiplies())
    found = ops.conv2d(
        up(ops, x), packed, bias, **case.attrs, residual=up(ops, residual), relu=relu
    )
    assert conv_between(ops.download(found), x, weight, bias, residual, relu, case.attrs)


def conv_between(found, x, weight, bias, residual, relu: bool, attrs: dict) -> bool:
    """Return whether a convolution is right; ``x``, ``weight`` and ``residual`` are rounded."""
    shift = None if bias is None else bias.astype(np.float64)
    x, weight, residual = map(narrow, (x, weight, residual))
    want = reference.conv2d(x, weight, shift, **attrs, residual=residual, relu=relu)
    sizes = [None if a is None else np.abs(a) for a in (x, weight, shift, residual)]
    size = reference.conv2d(*sizes[:3], **attrs, residual=sizes[3])
    terms = weight[0].size + (bias is not None) + (residual is not None)
    return between(found, want, size, terms)


def test_the_interval_sees_a_swapped_pair_and_a_sum_in_bfloat16():
    case = next(c for c in CONVS if c.name == "r50 layer1.0 reduce")
    x, weight, bias, residual = conv_data(case, result_shape(case))
    relu, given = True, (x, weight, bias, residual)
    exact = reference.conv2d(narrow(x), narrow(weight), bias, relu=relu)
    right = widened(rounded(exact))
    assert conv_between(right, *given, relu, case.attrs)
    swapped = weight.reshape(64 * 2, -1, 2, 1, 1)[:, :, ::-1].reshape(weight.shape)
    wrong = widened(rounded(reference.conv2d(narrow(x), narrow(swapped), bias, relu=relu)))
    assert not conv_between(wrong, *given, relu, case.attrs)
    halves = [reference.conv2d(narrow(x[..., s]), narrow(weight[:, s])) for s in np.s_[:32, 32:]]
    twice = widened(rounded(sum(widened(rounded(half)) for half in halves) + bias))
    assert not conv_between(np.maximum(twice, 0), *given, relu, case.attrs)


@pytest.mark.parametrize("way", ["reference", "words"])
def test_a_weight_that_is_not_packed_and_a_place_make_the_same_bits(way: str):
    ops, name = backend_of(way), "epilogue: bias residual relu"
    case = next(c for c in CONVS if c.name == name)
    x, weight, bias, residual = conv_data(case, result_shape(case))
    a, more = up(ops, x), {**case.attrs, "residual": up(ops, residual)}
    out = ops.empty(result_shape(case), "bfloat16")
    assert ops.conv2d(a, ops.pack(weight, case.groups), bias, **more, out=out) is out
    assert np.array_equal(ops.conv2d(a, weight, bias, **more), out)


@pytest.mark.parametrize(
    "way", ["reference", pytest.param("cpu", marks=SLOW), pytest.param("words", marks=SLOW)]
)
@pytest.mark.parametrize("groups", [1, 2])
def test_what_is_not_a_number_stays_in_its_group(way: str, groups: int):
    """Words are filled up with zeros: what other groups hold must not meet these."""
    ops, x = backend_of(way), np.ones((1, 4, 4, 6), np.float32)
    x[0, 1, 1, 5], x[0, 3, 3, 5] = np.nan, np.inf
    weight = np.full((6, 6 // groups, 3, 3), -1, np.float32)
    found = ops.download(ops.conv2d(up(ops, x), weight, padding=1, groups=groups, relu=True))
    want = reference.conv2d(x, weight, padding=1, groups=groups, relu=True)
    assert np.isnan(want).any()
    assert np.array_equal(found, want, equal_nan=True)


@pytest.mark.parametrize("shape", ANY_SHAPES, ids=str)
def test_relu_and_add(ops, shape):
    skip_if_slow(ops, int(np.prod(shape)) * 9)
    rng = generator(shape)
    x, y = normal(rng, *shape), normal(rng, *shape)
    assert np.array_equal(ops.download(ops.relu(up(ops, x))), np.maximum(narrow(x), 0))
    total = (narrow(x) + narrow(y)).astype(np.float32)
    assert np.array_equal(ops.download(ops.add(up(ops, x), up(ops, y))), widened(rounded(total)))


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_pools(ops, case: Pool):
    skip_if_slow(ops, int(np.prod(case.x)) * 9)
    x = normal(generator(case.name), *case.x)
    want = reference.max_pool2d(narrow(x), **case.attrs)
    assert np.array_equal(ops.download(ops.max_pool2d(up(ops, x), **case.attrs)), want)
    attrs = {**case.attrs, "count_include_pad": case.include_pad}
    want, size = (reference.avg_pool2d(a, **attrs) for a in (narrow(x), np.abs(narrow(x))))
    found = ops.download(ops.avg_pool2d(up(ops, x), **attrs))
    assert between(found, want, size, case.x[1] * case.x[2] + 1)


def test_the_largest_of_a_window_may_be_missing(ops):
    x = np.full((1, 2, 4, 1), -np.inf, np.float32)
    x[0, 1, 1] = np.nan
    found = ops.download(ops.max_pool2d(up(ops, x), size=2, stride=2))
    assert np.array_equal(found.ravel(), [np.nan, -np.inf], equal_nan=True)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(ops, shape, stride: int):
    skip_if_slow(ops, int(np.prod(shape)) * 9)
    x = normal(generator(shape), *shape)
    want, size = (reference.blur_pool(a, stride=stride) for a in (narrow(x), np.abs(narrow(x))))
    assert between(ops.download(ops.blur_pool(up(ops, x), stride=stride)), want, size, 9)


@pytest.mark.parametrize("end", ["", "residual", "relu", "residual relu"])
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_excite(ops, shape, end: str):
    """Twelve roundings in float32 as in `test_ops`, and one in bfloat16."""
    skip_if_slow(ops, int(np.prod(shape)) * 9)
    rng = generator((shape, end))
    x, residual = normal(rng, *shape), normal(rng, *shape) if "residual" in end else None
    s, relu = normal(rng, shape[0], 1, 1, shape[-1]) * np.float32(4), "relu" in end
    found = ops.excite(up(ops, x), up(ops, s), up(ops, residual), relu=relu)
    want = reference.excite(narrow(x), narrow(s), narrow(residual), relu=relu)
    sizes = None if residual is None else np.abs(narrow(residual))
    size = reference.excite(np.abs(narrow(x)), narrow(s), sizes)
    assert between(ops.download(found), want, size, 12)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("shape", MEAN_SHAPES, ids=str)
def test_mean_pool(ops, shape, keepdims: bool):
    skip_if_slow(ops, int(np.prod(shape)))
    x = normal(generator(shape), *shape)
    want, size = (reference.mean_pool(a, keepdims=keepdims) for a in (narrow(x), np.abs(narrow(x))))
    found = ops.download(ops.mean_pool(up(ops, x), keepdims=keepdims))
    assert between(found, want, size, shape[1] * shape[2] + 1)


@pytest.mark.parametrize("shape", CHANNEL_SHAPES, ids=str)
def test_batch_norm(ops, shape):
    """Seven roundings in float32 as in `test_ops`, and one in bfloat16."""
    skip_if_slow(ops, int(np.prod(shape)) * 10)
    rng = generator(shape)
    x, (scale, shift, mean) = normal(rng, *shape), (normal(rng, shape[-1]) for _ in range(3))
    var = rng.uniform(0.1, 2, shape[-1]).astype(np.float32)
    vectors = [a.astype(np.float64) for a in (scale, shift, mean, var)]
    want = reference.batch_norm(narrow(x), *vectors)
    found = ops.batch_norm(up(ops, x), scale, shift, mean, var)
    size = np.abs(want - vectors[1]) + np.abs(vectors[1])
    assert between(ops.download(found), want, size, 7)


@pytest.mark.parametrize("packed", [True, False], ids=["rounded before", "rounded here"])
@pytest.mark.parametrize("sizes", LINEAR_SHAPES, ids=str)
def test_logits_are_not_rounded(ops, sizes, packed: bool):
    n, c_in, c_out = sizes
    skip_if_slow(ops, n * c_in * c_out)
    rng = generator(sizes)
    x, weight, bias = normal(rng, n, c_in), normal(rng, c_out, c_in), normal(rng, c_out)
    found = ops.linear(up(ops, x), up(ops, weight) if packed else weight, bias)
    assert found.dtype == np.float32
    assert linear_near(found, x, weight, bias)


def linear_near(found, x, weight, bias) -> bool:
    given = narrow(x), narrow(weight), bias.astype(np.float64)
    want, size = reference.linear(*given), reference.linear(*map(np.abs, given))
    terms = x.shape[-1] + 1
    return bool((np.abs(found - want) <= gamma(terms) * size + terms * SMALLEST).all())


def test_probabilities_are_those_of_float32():
    x = normal(generator("softmax"), 3, 10)
    assert np.array_equal(backend("cpu", "bfloat16").softmax(x), cpu.softmax(x))


# --- networks -------------------------------------------------------------------------------------


def network(spec: Spec = SPEC, side: int = 40) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return weights that keep values of one size from layer to layer, and images."""
    rng, params = np.random.default_rng(5), {}
    for name, shape in parameters(spec).items():
        value = rng.standard_normal(shape)
        if len(shape) > 1:
            value *= (2 / np.prod(shape[1:])) ** 0.5
        elif not name.endswith("bias") and "mean" not in name:
            value = 0.5 + np.abs(value) / 2
        params[name] = value.astype(np.float32)
    return params, normal(rng, 2, side, side, 3)


def model(spec: Spec, params: dict, ops, threads: int | None = None) -> Model:
    return Model(spec, params, Preprocess(), tuple("abcdefg"), {}, ops, threads)


@COMPILED
@SLOW
@pytest.mark.parametrize("way", ["cpu", "words"])
@pytest.mark.parametrize("spec", [SPEC, MORE], ids=["plain", "with everything"])
def test_every_step_of_a_plan(spec, way: str):
    """Each step is given what the reference made in bfloat16: its own error is what is seen."""
    params, x = network(spec)
    there, here = backend_of("reference"), backend_of(way)
    plain, quick = (program(params, spec, ops) for ops in (there, here))
    first = there.upload(x, out=there.empty(x.shape, "bfloat16"))
    made = replay(plain.calls, plain.x, first, there)
    values = {id(plain.x): first} | {
        id(call.out): value for call, value in zip(plain.calls, made, strict=True)
    }
    seen = set()
    for call, other in zip(plain.calls, quick.calls, strict=True):
        seen.add(call.op)
        given = [values.get(id(a), a) for a in call.args]
        attrs = {key: values.get(id(a), a) for key, a in call.attrs.items()}
        packed = [
            b if id(a) not in values else c
            for a, b, c in zip(call.args, other.args, given, strict=True)
        ]
        found = here.download(getattr(here, call.op)(*packed, **attrs))
        assert checked(call.op, found, [wide32(a) for a in given], attrs), call.name
    assert seen >= {"conv2d", "max_pool2d", "mean_pool", "linear"}


def wide32(a):
    return widened(a) if getattr(a, "dtype", None) == np.uint16 else a


def checked(op: str, found: np.ndarray, given: list, attrs: dict) -> bool:
    """Return whether one step of a plan is within its bound."""
    attrs = {key: wide32(a) for key, a in attrs.items()}
    if op == "conv2d":
        more = {"residual": attrs.pop("residual", None), "relu": attrs.pop("relu", False)}
        bias = given[2] if len(given) > 2 else None
        return conv_between(found, *given[:2], bias, **more, attrs=attrs)
    if op == "linear":
        return linear_near(found, *given)
    given, absolute = ([f(a.astype(np.float64)) for a in given] for f in (np.asarray, np.abs))
    want = getattr(reference, op)(*given, **attrs)
    if op == "max_pool2d":
        return np.array_equal(found, want)
    if op == "excite":  # the gate is the sigmoid of what is not an absolute value
        absolute[1], attrs = given[1], {}
    terms = {"mean_pool": given[0][0, ..., 0].size + 1, "excite": 12}.get(op, 9)
    return between(found, want, getattr(reference, op)(*absolute, **attrs), terms)


@pytest.mark.parametrize(
    "way",
    [
        "reference",
        pytest.param("cpu", marks=[SLOW, COMPILED]),
        pytest.param("words", marks=[SLOW, COMPILED]),
    ],
)
def test_whole_networks(way: str):
    """The error is that of float32, as many times larger as bfloat16 is coarser."""
    params, x = network()
    doubles = {name: a.astype(np.float64) for name, a in params.items()}
    want = forward(doubles, SPEC, x.astype(np.float64), reference)

    def apart(found):
        return float(np.abs(found - want).max() / np.abs(want).max())

    own = apart(forward(params, SPEC, x, reference)) * 2**16
    made = model(SPEC, params, backend_of(way))
    found = made(x)
    assert found.dtype == np.float32
    assert 1e-5 < apart(found) <= own < 0.2
    assert apart(made.trace(x)["fc"]) <= own
    features = made.features(x, ["layer1", "pooled"])
    assert {value.dtype for value in features.values()} == {np.dtype(np.float32)}
    assert np.array_equal(widened(rounded(features["layer1"])), features["layer1"])


@COMPILED
@SLOW
@pytest.mark.parametrize("way", ["cpu", "words"])
def test_any_number_of_threads_makes_the_same_bits(way: str):
    params, x = network()
    ops, found = backend_of(way), []
    made = program(params, SPEC, ops)
    for threads in sorted({1, cpu.thread_count()}):
        found.append(Plan(made, x.shape, ops, threads=threads)(x))
        found.append(
            np.concatenate(
                [Plan(made, (1, *x.shape[1:]), ops, threads=threads)(x[i:][:1]) for i in (0, 1)]
            )
        )
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("whole", [np.uint16, np.int64])
def test_whole_numbers_are_no_bits(whole):
    """In memory, bfloat16 is uint16; images of that type are numbers all the same."""
    params, x = network(SPEC)
    x = np.round(4 + x).clip(0).astype(whole)
    plan = Plan(program(params, SPEC, ops := backend("reference", "bfloat16")), x.shape, ops)
    assert np.array_equal(plan(x), plan(x.astype(np.float32)))


def test_all_is_rounded_on_the_threads_that_are_asked_for(monkeypatch):
    params, x = network(SPEC)
    now, found = [0], []

    @contextmanager
    def on_threads(count):
        now[0] = count
        yield
        now[0] = 0

    def upload(self, array, out=None):
        found.append(now[0] if out is not None and out.dtype == bfloat16.HALF else None)
        return real(self, array, out)

    real = bfloat16.BFloat16.upload
    monkeypatch.setattr(bfloat16.BFloat16, "upload", upload)
    monkeypatch.setattr(reference, "on_threads", on_threads)
    made = model(SPEC, params, backend("reference", "bfloat16"), threads=1)
    made(x)
    made.trace(x)
    Step(params, SPEC, x.shape, made.ops, threads=1)(x, np.zeros(len(x), int))
    # images of the plan, its classifier, images of the trace and of the step
    assert [count for count in found if count is not None] == [1] * 4


def test_a_plan_needs_half_the_memory():
    params, x = network()
    plans = [
        Plan(program(params, SPEC, ops), x.shape, ops)
        for ops in (reference, backend("reference", "bfloat16"))
    ]
    assert plans[1].bytes * 2 == plans[0].bytes


@COMPILED
@SLOW
@pytest.mark.parametrize("name", ["torchvision.resnext14_32x4d", "timm.seresnextaa14d_32x8d"])
def test_logits_of_others(name: str):
    from test_logits import model_of

    case = cases.load(name)
    check_logits(model_of(case, backend("cpu", "bfloat16")), case)


def check_logits(made: Model, case: cases.Case) -> None:
    """As `tinyresnext verify`: as many times more as bfloat16 is coarser than float32."""
    bound = 3 * case.torch_float32_error * 2**16
    assert cases.relative_error(made(case.x), case.logits) <= bound < 0.25


@pytest.mark.parametrize(
    "name",
    ["torchvision.resnext50_32x4d", "torchvision.resnext101_32x8d", "timm.resnext50d_32x4d"],
)
def test_full_size_logits(name: str, reference_dir):
    from test_logits import model_of

    case = cases.load(name, reference_dir / "reference")
    check_logits(model_of(case, backend("cpu", "bfloat16")), case)


# --- the instruction ------------------------------------------------------------------------------


def assembled(monkeypatch, name: str, write: Callable) -> str:
    """Return the assembler text for a processor of a function on vectors of 16 words."""
    sizes = emit.machine()._replace(lanes=16, registers=32)
    for module in (emit, emitted):
        monkeypatch.setattr(module, "machine", lambda: sizes)
    features = {"znver4": "+avx512bf16", "haswell": "+avx2,+fma"}[name]
    monkeypatch.setattr(emitted, "has", lambda feature: f"+{feature}" in features)
    module = ir.Module()
    module.triple = "x86_64-unknown-linux-gnu"
    vector = ir.VectorType(ir.FloatType(), 16)
    halves = ir.VectorType(ir.IntType(16), 16)
    kind = ir.FunctionType(
        ir.VoidType(), [p.as_pointer() for p in (vector, vector, vector, halves)]
    )
    function = ir.Function(module, kind, "run")
    builder = ir.IRBuilder(function.append_basic_block())
    write(emit.Emit(None, builder, HALVES, WORDS), builder, *function.args)
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=name, features=features, opt=3)
    checked = binding.parse_assembly(str(module))
    checked.verify()
    return machine.emit_assembly(checked)


def one_product(e, builder, a, b, c, y) -> None:
    """Write a product of words, and the rounding of its sums."""
    total = e.product(*(builder.load(place) for place in (a, b, c)))
    e._to_memory(total, y)


def test_a_processor_that_has_the_instruction_is_given_it(monkeypatch):
    text = assembled(monkeypatch, "znver4", one_product)
    assert text.count("vdpbf16ps") == text.count("vcvtneps2bf16") == 1
    assert "vfmadd" not in text
    assert "call" not in text


def test_another_processor_gets_two_products_of_float32(monkeypatch):
    text = assembled(monkeypatch, "haswell", one_product)
    assert text.count("vfmadd") == 4  # 16 lanes are two vectors there
    assert "bf16" not in text
    assert "call" not in text


@pytest.mark.parametrize(
    ("has", "words"), [(True, "by its instruction for it"), (False, "no faster")]
)
def test_bench_says_which_it_is(monkeypatch, has: bool, words: str):
    monkeypatch.setattr(emitted, "multiplies", lambda: has)
    assert words in backend("cpu", "bfloat16").described()
    assert "plain NumPy, in bfloat16" in backend("reference", "bfloat16").described()


# --- how it is asked for --------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_what_is_no_op_is_refused(device: str):
    ops = backend(device, "bfloat16")
    for name in ("quantise", "conv2d_int8", "sgd_step"):
        with pytest.raises(DeviceError, match=f"{name} is computed in float32 only.*--precision"):
            ops.bind(name)


def test_a_backend_is_pickled_and_copied_with_its_precision(ops):
    assert pickle.loads(pickle.dumps(ops)) is ops
    assert copy.deepcopy(ops) is ops
    assert (ops.precision, ops.base.precision) == ("bfloat16", "float32")
    assert "in bfloat16" in repr(ops)


def test_types_that_do_not_fit_are_refused():
    ops, x = backend("cpu", "bfloat16"), np.ones((1, 2, 2, 4), np.float32)
    weight, half = np.ones((4, 4, 1, 1), np.float32), up(backend("cpu", "bfloat16"), x)
    with pytest.raises(TypeError, match="x is float32, expected bfloat16"):
        ops.conv2d(x, weight)
    with pytest.raises(TypeError, match="packed for float32, and out is bfloat16"):
        ops.conv2d(half, cpu.pack(weight, 1))
    with pytest.raises(TypeError, match="packed for bfloat16, and out is float32"):
        cpu.conv2d(x, ops.pack(weight, 1))
    with pytest.raises(TypeError, match="x is uint16, expected float32"):
        cpu.conv2d(half, weight)
    with pytest.raises(TypeError, match="residual is float32, expected bfloat16"):
        ops.conv2d(half, weight, residual=x)
    with pytest.raises(ValueError, match="no axis of length 0"):
        ops.pack(np.ones((0, 4, 1, 1), np.float32), 1)


def test_verify_allows_what_the_rounding_does(tmp_path):
    to = tmp_path / "reference.npz"
    error = make_reference(shipped_model(), to, pictures=1)
    report = verify(shipped_model(), to, "reference", precision="bfloat16")
    assert report.passed
    assert f"allowed {3 * error * 65_536:.1e}" in str(report)


def test_a_loaded_model_names_its_labels(capsys):
    made = tinyresnext.load(device="reference", precision="bfloat16")
    photo = "tests/data/chelsea.jpg"
    (row,) = made.predict(photo, top=1)
    wide = tinyresnext.load(device="reference")
    assert row[0].label == wide.predict(photo, top=1)[0][0].label
    assert 0 < abs(row[0].probability - wide.predict(photo, top=1)[0][0].probability) < 0.05
    assert main(["classify", photo, "--device", "reference", "--precision", "bfloat16"]) == 0
    assert row[0].label in capsys.readouterr().out
    other = pickle.loads(pickle.dumps(made))
    assert other.ops is made.ops
