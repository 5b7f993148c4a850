"""The recipes that have names: other systems' own, and ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import UsageError
from ...system.words import one_of
from .augmentation import Augmentation
from .optimiser import Optimiser
from .parts import Loss, Start
from .recipe import Recipe
from .schedule import Schedule

_FAST = Recipe(
    epochs=25,
    batch=128,
    schedule=Schedule(0.2, "linear", warmup=0.2),
    optimiser=Optimiser(nesterov=True, weight_decay=5e-4, decay_all=False),
    loss=Loss(smoothing=0.1),
    start=Start(whiten=True),
    augmentation=Augmentation(crop="pad", padding=4),
)

_STEPS = Recipe(epochs=100, batch=256, schedule=Schedule(0.1, "step", (0.3, 0.6, 0.9)))

RECIPES: Mapping[str, Recipe] = {
    # train.lua and opts.lua of facebookresearch/ResNeXt: the rate falls with the first epoch e
    # (from 1) for which e / 300 exceeds 0.49 and 0.74, a little before the 150 and 225 of the
    # paper.
    "facebook-cifar": Recipe(
        epochs=300,
        batch=128,
        schedule=Schedule(0.1, "step", (0.49, 0.74)),
        optimiser=Optimiser(nesterov=True, weight_decay=5e-4),
        start=Start(init="facebook"),
        augmentation=Augmentation(crop="pad", padding=4, fill="mean"),
    ),
    # The same, with its -batchSize 256 for ImageNet; the paper stops after 90 epochs.
    "facebook-imagenet": Recipe(
        epochs=100,
        batch=256,
        schedule=Schedule(0.1, "step", (0.3, 0.6, 0.9)),
        optimiser=Optimiser(nesterov=True),
        start=Start(init="facebook"),
        augmentation=Augmentation(crop="torch7", interpolation="bicubic", jitter=0.4, lighting=0.1),
    ),
    # references/classification of torchvision, as its first ResNeXt weights (IMAGENET1K_V1) were
    # trained; and the schedule imagenet_bs256 of mmpretrain, which is the same.
    "torchvision-v1": _STEPS,
    "mmpretrain": _STEPS,
    # torchvision's second weights (IMAGENET1K_V2): "How to train state-of-the-art models using
    # TorchVision's latest primitives", 2021, with 8 mini-batches of 128 at once. Two things are
    # nearly the same: its average moves every 32 steps by 1.1e-3, this one as far step by step; and
    # there the classifier's bias decays.
    "torchvision-v2": Recipe(
        epochs=600,
        batch=1024,
        schedule=Schedule(0.5, "cosine", warmup=5 / 600),
        optimiser=Optimiser(weight_decay=2e-5, decay_all=False),
        loss=Loss(smoothing=0.1, mixup=0.2, cutmix=1.0),
        ema=0.999966,
        augmentation=Augmentation(policy="ta_wide", erase=0.1, repeats=4, sides=(176,)),
    ),
    # Ours, for small images and a short time: one cycle.
    "fast-cifar": _FAST,
    # Ours, as the bundled model was trained.
    "muon-cifar": _FAST.changed(
        {
            "epochs": 22,
            "batch": 256,
            "warmup": 0.15,
            "muon": 0.1,
            "smoothing": 0.2,
            "ema": 0.99,
            "padding": 3,
            "fill": "mirror",
            "alternate": True,
            "cutout": 6,
        }
    ),
    # Ours, for a model that is already trained on other images.
    "finetune": Recipe(
        epochs=10,
        batch=32,
        schedule=Schedule(0.01, "cosine", warmup=0.05),
        optimiser=Optimiser(nesterov=True, decay_all=False),
    ),
}


def recipe(name: str, **changes: Any) -> Recipe:
    """Return the recipe of that name, with other values for some of its settings.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    **changes
        Settings by name, whichever part of the recipe they are in: ``epochs=10, mixup=0.2``.

    Raises
    ------
    UsageError
        There is no such recipe or setting, or a value is not allowed.
    """
    if name not in RECIPES:
        raise UsageError(f"there is no recipe called {name!r}: {one_of(name, RECIPES)}")
    return RECIPES[name].changed(changes)
