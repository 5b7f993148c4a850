"""Every gradient of every backend against the reference in float64, within derived bounds.

Sums of k products are bounded as in `test_ops`: ``|error| <= g_k (|a| * |b|)``, whatever the order
they are added in, and the right side is the same gradient of absolute values. What a ReLU lets pass
must not be a matter of rounding, so data are such that nothing before one is near zero.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from op_cases import (
    BLURS,
    CONVS,
    LINEAR_SHAPES,
    MEAN_SHAPES,
    POOLS,
    SCALED,
    UNIT,
    Conv,
    Pool,
    conv_data,
    gamma,
    generator,
    ident,
    normal,
)
from op_cases import result_shape as shape_of
from test_ops import inside, skip_if_slow, wide

from tinyresnext.ops import cpu, reference, shapes
from tinyresnext.ops.cpu.conv.geometry import geometry
from tinyresnext.ops.cpu.conv.wide import outer as wide_outer

BY_NAME = {case.name: case for case in CONVS}


def conv_case(case: Conv) -> tuple[list, np.ndarray, np.ndarray]:
    """Arguments, result and a gradient for it."""
    x, weight, bias, _ = conv_data(case, shape_of(case))
    y = reference.conv2d(x, weight, bias, **case.attrs)
    return [x, weight, bias], y, normal(generator((case.name, "dy")), *y.shape)


@pytest.mark.parametrize("case", CONVS, ids=ident)
def test_conv2d(ops, case: Conv):
    """A place reaches at most ``c_out / groups * k_h * k_w`` results, a weight every position."""
    skip_if_slow(ops, case.work)
    args, y, dy = conv_case(case)
    found = ops.conv2d_backward(dy, y, *args, **case.attrs)
    wanted = reference.conv2d_backward(*wide(dy, y, *args), **case.attrs)
    bounds = reference.conv2d_backward(
        *(None if a is None else np.abs(a) for a in wide(dy, y, *args)), **case.attrs
    )
    positions = y.size // max(1, y.shape[-1])
    terms = (case.c_out // case.groups * case.weight[2] * case.weight[3], positions, positions)
    assert (found[2] is None) == (args[2] is None)
    for gradient, want, bound, k in zip(found, wanted, bounds, terms, strict=True):
        assert gradient is None or inside(gradient, want, gamma(k + 1) * bound)


@pytest.mark.parametrize(
    "name",
    [
        "prime everything",
        "r50 layer2.0 grouped",
        "1x1 stride 3 by 2",
        "1x1 grouped",
        "dilated, grouped",
    ],
)
def test_a_bound_gradient_is_the_same_to_the_bit_and_adds_where_it_is_told(ops, name: str):
    case = BY_NAME[name]
    skip_if_slow(ops, case.work)
    args, y, dy = conv_case(case)
    want = ops.conv2d_backward(dy, y, *args, **case.attrs)
    out = [None if a is None else np.full(a.shape, np.nan, np.float32) for a in args]
    ops.bind(
        "conv2d_backward", dy, y, *args, **case.attrs, out=(out[0], out[1], None), more=(False,) * 3
    )()
    assert np.array_equal(out[0], want[0])
    assert np.array_equal(out[1], want[1])
    assert out[2] is None or np.isnan(out[2]).all()
    before = [normal(generator((name, i)), *a.shape) for i, a in enumerate(args[:2])]
    out = [a.copy() for a in before]
    ops.bind(
        "conv2d_backward", dy, y, *args, **case.attrs, out=(*out, None), more=(True, True, False)
    )()
    wanted = reference.conv2d_backward(*wide(dy, y, *args), **case.attrs)
    bounds = reference.conv2d_backward(
        *(None if a is None else np.abs(a) for a in wide(dy, y, *args)), **case.attrs
    )
    terms = (case.c_out // case.groups * case.weight[2] * case.weight[3], y.size // y.shape[-1])
    for total, start, gradient, bound, k in zip(out, before, wanted, bounds, terms, strict=False):
        # What is there is one term more; the sum may be begun with it or end with it.
        assert inside(total, start + gradient, gamma(k + 2) * (bound + np.abs(start)))


def test_a_bound_convolution_sees_a_weight_that_has_changed(ops):
    x, weight = normal(generator("x"), 1, 5, 5, 8), normal(generator("w"), 8, 4, 3, 3)
    out = np.empty((1, 5, 5, 8), np.float32)
    call = ops.bind("conv2d", x, weight, padding=1, groups=2, out=out)
    weight *= 2
    call()
    assert np.array_equal(out, ops.conv2d(x, weight, padding=1, groups=2))


# --- batch norm -----------------------------------------------------------------------------------

NORMS = [
    ((2, 3, 5, 7), 0.0),
    ((3, 8, 8, 16), 3.0),
    ((5, 9, 7, 33), -20.0),
    ((2, 1, 1, 4), 0.5),
    ((1, 2, 1, 1), 100.0),
    # On a GPU 32, 8 and 8 positions lie side by side, and the last of them not in each place.
    ((1, 65, 66, 3), 2.0),
    ((1, 35, 31, 12), 0.0),
    ((1, 33, 32, 36), -1.0),
]


def norm_case(
    shape: tuple[int, ...], mean: float, residual: bool, relu: bool
) -> tuple[list, np.ndarray, np.ndarray, dict]:
    """Arguments such that nothing before the ReLU is near zero, result, gradient, attributes."""
    rng = generator((shape, residual))
    c = shape[-1]
    x, other = normal(rng, *shape) + np.float32(mean), normal(rng, *shape)
    scale, shift = rng.uniform(0.5, 2, c).astype(np.float32), normal(rng, c)
    if relu:  # a residual that moves every value away from zero; without one, values of x that do
        y = reference.batch_norm_train(*wide(x, scale, shift))
        if residual:
            other = (np.where(other > 0, 2, -2) - y).astype(np.float32)
        else:
            x = np.where(np.abs(y) < 0.05, x + np.float32(0.2), x)
    args = [x, scale, shift, *([other] if residual else [])]
    y = reference.batch_norm_train(*wide(*args))
    assert not relu or np.abs(y).min() > 1e-3
    attrs = {"relu": relu, "eps": 1e-5}
    return args, reference.batch_norm_train(*wide(*args), **attrs), normal(rng, *shape), attrs


def statistics_errors(x: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bounds for mean and variance, and the relative one for ``1 / sqrt(var + eps)``.

    They are those of sums around the first value. With ``d = x - x[0]`` and m positions: mean and
    mean square of d are sums of m terms of which each is rounded up to three times; the variance is
    the second less the square of the first. NumPy's own mean of x is a sum of m terms too.
    """
    m, u = x.size // x.shape[-1], gamma(x.size // x.shape[-1] + 4)
    d = x - x.reshape(-1, x.shape[-1])[0]
    mean = u * np.maximum(np.abs(d).mean((0, 1, 2)), np.abs(x).mean((0, 1, 2))) + UNIT * np.abs(
        x.mean((0, 1, 2))
    )
    var = (
        u * ((d**2).mean((0, 1, 2)) + 2 * np.abs(d.mean((0, 1, 2))) * np.abs(d).mean((0, 1, 2)))
        + mean**2
    )
    assert m > 0
    return mean, var, var / (2 * (x.var((0, 1, 2)) + eps)) + 4 * UNIT


@pytest.mark.parametrize(("shape", "mean"), NORMS, ids=str)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_batch_norm_train(ops, shape, mean, residual, relu):
    args, want, _, attrs = norm_case(shape, mean, residual, relu)
    statistics = np.full((2, shape[-1]), np.nan, np.float32)
    y = ops.batch_norm_train(*args, **attrs, statistics=statistics)
    x, *_ = wide(*args)
    e_mean, e_var, _ = statistics_errors(x, 1e-5)
    assert (
        np.abs(statistics[0] - x.mean((0, 1, 2))) <= e_mean + UNIT * np.abs(x.mean((0, 1, 2)))
    ).all()
    assert (np.abs(statistics[1] - x.var((0, 1, 2))) <= e_var + UNIT * x.var((0, 1, 2))).all()
    assert inside(y, want, norm_bound(*wide(*args)))


def norm_bound(x: np.ndarray, scale: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Return by how much the result of a batch norm may be off; shift and residual are added."""
    e_mean, _, e_rstd = statistics_errors(x, 1e-5)
    factor = scale / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    centred = np.abs(x - x.mean((0, 1, 2)))
    parts = centred * factor + sum(np.abs(a) for a in others)
    bound = (
        factor * (e_mean + UNIT * np.abs(x))
        + centred * factor * (e_rstd + gamma(3))
        + gamma(3) * parts
    )
    return 1.01 * bound  # products of two errors are left out above


@pytest.mark.parametrize(("shape", "mean"), NORMS, ids=str)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_batch_norm_train_backward(ops, shape, mean, residual, relu, given):
    args, y, dy, attrs = norm_case(shape, mean, residual, relu)
    statistics = None
    if given:
        statistics = np.empty((2, shape[-1]), np.float32)
        ops.batch_norm_train(*args, **attrs, statistics=statistics)
    found = ops.batch_norm_train_backward(
        dy, y.astype(np.float32), *args, **attrs, statistics=statistics
    )
    wanted = reference.batch_norm_train_backward(*wide(dy), y, *wide(*args), **attrs)
    d = np.abs(dy.astype(np.float64) * (y > 0) if relu else dy.astype(np.float64))
    assert (found[3] is None) == (not residual)
    bounds = norm_gradient_bounds(*wide(*args)[:2], d)
    for gradient, want, bound in zip(found, wanted, bounds, strict=True):
        assert gradient is None or inside(gradient, want, bound)


def norm_gradient_bounds(x: np.ndarray, scale: np.ndarray, d: np.ndarray) -> list[np.ndarray]:
    """Return by how much the four gradients of a batch norm may be off.

    The formula is ``dx = f (d - a - b c)`` with ``c = x - mean``. ``a`` is the mean of d, and ``b``
    that of ``d c`` over the variance; here ``d`` are magnitudes, behind the ReLU.
    """
    m = x.size // x.shape[-1]
    e_mean, _, e_rstd = statistics_errors(x, 1e-5)
    rstd, c = 1 / np.sqrt(x.var((0, 1, 2)) + 1e-5), np.abs(x - x.mean((0, 1, 2)))
    e_c = e_mean + UNIT * (np.abs(x) + c)
    e_a = gamma(m + 2) * d.mean((0, 1, 2))
    dc, e_dc = (d * c).mean((0, 1, 2)), (d * (e_c + gamma(m + 4) * c)).mean((0, 1, 2))
    b, e_b = rstd**2 * dc, rstd**2 * (e_dc + dc * (2 * e_rstd + gamma(4)))
    size = d + d.mean((0, 1, 2)) + b * c
    bounds = [
        scale * rstd * (e_a + e_b * c + b * e_c + size * (e_rstd + gamma(6))),
        m * rstd * (e_dc + dc * (e_rstd + gamma(4))),
        m * e_a,
        np.zeros(x.shape),
    ]
    return [1.01 * bound for bound in bounds]


def test_batch_norm_of_values_far_from_zero_keeps_its_variance(ops):
    """With a mean of 4096 and a deviation of 1, a difference of squares would have no digit left.

    NumPy's mean of 256 values errs by 3e-5 of 4096 at most, and by its square, 1e-2, the variance
    could; pairwise sums stay a hundred times below that. The formula in question errs by 4096**2 *
    2**-24 = 1.
    """
    x = (4096 + generator("far").standard_normal((4, 8, 8, 3))).astype(np.float32)
    statistics = np.empty((2, 3), np.float32)
    ops.batch_norm_train(x, np.ones(3, np.float32), np.zeros(3, np.float32), statistics=statistics)
    assert np.allclose(statistics[1], x.astype(np.float64).var((0, 1, 2)), rtol=1e-3)


ODD = {
    "none": ((), 0.0),
    "first 1e3": ((0, 0, 0), 1e3),
    "first -1e5": ((0, 0, 0), -1e5),
    "first 1e5, one channel": ((0, 0, 0, 2), 1e5),
    "first 1e4, half of the channels": ((0, 0, 0, slice(None, None, 2)), 1e4),
    "first row": ((0, 0), 1e4),
    "first image": ((0,), 1e4),
    "first column": ((slice(None), slice(None), 0), 1e4),
    "middle": ((2, 5, 7), 1e5),
    "last": ((-1, -1, -1), 1e5),
}


@pytest.mark.parametrize("mean", [0.0, 100.0])
@pytest.mark.parametrize("name", ODD)
def test_batch_norm_is_exact_wherever_odd_values_lie(name, mean):
    """Errors stay a few units of rounding of the largest value.

    A mean of 100 in float32 is off by up to 2**-18, which is so much of a deviation of 1. (NumPy's
    sums of float32 over these axes have errors of 1e-5: the reference is taken in float64.)
    """
    shape, (where, odd) = (4, 24, 24, 16), ODD[name]
    rng = generator(("odd", name))
    x, dy = normal(rng, *shape) + np.float32(mean), normal(rng, *shape)
    x[where or (slice(0),)] = odd
    scale, shift = rng.uniform(0.5, 2, 16).astype(np.float32), normal(rng, 16)
    statistics = np.empty((2, 16), np.float32)
    y = cpu.batch_norm_train(x, scale, shift, statistics=statistics)
    wide_x = x.astype(np.float64)
    var = wide_x.var((0, 1, 2))
    assert np.allclose(statistics[1], var, rtol=1e-5)
    wanted = reference.batch_norm_train(*wide(x, scale, shift))
    most = 8e-7 * (1 + mean / 10)
    assert np.abs(y - wanted).max() < most * np.abs(wanted).max()
    for given in (None, statistics):
        found = cpu.batch_norm_train_backward(dy, y, x, scale, shift, statistics=given)
        gradients = reference.batch_norm_train_backward(*wide(dy), wanted, *wide(x, scale, shift))
        for one, want in zip(found[:3], gradients[:3], strict=True):
            assert np.abs(one - want).max() < 3 * most * np.abs(want).max()


@pytest.mark.parametrize("given", [True, False])
def test_forward_and_backward_see_the_same_relu(given):
    """The first position of every channel is at the kink, where an ulp of a factor decides."""
    rng, c = generator("kink"), 512
    x, scale, statistics = normal(rng, 1, 2, 3, c), np.ones(c, np.float32), np.empty((2, c), "f4")
    wide_x = x.astype(np.float64)
    mean, var = (a.reshape(c) for a in (wide_x.mean((0, 1, 2)), wide_x.var((0, 1, 2))))
    shift = (mean.astype(np.float32) - x[0, 0, 0]) * (1 / np.sqrt(var + 1e-5)).astype(np.float32)
    y = cpu.batch_norm_train(x, scale, shift, relu=True, statistics=statistics)
    dy = np.zeros_like(x)
    dy[0, 0, 0] = 1
    found = cpu.batch_norm_train_backward(
        dy, y, x, scale, shift, relu=True, statistics=statistics if given else None
    )
    passed = y[0, 0, 0] > 0
    assert 0 < passed.sum() < c
    assert np.array_equal(found[2], passed)


def test_batch_norm_of_equal_values_has_no_variance(ops):
    x = np.full((2, 3, 3, 4), 7, np.float32)
    statistics = np.empty((2, 4), np.float32)
    y = ops.batch_norm_train(
        x, np.ones(4, np.float32), np.zeros(4, np.float32), statistics=statistics
    )
    assert (y == 0).all()
    assert (statistics == [[7], [0]]).all()


def test_batch_norm_gradient_over_the_one_that_comes_in(ops):
    """In place, as a step of training has it; or added to what is there."""
    for residual in (False, True):
        args, y, dy, attrs = norm_case((3, 4, 4, 16), 1.0, residual, True)
        y32 = y.astype(np.float32)
        want = ops.batch_norm_train_backward(dy, y32, *args, **attrs)
        over, other = dy.copy(), np.empty_like(dy)
        vectors = [np.empty(16, np.float32) for _ in range(2)]
        out = (other, *vectors, over) if residual else (over, *vectors)
        ops.bind(
            "batch_norm_train_backward", over, y32, *args, **attrs, out=out, more=(False,) * 4
        )()
        assert all(np.array_equal(a, b) for a, b in zip(out, want, strict=False))
        start = normal(generator("start"), 3, 4, 4, 16)
        more = start.copy()
        ops.bind(
            "batch_norm_train_backward",
            dy,
            y32,
            *args,
            **attrs,
            out=(more, None, None, None),
            more=(True,) * 4,
        )()
        assert np.array_equal(more, start + want[0])


@pytest.mark.parametrize(("shape", "mean"), NORMS, ids=str)
def test_batch_norm_with_constant_statistics(ops, shape, mean):
    rng = generator((shape, "frozen"))
    c = shape[-1]
    x, dy = normal(rng, *shape) + np.float32(mean), normal(rng, *shape)
    scale, shift, centre = (normal(rng, c) for _ in range(3))
    var = rng.uniform(0.5, 2, c).astype(np.float32)
    args, m = (scale, shift, centre, var), x.size // c
    found = ops.batch_norm_backward(dy, x, x, *args)
    wanted = reference.batch_norm_backward(*wide(dy, x, x, *args))
    d, away = np.abs(dy).astype(np.float64), np.abs(x - centre.astype(np.float64))
    rstd, sums, u = 1 / np.sqrt(var + 1e-5), d.sum((0, 1, 2)), gamma(m + 12)
    centred = (d * (away + np.abs(x))).sum(
        (0, 1, 2)
    )  # of x - mean, rounding sees the larger of the two
    bounds = [
        u * np.abs(scale * rstd) * d,
        u * centred * rstd,
        u * sums,
        u * sums * np.abs(scale) * rstd,
    ]
    bounds.append(u * centred * np.abs(scale) * rstd**3 / 2)
    for gradient, want, bound in zip(found, wanted, bounds, strict=True):
        assert inside(gradient, want, bound)


# --- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", POOLS, ids=ident)
def test_pools(ops, case: Pool):
    """A place is in at most as many windows as a window has places; shares are rounded once more.

    Bound, the gradient is written, or added to what is there.
    """
    x = normal(generator(case.name), *case.x)
    places = int(np.prod(shapes.pair("size", case.size, 1)))
    for op, attrs in (("max_pool2d", {}), ("avg_pool2d", {"count_include_pad": case.include_pad})):
        attrs = case.attrs | attrs
        y = getattr(reference, op)(x, **attrs)
        dy = normal(generator((case.name, op)), *y.shape)
        (found,) = getattr(ops, f"{op}_backward")(dy, y, x, **attrs)
        backward = getattr(reference, f"{op}_backward")
        (want,), (bound,) = (
            backward(*wide(dy, y, x), **attrs),
            backward(*wide(np.abs(dy), y, x), **attrs),
        )
        assert inside(np.ascontiguousarray(found), want, gamma(places + 1) * bound)
        there = ops.upload(normal(generator((case.name, op, "there")), *case.x))
        both = want + there
        for more, wanted in ((True, both), (False, want)):
            ops.bind(f"{op}_backward", dy, y, x, **attrs, out=(there,), more=(more,))()
            assert inside(there, wanted, gamma(places + 2) * (bound + np.abs(both)))


def test_the_first_of_equal_values_receives_the_gradient(ops):
    x, dy = np.zeros((1, 4, 4, 1), np.float32), np.ones((1, 2, 2, 1), np.float32)
    (dx,) = ops.max_pool2d_backward(dy, np.zeros_like(dy), x, size=2, stride=2)
    assert np.argwhere(dx).tolist() == [[0, 0, 0, 0], [0, 0, 2, 0], [0, 2, 0, 0], [0, 2, 2, 0]]


@pytest.mark.parametrize("shape", MEAN_SHAPES, ids=str)
def test_mean_pool(ops, shape):
    x, dy = np.zeros(shape, np.float32), normal(generator(shape), shape[0], shape[3])
    (found,) = ops.mean_pool_backward(dy, dy, x)
    (want,) = reference.mean_pool_backward(*wide(dy, dy, x))
    assert inside(np.ascontiguousarray(found), want, gamma(2) * np.abs(want))
    dy = dy.reshape(shape[0], 1, 1, shape[3])
    (kept,) = ops.mean_pool_backward(dy, dy, x, keepdims=True)
    assert np.array_equal(kept, found)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(ops, shape, stride):
    """A place is in at most nine results; bound, it is written, or added to what is there."""
    x = normal(generator(shape), *shape)
    y = reference.blur_pool(x, stride=stride)
    dy, there = normal(generator((shape, "dy")), *y.shape), normal(generator("there"), *shape)
    (found,) = ops.blur_pool_backward(dy, y, x, stride=stride)
    (want,) = reference.blur_pool_backward(*wide(dy, y, x), stride=stride)
    (bound,) = reference.blur_pool_backward(*wide(np.abs(dy), y, x), stride=stride)
    assert inside(found, want, gamma(12) * bound)
    both = want + there
    ops.bind("blur_pool_backward", dy, y, x, stride=stride, out=(there,), more=(True,))()
    assert inside(there, both, gamma(13) * (bound + np.abs(both) + np.abs(both - want)))


@pytest.mark.parametrize("end", ["", "residual", "relu", "residual relu"])
@pytest.mark.parametrize("shape", SCALED, ids=str)
def test_excite(ops, shape, end):
    """Of ``s`` it is a sum over the positions, times the sigmoid's slope."""
    rng, relu = generator((shape, end)), "relu" in end
    x, dy = normal(rng, *shape), normal(rng, *shape)
    s = normal(rng, shape[0], 1, 1, shape[3])
    y = reference.excite(*wide(x, s))
    residual = (np.where(normal(rng, *shape) > 0, 2, -2) - y).astype(np.float32)
    x[np.abs(x) < 0.01] = 1  # what is near zero may be either side of the ReLU
    args = [x, s, *([residual] if "residual" in end else [])]
    y = reference.excite(*wide(*args), relu=relu)
    found = ops.excite_backward(dy, y.astype(np.float32), *args, relu=relu)
    wanted = reference.excite_backward(*wide(dy), y, *wide(*args), relu=relu)
    sizes = wide(np.abs(dy), *args)
    sizes[1] = np.abs(sizes[1])
    bounds = reference.excite_backward(sizes[0], y, *sizes[1:], relu=relu)
    positions = shape[1] * shape[2]
    assert len(found) == len(wanted) == 3
    for gradient, want, bound, k in zip(
        found, wanted, bounds, (12, positions + 16, 1), strict=True
    ):
        assert gradient is want is None or inside(gradient, want, gamma(k) * np.abs(bound))
    # In place, as a step of training has it; or added to what is there.
    places = [np.full(a.shape, np.nan, np.float32) for a in args]
    over, last = dy.copy(), len(args) - 1 if len(args) > 2 else 0
    places[last] = over
    out, none = (*places, None)[:3], (False,) * 3
    ops.bind("excite_backward", over, y.astype(np.float32), *args, relu=relu, out=out, more=none)()
    assert all(np.array_equal(a, b) for a, b in zip(places, found, strict=False))
    start = [normal(rng, *a.shape) for a in args]
    more = [a.copy() for a in start]
    ops.bind(
        "excite_backward", dy, y.astype(np.float32), *args, relu=relu,
        out=(*more, None)[:3], more=(True,) * 3,
    )()  # fmt: skip
    for total, begun, gradient in zip(more, start, found, strict=False):
        np.testing.assert_allclose(total, begun + gradient, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sizes", LINEAR_SHAPES, ids=str)
def test_linear(ops, sizes):
    n, c_in, c_out = sizes
    rng = generator(sizes)
    x, weight, bias, dy = (
        normal(rng, n, c_in),
        normal(rng, c_out, c_in),
        normal(rng, c_out),
        normal(rng, n, c_out),
    )
    skip_if_slow(ops, x.size * c_out)
    found = ops.linear_backward(dy, dy, x, weight, bias)
    wanted = reference.linear_backward(*wide(dy, dy, x, weight, bias))
    bounds = reference.linear_backward(*(np.abs(a) for a in wide(dy, dy, x, weight, bias)))
    for gradient, want, bound, k in zip(found, wanted, bounds, (c_out, n, n), strict=True):
        assert inside(gradient, want, gamma(k + 1) * bound)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (4,), (0, 2)], ids=str)
def test_relu_and_add_are_exact(ops, shape):
    rng = generator(shape)
    x, dy = normal(rng, *shape), normal(rng, *shape)
    assert np.array_equal(ops.relu_backward(dy, x, x)[0], np.where(x > 0, dy, 0))
    assert all(np.array_equal(g, dy) for g in ops.add_backward(dy, x, x, x))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss(ops, smoothing):
    """A one-hot distribution equals its labels, and the loss of a mixture is the mixed losses."""
    rng = generator("loss")
    x, labels = normal(rng, 5, 7), np.array([0, 6, 3, 3, 1])
    one = np.ones((), np.float32)
    loss = ops.softmax_cross_entropy(x, labels=labels, smoothing=smoothing)
    (dx,) = ops.softmax_cross_entropy_backward(one, loss, x, labels=labels, smoothing=smoothing)
    want = reference.softmax_cross_entropy(*wide(x), labels=labels, smoothing=smoothing)
    assert abs(loss - want) <= gamma(40) * np.abs(x).max()
    hot = np.eye(7, dtype=np.float32)[labels]
    assert np.array_equal(ops.softmax_cross_entropy(x, labels=hot, smoothing=smoothing), loss)
    assert np.array_equal(
        ops.softmax_cross_entropy_backward(one, loss, x, labels=hot, smoothing=smoothing)[0], dx
    )
    mixed = 0.25 * hot.astype(np.float64) + 0.75 * np.roll(hot, 1, 0)
    other = reference.softmax_cross_entropy(
        *wide(x), labels=np.roll(labels, 1), smoothing=smoothing
    )
    got = ops.softmax_cross_entropy(x, labels=mixed.astype(np.float32), smoothing=smoothing)
    assert abs(got - (0.25 * want + 0.75 * other)) <= gamma(40) * np.abs(x).max()


def test_losses_with_weights(ops):
    """Weights scale the loss and the gradient of each sample; a weight of two counts it twice."""
    rng = generator("weights")
    x, labels = normal(rng, 3, 7), np.array([0, 6, 3])
    one, twice = np.ones((), np.float32), np.array([2, 1, 1], np.float32)
    hot = np.eye(7, dtype=np.float32)[labels]
    for op, given, weights in (
        ("softmax_cross_entropy", labels, twice),
        ("binary_cross_entropy", hot, np.repeat(twice[:, None], 7, 1)),
    ):
        forward, backward = getattr(ops, op), getattr(ops, f"{op}_backward")
        loss = forward(x, labels=given, weights=weights)
        again = np.array([0, 0, 1, 2])
        want = getattr(reference, op)(
            *wide(x[again]), labels=given[again].astype("f8") if given.ndim == 2 else given[again]
        )
        assert abs(loss * 3 / 4 - want) <= gamma(60) * (np.abs(x).max() + math.log(7))
        (dx,) = backward(one, loss, x, labels=given, weights=weights)
        (plain,) = backward(one, loss, x, labels=given)
        np.testing.assert_allclose(dx, plain * twice[:, None], rtol=4 * 2.0**-24)


def test_binary_loss(ops):
    """The error of each term is a few roundings of what is added up in it.

    These are max(x, 0), x times the target, and the logarithm; exp and log1p are within 4 units in
    the last place. In the gradient, both the probability and the target are at most 1.
    """
    rng = generator("binary")
    x, labels = 5 * normal(rng, 6, 7), rng.random((6, 7)).astype(np.float32)
    one, weights = np.ones((), np.float32), rng.random((6, 7)).astype(np.float32)
    constants = {"labels": labels, "smoothing": 0.1, "weights": weights}
    exact = {
        name: wide(value)[0] if name != "smoothing" else 0.1 for name, value in constants.items()
    }
    loss = ops.binary_cross_entropy(x, **constants)
    want = reference.binary_cross_entropy(*wide(x), **exact)
    terms = np.abs(x) * (1 + labels) + math.log(2)
    assert abs(loss - want) <= gamma(x.size + 16) * (weights * terms).mean(dtype=np.float64)
    (dx,) = ops.binary_cross_entropy_backward(one, loss, x, **constants)
    (wanted,) = reference.binary_cross_entropy_backward(1.0, want, *wide(x), **exact)
    assert inside(dx, wanted, gamma(16) * 2 * weights.astype(np.float64) / x.size)
    huge = np.array([[1e30, -1e30, 0.0]], np.float32)
    hit = np.array([[1.0, 0.0, 1.0]], np.float32)
    loss = ops.binary_cross_entropy(huge, labels=hit)
    assert loss == pytest.approx(math.log(2) / 3)
    (dx,) = ops.binary_cross_entropy_backward(one, loss, huge, labels=hit)
    assert np.array_equal(dx[0, :2], [0, 0])


def test_softmax_backward(ops):
    rng = generator("softmax")
    x, dy = normal(rng, 4, 6), normal(rng, 4, 6)
    y = reference.softmax(x)
    (want,) = reference.softmax_backward(*wide(dy, y, x))
    assert inside(ops.softmax_backward(dy, y, x)[0], want, gamma(8) * (np.abs(dy).max() * y))


@pytest.mark.parametrize(
    "case", [BY_NAME["r50 layer1.0 grouped"], BY_NAME["prime everything"]], ids=ident
)
def test_cpu_gradients_are_the_same_bits_every_time(case: Conv):
    args, y, dy = conv_case(case)
    first = cpu.conv2d_backward(dy, y, *args, **case.attrs)
    for _ in range(3):
        again = cpu.conv2d_backward(dy, y, *args, **case.attrs)
        assert all(
            a is b is None or np.array_equal(a, b) for a, b in zip(first, again, strict=True)
        )


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the interpreter has one thread")
def test_cpu_gradients_of_wide_groups_are_the_same_bits_for_any_number_of_threads():
    case = BY_NAME["width 14"]
    args, y, dy = conv_case(case)
    want, threads = cpu.conv2d_backward(dy, y, *args, **case.attrs), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        found = cpu.conv2d_backward(dy, y, *args, **case.attrs)
    finally:
        numba.set_num_threads(threads)
    assert np.array_equal(found[0], want[0])
    assert np.array_equal(found[1], want[1])


def test_cpu_gathers_few_strips_at_once_where_each_is_large():
    geo = geometry((256, 7, 7, 2048), (256, 1, 1, 64), (7, 7), 1, 0, 1)
    strip = 7 * 7 * 2048
    assert wide_outer.cut(geo, False).together == wide_outer.STRIPS // strip > 1


@pytest.mark.parametrize(
    "spoil", [lambda w: w * (1 + 1e-3), lambda w: np.roll(w, 1, 2)], ids=["scaled", "shifted"]
)
def test_the_bound_sees_a_wrong_gradient(spoil):
    """One part in a thousand, or a filter moved by a line."""
    case = BY_NAME["cifar 8x64d grouped"]
    args, y, dy = conv_case(case)
    wanted = reference.conv2d_backward(*wide(dy, y, *args), **case.attrs)
    bounds = reference.conv2d_backward(*(np.abs(a) for a in wide(dy, y, *args)), **case.attrs)
    assert not inside(
        spoil(wanted[1]).astype(np.float32), wanted[1], gamma(y.size // y.shape[-1] + 1) * bounds[1]
    )
