"""Stochastic depth and dropout: gradients by differences and against PyTorch, and the draws."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from optimiser_cases import BLOCKS, DROPPED, KEPT, RATE, values

from tinyresnext import Spec
from tinyresnext.errors import UsageError
from tinyresnext.network.resnext import Walk, dropped, forward
from tinyresnext.network.step import Step
from tinyresnext.ops import cpu, reference
from tinyresnext.training.initial import initialise
from tinyresnext.training.recipes.parts import Drop, Start
from tinyresnext.training.samples.dropping import Gates, drawn, drop_rates
from tinyresnext.training.train import train
from tinyresnext.training.weights import size, views

STORED = json.loads((Path(__file__).parent / "data" / "optimisers.json").read_text())
SPEC = Spec((1, 2), 2, 8, 4, stem="cifar", expansion=1)
SQUEEZED = Spec((1, 1), 2, 8, 4, stem="cifar", expansion=1, se_reduction=4)
RATES = {"layer2.0": 0.25, "layer2.1": 0.5, "pooled": 0.2}
COUNT = 5


def given(spec: Spec) -> tuple[dict, np.ndarray, np.ndarray, dict, dict]:
    """Return weights, images, targets in float64, rates, and what is kept."""
    params = views(np.zeros(size(spec)), spec)
    initialise(params, Start(), 3)
    rng = np.random.default_rng(4)
    for value in params.values():  # no scale is 1 and no shift 0
        value += 0.1 * rng.random(value.shape)
    x, rows = rng.standard_normal((COUNT, 8, 8, 3)), rng.dirichlet(np.ones(4), COUNT)
    rates = drop_rates(spec, Drop(0.5, 0.2))
    return params, x, rows, rates, drawn(rates, spec, COUNT, [4, 1])


def stepped(params: dict, spec: Spec, ops, rates: dict, chosen: dict) -> Step:
    """Return a step that keeps what is chosen."""
    gates = Gates(ops, spec, rates, COUNT, params["fc.weight"].dtype.type)
    gates.open(chosen)
    return Step(params, spec, (COUNT, 8, 8, 3), ops, drops=gates.drops, threads=1)


@pytest.mark.parametrize("spec", [SPEC, SQUEEZED], ids=["plain", "squeezed"])
def test_gradients_are_those_of_differences(spec):
    params, x, rows, rates, chosen = given(spec)
    assert not all(one.all() for one in chosen.values())
    step = stepped(params, spec, reference, rates, chosen)
    step(x, rows)
    found = {name: np.array(g) for name, g in step.gradients.items()}
    rng, before = np.random.default_rng(5), {name: w.copy() for name, w in params.items()}
    along = {name: rng.standard_normal(w.shape) for name, w in found.items()}
    slope = sum((found[name] * along[name]).sum() for name in found)

    def loss(t: float) -> float:
        for name, u in along.items():
            params[name][...] = before[name] + t * u
        return step(x, rows)[0]

    def difference(h: float) -> float:
        return (loss(h) - loss(-h)) / (2 * h)

    h = 1e-7  # with ten times as much, a ReLU opens in between
    near = (4 * difference(h) - difference(2 * h)) / 3
    assert near == pytest.approx(slope, rel=1e-7)


def test_the_loss_and_its_gradients_are_torchs():
    """PyTorch gets the same weights, and the draws as factors."""
    torch = pytest.importorskip("torch")
    params, x, rows, rates, chosen = given(SPEC)
    step = stepped(params, SPEC, reference, rates, chosen)
    loss, logits = step(x, rows)
    theirs = {name: torch.tensor(w, requires_grad=True) for name, w in params.items()}
    functional = torch.nn.functional

    def factor(name: str, value):
        if name not in rates:
            return value
        one = torch.tensor(chosen[name] / (1 - rates[name]))
        return value * one.reshape(*one.shape, *[1] * (value.ndim - one.ndim))

    class Ops:
        """The ops that the network calls, in PyTorch, on images [n, h, w, c]."""

        def conv2d(self, x, weight, *, stride=1, padding=0, groups=1):
            args = x.permute(0, 3, 1, 2), weight, None, stride, padding, 1, groups
            return functional.conv2d(*args).permute(0, 2, 3, 1)

        def batch_norm_train(self, x, scale, shift, *, eps):
            args = x.permute(0, 3, 1, 2), None, None, scale, shift, True, 0.1, eps
            return functional.batch_norm(*args).permute(0, 2, 3, 1)

        def relu(self, x):
            return functional.relu(x)

        def add(self, x, y):
            return x + y

        def mean_pool(self, x):
            return factor("pooled", x.mean((1, 2)))

        def linear(self, x, weight, bias):
            return functional.linear(x, weight, bias)

    def at(name, value):
        block = name.removesuffix(".bn3")
        return factor(block, value) if name.endswith(".bn3") else value

    out = forward(theirs, SPEC, torch.tensor(x), Ops(), training=True, at=at)
    wanted = functional.cross_entropy(out, torch.tensor(rows))
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-12)
    assert np.allclose(logits, out.detach().numpy(), rtol=1e-10)
    for name, found in step.gradients.items():
        want = theirs[name].grad.numpy()
        assert np.abs(found - want).max() <= 1e-10 * max(1, np.abs(want).max()), name


def test_what_is_left_out_is_timms_and_torchvisions():
    """Their own functions got the draws of `optimiser_cases`."""
    x, rates = values(0, {"x": DROPPED})["x"], {"layer2.0": RATE}
    gates = Gates(reference, SPEC, rates, len(x), np.float64)
    gates.open({"layer2.0": np.array(KEPT, bool)})
    found = dropped(Walk({}, SPEC, reference, drops=gates.drops), "layer2.0", x)
    want = np.array(STORED["layers"]["left out"]).reshape(DROPPED)
    assert np.allclose(found, want, rtol=1e-14, atol=0)


def test_the_processor_computes_what_the_reference_does():
    params, x, rows, rates, chosen = given(SPEC)
    exact = stepped(params, SPEC, reference, rates, chosen)
    wanted, _ = exact(x, rows)
    narrow = {name: w.astype(np.float32) for name, w in params.items()}
    step, plain = (stepped(narrow, SPEC, ops, rates, chosen) for ops in (cpu, reference))
    for _ in range(2):  # the gates of a step leave nothing behind
        loss, _ = step(x.astype(np.float32), rows)
    plain(x.astype(np.float32), rows)
    assert loss == pytest.approx(wanted, rel=1e-5)
    for name, want in exact.gradients.items():
        error, own = (np.linalg.norm(s.gradients[name] - want) for s in (step, plain))
        assert error <= 8 * own + 1e-7 * np.linalg.norm(want), name  # roundings, in another order


def test_nothing_is_left_out_where_all_is_kept_but_for_the_scale():
    params, x, rows, _, _ = given(SPEC)
    plain = Step(params, SPEC, x.shape, reference, threads=1)
    everything = {"layer2.1": np.ones(COUNT, bool)}
    step = stepped(params, SPEC, reference, {"layer2.1": 0.0}, everything)
    assert step(x, rows)[0] == plain(x, rows)[0]


def test_the_rates_grow_as_timms():
    found = drop_rates(Spec(tuple(BLOCKS), 2, 4, 5), Drop(0.2, 0.0))
    assert found == pytest.approx(STORED["layers"]["dropped"], rel=1e-12)
    assert drop_rates(Spec((1,), 2, 4, 5), Drop(0.2, 0.1)) == {"pooled": 0.1}
    assert drop_rates(SPEC, Drop()) == {}


def test_what_is_kept_has_the_probability_that_is_said():
    found = drawn(RATES, SPEC, 4000, [0])
    again = drawn(RATES, SPEC, 4000, [0])
    for name, one in found.items():
        assert one.tobytes() == again[name].tobytes()
        spread = 5 * np.sqrt(RATES[name] * (1 - RATES[name]) / one.size)
        assert abs(one.mean() - (1 - RATES[name])) < spread, name
        part = drawn(RATES, SPEC, 4000, [0], (1000, 2000))[name]  # of one of four ranks
        assert part.tobytes() == one[1000:2000].tobytes(), name
    assert found["pooled"].shape == (4000, SPEC.features)


@pytest.mark.slow
def test_runs_depend_on_the_seed_and_inference_leaves_nothing_out(tmp_path):
    recipe = small.RECIPE.changed({"drop_path": 0.5, "dropout": 0.3, "epochs": 1, "ema": 0.0})

    def run(name: str, **changes):
        where, changed = tmp_path / name, recipe.changed(changes)
        return train(small.SPEC, small.pictures(), changed, where, preprocess=small.PREPROCESS)

    one, two, parts, plain = run("a"), run("b"), run("c", parts=2), run("d", drop_path=0.0)
    for name, value in one.params.items():
        assert np.array_equal(value, two.params[name]), name
    assert not np.array_equal(one.params["fc.weight"], plain.params["fc.weight"])
    assert np.isfinite(parts.params["fc.weight"]).all()
    x = np.zeros((2, 8, 8, 3), np.float32)
    assert np.array_equal(one(x), one(x))


@pytest.mark.parametrize("changes", [{"drop_path": 1.0}, {"dropout": -0.1}, {"dropout": "some"}])
def test_rates_that_make_no_sense(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Drop(**changes)
