"""The named recipes: their fields as they are published, and runs that resume to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import training_cases as small
from test_adaptive import stopped_after

from tinyresnext import RECIPES
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


QUICK = ("timm-a2",)
SHORT = {"epochs": 2, "batch": 16, "sides": (), "padding": 0, "cutout": 0}


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in RECIPES if n not in QUICK)]
)
def test_a_short_run_of_a_recipe_resumes_to_the_same_bits(tmp_path, name, monkeypatch):
    recipe, images = RECIPES[name].changed(SHORT), small.pictures()
    repeats = recipe.augmentation.repeats
    recipe = recipe.changed({"batch": 18 if repeats == 3 else 16})

    def run(out, **more):
        where = tmp_path / out
        return train(small.SPEC, images, recipe, where, preprocess=small.PREPROCESS, **more)

    whole = run("whole")
    with monkeypatch.context() as patch:
        patch.setattr("tinyresnext.training.run.Run.tell", stopped_after(5))
        with pytest.raises(KeyboardInterrupt):
            run("parts")
    resumed = run("parts", resume=True)
    for key, value in whole.params.items():
        assert np.array_equal(value, resumed.params[key]), key
