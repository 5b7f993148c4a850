"""Small networks and small images to train them on, computed from numbers."""

from __future__ import annotations

import signal

import numpy as np

from tinyresnext import Preprocess, Spec
from tinyresnext.data.dataset import Dataset
from tinyresnext.training.recipes import Recipe
from tinyresnext.training.recipes.schedule import Schedule
from tinyresnext.training.run import Run


def settings(epochs: int, batch: int, lr: float, schedule: str, **more: object) -> Recipe:
    """Return a recipe whose other settings are given by name, whichever part they are in."""
    plain = Recipe(epochs=epochs, batch=batch, schedule=Schedule(lr, schedule))
    return plain.changed(more)


SPEC = Spec((1, 1), 2, 8, 4, stem="cifar", expansion=1)
PREPROCESS = Preprocess(8, 8, mean=(0.5,) * 3, std=(0.25,) * 3)
RECIPE = settings(
    3,
    16,
    0.1,
    "linear",
    warmup=0.2,
    nesterov=True,
    weight_decay=5e-4,
    smoothing=0.1,
    mixup=0.2,
    ema=0.9,
    crop="pad",
    padding=1,
)


def pictures(count: int = 70, classes: tuple[str, ...] = tuple("abcd"), seed: int = 0) -> Dataset:
    """Noise of 8 x 8 whose redness is its class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(classes), count)
    pixels = rng.integers(0, 100, (count, 8, 8, 3)).astype(np.uint8)
    pixels[:, :, :, 0] += (labels * (150 // len(classes))).astype(np.uint8)[:, None, None]
    names = [f"{number:03}.png" for number in range(count)]
    return Dataset(
        classes, labels.astype(np.int64), names, lambda number: pixels[number], pixels=pixels
    )


def interrupt(monkeypatch, steps: int) -> None:
    """Ctrl-C after so many steps, as it arrives: a signal between two instructions."""
    real, left = Run.step, [steps]

    def step(run, x, labels):
        left[0] -= 1
        if left[0] == 0:
            signal.raise_signal(signal.SIGINT)
        real(run, x, labels)

    monkeypatch.setattr(Run, "step", step)


def write_folder(folder, count: int = 6) -> None:
    """``train/CLASS/N.png`` and ``test/CLASS/N.png`` for two classes."""
    from PIL import Image

    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        for number, name in enumerate(("dark", "red")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 100, (8, 8, 3)).astype(np.uint8)
                pixels[:, :, 0] += np.uint8(120 * number)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
