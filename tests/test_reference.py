"""The reference against sums of one number at a time, in plain Python.

Integers up to nine make every sum exact, so most comparisons here are for equality.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from op_cases import generator

from tinyresnext.ops import reference, shapes


def integers(name: object, *shape: int) -> np.ndarray:
    """Small whole numbers as float64: all sums of products are exact."""
    return generator(name).integers(-9, 10, shape).astype(np.float64)


def loop_conv2d(x, weight, bias, stride, padding, groups):
    """Seven nested loops, straight from the sentence that defines the op."""
    (n, h, w, c_in), (c_out, c_group, k_h, k_w) = x.shape, weight.shape
    h_out, w_out = (
        (h + 2 * padding[0] - k_h) // stride[0] + 1,
        (w + 2 * padding[1] - k_w) // stride[1] + 1,
    )
    y = np.zeros((n, h_out, w_out, c_out))
    for b in range(n):
        for r in range(h_out):
            for s in range(w_out):
                for o in range(c_out):
                    total = bias[o]
                    for i in range(k_h):
                        for j in range(k_w):
                            for c in range(c_group):
                                line, column = (
                                    r * stride[0] + i - padding[0],
                                    s * stride[1] + j - padding[1],
                                )
                                if 0 <= line < h and 0 <= column < w:
                                    channel = o // (c_out // groups) * (c_in // groups) + c
                                    total += x[b, line, column, channel] * weight[o, c, i, j]
                    y[b, r, s, o] = total
    return y


CONVS = [  # x, c_out, kernel, stride, padding, groups
    ((1, 4, 5, 2), 3, (3, 3), (1, 1), (1, 1), 1),
    ((2, 5, 4, 4), 4, (3, 3), (2, 2), (1, 1), 2),
    ((1, 6, 6, 6), 9, (3, 3), (2, 1), (0, 1), 3),
    ((1, 5, 5, 3), 6, (1, 1), (2, 2), (0, 0), 1),
    ((1, 4, 4, 4), 4, (3, 3), (1, 1), (1, 1), 4),
    ((1, 3, 7, 2), 2, (1, 5), (1, 3), (0, 2), 1),
    ((1, 7, 3, 2), 4, (4, 2), (3, 1), (2, 0), 2),
    ((1, 2, 2, 1), 1, (5, 4), (1, 1), (2, 1), 1),
    ((1, 9, 9, 3), 2, (7, 7), (2, 2), (3, 3), 1),
    ((1, 8, 8, 1), 2, (2, 2), (5, 3), (0, 0), 1),
    ((1, 1, 1, 5), 5, (1, 1), (1, 1), (0, 0), 5),
]


@pytest.mark.parametrize(("shape", "c_out", "kernel", "stride", "padding", "groups"), CONVS)
def test_conv2d_is_seven_loops(shape, c_out, kernel, stride, padding, groups):
    x, weight = integers("x", *shape), integers("w", c_out, shape[3] // groups, *kernel)
    bias = integers("b", c_out)
    want = loop_conv2d(x, weight, bias, stride, padding, groups)
    attrs = {"stride": stride, "padding": padding, "groups": groups}
    assert shapes.conv2d(x, weight, bias, **attrs) == want.shape
    assert np.array_equal(reference.conv2d(x, weight, bias, **attrs), want)
    assert np.array_equal(reference.conv2d(x, weight, **attrs), want - bias)
    residual = integers("r", *want.shape)
    assert np.array_equal(
        reference.conv2d(x, weight, bias, **attrs, residual=residual), want + residual
    )
    y = reference.conv2d(x, weight, bias, **attrs, residual=residual, relu=True)
    assert np.array_equal(y, np.where(want + residual > 0, want + residual, 0))


def test_conv2d_takes_one_number_or_two():
    x, weight = integers("x", 1, 6, 6, 2), integers("w", 2, 2, 3, 3)
    want = loop_conv2d(x, weight, np.zeros(2), (2, 2), (1, 1), 1)
    for two in (2, (2, 2), [2, 2], np.int64(2)):
        assert np.array_equal(reference.conv2d(x, weight, stride=two, padding=1), want)


def test_conv2d_groups_are_convolutions_side_by_side():
    """The grouped layer of Figure 3c is the parallel layers of Figure 3b, written side by side."""
    x, weight = integers("x", 2, 5, 5, 8), integers("w", 12, 2, 3, 3)
    parts = [
        reference.conv2d(x[..., 2 * g : 2 * g + 2], weight[3 * g : 3 * g + 3], padding=1)
        for g in range(4)
    ]
    assert np.array_equal(
        reference.conv2d(x, weight, padding=1, groups=4), np.concatenate(parts, -1)
    )


def window(length: int, start: int, size: int) -> range:
    """The part of a window that lies inside."""
    return range(max(start, 0), min(start + size, length))


POOLS = [  # h, w, size, stride, padding, ceil_mode, and what PyTorch's rule makes of h and w
    (7, 7, 3, 2, 1, False, 4, 4),
    (8, 6, 3, 2, 1, False, 4, 3),
    (8, 6, 3, 2, 1, True, 5, 4),
    (7, 5, 2, 2, 0, False, 3, 2),
    (7, 5, 2, 2, 0, True, 4, 3),
    (5, 5, 3, 3, 0, True, 2, 2),
    (3, 3, 2, 3, 1, True, 2, 2),  # a third window would start in the trailing padding
    (4, 4, 2, 3, 0, True, 2, 2),
    (6, 9, 4, 3, 2, False, 3, 4),
    (1, 1, 1, 1, 0, False, 1, 1),
]


@pytest.mark.parametrize(
    ("h", "w", "size", "stride", "padding", "ceil_mode", "h_out", "w_out"), POOLS
)
def test_pooling_is_a_loop_over_windows(h, w, size, stride, padding, ceil_mode, h_out, w_out):
    x = integers("pool", 2, h, w, 3) - 20  # all negative: padding with zero would win
    attrs = {"size": size, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    largest, counted, inside = (np.empty((2, h_out, w_out, 3)) for _ in range(3))
    for n, r, s, c in np.ndindex(largest.shape):
        top, left = r * stride - padding, s * stride - padding
        values = [x[n, y, z, c] for y in window(h, top, size) for z in window(w, left, size)]
        places = (min(top + size, h + padding) - top) * (min(left + size, w + padding) - left)
        largest[n, r, s, c] = max(values)
        inside[n, r, s, c] = math.fsum(values) / len(values)
        counted[n, r, s, c] = math.fsum(values) / places
    assert np.array_equal(reference.max_pool2d(x, **attrs), largest)
    assert np.array_equal(reference.avg_pool2d(x, **attrs, count_include_pad=False), inside)
    assert np.array_equal(reference.avg_pool2d(x, **attrs), counted)


def test_pooling_takes_pairs():
    x = integers("pairs", 1, 5, 6, 2)
    y = reference.max_pool2d(x, size=(2, 3), stride=(1, 3), padding=(1, 0))
    assert y.shape == (1, 6, 2, 2)
    assert y[0, 0, 1, 0] == max(x[0, 0, 3:6, 0])
    assert y[0, 3, 0, 1] == x[0, 2:4, 0:3, 1].max()


def test_mean_pool_is_fsum_over_count():
    x = integers("mean", 2, 3, 5, 4)
    want = [[math.fsum(x[n, :, :, c].ravel()) / 15 for c in range(4)] for n in range(2)]
    assert np.allclose(reference.mean_pool(x), want, rtol=4e-16, atol=0)


def test_linear_is_a_sum_of_products():
    x, weight, bias = integers("x", 3, 4), integers("w", 2, 4), integers("b", 2)
    want = [
        [sum(x[n, i] * weight[o, i] for i in range(4)) + bias[o] for o in range(2)]
        for n in range(3)
    ]
    assert np.array_equal(reference.linear(x, weight, bias), want)


def test_relu_and_add():
    x, y = np.array([-2.0, -0.0, 0.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(reference.relu(x), [0, 0, 0, 3])
    assert np.array_equal(reference.add(x, y), [-1, 2, 3, 7])


ROWS = ([0.0, 1.0, 2.0], [-1000.0, 0.0, 1000.0], [5.0, 5.0, 5.0], [-700.0, -701.0, -702.5])


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_softmax_is_exponentials_over_their_sum(row):
    """Ratios of probabilities are exponentials of differences, and the probabilities sum to 1."""
    want = [1 / math.fsum(math.exp(min(b - a, 700)) for b in row) for a in row]
    assert np.allclose(reference.softmax(np.array([row]))[0], want, rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_softmax_cross_entropy_is_minus_the_expected_logarithm(row, smoothing):
    top = max(row)
    log_sum = top + math.log(math.fsum(math.exp(a - top) for a in row))
    target = [(i == 2) * (1 - smoothing) + smoothing / 3 for i in range(3)]
    want = math.fsum(t * (log_sum - a) for t, a in zip(target, row, strict=True))
    x = np.array([row, [1.0, 1.0, 1.0]])
    loss = reference.softmax_cross_entropy(x, labels=np.array([2, 0]), smoothing=smoothing)
    assert math.isclose(
        loss, (want + math.log(3)) / 2, rel_tol=1e-14, abs_tol=5e-13
    )  # half a step at 1000


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_binary_cross_entropy_is_minus_the_expected_logarithm(row, smoothing):
    """Of each output, ``-log(p)`` is ``log(1 + exp(-x))``, which is ``-x`` far below zero."""
    labels, weights = np.array([[0.0, 1.0, 0.25]]), np.array([[1.0, 2.0, 0.5]])

    def minus_log(x):
        return math.log1p(math.exp(-x)) if x > -700 else -x

    want = [
        w * (t * minus_log(a) + (1 - t) * minus_log(-a))
        for w, a, t in zip(
            weights[0], row, labels[0] * (1 - smoothing) + smoothing / 2, strict=True
        )
    ]
    x = np.array([row])
    loss = reference.binary_cross_entropy(x, labels=labels, smoothing=smoothing, weights=weights)
    assert math.isclose(loss, math.fsum(want) / 3, rel_tol=1e-13, abs_tol=1e-300)
    (dx,) = reference.binary_cross_entropy_backward(1.0, loss, x, labels=labels)
    chance = [1 / (1 + math.exp(min(-a, 700))) for a in row]
    assert np.allclose(dx[0], (np.array(chance) - labels[0]) / 3, rtol=1e-13, atol=1e-17)


def test_batch_norm_is_its_formula_channel_by_channel():
    x, scale, shift, mean = (
        integers("x", 2, 3, 2, 4),
        integers("s", 4),
        integers("b", 4),
        integers("m", 4),
    )
    var = np.abs(integers("v", 4)) + 0.5
    y = reference.batch_norm(x, scale, shift, mean, var, eps=1e-3)
    for n, r, s, c in np.ndindex(x.shape):
        want = (x[n, r, s, c] - mean[c]) / math.sqrt(var[c] + 1e-3) * scale[c] + shift[c]
        assert math.isclose(y[n, r, s, c], want, rel_tol=1e-14, abs_tol=1e-13)


def test_batch_norm_train_uses_the_mean_and_biased_variance_of_the_batch():
    x, scale, shift = integers("x", 3, 2, 2, 2), integers("s", 2), integers("b", 2)
    y = reference.batch_norm_train(x, scale, shift, eps=1e-5)
    for c in range(2):
        values = x[..., c].ravel()
        mean = math.fsum(values) / 12
        var = math.fsum((v - mean) ** 2 for v in values) / 12
        want = [(v - mean) / math.sqrt(var + 1e-5) * scale[c] + shift[c] for v in values]
        assert np.allclose(y[..., c].ravel(), want, rtol=1e-13, atol=1e-13)


def test_precision_of_the_input_is_kept():
    for dtype in (np.float32, np.float64):
        x = np.ones((1, 3, 3, 2), dtype)
        v, w, labels = np.ones(2, dtype), np.ones((2, 2, 1, 1), dtype), np.array([0])
        results = (
            reference.conv2d(x, w, v, residual=x, relu=True),
            reference.batch_norm(x, v, v, v, v),
            reference.batch_norm_train(x, v, v),
            reference.relu(x),
            reference.add(x, x),
            reference.max_pool2d(x, size=2, stride=1, padding=1),
            reference.avg_pool2d(x, size=2, stride=1, padding=1),
            reference.mean_pool(x),
            reference.linear(x[0, 0], w[:, :, 0, 0], v),
            reference.softmax(x[0, 0]),
            reference.softmax_cross_entropy(x[0, 0, :1], labels=labels, smoothing=0.1),
            reference.binary_cross_entropy(x[0, 0], labels=x[0, 0], smoothing=0.1),
        )
        assert [y.dtype for y in results] == [np.dtype(dtype)] * len(results)


BAD_LABELS = [
    (np.array([0, 3]), 0.0, "reach from 0 to 3"),
    (np.array([-1, 0]), 0.0, "reach from -1"),
    (np.array([0]), 0.0, "expected 2 integers"),
    (np.array([0.0, 1.0]), 0.0, "labels are float64"),
    (np.array([0, 1]), 1.5, "smoothing is 1.5"),
    (np.array([0, 1]), -0.1, "smoothing is -0.1"),
    (np.array([0, 1]), math.nan, "smoothing is nan"),
]


@pytest.mark.parametrize(("labels", "smoothing", "words"), BAD_LABELS)
def test_softmax_cross_entropy_refuses(labels, smoothing, words):
    for module in (shapes, reference):
        with pytest.raises(ValueError, match=words):
            module.softmax_cross_entropy(np.zeros((2, 3)), labels=labels, smoothing=smoothing)
    with pytest.raises(ValueError, match="at least one"):
        reference.softmax_cross_entropy(np.zeros((0, 3)), labels=np.zeros(0, int))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": np.zeros(2)}, r"labels are float64 \(2,\), expected floats \(2, 3\)"),
        ({"labels": np.zeros((2, 3), int)}, "labels are int64"),
        ({"smoothing": 1.5}, "smoothing is 1.5"),
        ({"weights": np.ones(2)}, "weights has shape"),
    ],
)
def test_binary_cross_entropy_refuses(changes, words):
    given = {"labels": np.zeros((2, 3)), "smoothing": 0.0} | changes
    for module in (shapes, reference):
        with pytest.raises(ValueError, match=words):
            module.binary_cross_entropy(np.zeros((2, 3)), **given)
    with pytest.raises(ValueError, match="at least one"):
        reference.binary_cross_entropy(np.zeros((0, 3)), labels=np.zeros((0, 3)))
    with pytest.raises(ValueError, match="weights has shape"):
        reference.softmax_cross_entropy(
            np.zeros((2, 3)), labels=np.zeros(2, int), weights=np.ones(3)
        )
