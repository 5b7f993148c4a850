"""A training run that is going on: what each line of the loop in `tinyresnext.training.train` does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..data.loader import Loader
from ..errors import ImageError, TrainingError
from ..images.augment import Augment
from ..images.preprocess import Preprocess
from ..inference.evaluate import score
from ..inference.model import Model, save
from ..network.step import Step
from ..system.files import shown
from ..system.version import __version__
from . import state as training_state
from .folder import TrainingFolder
from .log import Log, Progress, Stop
from .muon import Muon
from .optimise import SGD, mix, update_average, update_statistics, views
from .recipes import Recipe, learning_rate
from .state import State


@dataclass(frozen=True)
class Setting:
    """What a run is given beside its state: pictures, machine, and what is to be told."""

    dataset: Dataset
    validation: Dataset | None
    preprocess: Preprocess
    frozen: tuple[str, ...]
    ops: Any
    threads: int | None
    log_every: int
    half: bool
    provenance: Mapping[str, str]
    # The broken pictures that have been told of, so that no epoch tells again.
    broken: dict[int, ImageError] = field(default_factory=dict)
    broken_in_validation: dict[int, ImageError] = field(default_factory=dict)


class Run:
    """A run that is going on.

    Parameters
    ----------
    state : State
        Changes in place.
    setting : Setting
    folder : TrainingFolder
    """

    def __init__(self, state: State, setting: Setting, folder: TrainingFolder) -> None:
        self.state, self.setting, self.folder = state, setting, folder
        spec, recipe = state.spec, state.recipe
        self.params = views(state.values, spec)
        self.compute = self._step_for(self.side)
        velocity = views(state.velocity, spec)
        self.sgd, self.muon = (
            SGD(self.params, velocity, recipe),
            Muon(self.params, velocity, spec) if recipe.muon else None,
        )
        self.steps = len(setting.dataset) // recipe.batch
        self.log = Log(folder.log, state.log_bytes)
        self.progress = Progress(
            recipe.epochs, self.steps, recipe.batch, state.epoch * self.steps + state.step
        )

    @property
    def side(self) -> int:
        """Of the pictures of this epoch."""
        return self.state.recipe.side(self.state.epoch, self.setting.preprocess.crop)

    def _step_for(self, side: int) -> Step:
        """What computes loss and gradients of pictures of that size."""
        spec, recipe, setting = self.state.spec, self.state.recipe, self.setting
        x_shape, threads = (recipe.batch, side, side, spec.channels), setting.threads
        return Step(
            self.params,
            spec,
            x_shape,
            setting.ops,
            smoothing=recipe.smoothing,
            frozen=setting.frozen,
            threads=threads,
        )

    def step(self, x: np.ndarray, labels: np.ndarray) -> None:
        """One step: loss, gradients, weights, running statistics, average.

        Raises
        ------
        TrainingError
            When the loss is not finite; nothing has changed then.
        """
        state, recipe = self.state, self.state.recipe
        done = state.epoch * self.steps + state.step
        targets = labels
        if recipe.mixup:
            rng = np.random.default_rng([recipe.seed, 1, done])
            x, targets = mix(x, labels, state.spec.classes, recipe.mixup, rng)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # the loss tells, now or in the next step
            loss, logits = self.compute(x, targets)
            if not math.isfinite(loss):
                raise self.diverged(loss)
            self._move_weights()
            update_statistics(self.params, self.compute.statistics, self.compute.positions)
            if state.average is not None:
                update_average(state.average, state.values, recipe.ema, done)
        state.step += 1
        state.loss += loss
        state.correct += int(np.count_nonzero(logits.argmax(1) == labels))

    def _move_weights(self) -> None:
        """Muon's step for the convolutions in the blocks, if the recipe has it, and SGD's for all others."""
        recipe, gradients = self.state.recipe, self.compute.gradients
        now = self.state.epoch, self.state.step, self.steps
        if self.muon is not None:
            self.muon(gradients, learning_rate(replace(recipe, lr=recipe.muon), *now))
            gradients = {
                name: gradient
                for name, gradient in gradients.items()
                if name not in self.muon.groups
            }
        self.sgd(gradients, learning_rate(recipe, *now))

    def tell(self, seconds: float) -> None:
        """Tell about the step that has just been made."""
        state = self.state
        state.seconds += seconds
        loss, accuracy = state.loss / state.step, state.correct / (state.step * state.recipe.batch)
        self.progress.step(state.epoch, state.step, seconds, loss, accuracy)
        if self.setting.log_every and state.step % self.setting.log_every == 0:
            self.log.line(
                epoch=state.epoch + 1,
                step=state.step,
                loss=float(f"{loss:.6g}"),
                accuracy=float(f"{accuracy:.6g}"),
            )

    def validate(self, stop: Stop) -> dict[str, float]:
        """Try the network on pictures it has not seen, and keep it if it is the best so far.

        Raises
        ------
        TrainingError
            When the last step has made a weight infinite.
        """
        pictures, state = self.setting.validation, self.state
        if pictures is None:
            return {}
        self._check_weights()
        resized = without_chance(self.setting.preprocess)

        def done(count: int) -> None:
            self.progress.say(f"validation {count} of {len(pictures)}")
            if stop.asked:
                self.stop()

        told = self.setting.broken_in_validation
        with Loader(
            pictures, resized, batch=state.recipe.batch, shuffle=False, drop_last=False, broken=told
        ) as loader:
            found = score(self.model(), loader.epoch(0), pictures.classes, progress=done)
        state.top1, state.tried = found.top1, found.pictures
        if state.best is None or found.top1 > state.best:
            state.best = found.top1
            save(self.model(), self.folder.best, half=self.setting.half)
        return {"top1": found.top1, "top5": found.top5, "validation_loss": found.loss}

    def close_epoch(self, found: Mapping[str, float]) -> None:
        """Tell about the epoch, and save the state behind it."""
        state, recipe, seen = self.state, self.state.recipe, self.steps * self.state.recipe.batch
        told = {
            "learning_rate": learning_rate(recipe, state.epoch, self.steps - 1, self.steps),
            "loss": state.loss / self.steps,
            "accuracy": state.correct / seen,
            "seconds": state.seconds,
            "images_per_second": seen / max(state.seconds, 1e-9),
        }
        told |= found
        short = {name: float(f"{value:.6g}") for name, value in told.items()}
        self.log.line(epoch=state.epoch + 1, epochs=recipe.epochs, **short)
        self.progress.epoch(state.epoch, short)
        state.epoch, state.step, state.loss, state.correct, state.seconds = (
            state.epoch + 1,
            0,
            0.0,
            0,
            0.0,
        )
        self.save()
        if state.epoch < recipe.epochs and self.compute.x_shape[1] != self.side:
            self.compute = None  # its memory is free before the next one takes some
            self.compute = self._step_for(self.side)

    def save(self) -> None:
        """Write the state, with the log before it: what the state counts on must be on the disk first.

        Raises
        ------
        TrainingError
            When the last step has made a weight infinite; the state before stays.
        """
        self._check_weights()
        self.state.log_bytes = self.log.sync()
        training_state.write(self.folder.state, self.state)

    def _check_weights(self) -> None:
        """Refuse to go on with weights that are not finite."""
        state = self.state
        for flat in (
            state.values,
            state.velocity,
            *([] if state.average is None else [state.average]),
        ):
            if not np.isfinite(flat).all():
                wrong = [
                    name
                    for name, value in views(flat, state.spec).items()
                    if not np.isfinite(value).all()
                ]
                raise TrainingError(f"{wrong[0]} is not finite any more; {self._remedy()}")

    def stop(self) -> None:
        """Save the state in the middle of an epoch, and end.

        Raises
        ------
        KeyboardInterrupt
        """
        state = self.state
        self.save()
        raise KeyboardInterrupt(
            f"stopped after step {state.step} of {self.steps} in epoch {state.epoch + 1} of {state.recipe.epochs}; the state "
            f"is in {shown(self.folder.state)}: the same command with --resume goes on from there"
        )

    def diverged(self, loss: float) -> TrainingError:
        """The error for a loss that is not finite."""
        state, where = self.state, self.compute.first_not_finite() or "loss"
        return TrainingError(
            f"the loss is {loss} in step {state.step + 1} of epoch {state.epoch + 1}: the first value that is not finite is "
            f"that of {where}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        return f"the last good state is in {shown(self.folder.state)}; begin in another folder with a smaller --lr"

    def model(self) -> Model:
        """The network as it is now: the average of the weights where there is one."""
        spec, setting, recipe = self.state.spec, self.setting, self.state.recipe
        provenance = {
            "source": f"trained by tinyresnext {__version__}",
            "recipe": json.dumps(recipe.to_json()),
        }
        provenance |= {
            "seed": str(recipe.seed),
            "pictures": self.state.run["pictures"],
            "licence": "",
        }
        if self.state.top1 is not None:
            provenance["accuracy"] = f"{self.state.top1:.2%} top-1 of {self.state.tried:,} pictures"
        provenance |= setting.provenance
        params = views(self.state.result.copy(), spec)
        labels = tuple(setting.dataset.classes)
        return Model(
            spec, params, setting.preprocess, labels, provenance, setting.ops, setting.threads
        )

    def close(self) -> None:
        """Leave terminal and log."""
        self.progress.close()
        self.log.close()


def augment_as(recipe: Recipe, preprocess: Preprocess, dataset: Dataset, side: int) -> Augment:
    """The recipe's words for what happens to pictures, in those of `tinyresnext.images.augment`, for pictures of that side."""
    full = preprocess.crop
    if side != full:
        preprocess = replace(preprocess, crop=side, resize=round(preprocess.resize * side / full))
    jitter = recipe.jitter
    whole = preprocess.resize == preprocess.crop  # else the middle of a larger picture is seen
    of_size = whole and dataset.pixels is not None and dataset.pixels.shape[1:3] == (side, side)
    common = _common(preprocess) | {
        "flip": recipe.flip,
        "brightness": jitter,
        "contrast": jitter,
        "saturation": jitter,
    }
    common |= {
        "alternate": recipe.alternate,
        "lighting": recipe.lighting,
        "cutout": round(recipe.cutout * side / full),
    }
    if recipe.crop in ("resized", "torch7"):
        return Augment(**common, scale=(0.08, 1.0), even=recipe.crop == "torch7")
    resize = None if of_size else preprocess.resize
    if recipe.crop == "pad":
        padding = round(recipe.padding * side / full)
        return Augment(**common, resize=resize, padding=padding, fill=recipe.fill)
    return Augment(**common, resize=resize)


def without_chance(preprocess: Preprocess) -> Augment:
    """The pictures as the finished model will see them, but that each number is rounded to 8 bits after resizing."""
    return Augment(**_common(preprocess), resize=preprocess.resize)


def _common(preprocess: Preprocess) -> dict[str, Any]:
    """What `Augment` and `Preprocess` have in common."""
    return {name: getattr(preprocess, name) for name in ("mean", "std", "interpolation")} | {
        "size": preprocess.crop
    }
