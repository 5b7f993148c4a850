"""The named recipes: their fields as they are published, and runs that resume to the same bits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from test_adaptive import stopped_after

from tinyresnext import RECIPES, Recipe
from tinyresnext.training.recipes import SOURCES
from tinyresnext.training.train import train

# Wightman et al. 2021, Table 2, from "Train Res" down to "BCE loss", by our names; what the table
# crosses out is off. 1,000 steps an epoch, as good as any.
PROCEDURES = {
    "timm-a1": {
        "sides": (),
        "epochs": 600,
        "batch": 2048,
        "optimiser": "lamb",
        "lr": 5e-3,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "smoothing": 0.1,
        "dropout": 0.0,
        "drop_path": 0.05,
        "repeats": 3,
        "flip": True,
        "crop": "resized",
        "policy": "rand-m7-mstd0.5-inc1",
        "mixup": 0.2,
        "cutmix": 1.0,
        "erase": 0.0,
        "jitter": 0.0,
        "lighting": 0.0,
        "ema": 0.0,
        "entropy": "binary",
    },
}
PROCEDURES["timm-a2"] = PROCEDURES["timm-a1"] | {
    "epochs": 300,
    "weight_decay": 0.02,
    "smoothing": 0.0,
    "mixup": 0.1,
}
PROCEDURES["timm-a3"] = PROCEDURES["timm-a2"] | {
    "sides": (160,),
    "epochs": 100,
    "lr": 8e-3,
    "drop_path": 0.0,
    "repeats": 1,
    "policy": "rand-m6-mstd0.5-inc1",
}


@pytest.mark.parametrize("name", PROCEDURES)
def test_the_procedures_are_those_of_the_paper(name):
    recipe = RECIPES[name]
    found = recipe.to_json() | {"sides": recipe.augmentation.sides}
    assert {key: found[key] for key in PROCEDURES[name]} == PROCEDURES[name]
    highest = [recipe.learning_rate(epoch, 0, 1000) for epoch in range(recipe.epochs)]
    # Five epochs of warm-up, from 1e-4; the cosine began with the run, and ends at 1e-6.
    assert highest[0] == pytest.approx(1e-4)
    assert highest.index(max(highest)) == 5
    whole = [0.5 * (1 + np.cos(np.pi * e / recipe.epochs)) for e in range(recipe.epochs)]
    lr = recipe.schedule.lr
    assert np.allclose(highest[5:], [1e-6 + (lr - 1e-6) * part for part in whole[5:]])


def test_the_command_of_timm_for_resnext50():
    recipe = RECIPES["timm-ra"]
    said = {
        "epochs": 240,
        "batch": 8 * 192,
        "lr": 0.6,
        "schedule": "cosine",
        "warmup": 5 / 240,
        "weight_decay": 1e-4,
        "erase": 0.4,
        "erase_count": 3,
        "erase_with": "pixel",
        "policy": "rand-m7-mstd0.5-inc1",
        "smoothing": 0.1,
        "nesterov": True,
    }
    found = recipe.to_json()
    assert {key: found[key] for key in said} == said


def test_the_command_of_torchvisions_second_weights():
    recipe = RECIPES["torchvision-v2"]
    said = {
        "epochs": 600,
        "batch": 8 * 128,
        "lr": 0.5,
        "schedule": "cosine",
        "weight_decay": 2e-5,
        "nesterov": False,
        "smoothing": 0.1,
        "mixup": 0.2,
        "cutmix": 1.0,
        "policy": "ta_wide",
        "erase": 0.1,
        "repeats": 4,
        "ema_every": 32,
    }
    found = recipe.to_json()
    assert {key: found[key] for key in said} == said
    # references/classification: LinearLR from a hundredth over 5 epochs, and CosineAnnealingLR.
    rates = [recipe.learning_rate(epoch, 3, 1251) for epoch in range(600)]
    rising = [0.5 * (0.01 + 0.99 * epoch / 5) for epoch in range(5)]
    falling = [0.25 * (1 + np.cos(np.pi * epoch / 595)) for epoch in range(595)]
    assert np.allclose(rates, rising + falling)
    kept = [recipe.kept(epoch, 32, 1251) for epoch in (4, 5, 599)]
    assert kept == pytest.approx(
        [0.0, 1 - 2e-5 * 8 * 128 * 32 / 600, 1 - 2e-5 * 8 * 128 * 32 / 600]
    )
    assert recipe.kept(9, 31, 1251) is None


def test_every_recipe_has_a_source_and_its_row():
    """The page has the accuracies that the sources have, in the row of the recipe."""
    assert list(SOURCES) == list(RECIPES)
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text("utf-8")
    for name, source in SOURCES.items():
        (row,) = re.findall(rf"^\| [^|]*`{name}`[^|]* \|.*\|$", page, re.MULTILINE)
        numbers = re.findall(r"[\d.]+ %", source.reported)
        assert all(number in row for number in numbers), name
        assert bool(numbers) != name.startswith(("fast", "finetune")), name
        assert source.said(name).startswith(f"recipe {name}: ")


QUICK = ("timm-a2",)
SHORT = {"epochs": 2, "batch": 16}


@pytest.mark.parametrize(
    ("name", "device"),
    [
        *((name, "reference") for name in QUICK),
        *(pytest.param(name, "cpu", marks=pytest.mark.slow) for name in RECIPES),
    ],
)
def test_a_short_run_of_a_recipe_resumes_to_the_same_bits(tmp_path, name, device, monkeypatch):
    recipe, images = RECIPES[name].changed(SHORT), small.pictures()
    if recipe.augmentation.sides:  # these networks see 8 pixels
        recipe = recipe.changed({"sides": (6,)})
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe

    def run(out, **more):
        options = {"preprocess": small.PREPROCESS, "device": device, **more}
        return train(small.SPEC, images, recipe, tmp_path / out, **options)

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    resumed = run("parts", resume=True)
    for key, value in whole.params.items():
        assert np.array_equal(value, resumed.params[key]), key
