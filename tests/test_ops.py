"""Every op of every backend against the reference in float64, within derived error bounds.

For a sum of k products in float32, in any order, ``|error| <= g_k (|w| * |x|)`` with ``g_k = k u /
(1 - k u)`` and ``u = 2^-24`` (Higham, 2002, section 3.1). The right side is the same convolution of
absolute values, so the reference itself computes it. Data are ordinary numbers: nothing underflows.
The other bounds are derived where they are used.
"""

from __future__ import annotations

import os
from types import ModuleType

import numba
import numpy as np
import pytest
from op_cases import (
    ANY_SHAPES,
    BLURS,
    CHANNEL_SHAPES,
    CONVS,
    LINEAR_SHAPES,
    MEAN_SHAPES,
    POOLS,
    SCALED,
    SOFTMAX_SHAPES,
    UNIT,
    Conv,
    Pool,
    conv_data,
    gamma,
    generator,
    ident,
    normal,
    result_shape,
)

from tinyresnext.emulator.fault import KernelFault
from tinyresnext.ops import cpu, reference, shapes

BY_NAME = {case.name: case for case in CONVS}


def wide(*arrays):
    """Return the same numbers in float64; ``None`` stays."""
    return [None if a is None else np.asarray(a, np.float64) for a in arrays]


def inside(y: np.ndarray, want: np.ndarray, bound: np.ndarray) -> bool:
    """Return whether every value is within its own bound."""
    return (
        y.dtype == np.float32 and y.shape == want.shape and bool((np.abs(y - want) <= bound).all())
    )


def bounded_conv(case: Conv, x, weight, bias, residual) -> tuple[np.ndarray, np.ndarray]:
    """Return the right result, and how far from it float32 may be."""
    x, weight, bias, residual = wide(x, weight, bias, residual)
    want = reference.conv2d(
        x, weight, bias, **case.attrs, residual=residual, relu="relu" in case.epilogue
    )
    size = [None if a is None else np.abs(a) for a in (x, weight, bias, residual)]
    return want, gamma(case.terms) * reference.conv2d(*size[:3], **case.attrs, residual=size[3])


def skip_if_slow(ops: ModuleType, work: int) -> None:
    """With NUMBA_DISABLE_JIT=1 the interpreter runs the kernels: small cases only."""
    if ops is cpu and numba.config.DISABLE_JIT and work > 50_000:
        pytest.skip("too much work for the interpreter")


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CONVS, ids=ident)
def test_conv2d(ops, case: Conv):
    skip_if_slow(ops, case.work)
    x, weight, bias, residual = conv_data(case, result_shape(case))
    y = ops.conv2d(x, weight, bias, **case.attrs, residual=residual, relu="relu" in case.epilogue)
    assert inside(y, *bounded_conv(case, x, weight, bias, residual))


@pytest.mark.parametrize(
    "name", ["prime everything", "prime everything, 1x1", "five filters a group", "1x1 padded"]
)
def test_conv2d_packed_and_into_out_is_the_same_to_the_bit(ops, name: str):
    case = BY_NAME[name]
    skip_if_slow(ops, case.work)
    x, weight, bias, residual = conv_data(case, result_shape(case))
    keywords = {**case.attrs, "residual": residual, "relu": "relu" in case.epilogue}
    want = ops.conv2d(x, weight, bias, **keywords)
    packed, out = ops.pack(weight, case.groups), np.full(want.shape, np.nan, np.float32)
    assert tuple(packed.shape) == weight.shape
    assert ops.conv2d(x, packed, bias, **keywords, out=out) is out
    assert np.array_equal(out, want)


@pytest.mark.parametrize("shape", CHANNEL_SHAPES, ids=str)
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_batch_norm(ops, shape: tuple[int, ...], eps: float):
    """There are six roundings at most up to the product, and then one addition.

    These are eps, its sum, root and quotient, the difference, the product; the root halves the
    first two. So ``|error| <= g_7 (|product| + |shift|)``.
    """
    skip_if_slow(ops, int(np.prod(shape)) * 10)
    rng = generator(shape)
    x, scale, shift, mean = (normal(rng, *s) for s in (shape, shape[-1:], shape[-1:], shape[-1:]))
    var = rng.uniform(0, 2, shape[-1]).astype(np.float32)
    want = reference.batch_norm(*wide(x, scale, shift, mean, var), eps=eps)
    product = want - wide(shift)[0]
    assert inside(
        ops.batch_norm(x, scale, shift, mean, var, eps=eps),
        want,
        gamma(7) * (np.abs(product) + np.abs(shift)),
    )


@pytest.mark.parametrize("shape", ANY_SHAPES, ids=str)
def test_relu_is_exact(ops, shape: tuple[int, ...]):
    x = normal(generator(shape), *shape)
    assert inside(ops.relu(x), reference.relu(*wide(x)), np.zeros(shape))


@pytest.mark.parametrize("shape", ANY_SHAPES, ids=str)
def test_add_rounds_once(ops, shape: tuple[int, ...]):
    rng = generator(shape)
    x, y = normal(rng, *shape), normal(rng, *shape)
    want = reference.add(*wide(x, y))
    assert inside(ops.add(x, y), want, UNIT * np.abs(want))


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_max_pool2d_is_exact(ops, case: Pool):
    x = normal(generator(case.name), *case.x)
    want = reference.max_pool2d(*wide(x), **case.attrs)
    assert inside(ops.max_pool2d(x, **case.attrs), want, np.zeros(want.shape))


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_avg_pool2d(ops, case: Pool):
    """For a window of k places: k - 1 additions and a division, ``|error| <= g_k mean(|x|)``."""
    x = normal(generator(case.name), *case.x)
    attrs = {**case.attrs, "count_include_pad": case.include_pad}
    places = int(np.prod(shapes.pair("size", case.size, 1)))
    want, bound = (reference.avg_pool2d(a, **attrs) for a in wide(x, np.abs(x)))
    assert inside(ops.avg_pool2d(x, **attrs), want, gamma(places) * bound)


@pytest.mark.parametrize("shape", MEAN_SHAPES, ids=str)
def test_mean_pool(ops, shape: tuple[int, ...]):
    """As for a window of ``h * w`` places."""
    skip_if_slow(ops, int(np.prod(shape)))
    x = normal(generator(shape), *shape)
    for keepdims in (False, True):
        want, bound = (reference.mean_pool(a, keepdims=keepdims) for a in wide(x, np.abs(x)))
        found = ops.mean_pool(x, keepdims=keepdims)
        assert inside(found, want, gamma(shape[1] * shape[2]) * bound)


@pytest.mark.parametrize("own", [reference, cpu])
def test_sums_over_many_positions_err_like_those_over_few(own: ModuleType):
    """A run has 64 positions at most, and the runs are added in float64.

    So a term is part of at most 63 additions, is rounded once itself, and so are the total and
    each of the few factors after it.
    """
    tenth = np.float32(0.1)
    x, s = np.full((1, 300, 300, 2), tenth), np.zeros((1, 1, 1, 2), np.float32)
    want = np.full((1, 2), tenth, np.float64)
    assert inside(own.mean_pool(x), want, gamma(66) * want)
    y = reference.excite(x, s)
    _, ds, _ = own.excite_backward(np.ones_like(x), y, x, s)
    want = want.reshape(s.shape) * 300 * 300 / 4
    assert inside(ds, want, gamma(72) * want)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(ops, shape: tuple[int, ...], stride: int):
    """Nine products with exact weights: their roundings and eight additions."""
    x = normal(generator(shape), *shape)
    want, bound = (reference.blur_pool(a, stride=stride) for a in wide(x, np.abs(x)))
    assert inside(ops.blur_pool(x, stride=stride), want, gamma(9) * bound)


def test_a_blur_pooling_of_one_value_everywhere_is_that_value(ops):
    """The weights add up to one, at reflected edges too."""
    x = np.full((1, 5, 4, 2), 3, np.float32)
    assert (ops.blur_pool(x) == 3).all()
    one = np.zeros((1, 4, 4, 1), np.float32)
    one[0, 1, 1] = 16  # it lies beside the first line and column, which reflect it
    assert ops.blur_pool(one)[0, :, :, 0].tolist() == [[4, 2], [2, 1]]


@pytest.mark.parametrize("end", ["", "residual", "relu", "residual relu"])
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_excite(ops, shape: tuple[int, ...], end: str):
    """A sigmoid is within 8 units of rounding: exp (4), a sum, a quotient, to first order."""
    rng = generator((shape, end))
    x, residual = normal(rng, *shape), normal(rng, *shape) if "residual" in end else None
    s = normal(rng, shape[0], 1, 1, shape[-1]) * np.float32(4)
    want = reference.excite(*wide(x, s, residual), relu="relu" in end)
    bound = reference.excite(*wide(np.abs(x), s, None if residual is None else np.abs(residual)))
    assert inside(ops.excite(x, s, residual, relu="relu" in end), want, gamma(12) * bound)


def test_excite_takes_any_number(ops):
    """The sigmoid is exactly 0 and 1 where it rounds to that, and no exponential overflows."""
    x = np.ones((1, 1, 2, 4), np.float32)
    s = np.array([-1e30, 1e30, -np.inf, np.nan], np.float32).reshape(1, 1, 1, 4)
    with np.errstate(over="raise"):
        y = ops.excite(x, s)
    assert np.array_equal(y[0, 0, 0, :3], [0, 1, 0])
    assert np.isnan(y[..., 3]).all()


@pytest.mark.parametrize("sizes", LINEAR_SHAPES, ids=str)
def test_linear(ops, sizes: tuple[int, int, int]):
    """``c_in`` products and a bias."""
    n, c_in, c_out = sizes
    skip_if_slow(ops, n * c_in * c_out)
    rng = generator(sizes)
    arrays = normal(rng, n, c_in), normal(rng, c_out, c_in), normal(rng, c_out)
    want, bound = reference.linear(*wide(*arrays)), reference.linear(*wide(*map(np.abs, arrays)))
    assert inside(ops.linear(*arrays), want, gamma(c_in + 1) * bound)


@pytest.mark.parametrize("scale", [1, 80])
@pytest.mark.parametrize("shape", SOFTMAX_SHAPES, ids=str)
def test_softmax(ops, shape: tuple[int, int], scale: int):
    """``e_i = exp(x_i - max)`` has the relative error ``r_i = u |x_i - max| + 8 u``.

    The difference rounds once, and ``exp`` is good to 4 units in the last place (NumPy promises
    2.52, C libraries 1). Sum and quotient: ``|error_i| <= y_i (r_i + sum_j y_j r_j + g_n)`` to
    first order; one percent covers the rest. Results below the smallest normal number keep an
    absolute error of a few of the smallest steps.
    """
    x = normal(generator(shape), *shape) * np.float32(scale)
    (z,) = wide(x)
    want = reference.softmax(z)
    r = UNIT * (z.max(1, keepdims=True, initial=-1e9) - z) + 8 * UNIT
    bound = (
        1.01 * want * (r + (want * r).sum(1, keepdims=True) + gamma(shape[1] + 1)) + 4 * 2.0**-149
    )
    y = ops.softmax(x)
    assert inside(y, want, bound)


def test_softmax_of_huge_logits_stays_finite(ops):
    with np.errstate(
        over="ignore"
    ):  # the difference of the two is minus infinity, whose exponential is zero
        y = ops.softmax(np.array([[3e38, -3e38, 0.0], [-1e30, -1e30, -3e38]], np.float32))
    assert np.array_equal(y, np.array([[1, 0, 0], [0.5, 0.5, 0]], np.float32))


# --- the bounds find errors -----------------------------------------------------------------------


def test_bound_sees_one_border_value_wrong_by_a_thousandth():
    case = BY_NAME["r50 layer2 grouped"]
    x, weight, *_ = conv_data(case, result_shape(case))
    case = Conv(
        "without epilogue", case.x, case.c_out, case.kernel, case.stride, case.padding, case.groups
    )
    want, bound = bounded_conv(case, x, weight, None, None)
    y = want.astype(np.float32)
    assert inside(y, want, bound)
    y[0, 0, -1, 0] += np.float32(1e-3)
    assert not inside(y, want, bound)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.transpose(0, 1, 3, 2),
        lambda w: w[:, :, ::-1, ::-1],
        lambda w: w[:, ::-1],
        lambda w: np.roll(w, 1, 0),
        lambda w: w * np.float32(1.0001),
    ],
    ids=["transposed", "flipped", "channels reversed", "filters rolled", "one in ten thousand"],
)
def test_bound_sees_a_wrong_filter(spoil):
    case = BY_NAME["r50 layer2 grouped"]
    x, weight, bias, _ = conv_data(case, result_shape(case))
    wrong = np.ascontiguousarray(spoil(weight))
    assert not inside(
        cpu.conv2d(x, wrong, bias, **case.attrs, relu=True),
        *bounded_conv(case, x, weight, bias, None),
    )


# --- what does not depend on anything else --------------------------------------------------------


def test_in_place(ops):
    rng = generator("in place")
    x, y, v = normal(rng, 2, 3, 3, 5), normal(rng, 2, 3, 3, 5), np.abs(normal(rng, 4, 5))
    for call in (
        lambda a, out: ops.relu(a, out=out),
        lambda a, out: ops.add(a, y, out=out),
        lambda a, out: ops.add(y, a, out=out),
        lambda a, out: ops.batch_norm(a, *v, out=out),
        lambda a, out: ops.excite(a, y[:, :1, :1].copy(), y, relu=True, out=out),
    ):
        want, a = call(x, None), x.copy()
        assert call(a, a) is a
        assert np.array_equal(a, want)


def test_out_is_filled_and_returned_by_every_op(ops):
    rng = generator("out")
    x, z = normal(rng, 2, 4, 4, 3), normal(rng, 2, 3)
    for call in (
        lambda out: ops.max_pool2d(x, size=2, stride=2, out=out),
        lambda out: ops.avg_pool2d(x, size=2, stride=2, out=out),
        lambda out: ops.mean_pool(x, out=out),
        lambda out: ops.mean_pool(x, keepdims=True, out=out),
        lambda out: ops.blur_pool(x, out=out),
        lambda out: ops.excite(x, z.reshape(2, 1, 1, 3), out=out),
        lambda out: ops.linear(z, z, z[:, 0].copy(), out=out),
        lambda out: ops.softmax(z, out=out),
    ):
        want = call(None)
        out = np.full(want.shape, np.nan, np.float32)
        assert call(out) is out
        assert np.array_equal(out, want)


def test_inputs_are_not_changed(ops):
    case = BY_NAME["epilogue: bias residual relu"]
    arrays = conv_data(case, result_shape(case))
    before = [a.copy() for a in arrays]
    x, weight, bias, residual = arrays
    ops.conv2d(x, weight, bias, **case.attrs, residual=residual, relu=True)
    assert all(map(np.array_equal, arrays, before))


THREADED = [
    BY_NAME[name]
    for name in (
        "prime everything",
        "prime everything, 1x1",
        "positions over several panels",
        "width 3",
        "width 14",
    )
]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the interpreter has one thread")
@pytest.mark.parametrize("case", THREADED, ids=ident)
def test_cpu_results_are_the_same_bits_for_any_number_of_threads(case: Conv):
    x, weight, bias, _ = conv_data(case, result_shape(case))
    want, threads = cpu.conv2d(x, weight, bias, **case.attrs), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert np.array_equal(cpu.conv2d(x, weight, bias, **case.attrs), want)
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(cpu.conv2d(x, weight, bias, **case.attrs), want)


@pytest.mark.parametrize("case", THREADED, ids=ident)
def test_cpu_results_of_a_picture_do_not_depend_on_the_batch(case: Conv):
    skip_if_slow(cpu, case.work)
    if numba.config.DISABLE_JIT:
        pytest.skip("in the interpreter BLAS multiplies, and its rounding depends on the shape")
    x, weight, bias, _ = conv_data(case, result_shape(case))
    alone = [cpu.conv2d(x[i : i + 1], weight, bias, **case.attrs) for i in range(len(x))]
    assert np.array_equal(np.concatenate(alone), cpu.conv2d(x, weight, bias, **case.attrs))


# --- not-a-number and infinity --------------------------------------------------------------------


def same_kind(y: np.ndarray, want: np.ndarray) -> bool:
    """Return whether not-a-number and either infinity are in the same places."""
    return all(np.array_equal(kind(y), kind(want)) for kind in (np.isnan, np.isposinf, np.isneginf))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["x", "weight", "bias", "residual"])
@pytest.mark.parametrize(
    "name", ["epilogue: bias residual relu", "epilogue of 1x1: bias residual relu"]
)
def test_conv2d_passes_what_is_not_finite(ops, name: str, where: str, value: float):
    case = BY_NAME[name]
    arrays = dict(
        zip(("x", "weight", "bias", "residual"), conv_data(case, result_shape(case)), strict=True)
    )
    arrays[where].reshape(-1)[3] = value
    x, weight, bias, residual = arrays.values()
    with np.errstate(invalid="ignore"):
        want = reference.conv2d(
            *wide(x, weight, bias), **case.attrs, residual=wide(residual)[0], relu=True
        )
        y = ops.conv2d(x, weight, bias, **case.attrs, residual=residual, relu=True)
    assert same_kind(y, want)
    assert np.isfinite(want).any(), "one bad value must not reach what does not depend on it"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1, 17, 26])
def test_other_ops_pass_what_is_not_finite(ops, value: float, index: int):
    x = normal(generator("not finite"), 1, 3, 3, 3)
    x.reshape(-1)[index] = value
    z, v, w = x.reshape(9, 3), np.ones(3, np.float32), np.ones((2, 3), np.float32)
    calls = (
        ("relu", (x,), {}),
        ("add", (x, np.ones_like(x)), {}),
        ("batch_norm", (x, v, v, v, v), {}),
        ("max_pool2d", (x,), {"size": 2, "stride": 1, "padding": 1}),
        ("avg_pool2d", (x,), {"size": 2, "stride": 1, "padding": 1}),
        ("mean_pool", (x,), {}),
        ("linear", (z, w, v[:2].copy()), {}),
        ("softmax", (z,), {}),
    )
    with np.errstate(invalid="ignore"):
        for op, args, attrs in calls:
            assert same_kind(
                getattr(ops, op)(*args, **attrs), getattr(reference, op)(*wide(*args), **attrs)
            ), op


# --- which emulator -------------------------------------------------------------------------------


@pytest.mark.device
def test_the_emulator_that_was_asked_for_computes(emulated):
    """Only the emulator of PTX sees that a word was never written."""
    kind, *more = os.environ.get("TINYRESNEXT_EMULATOR", "fibers").split()
    plain = emulated.backend
    unwritten = plain.empty((3,))
    if kind == "ptx":
        assert "{}.{}".format(*plain.machine.capability) == more[0]
        with pytest.raises(KernelFault, match="relu: a load of"):
            plain.relu(unwritten)
    else:
        assert np.isnan(plain.download(plain.relu(unwritten))).all()
