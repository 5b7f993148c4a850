"""Whole networks on the backend of GPUs, by the emulator that is fast, in two orders of threads.

The same results to the bit in both orders say that no barrier is missing. How far they may be from
the reference in float64 is measured with the reference in float32, which makes as many roundings:
a few times its own error, whatever the order of a sum.
"""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba.cuda")

from on_device import by_fibers
from op_cases import ident
from test_updates import CASES, in_one

from tinyresnext.hub.bundled import shipped_model
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.files import load
from tinyresnext.network.resnext import forward
from tinyresnext.network.spec import Spec, cifar
from tinyresnext.network.step import Step
from tinyresnext.ops import cuda, reference
from tinyresnext.training.initial import initialise
from tinyresnext.training.recipes.parts import Start
from tinyresnext.training.weights import size, views

pytestmark = [pytest.mark.device, by_fibers]

ORDERS = ("ascending", "descending")
TIMES = 4  # of the reference's own error in float32
SEEDS = 6  # of mini-batches to try
CROSSED = 1e-4  # a value that is further from zero is not moved across it by roundings
RESNEXT14 = Spec((1, 1, 1, 1), 32, 4, 10)  # every kind of layer of ResNeXt-50


def machine(order: str):
    from tinyresnext.emulator.fibers import FiberMachine

    return FiberMachine(order, copies="late" if order == "ascending" else "early")


def network(name: str) -> tuple[Spec, dict[str, np.ndarray], tuple[int, ...]]:
    """Return a network, its weights, and the shape of a mini-batch for it."""
    if name == "bundled":
        model = load(shipped_model(), "reference")
        side = model.preprocess.crop
        return model.spec, {key: np.array(v) for key, v in model.params.items()}, (2, side, side, 3)
    if name == "resnext20_8x4d":
        return cifar(20, 8, 4), initialised(cifar(20, 8, 4)), (2, 32, 32, 3)
    return RESNEXT14, initialised(RESNEXT14), (2, 64, 64, 3)


def initialised(spec: Spec) -> dict[str, np.ndarray]:
    """Return weights for training, with running statistics as a network has that was trained."""
    params = views(np.zeros(size(spec), np.float32), spec)
    initialise(params, Start(), 1)
    rng = np.random.default_rng(2)
    for key, value in params.items():
        if key.endswith("running_mean"):
            value[...] = 0.1 * rng.standard_normal(value.shape)
        if key.endswith("running_var"):
            value[...] = rng.uniform(0.5, 2, value.shape)
    return params


def wide(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.astype(np.float64) for name, value in params.items()}


def images(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def apart(found: np.ndarray, want: np.ndarray) -> float:
    """Return how far two arrays are from each other, relative to the second."""
    return float(np.linalg.norm(found - want) / np.linalg.norm(want))


@pytest.mark.parametrize("name", ["resnext14", "bundled"])
def test_inference(name):
    spec, params, shape = network(name)
    x, found = images(shape), []
    want = forward(wide(params), spec, x.astype(np.float64), reference)
    own = apart(forward(params, spec, x, reference), want)
    for order in ORDERS:
        from tinyresnext.inference.model import Model

        labels = tuple(map(str, range(spec.classes)))
        model = Model(spec, params, Preprocess(), labels, {}, cuda.backend(machine(order)))
        found.append(model(x))
        assert apart(found[-1], want) <= TIMES * own
        assert np.array_equal(model(x), found[-1])  # the plan runs again
        traced = model.trace(x)["fc"]  # op by op, with nothing fused
        assert apart(traced, want) <= TIMES * own
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", ["resnext14", "bundled", "resnext20_8x4d"])
def test_a_step_of_training(name):
    """Every gradient is as near as the reference's own in float32 usually are.

    A value that rounding moves across zero opens or closes a ReLU: then all gradients before it are
    off by a thousandth, whatever computes them. So a mini-batch where that happened, to the GPU or
    to the reference in float32, says nothing of gradients, and another one is taken; the first one
    where all ReLUs are as in float64 has to be within the bound.
    """
    backends = [cuda.backend(machine(order)) for order in ORDERS]
    for seed in range(SEEDS):
        times = _times_off(name, seed, backends)
        if times is not None:
            assert times <= TIMES
            return
    raise AssertionError(f"in each of {SEEDS} mini-batches a ReLU opened or closed")


def _times_off(name: str, seed: int, backends: list) -> float | None:
    """Return how many times the reference's error in float32 any gradient is off.

    That error is the larger of the gradient's own and of the median of all; None where a ReLU is
    not as in float64.
    """
    spec, params, shape = network(name)
    x, labels = images(shape, seed), np.arange(shape[0]) % spec.classes
    exact = Step(wide(params), spec, shape, reference, smoothing=0.1)
    plain = Step(params, spec, shape, reference, smoothing=0.1)
    loss, logits = exact(x.astype(np.float64), labels)
    _, roughly = plain(x, labels)
    rectified, same = _rectified(exact, reference), True
    if not _opens_the_same(_rectified(plain, reference), rectified):
        return None
    own = [apart(plain.gradients[key], want) for key, want in exact.gradients.items()]
    found = []
    for ops in backends:
        there = {key: ops.upload(value) for key, value in params.items()}
        step = Step(there, spec, shape, ops, smoothing=0.1)
        for _ in range(2):  # a step is made many times
            own_loss, own_logits = step(x, labels)
        assert abs(own_loss - loss) <= 1e-5 * abs(loss)
        assert apart(own_logits, logits) <= TIMES * apart(roughly, logits)
        gradients = {key: ops.download(value) for key, value in step.gradients.items()}
        statistics = {key: ops.download(value) for key, value in step.statistics.items()}
        found.append(gradients | statistics)
        same = _opens_the_same(_rectified(step, ops), rectified) and same
    for key, value in found[0].items():
        assert np.array_equal(value, found[1][key]), key
    errors = [apart(found[0][key], want) for key, want in exact.gradients.items()]
    for key, want in exact.statistics.items():
        for one, other in zip(found[0][key], want, strict=True):
            assert np.abs(one - other).max() <= 1e-5 * np.abs(other).max(), key
    usual = float(np.median(own))
    times = max(error / max(one, usual) for error, one in zip(errors, own, strict=True))
    return times if same else None


def _rectified(step: Step, ops) -> dict[str, np.ndarray]:
    """Return what every ReLU made of the last mini-batch; it is computed again, call by call."""
    made = {}
    for name, value, run in step._forward:
        run()
        if name.rpartition(".")[2].startswith("relu"):
            made[name] = np.array(ops.download(value))
    return made


def _opens_the_same(found: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> bool:
    """Return whether the same values are above zero; those that are not are off by roundings."""
    assert found.keys() == want.keys()
    assert len(want) > 3
    differs = {key: (found[key] > 0) != (want[key] > 0) for key in want}
    for key, there in differs.items():
        assert np.abs(found[key] - want[key])[there].max(initial=0) <= CROSSED, key
    return not any(there.any() for there in differs.values())


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_updates(case):
    """Of arrays in one, as in training; `test_updates` has the bounds."""
    assert np.array_equal(*(in_one(cuda.backend(machine(o)), case) for o in ORDERS), equal_nan=True)
