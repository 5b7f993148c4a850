"""A training step against the tape, which computes the same gradients call by call."""

from __future__ import annotations

import numpy as np
import pytest
from op_cases import generator

from tinyresnext import Spec, cifar
from tinyresnext.network.resnext import forward, parameters
from tinyresnext.network.step import Step
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import cpu, reference

FROZEN = ("conv1", "bn1", "layer1")
NETWORKS = {
    "cifar": cifar(11, 2, 4, classes=5),
    "deep, pooled shortcuts": Spec((1, 2), 1, 4, 5, stem="deep", avg_down=True),
    "pooled stem": Spec((1, 1), 2, 4, 5, stem="pooled"),
    "imagenet, padded shortcuts": Spec((2, 1), 2, 4, 5, stem="imagenet", shortcut="A"),
}


def network(spec: Spec, dtype: type = np.float64) -> dict[str, np.ndarray]:
    """Return weights that keep values near one, with positive scales and variances."""
    rng, params = generator(spec.name), {}
    for name, shape in parameters(spec).items():
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        value = rng.standard_normal(shape) * spread
        positive = len(shape) == 1 and name.endswith((".weight", ".running_var"))
        params[name] = (1 + np.abs(value) if positive else value).astype(dtype)
    return params


def batch(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    rng = generator("batch")
    return rng.standard_normal((3, 32, 32, spec.channels)), np.array([0, 4, 2])


@pytest.mark.parametrize("which", NETWORKS)
@pytest.mark.parametrize("frozen", [(), FROZEN], ids=["all trained", "frozen"])
def test_gradients_are_those_of_the_tape(which, frozen):
    """In float64, fusing and placing change nothing.

    The step is called twice, because buffers are used again.
    """
    spec = NETWORKS[which]
    params, (x, labels) = network(spec), batch(spec)
    tape = Tape(reference)
    logits = forward(params, spec, x, tape, training=True, frozen=frozen)
    loss = tape.softmax_cross_entropy(logits, labels=labels, smoothing=0.1)
    names = [
        name for name in params if ".running_" not in name and name.partition(".")[0] not in frozen
    ]
    wanted = dict(
        zip(names, gradients(tape, np.ones(()), [params[name] for name in names]), strict=True)
    )
    step = Step(params, spec, x.shape, reference, smoothing=0.1, frozen=frozen)
    for _ in range(2):
        found = step(x, labels)
        assert found[0] == loss
        assert np.array_equal(found[1], logits)
        assert step.gradients.keys() == wanted.keys()
        for name, gradient in step.gradients.items():
            assert np.allclose(
                gradient, wanted[name], rtol=1e-12, atol=1e-14 * np.abs(wanted[name]).max()
            ), name


@pytest.mark.parametrize("which", NETWORKS)
def test_the_fast_backend_is_as_near_as_float32_allows(which):
    """The error is close to NumPy's in float32.

    A ReLU that rounds to the other side makes single errors larger, so the median is compared.
    """
    spec = NETWORKS[which]
    params, (x, labels) = network(spec, np.float32), batch(spec)
    exact = Step(
        {name: value.astype(np.float64) for name, value in params.items()}, spec, x.shape, reference
    )
    exact(x.astype(np.float32).astype(np.float64), labels)
    errors = {}
    for ops in (reference, cpu):
        placed = {name: ops.upload(value) for name, value in params.items()}
        step = Step(placed, spec, x.shape, ops)
        loss, _ = step(x.astype(np.float32), labels)
        far = [
            np.abs(step.gradients[n] - g).max() / max(np.abs(g).max(), 1e-6)
            for n, g in exact.gradients.items()
        ]
        errors[ops] = np.median(far)
        assert np.isfinite(loss)
    assert errors[cpu] <= 3 * max(errors[reference], 2.0**-22)


def test_statistics_are_those_of_the_batch(ops):
    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec, np.float32), batch(spec)
    step = Step({name: ops.upload(value) for name, value in params.items()}, spec, x.shape, ops)
    step(x.astype(np.float32), labels)
    seen: dict[str, np.ndarray] = {}
    forward(
        params,
        spec,
        x.astype(np.float32),
        reference,
        training=True,
        at=lambda n, v: seen.setdefault(n, v),
    )
    assert step.statistics.keys() == {
        name.removesuffix(".running_mean") for name in params if name.endswith(".running_mean")
    }
    mean, variance = step.statistics["bn1"]
    assert np.allclose(mean, seen["conv1"].mean((0, 1, 2)), atol=1e-5)
    assert np.allclose(variance, seen["conv1"].var((0, 1, 2)), rtol=1e-4)
    assert step.positions["bn1"] == 3 * 32 * 32


def test_the_first_value_that_is_not_finite_is_named(ops):
    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec, np.float32), batch(spec)
    placed = {name: ops.upload(value.copy()) for name, value in params.items()}
    step = Step(placed, spec, x.shape, ops)
    step(x.astype(np.float32), labels)
    assert step.first_not_finite() is None
    placed["layer2.0.conv2.weight"][0, 0, 0, 0] = np.inf
    with np.errstate(all="ignore"):
        loss, _ = step(x.astype(np.float32), labels)
        assert not np.isfinite(loss)
        assert step.first_not_finite() == "layer2.0.conv2"


def test_what_does_not_fit_is_refused(ops):
    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec, np.float32), batch(spec)
    step = Step({name: ops.upload(value) for name, value in params.items()}, spec, x.shape, ops)
    x = x.astype(np.float32)
    with pytest.raises(ValueError, match="this step is for"):
        step(x[:2], labels[:2])
    with pytest.raises(ValueError, match="expected 0 to 4"):
        step(x, np.array([0, 5, 1]))
    with pytest.raises(ValueError, match="labels have shape"):
        step(x, np.zeros((3, 4), np.float32))


def test_weights_are_for_a_step_that_was_made_for_them():
    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec), batch(spec)
    plain, weighted = (Step(params, spec, x.shape, reference, weighted=w) for w in (False, True))
    loss, even = plain(x, labels)[0], np.ones(3)
    assert weighted(x, labels, even)[0] == pytest.approx(loss)
    one = np.ones((3, 5))
    refused = [
        (plain, {"weights": even}, r"weights: \(3,\), and this step was made for None"),
        (plain, {"teacher": one}, r"teacher: \(3, 5\), and this step was made for None"),
        (weighted, {}, r"weights: None, and this step was made for \(3,\)"),
        (weighted, {"weights": even[:1]}, r"weights: \(1,\), and this step was made for \(3,\)"),
    ]
    for step, given, text in refused:
        with pytest.raises(ValueError, match=text):
            step(x, labels, **given)


def test_a_gradient_that_is_placed_over_another_that_lives_would_be_seen(monkeypatch):
    """Break the placing: write every gradient of a batch norm over the incoming one.

    This concerns the gradients of the input and of the residual.
    """
    import tinyresnext.network.step as module

    right = module.in_place

    def wrong(backward, values):
        over = right(backward, values)
        for gradient in backward:
            if gradient.call.op == "batch_norm_train" and gradient.out[0] is not None:
                over[id(gradient.out[0])] = gradient.dy
        return over

    spec = NETWORKS["cifar"]
    params, (x, labels) = network(spec), batch(spec)
    good = Step(params, spec, x.shape, reference)
    good(x, labels)
    monkeypatch.setattr(module, "in_place", wrong)
    bad = Step(params, spec, x.shape, reference)
    bad(x, labels)
    assert not all(
        np.allclose(bad.gradients[name], gradient) for name, gradient in good.gradients.items()
    )
