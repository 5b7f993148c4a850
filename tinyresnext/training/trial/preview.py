"""Show what a run would do before it begins: its images, its learning rate, its memory and time.

The images are those of the first mini-batch, with their targets, as the first step of the run will
see them. A few steps are made and measured, of fewer images where a mini-batch is large; nothing of
them is kept.
"""

from __future__ import annotations

import os
import time
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ...errors import TrainingError
from ...images.preprocess import Preprocess
from ...inference.model import Model
from ...inference.scores.lettering import Letters
from ...system.writing import check_writable, replacing
from ..recipes import Recipe
from ..record import curve
from ..record import state as states
from ..record.contents import model_of
from ..record.folder import TrainingFolder
from ..record.state import State
from ..run import Run
from ..samples.sample import Sample
from ..setting import Setting
from ..weights import size

__all__ = ["preview"]

SHOWN, COLUMNS = 32, 8  # images
MEASURED = 3  # steps, after one that may compile kernels
# Of the images of a step that is measured: larger mini-batches take minutes, and more memory than a
# machine may have.
PIXELS = 16 * 224 * 224
TILE, TEXT, GAP = 112, 26, 8  # pixels: the side of an image, the lines below it, between images


class Trial(NamedTuple):
    """A run that makes a few steps.

    Attributes
    ----------
    run : Run
        Its mini-batch is one part of those of the recipe, or a few images of it.
    recipe : Recipe
        Of the run that would begin.
    measured : int
        The images of a step that is measured.
    """

    run: Run
    recipe: Recipe
    measured: int

    @property
    def steps(self) -> int:
        """Return how many steps an epoch of the run would have."""
        return len(self.run.setting.dataset) // self.recipe.batch


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
    recipe, side = start.recipe, start.recipe.side(0, setting.preprocess.crop)
    count = min(recipe.batch // recipe.parts, max(PIXELS // side**2, 2))
    small = recipe.changed({"batch": count, "parts": 1})
    state = states.new(start.spec, small, start.values.copy())
    state.run = start.run
    before, x, images = _first(recipe, setting, side, count)
    with TemporaryDirectory() as place:
        run = Run(state, setting, TrainingFolder(place))
        trial = Trial(run, recipe, count)
        try:
            picture = _drawn(trial, run.samples.of(x, images, 0, before))
            own = slice(before, before + count)
            said = _said(trial, _seconds(run, x[own], images[own]))
        finally:
            run.close()
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    made = model_of(start, setting)
    made.provenance["dry run"] = said
    return made


def _first(
    recipe: Recipe, setting: Setting, side: int, count: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """Return the first images of the first mini-batch, at least ``count``, and their numbers.

    Before them stand as many neighbours as the first number that is returned says: the first image
    is mixed with the last of the mini-batch.
    """
    before, wanted = int(bool(recipe.loss.mixup or recipe.loss.cutmix)), max(SHOWN, count)
    if wanted + before >= recipe.batch:
        before, wanted = 0, recipe.batch
    places = [*range(recipe.batch - before, recipe.batch), *range(wanted)]
    with setting.loader(recipe, side, places=places) as loader:
        x, images = next(loader.epoch(0))
    return before, x, images


def _seconds(run: Run, x: np.ndarray, images: np.ndarray) -> float:
    """Return how long a step takes: the median of a few; name what to do if it leads nowhere."""
    taken = []
    for step in range(1, 2 + MEASURED):
        run.state.step = 0  # the run may have fewer steps, and no rate is defined after its last
        began = time.perf_counter()
        try:
            run.step(x, images)
        except TrainingError as error:
            first = str(error).partition(": ")[2].partition("; ")[0]  # value that is not finite
            raise TrainingError(
                f"the loss is not finite in step {step} on the first images of the run, of which "
                f"nothing is kept ({first}); give a smaller --lr than "
                f"{run.state.recipe.schedule.lr:g}, and see whether the initial model is finite"
            ) from error
        taken.append(time.perf_counter() - began)
    return float(np.median(taken[1:]))


def _said(trial: Trial, seconds: float) -> str:
    """Say in lines how many steps there are, and what they take."""
    run, recipe, count = trial.run, trial.recipe, trial.measured
    spec, setting = run.state.spec, run.setting
    steps, part = trial.steps * recipe.epochs, recipe.batch // recipe.parts
    seconds *= recipe.batch / count
    parameters = size(spec)
    extra = run.state.average, run.state.squares
    arrays = 3 + sum(flat is not None for flat in extra)  # weights, gradients, momentum
    arrays += recipe.parts > 1  # the mean of the parts' gradients
    memory = run.compute.bytes * part / count + 4 * parameters * arrays  # values grow with images
    in_parts = f" in {recipe.parts} parts" if recipe.parts > 1 else ""
    measured = f", measured with {count} of its images" if count < recipe.batch else ""
    lines = [
        f"{spec.name}: {parameters:,} parameters, {len(run.setting.dataset):,} images",
        f"{recipe.epochs} epochs of {trial.steps} steps: {steps:,} steps, mini-batches of "
        f"{recipe.batch}{in_parts}, images of {run.side} x {run.side}",
        f"{memory / 2**20:,.0f} MiB for a step and the weights, beside the images",
        f"{_time(seconds)} for a step on {run.setting.step_ops(recipe).described()} "
        f"(threads: {run.setting.threads}){measured}: about {_time(seconds * steps)}, without "
        "reading the images and without validation",
    ]
    if count < part:
        fits = (n for n in range(1, recipe.batch + 1) if not recipe.batch % n)
        parts = next(n for n in fits if recipe.batch // n <= count)
        arrays += recipe.parts == 1  # that mean, which parts need
        less = run.compute.bytes * (recipe.batch // parts) / count + 4 * parameters * arrays
        lines[2] += f"; with --parts {parts}, {less / 2**20:,.0f} MiB"
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
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds * 1e3:.0f} ms"


def _drawn(trial: Trial, seen: Sample) -> Image.Image:
    """Draw the learning rate, and below it the images with their two highest targets."""
    run = trial.run
    schedule, x, rows = _schedule(trial), seen.x, seen.rows
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
    pen.text((across - GAP, 12), f"steps in an epoch: {trial.steps}", "black", anchor="ra")
    return sheet


def _schedule(trial: Trial) -> Image.Image:
    """Draw the learning rate of each epoch, at its first step."""
    recipe, steps = trial.recipe, trial.steps
    rates = [(epoch + 1, recipe.learning_rate(epoch, 0, steps)) for epoch in range(recipe.epochs)]
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
