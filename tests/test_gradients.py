"""Every gradient of the reference against differences in random directions, and against torch.

Take a result's weights ``v`` and a direction ``u`` for all inputs at once, and let ``phi(t) = <v,
f(x + t u)>``. Then ``phi'(0) = <v, J u>``, which the gradient must give as ``<J^T v, u>``.

``D(h) = (phi(h) - phi(-h)) / 2h`` has an error of even powers of ``h``; ``R(h) = (4 D(h) - D(2h)) /
3`` cancels the square and leaves a fourth power, so ``R(2h)`` is 16 times worse than ``R(h)`` and
their difference bounds the error of truncation 15 times over. Rounding adds at most ``3 e / h``
where ``e`` is the error of one ``phi``: a sum of at most ``k`` terms in the largest sums here,
relative to the magnitudes that are added. The sum of both must itself be small, or the test would
accept anything.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import CONVS, POOLS, Conv, Pool, generator, ident

from tinyresnext.ops import reference, shapes

H = 2.0**-8
TERMS = 2.0**10  # more roundings than any value here goes through, with those of phi's own sum
EPS = 2.0**-53


def directional(op: str, args: list, attrs: dict, rng: np.random.Generator) -> None:
    """Assert that the gradient of ``op`` agrees with differences along one random direction."""
    forward, backward = getattr(reference, op), getattr(reference, f"{op}_backward")
    y = forward(*args, **attrs)
    v = rng.standard_normal(np.shape(y))
    u = [rng.uniform(-1, 1, a.shape) for a in args]

    def phi(t: float) -> float:
        return float(
            (v * forward(*(a + t * d for a, d in zip(args, u, strict=True)), **attrs)).sum()
        )

    d1, d2, d4 = ((phi(t) - phi(-t)) / (2 * t) for t in (H, 2 * H, 4 * H))
    near, far = (4 * d1 - d2) / 3, (4 * d2 - d4) / 3
    grads = backward(v, y, *args, **attrs)
    assert isinstance(grads, tuple)
    assert all(g is None for g in grads[len(args) :])  # a bias that was not given
    grads = grads[: len(args)]
    assert [g.shape for g in grads] == [a.shape for a in args]
    got = sum(float((g * d).sum()) for g, d in zip(grads, u, strict=True))
    size = sum(float(np.abs(g * d).sum()) for g, d in zip(grads, u, strict=True))
    size += float(np.abs(v * y).sum())
    tolerance = abs(near - far) + 3 * TERMS * EPS * size / H
    assert tolerance <= 1e-6 * size
    assert abs(got - near) <= tolerance


def apart(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return values so far from each other and from zero that no direction crosses a kink."""
    count = int(np.prod(shape))
    return ((rng.permutation(count) - count // 2 + 0.5) * (16 * H)).reshape(shape)


SMALL_CONVS = [
    case for case in CONVS if case.work < 20_000 and case.x[0] and case.epilogue in ("", "bias")
]
SMALL_POOLS = [case for case in POOLS if np.prod(case.x) < 2000 and case.x[0]]


def conv_args(case: Conv) -> tuple[list, np.random.Generator]:
    rng = generator(case.name)
    sizes = [case.x, case.weight, (case.c_out,)]
    return [rng.standard_normal(s) for s in sizes[: 3 if case.epilogue else 2]], rng


def pool_attrs(case: Pool, op: str) -> dict:
    return (
        {**case.attrs, "count_include_pad": case.include_pad} if op == "avg_pool2d" else case.attrs
    )


def norm_args(rng: np.random.Generator) -> list:
    x, scale, shift, mean = (rng.standard_normal(s) for s in ((2, 3, 4, 5), 5, 5, 5))
    return [x, scale, shift, mean, rng.uniform(2, 3, 5)]


@pytest.mark.parametrize("case", SMALL_CONVS, ids=ident)
def test_conv2d(case: Conv):
    args, rng = conv_args(case)
    directional("conv2d", args, case.attrs, rng)


def test_there_are_enough_small_convolutions():
    assert {case.name for case in SMALL_CONVS} >= {
        "one pixel",
        "kernel larger than the picture",
        "stride beyond the kernel",
        "1x1 padded",
        "kernel 1 by 3",
        "depthwise, two filters each",
        "seventeen filters a group",
        "epilogue: bias",
    }


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_batch_norm(eps: float):
    rng = generator("batch_norm")
    directional("batch_norm", norm_args(rng), {"eps": eps}, rng)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_batch_norm_train(eps: float):
    rng = generator("batch_norm_train")
    directional("batch_norm_train", norm_args(rng)[:3], {"eps": eps}, rng)


def test_relu():
    rng = generator("relu")
    directional("relu", [apart(rng, 2, 3, 4, 5)], {}, rng)


def test_add():
    rng = generator("add")
    directional("add", [rng.standard_normal((2, 3)), rng.standard_normal((2, 3))], {}, rng)


@pytest.mark.parametrize("case", SMALL_POOLS, ids=ident)
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_pooling(op: str, case: Pool):
    rng = generator(case.name)
    directional(op, [apart(rng, *case.x)], pool_attrs(case, op), rng)


def test_mean_pool():
    rng = generator("mean_pool")
    directional("mean_pool", [rng.standard_normal((2, 3, 4, 5))], {}, rng)


def test_linear():
    rng = generator("linear")
    directional("linear", [rng.standard_normal(s) for s in ((4, 6), (3, 6), 3)], {}, rng)


def test_softmax():
    rng = generator("softmax")
    directional("softmax", [rng.standard_normal((4, 6))], {}, rng)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing: float):
    rng = generator("softmax_cross_entropy")
    directional(
        "softmax_cross_entropy",
        [rng.standard_normal((4, 6))],
        {"labels": np.array([0, 5, 2, 2]), "smoothing": smoothing},
        rng,
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_losses_with_weights(smoothing: float, weighted: bool):
    rng = generator("weighted losses")
    x, hot = rng.standard_normal((4, 6)), rng.random((4, 6))
    single, each = (rng.uniform(0.5, 2, shape) if weighted else None for shape in (4, (4, 6)))
    attrs = {"labels": np.array([0, 5, 2, 2]), "smoothing": smoothing, "weights": single}
    directional("softmax_cross_entropy", [x], attrs, rng)
    attrs = {"labels": hot, "smoothing": smoothing, "weights": each}
    directional("binary_cross_entropy", [x], attrs, rng)


def test_a_wrong_gradient_is_seen(monkeypatch):
    """One part in a hundred thousand, or a mean that was forgotten."""
    rng = generator("wrong")
    right = reference.batch_norm_train_backward

    def scaled(*args, **attrs):
        return tuple(g if g is None else g * 1.00001 for g in right(*args, **attrs))

    def constant(dy, y, x, s, b, eps):
        return s / np.sqrt(x.var((0, 1, 2)) + eps) * dy, *right(dy, y, x, s, b)[1:]

    for wrong in (scaled, constant):
        monkeypatch.setattr(reference, "batch_norm_train_backward", wrong)
        with pytest.raises(AssertionError):
            directional("batch_norm_train", norm_args(rng)[:3], {"eps": 1e-5}, rng)


# --- conventions that differences cannot see ------------------------------------------------------


def test_relu_passes_nothing_at_zero():
    x = np.array([-1.0, -0.0, 0.0, 1.0])
    assert np.array_equal(
        reference.relu_backward(np.full(4, 7.0), reference.relu(x), x)[0], [0, 0, 0, 7]
    )


def test_max_pool2d_gives_to_the_first_of_equals():
    x = np.zeros((1, 3, 3, 1))
    y = reference.max_pool2d(x, size=2, stride=1, padding=1)
    (dx,) = reference.max_pool2d_backward(np.ones_like(y), y, x, size=2, stride=1, padding=1)
    assert np.array_equal(dx[0, :, :, 0], [[4, 2, 2], [2, 1, 1], [2, 1, 1]])


# --- torch ----------------------------------------------------------------------------------------


def against_torch(op: str, args: list, attrs: dict, call) -> None:
    """Values and gradients of ``call(torch, *tensors)`` and of the reference, both in float64.

    Either is off by at most one unit roundoff for each rounding of a sum of at most 2^7 magnitudes;
    ``TERMS`` of the largest value leaves a factor of eight for what cancels in it.
    """
    torch = pytest.importorskip("torch")
    tensors = [torch.tensor(a, requires_grad=True) for a in args]
    result = call(torch, *tensors)
    y = getattr(reference, op)(*args, **attrs)
    assert np.allclose(
        y, result.detach().numpy(), rtol=0, atol=TERMS * EPS * max(1, np.abs(y).max())
    )
    v = generator(op).standard_normal(np.shape(y))
    result.backward(torch.tensor(v))
    grads = [g for g in getattr(reference, f"{op}_backward")(v, y, *args, **attrs) if g is not None]
    for grad, tensor in zip(grads, tensors, strict=True):
        want = tensor.grad.numpy()
        assert np.allclose(grad, want, rtol=0, atol=TERMS * EPS * max(1, np.abs(want).max()))


def channels_first(call, x):
    """Apply what torch does on ``[n, c, h, w]`` to ``[n, h, w, c]``."""
    return call(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@pytest.mark.parametrize("case", SMALL_CONVS, ids=ident)
def test_conv2d_is_torchs(case: Conv):
    args, _ = conv_args(case)

    def call(torch, x, weight, bias=None):
        return channels_first(
            lambda z: torch.nn.functional.conv2d(z, weight, bias, **case.attrs), x
        )

    against_torch("conv2d", args, case.attrs, call)


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_is_torchs(training: bool):
    args = norm_args(generator("torch"))

    def call(torch, x, scale, shift, mean=None, var=None):
        if training:
            return channels_first(
                lambda z: torch.nn.functional.batch_norm(z, None, None, scale, shift, True), x
            )
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    against_torch(
        "batch_norm_train" if training else "batch_norm", args[:3] if training else args, {}, call
    )


@pytest.mark.parametrize("case", SMALL_POOLS, ids=ident)
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_pooling_is_torchs(op: str, case: Pool):
    x, attrs = apart(generator(case.name), *case.x), pool_attrs(case, op)
    theirs = {name: value for name, value in attrs.items() if name != "size"} | {
        "kernel_size": case.size
    }

    def call(torch, x):
        return channels_first(lambda z: getattr(torch.nn.functional, op)(z, **theirs), x)

    against_torch(op, [x], attrs, call)


def test_max_pool2d_of_equals_is_torchs():
    x = generator("ties").integers(0, 3, (1, 7, 7, 4)).astype(np.float64)
    attrs = {"size": 3, "stride": 2, "padding": 1}

    def call(torch, x):
        return channels_first(lambda z: torch.nn.functional.max_pool2d(z, 3, 2, 1), x)

    against_torch("max_pool2d", [x], attrs, call)


def test_pooling_shapes_are_torchs():
    """Every small size, window, stride and padding, with and without ceil mode."""
    torch = pytest.importorskip("torch")
    for length, size, stride, padding in np.ndindex(9, 5, 5, 3):
        length, size, stride = length + 1, size + 1, stride + 1
        if 2 * padding > size or length + 2 * padding < size:
            continue
        for ceil_mode in (False, True):
            x = torch.zeros(1, 1, length, length)
            theirs = torch.nn.functional.max_pool2d(
                x, size, stride, padding, ceil_mode=ceil_mode
            ).shape[2:]
            ours = shapes.max_pool2d(
                np.empty((1, length, length, 1)),
                size=size,
                stride=stride,
                padding=padding,
                ceil_mode=ceil_mode,
            )[1:3]
            assert tuple(theirs) == ours, (length, size, stride, padding, ceil_mode)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy_is_torchs(smoothing: float):
    x, labels = generator("loss").standard_normal((4, 6)), np.array([0, 5, 2, 2])

    def call(torch, x):
        return torch.nn.functional.cross_entropy(x, torch.tensor(labels), label_smoothing=smoothing)

    against_torch("softmax_cross_entropy", [x], {"labels": labels, "smoothing": smoothing}, call)


def test_binary_cross_entropy_is_torchs():
    rng = generator("binary loss")
    x, labels, weights = rng.standard_normal((4, 6)), rng.random((4, 6)), rng.random((4, 6))

    def call(torch, x):
        return torch.nn.functional.binary_cross_entropy_with_logits(
            x, torch.tensor(labels), torch.tensor(weights)
        )

    against_torch("binary_cross_entropy", [x], {"labels": labels, "weights": weights}, call)


def test_the_other_ops_are_torchs():
    rng = generator("others")
    x = rng.standard_normal((2, 3, 4, 5))
    against_torch("relu", [x], {}, lambda torch, x: torch.relu(x))
    against_torch("add", [x, x[::-1].copy()], {}, lambda torch, x, y: x + y)
    against_torch("mean_pool", [x], {}, lambda torch, x: x.mean((1, 2)))
    arrays = [rng.standard_normal(s) for s in ((4, 6), (3, 6), 3)]
    against_torch("linear", arrays, {}, lambda torch, x, w, b: torch.nn.functional.linear(x, w, b))
    against_torch("softmax", arrays[:1], {}, lambda torch, x: torch.softmax(x, 1))
