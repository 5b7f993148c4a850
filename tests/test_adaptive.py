"""SGD, AdamW, LAMB and RMSprop, against what PyTorch and timm compute, on every backend.

What stands around them in a step, too: clipping, rates of layers, gradients in parts, and averages.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from optimiser_cases import (
    AVERAGED,
    CASES,
    CLIPPED,
    PARTS,
    SCALED,
    SCALES,
    SHAPES,
    STEPS,
    rate,
    values,
)

from tinyresnext.errors import FormatError, IntegrityError, UsageError
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.reference.update import trust
from tinyresnext.training.optimisers.adaptive import adaptive
from tinyresnext.training.optimisers.clip import clip
from tinyresnext.training.optimisers.sgd import sgd
from tinyresnext.training.recipes.optimiser import Optimiser
from tinyresnext.training.record import state as training_state
from tinyresnext.training.train import train

STORED = json.loads((Path(__file__).parent / "data" / "optimisers.json").read_text())
U = 2.0**-24


def optimised(
    ops, how: Optimiser, dtype=np.float32, scales: dict | None = None, parts: int = 1
) -> dict[str, np.ndarray]:
    """Return the weights after as many steps as the file has."""
    params, velocity, squares = (
        {name: ops.upload(np.asarray(w, dtype)) for name, w in start.items()}
        for start in (values(0), filled(0), filled(how.optimiser == "rmsprop"))
    )
    for step in range(STEPS):
        flat, gradients = flattened(ops, values(step * parts + 1), dtype)
        for k in range(1, parts):
            ops.average_step(
                flat, flattened(ops, values(step * parts + k + 1), dtype)[0], new=1 / (k + 1)
            )
        clip(ops, params, flat, gradients, how)
        if how.optimiser == "sgd":
            sgd(ops, params, gradients, velocity, how, rate(step), scales)
        else:
            adaptive(ops, params, gradients, velocity, squares, how, rate(step), step, scales)
    return {name: np.array(ops.download(w)) for name, w in params.items()}


def flattened(ops, gradients: dict[str, np.ndarray], dtype) -> tuple:
    """Return gradients as one flat array, and as views into it."""
    flat = ops.upload(np.concatenate([g.astype(dtype).ravel() for g in gradients.values()]))
    named, start = {}, 0
    for name, g in gradients.items():
        named[name] = ops.view(flat, g.shape, start)
        start += g.size
    return flat, named


def filled(value: float) -> dict[str, np.ndarray]:
    return {name: np.full(shape, float(value)) for name, shape in SHAPES.items()}


def wanted(case: str) -> dict[str, np.ndarray]:
    found = STORED["optimisers"][case]
    return {name: np.array(found[name]).reshape(shape) for name, shape in SHAPES.items()}


# Each case with what is given to `optimised`.
EVERY = {
    **{case: (Optimiser(**how), {}) for case, how in (CASES | CLIPPED).items()},
    **{case: (Optimiser(**how), {"scales": SCALES}) for case, how in SCALED.items()},
    "in parts": (Optimiser(**CASES["sgd with nesterov"]), {"parts": PARTS}),
    "lamb after its own norm": (Optimiser(**CASES["lamb"], clip="norm", clip_at=1.0), {}),
}


@pytest.mark.parametrize("case", EVERY)
def test_the_formulas_are_theirs(case):
    """Both are computed in float64, so only its roundings are between them."""
    how, more = EVERY[case]
    found = optimised(reference, how, np.float64, **more)
    # The class of LAMB clips by the norm itself, and ours as PyTorch does, by the norm plus 1e-6.
    u = 1e-6 if case == "lamb after its own norm" else 1e-13
    for name, want in wanted(case).items():
        assert np.abs(found[name] - want).max() < u * np.abs(want).max() * STEPS, name


@pytest.mark.parametrize("case", EVERY)
def test_in_float32_they_drift_by_roundings_only(case):
    """On the processor the bits are the reference's own."""
    how, more = EVERY[case]
    plain, fast = optimised(reference, how, **more), optimised(cpu, how, **more)
    for name, want in wanted(case).items():
        # A step rounds the weight three times, and its change, of a tenth of it at most, twenty
        # times; a rounding of the moments lasts for as many steps as these remember, ten.
        bound = STEPS * (3 + 20 * 10 / 10) * U * np.abs(want).max()
        assert np.abs(plain[name] - want).max() <= bound, name
        assert np.array_equal(plain[name], fast[name]), name


def test_a_gradient_whose_norm_is_not_a_number_is_none_anywhere(ops):
    """As PyTorch's: what is left is not a step with the gradient that nobody has clipped."""
    gradient = ops.upload(np.array([np.nan, 10, 10], np.float32))
    ops.clip_norm_step(gradient, most=1.0)
    assert np.isnan(ops.download(gradient)).all()


@pytest.mark.parametrize("way", ["none", "power", "copy"])
@pytest.mark.parametrize("ops", [cpu, reference], ids=["cpu", "reference"])
def test_averages_of_weights_are_timms_and_torchvisions(ops, way):
    epochs, steps, warmup = (AVERAGED[key] for key in ("epochs", "steps", "warmup"))
    every = AVERAGED["every"] if way == "copy" else 1
    how = {"warmup": warmup / epochs, "ema": AVERAGED["decay"], "ema_every": every}
    recipe = small.settings(epochs, 4, 0.1, "cosine", ema_warmup=way, **how)
    average = ops.upload(np.full(SHAPES["matrix"], 7, np.float32))
    for n in range(epochs * steps):
        if (kept := recipe.kept(*divmod(n, steps), steps)) is not None:
            weights = ops.upload(values(n)["matrix"].astype(np.float32))
            ops.average_step(average, weights, new=1 - kept)
    found, want = np.ravel(ops.download(average)), STORED["averages"]["weights"][way]
    # A move rounds four times numbers up to 4, and a rounding lasts for ten moves.
    assert np.abs(found - want).max() <= 4 * 10 * 4 * U


def test_lamb_trusts_a_weight_or_direction_of_zeros_fully():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert trust(zeros, ones) == trust(ones, zeros) == 1
    assert trust(ones * 3, ones) == 3
    for ops in (reference, cpu):
        weight, velocity, squares = zeros.copy(), zeros.copy(), zeros.copy()
        numbers = {"lr": 0.5, "momentum": 0.9, "beta2": 0.999, "eps": 1e-6, "decay": 0.1}
        ops.lamb_step(weight, ones, velocity, squares, **numbers, step=1)
        assert np.allclose(weight, -0.5, rtol=1e-5)


def test_the_usual_constants():
    assert Optimiser(optimiser="adamw").constants == {"beta2": 0.999, "eps": 1e-8}
    assert Optimiser(optimiser="lamb", eps=1e-3).constants == {"beta2": 0.999, "eps": 1e-3}
    assert Optimiser(optimiser="rmsprop", beta2=0.5).constants == {"beta2": 0.5, "eps": 1e-10}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"optimiser": "adam"}, "expected one of sgd, adamw, lamb, rmsprop"),
        ({"beta2": 0.9}, "SGD has neither"),
        ({"eps": 1e-8}, "SGD has neither"),
        (
            {"optimiser": "lamb", "nesterov": True},
            "only SGD has .*--no-nesterov.*for lamb",
        ),
        ({"optimiser": "adamw", "momentum": 1.0}, "needs both below 1"),
        ({"optimiser": "rmsprop", "beta2": 1.0}, "needs both below 1"),
    ],
)
def test_settings_that_mean_nothing(changes, text):
    with pytest.raises(UsageError, match=text):
        Optimiser(**changes)


@pytest.mark.parametrize(
    ("optimiser", "device"),
    [
        ("adamw", "reference"),
        *(
            pytest.param(name, "cpu", marks=pytest.mark.slow)
            for name in ("adamw", "lamb", "rmsprop")
        ),
    ],
)
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path, optimiser, device, monkeypatch):
    recipe = small.RECIPE.changed({"optimiser": optimiser, "nesterov": False, "lr": 0.01})
    images = small.pictures()

    def run(name, **more):
        options = {"preprocess": small.PREPROCESS, "device": device, **more}
        return train(small.SPEC, images, recipe, tmp_path / name, **options)

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(6))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    state = training_state.read(tmp_path / "parts" / "state.npz")
    assert (state.epoch, state.step) == (1, 2)
    assert state.squares is not None
    resumed = run("parts", resume=True)
    for name, value in whole.params.items():
        assert np.array_equal(value, resumed.params[name]), name
    states = [training_state.read(tmp_path / name / "state.npz") for name in ("whole", "parts")]
    assert np.array_equal(states[0].squares, states[1].squares)


def stopped_after(steps: int):
    """Return what `Run.tell` is replaced by: it stops the run after so many steps."""

    def tell(run, seconds):
        run.state.seconds += seconds
        if run.state.epoch * run.steps + run.state.step == steps:
            run.stop()

    return tell


def test_a_state_without_its_squares_is_refused(tmp_path):
    recipe = small.RECIPE.changed({"optimiser": "adamw", "nesterov": False})
    values = np.ones(training_state.size(small.SPEC), np.float32)
    path = tmp_path / "state.npz"
    for squares, error, text in (
        (None, FormatError, "squares"),
        (-values, IntegrityError, "negative averages of squares"),
        (values * np.nan, IntegrityError, "squares has numbers that are NaN"),
    ):
        state = training_state.new(small.SPEC, recipe, values)
        state.squares = squares
        training_state.write(path, state)
        with pytest.raises(error, match=text):
            training_state.read(path)
