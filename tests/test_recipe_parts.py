"""Clipping, parts of a mini-batch, rates of layers, schedules and averages, against PyTorch, timm.

The numbers of `optimiser_cases` are theirs.
"""

from __future__ import annotations

import numpy as np
import pytest
import training_cases as small
from optimiser_cases import BLOCKS, EPOCHS, LAYER_DECAY, LR, SCHEDULES, SHAPES, UPDATES, values
from test_adaptive import STORED, U, stopped_after

from tinyresnext import Spec
from tinyresnext.errors import UsageError
from tinyresnext.network.step import Step
from tinyresnext.ops import cpu, reference
from tinyresnext.training.optimisers.clip import clip
from tinyresnext.training.optimisers.parts import Parts
from tinyresnext.training.optimisers.rates import layer_rates
from tinyresnext.training.optimisers.sgd import sgd
from tinyresnext.training.recipes.optimiser import Optimiser
from tinyresnext.training.record import state as training_state
from tinyresnext.training.samples.dropping import Gates
from tinyresnext.training.train import train
from tinyresnext.training.weights import upload, views

CLIPPED = {
    "norm": ("norm", 2.0),
    "norm that is large": ("norm", 1e3),
    "value": ("value", 0.5),
    "adaptive": ("adaptive", 0.9),
}


@pytest.mark.parametrize("ops", [cpu, reference], ids=["cpu", "reference"])
@pytest.mark.parametrize("way", CLIPPED)
def test_gradients_are_clipped_as_theirs(ops, way):
    how, most = CLIPPED[way]
    params, gradients = (
        {name: w.astype(np.float32) for name, w in values(seed).items()} for seed in (0, 1)
    )
    flat = np.concatenate([g.ravel() for g in gradients.values()])
    named, start = {}, 0
    for name, shape in SHAPES.items():
        named[name] = ops.view(flat, shape, start)
        start += int(np.prod(shape))
    clip(ops, params, flat, named, Optimiser(clip=how, clip_at=most))
    for name, want in STORED["clipped"][way].items():
        # A norm is a sum of a hundred squares at most.
        assert np.abs(named[name].ravel() - want).max() <= 110 * U * np.abs(want).max(), name


def test_the_classifier_is_spared_by_adaptive_clipping():
    params = {name: np.ones((2, 3), np.float32) for name in ("fc.weight", "conv1.weight")}
    gradients = {name: np.full((2, 3), 9, np.float32) for name in params}
    clip(cpu, params, None, gradients, Optimiser(clip="adaptive", clip_at=0.5))
    assert (gradients["fc.weight"] == 9).all()
    assert np.allclose(gradients["conv1.weight"], 0.5)


def test_the_rates_of_layers_are_timms():
    spec = Spec(tuple(BLOCKS), 2, 4, 5)
    found = layer_rates(spec, LAYER_DECAY)
    for name, scale in STORED["layers"]["scales"].items():
        assert found[name] == pytest.approx(scale, rel=1e-12), name
    assert layer_rates(spec, 1.0) == {}
    params = {name: np.ones(2, np.float32) for name in ("layer1.0.bn1.weight", "fc.bias")}
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    gradients = {name: np.ones_like(value) for name, value in params.items()}
    sgd(cpu, params, gradients, velocity, Optimiser(weight_decay=0.0), 0.5, found)
    assert params["fc.bias"][0] == 0.5
    assert params["layer1.0.bn1.weight"][0] == np.float32(1 - 0.5 * LAYER_DECAY**7)


@pytest.mark.parametrize("name", [*SCHEDULES, "torchvision"])
def test_schedules_are_theirs(name):
    how = SCHEDULES.get(name, {})
    recipe = small.settings(
        EPOCHS,
        4,
        LR,
        "cosine",
        warmup=3 / EPOCHS,
        warmup_from=how.get("warmup_lr", 0.01 * LR) / LR,
        lowest=(how.get("min_lr", 0.0) if how else 0.02 * LR) / LR,
        constant=how.get("cooldown_epochs", 0) / EPOCHS,
        from_start=bool(how) and "warmup_prefix" not in how,
        changes="step" if "step_on_epochs" in how else "epoch",
    )
    steps = [(epoch, step) for epoch in range(EPOCHS) for step in range(UPDATES)]
    found = [recipe.learning_rate(*one, UPDATES) for one in steps]
    assert np.allclose(found, STORED["rates"][name], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["milestones", "line"])
def test_schedules_without_a_warm_up_are_pytorchs(name):
    how = {"milestones": ("step", {"milestones": (0.25, 0.5, 0.75)}), "line": ("linear", {})}[name]
    recipe = small.settings(EPOCHS, 4, LR, how[0], changes="epoch", **how[1])
    found = [recipe.learning_rate(epoch, 0, UPDATES) for epoch in range(EPOCHS)]
    assert np.allclose(found, STORED["rates"][name][::UPDATES], rtol=1e-9, atol=0)


@pytest.mark.parametrize(("warmup", "total"), [(0.07, 100), (0.14, 50), (0.55, 100)])
def test_a_part_that_is_a_whole_number_of_epochs_is_that_number(warmup, total):
    """In floats, the product of each is a little above it."""
    recipe = small.settings(total, 4, 0.1, "cosine", warmup=warmup, changes="epoch")
    whole = round(warmup * total)
    assert warmup * total > whole
    assert recipe.schedule.rising(total) == whole
    rates = [recipe.learning_rate(epoch, 0, 10) for epoch in range(total)]
    assert rates[whole - 1] == 0.1 == max(rates)
    assert rates[whole - 2] == pytest.approx(0.1 * (whole - 1) / whole)


@pytest.mark.parametrize("changes", ["step", "epoch"])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.3])
def test_a_rate_that_is_constant_after_the_warm_up_is_the_lowest(warmup, changes):
    recipe = small.settings(
        8, 4, 0.1, "cosine", warmup=warmup, constant=1 - warmup, lowest=0.01, changes=changes
    )
    total = 8 * (10 if changes == "step" else 1)
    rates = [recipe.learning_rate(epoch, step, 10) for epoch in range(8) for step in range(10)]
    rates = rates[:: 1 if changes == "step" else 10]
    rising = recipe.schedule.rising(total)
    assert rates[rising:] == pytest.approx([0.001] * (total - rising), rel=1e-9)


@pytest.mark.parametrize("warmup", ["none", "power"])
def test_averages_are_timms(warmup):
    recipe = small.settings(10, 4, 0.1, "step", ema=0.9, ema_warmup=warmup)
    found = [recipe.kept(epoch, step, 4) for epoch in range(10) for step in range(4)]
    assert np.allclose(found, STORED["averages"][warmup], rtol=1e-12)


def test_averages_are_torchvisions():
    """Its loop, with numbers in place of networks."""
    recipe = small.settings(
        6, 4, 0.1, "cosine", warmup=2 / 6, ema=0.9, ema_every=3, ema_warmup="copy"
    )
    rng, theirs, ours, averaged = np.random.default_rng(0), 0.0, 0.0, 0
    for epoch in range(6):
        for step in range(7):
            value = rng.random()
            if step % 3 == 0:
                theirs = value if averaged == 0 else 0.9 * theirs + (1 - 0.9) * value
                averaged = 0 if epoch < 2 else averaged + 1
            if (kept := recipe.kept(epoch, step, 7)) is not None:
                ours += (1 - kept) * (value - ours)
            assert ours == pytest.approx(theirs, rel=1e-12), (epoch, step)


def test_the_average_begins_as_before_where_nothing_is_said():
    recipe = small.settings(10, 4, 0.1, "step", ema=0.9)
    assert recipe.kept(0, 0, 4) == 0.1
    assert recipe.kept(1, 1, 4) == 6 / 15
    assert recipe.kept(9, 3, 4) == 40 / 49


@pytest.mark.parametrize(
    "ops", [pytest.param(cpu, marks=pytest.mark.slow), reference], ids=["cpu", "reference"]
)
def test_the_gradient_of_parts_is_their_mean(ops):
    """And each part moves the running statistics, as in PyTorch."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 8, 8, 3)).astype(np.float32)
    rows = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 6)]
    start = np.abs(rng.standard_normal(training_state.size(small.SPEC))).astype(np.float32)
    params, plain = (views(start.copy(), small.SPEC) for _ in range(2))
    step = Step(params, small.SPEC, (2, 8, 8, 3), ops, threads=1)
    losses, wanted, norm = [], [], next(iter(step.statistics))
    for k in range(3):
        losses.append(step(x[2 * k : 2 * k + 2], rows[2 * k : 2 * k + 2])[0])
        wanted.append({name: np.array(g) for name, g in step.gradients.items()})
        mean = plain[f"{norm}.running_mean"]
        mean += np.float32(0.1) * (step.statistics[norm][0] - mean)
    weights = upload(ops, small.SPEC, start.copy(), np.zeros_like(start), None)
    weights.params.update(params)
    parts = Parts(weights, Gates(ops, small.SPEC, {}, 2), 3, 1)
    for _ in range(2):  # what was there before does not matter
        loss, logits = parts.computed(step, x, rows, None, None, None, {})
        assert loss == sum(losses) / 3
        assert logits.shape == (6, 4)
        for name, found in parts.of(step)[1].items():
            want = np.mean([one[name] for one in wanted], 0)
            assert np.abs(found - want).max() <= 8 * U * max(np.abs(w[name]).max() for w in wanted)
        if _ == 0:
            assert np.allclose(params[f"{norm}.running_mean"], plain[f"{norm}.running_mean"])


@pytest.mark.slow
def test_a_run_with_all_of_it_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    recipe = small.RECIPE.changed(
        {
            "parts": 4,
            "clip": "norm",
            "clip_at": 0.5,
            "layer_decay": 0.5,
            "ema_every": 2,
            "ema_warmup": "copy",
            "warmup_from": 0.1,
            "constant": 0.3,
            "lowest": 0.1,
            "from_start": True,
        }
    )

    def run(name, **more):
        where = tmp_path / name
        return train(
            small.SPEC, small.pictures(), recipe, where, preprocess=small.PREPROCESS, **more
        )

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(6))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    resumed = run("parts", resume=True)
    for name, value in whole.params.items():
        assert np.array_equal(value, resumed.params[name]), name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"parts": 3}, "give a number that divides it"),
        ({"clip": "norm"}, "clip_at 0"),
        ({"clip_at": 1.0}, "clip is none"),
        ({"clip": "all"}, "expected one of none, norm, value, adaptive"),
        ({"layer_decay": 2.0}, "layer_decay is 2"),
        ({"schedule": "step", "lowest": 0.1}, "settings of cosine and linear"),
        ({"schedule": "step", "from_start": True}, "settings of cosine and linear"),
        ({"warmup": 0.0, "warmup_from": 0.1}, "warmup 0.05"),
        ({"warmup": 0.6, "constant": 0.5}, "at most the whole run"),
        ({"ema_warmup": "hard"}, "expected one of soft, copy, power, none"),
        ({"optimizer": "adamw"}, r"has no setting optimizer; did you mean optimiser\?"),
        ({"batch_size": 8}, r"did you mean batch\?"),
    ],
)
def test_settings_that_mean_nothing(changes, text):
    with pytest.raises(UsageError, match=text):
        small.RECIPE.changed(changes)
