"""Runs on few images: how many steps they make, what is held out, and how classes are balanced."""

from __future__ import annotations

import numpy as np
import pytest
import training_cases as small

from tinyresnext.data.dataset import Dataset
from tinyresnext.data.parts import held_out
from tinyresnext.errors import UsageError
from tinyresnext.training.recipes import RECIPES
from tinyresnext.training.recipes.steps import ENOUGH, FEW, enough, few, steps

FAST = RECIPES["fast-cifar"]


@pytest.mark.parametrize(
    ("images", "given", "batch", "epochs", "lr"),
    [
        (50_000, {}, 128, 25, 0.2),
        (2048, {}, 128, 25, 0.2),  # 16 steps in each of 25 epochs are just enough
        (2047, {}, 64, 25, 0.1),
        (500, {}, 16, 25, 0.025),
        (60, {}, 16, 134, 0.025),
        (12, {}, 12, 400, 0.2 * 12 / 128),
        (1, {}, 1, 400, 0.2 / 128),
        (60, {"batch": 30}, 30, 200, 0.2 * 30 / 128),
        (60, {"epochs": 25}, 16, 25, 0.025),
        (60, {"epochs": 25, "batch": 60}, 60, 25, 0.2 * 60 / 128),
        (60, {"lr": 0.3}, 16, 134, 0.3),
        (60, {"batch": 256}, 256, 25, 0.2),
    ],
)
def test_enough_steps(images, given, batch, epochs, lr):
    found = enough(FAST, images, given)
    assert (found.batch, found.epochs, found.schedule.lr) == (batch, epochs, pytest.approx(lr))
    assert found == FAST.changed(
        {"batch": batch, "epochs": epochs, "lr": found.schedule.lr} | given
    )
    if not given:
        assert steps(found, images) >= ENOUGH


def test_few_steps_are_told_with_what_would_make_more():
    assert few(FAST.changed({"batch": 60, "epochs": 10}), 250) == (
        "only 40 steps, in which a network hardly learns: --batch 16 gives 150, "
        "--batch 16 --epochs 27 gives 405"
    )
    assert few(FAST.changed({"batch": 16, "epochs": 1}), 20) == (
        "only 1 step, in which a network hardly learns: --epochs 400 gives 400"
    )
    assert few(FAST.changed({"batch": 1, "epochs": FEW - 1}), 1).startswith(f"only {FEW - 1} steps")
    assert few(FAST.changed({"batch": 1, "epochs": FEW}), 1) is None


@pytest.mark.parametrize("memory", [True, False])
def test_held_out(memory):
    counts = np.array([10, 5, 2, 1])
    labels = np.repeat(np.arange(4), counts)
    pixels = np.arange(18, dtype=np.uint8)[:, None, None, None]
    names = [str(i) for i in range(18)]
    data = Dataset(
        tuple("abcd"), labels, names, lambda i: pixels[i], pixels=pixels if memory else None
    )
    training, validation = held_out(data, 0.2, seed=0)
    assert np.bincount(validation.labels, minlength=4).tolist() == [2, 1, 1, 0]
    assert (np.bincount(training.labels) + np.array([2, 1, 1, 0]) == counts).all()
    seen = [
        int(part.picture(i)[0, 0, 0]) for part in (training, validation) for i in range(len(part))
    ]
    assert sorted(seen) == list(range(18))
    assert [str(i) for i in seen] == [*training.names, *validation.names]
    assert [labels[i] for i in seen] == [*training.labels, *validation.labels]
    same, others = held_out(data, 0.2, seed=0)[1], held_out(data, 0.2, seed=1)[1]
    assert same.names == validation.names != others.names
    assert np.bincount(held_out(data, 0.99, seed=0)[0].labels).tolist() == [1, 1, 1, 1]


def test_nothing_can_be_held_out():
    with pytest.raises(UsageError, match="no class has two images"):
        held_out(small.pictures(1, ("a",)), 0.2, seed=0)
    for part in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match=r"expected a number such as 0\.2"):
            held_out(small.pictures(), part, seed=0)
