"""Show what a run would do before it begins: its images, its learning rate, its memory and time.

The images are those of the first mini-batch, with their targets, as the first step of the run will
see them. A few steps are made and measured; nothing of them is kept.
"""

from __future__ import annotations

import os
import time
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from ...images.preprocess import Preprocess
from ...inference.model import Model
from ...inference.scores.lettering import Letters
from ...system.writing import check_writable, replacing
from ..record import curve
from ..record import state as states
from ..record.folder import TrainingFolder
from ..record.state import State
from ..run import Run
from ..samples.sample import Sample
from ..setting import Setting
from ..weights import size

__all__ = ["preview"]

SHOWN, COLUMNS = 32, 8  # images
MEASURED = 3  # steps, after one that may compile kernels
TILE, TEXT, GAP = 112, 26, 8  # pixels: the side of an image, the lines below it, between images


def preview(start: State, setting: Setting, path: str | os.PathLike[str]) -> Model:
    """Draw the first images of a run and its learning rate, and measure a few of its steps.

    Parameters
    ----------
    start : State
        Before the first step of a run. It is not changed.
    setting : Setting
    path : path
        The PNG file that is written.

    Returns
    -------
    Model
        The network before training. Its provenance says under ``dry run`` what the run would take.

    Raises
    ------
    TrainingError
        The loss is not finite in the first steps.
    UsageError
        The picture cannot be written.
    """
    check_writable(path)
    recipe = start.recipe
    state = states.new(start.spec, recipe, start.values.copy())
    state.run = start.run
    with TemporaryDirectory() as place:
        run = Run(state, setting, TrainingFolder(place))
        try:
            with setting.loader(recipe, run.side) as loader:
                x, images = next(loader.epoch(0))
            made = run.model()
            picture = _drawn(run, run.samples.of(x, images, 0))
            made.provenance["dry run"] = _said(run, _seconds(run, x, images))
        finally:
            run.close()
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    return made


def _seconds(run: Run, x: np.ndarray, images: np.ndarray) -> float:
    """Return how long a step takes: the median of a few."""
    taken = []
    for _ in range(1 + MEASURED):
        run.state.step = 0  # the run may have fewer steps, and no rate is defined after its last
        began = time.perf_counter()
        run.step(x, images)
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))


def _said(run: Run, seconds: float) -> str:
    """Say in lines how many steps there are, and what they take."""
    recipe, spec, setting = run.state.recipe, run.state.spec, run.setting
    steps = run.steps * recipe.epochs
    parameters = size(spec)
    extra = run.state.average, run.state.squares
    arrays = 3 + sum(flat is not None for flat in extra)  # weights, gradients, momentum
    arrays += recipe.parts > 1  # the mean of the parts' gradients
    memory = run.compute.bytes + 4 * parameters * arrays
    in_parts = f" in {recipe.parts} parts" if recipe.parts > 1 else ""
    lines = [
        f"{spec.name}: {parameters:,} parameters, {len(run.setting.dataset):,} images",
        f"{recipe.epochs} epochs of {run.steps} steps: {steps:,} steps, mini-batches of "
        f"{recipe.batch}{in_parts}, images of {run.side} x {run.side}",
        f"{memory / 2**20:,.0f} MiB for a step and the weights, beside the images",
        f"{seconds * 1e3:.0f} ms for a step on {run.setting.ops.described()} "
        f"(threads: {run.setting.threads}): about {_time(seconds * steps)}, without reading the "
        "images and without validation",
    ]
    if setting.teacher is not None and (how := run.samples.distillation) is not None:
        lines.append(setting.teacher.said(recipe, setting.preprocess))
        lines.append(
            f"the targets below the images are {1 - how.weight:g} of the labels and "
            f"{how.weight:g} of the teacher's probabilities; the time of a step has the teacher's"
        )
    if max(recipe.augmentation.sides, default=0) > run.side:
        lines.append("later images are larger, and their steps take longer")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    """Return a time for people: one number and its unit."""
    for name, unit in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _drawn(run: Run, seen: Sample) -> Image.Image:
    """Draw the learning rate, and below it the images with their two highest targets."""
    schedule, x, rows = _schedule(run), seen.x, seen.rows
    if seen.teacher is not None and run.samples.distillation is not None:
        weight = run.samples.distillation.weight
        rows = (1 - weight) * rows + weight * seen.teacher
    count = min(SHOWN, len(x))
    across, down = COLUMNS * (TILE + GAP) + GAP, -(-count // COLUMNS) * (TILE + TEXT + GAP)
    sheet = Image.new("RGB", (max(across, schedule.width), schedule.height + down + GAP), "white")
    sheet.paste(schedule, (0, 0))
    pen, letters = ImageDraw.Draw(sheet), Letters(11)
    for i, image in enumerate(_pixels(x[:count], run.setting.preprocess)):
        left = GAP + i % COLUMNS * (TILE + GAP)
        top = schedule.height + i // COLUMNS * (TILE + TEXT + GAP)
        tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        for line, text in enumerate(_targets(rows[i], run.setting.dataset.classes)):
            lettered = letters.of(text)
            at = left, top + TILE + 12 * line
            pen.text(at, lettered.text, "black", lettered.font)
    pen.text((across - GAP, 12), f"steps in an epoch: {run.steps}", "black", anchor="ra")
    return sheet


def _schedule(run: Run) -> Image.Image:
    """Draw the learning rate of each epoch, at its first step."""
    recipe = run.state.recipe
    rates = [
        (epoch + 1, recipe.learning_rate(epoch, 0, run.steps)) for epoch in range(recipe.epochs)
    ]
    return curve.panel("learning rate", rates)


def _pixels(x: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return normalised images as they were before: uint8 [n, h, w, 3]."""
    std, mean = (np.array(some, np.float32) for some in (preprocess.std, preprocess.mean))
    values = (x * std + mean) * 255
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return np.repeat(pixels, 3, axis=3) if pixels.shape[3] == 1 else pixels


def _targets(row: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    """Return the names of the two highest targets, with their values."""
    if len(row) < len(classes):  # a single output tells two classes apart
        row = np.array([1 - row[0], row[0]])
    best = [k for k in np.argsort(-row, kind="stable")[:2] if row[k] > 0]
    return [f"{classes[k][:12]} {row[k]:.2f}" for k in best]
