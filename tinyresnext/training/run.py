"""A training run that is going on: what each line of the loop in `train` does."""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..data.loader import Loader
from ..errors import TrainingError, UsageError, WeightsError
from ..inference.evaluate import judged
from ..inference.files import save
from ..inference.model import Model
from ..network.step import Step
from ..store.contents import Stored, documents_of, shapes_of
from ..system.files import shown
from ..system.version import __version__
from .optimisers.average import update_average, update_statistics
from .optimisers.muon import matrices
from .optimisers.update import update
from .record import curve
from .record import state as states
from .record.folder import TrainingFolder
from .record.log import Log, Progress, Stop
from .record.state import State
from .samples.augmentation import unchanged
from .samples.mixing import mixed
from .samples.targets import targets
from .setting import Setting
from .weights import ARRAYS, upload, views

DRAWN_EVERY = 10  # seconds: drawing the curve takes a fiftieth of one


class Run:
    """A run that is going on. Its weights are on the device from the first step to the last.

    Parameters
    ----------
    state : State
        Its counters change in place; its arrays are read at the beginning and set when it is saved.
    setting : Setting
    folder : TrainingFolder
    """

    def __init__(self, state: State, setting: Setting, folder: TrainingFolder) -> None:
        self.state, self.setting, self.folder = state, setting, folder
        spec, recipe = state.spec, state.recipe
        arrays = (getattr(state, name) for name in ARRAYS)
        self.weights = upload(setting.ops, spec, *arrays)
        self.targets = targets(spec, setting.dataset, recipe.loss)
        self.groups = matrices(spec) if recipe.optimiser.muon else {}
        self.compute = self._step_for(self.side)
        self.steps = len(setting.dataset) // recipe.batch
        self._drawn = time.monotonic()
        self.log = Log(folder.log, state.log_bytes)
        done = state.epoch * self.steps + state.step
        self.progress = Progress(recipe.epochs, self.steps, recipe.batch, done)

    @property
    def side(self) -> int:
        """Return the side of the images of this epoch."""
        return self.state.recipe.side(self.state.epoch, self.setting.preprocess.crop)

    def _step_for(self, side: int) -> Step:
        """Return what computes loss and gradients of images of that side."""
        spec, recipe, setting = self.state.spec, self.state.recipe, self.setting
        return Step(
            self.weights.params,
            spec,
            (recipe.batch, side, side, spec.channels),
            setting.ops,
            smoothing=0.0 if self.targets.softened else recipe.loss.smoothing,
            binary=recipe.loss.entropy == "binary",
            weighted=self.targets.balance is not None,
            frozen=setting.frozen,
            threads=setting.threads,
        )

    def samples(self, x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the images and targets of the next step: mixed, if the recipe mixes images."""
        state, loss = self.state, self.state.recipe.loss
        rng = np.random.default_rng([state.recipe.seed, 1, state.epoch * self.steps + state.step])
        x, rows = mixed(x, self.targets.rows(labels), loss, rng)
        return x, self.targets.cut(rows)

    def step(self, x: np.ndarray, labels: np.ndarray) -> None:
        """Make one step: loss, gradients, weights, running statistics, average.

        Raises
        ------
        TrainingError
            The loss is not finite; nothing has changed then.
        """
        state, ops = self.state, self.setting.ops
        done = state.epoch * self.steps + state.step
        x, rows = self.samples(x, labels)
        # Overflow is found in the loss, now or in the next step.
        with np.errstate(over="ignore", invalid="ignore"):
            loss, logits = self.compute(x, rows, self.targets.weights(rows))
            if not math.isfinite(loss):
                raise self.diverged(loss)
            with ops.on_threads(self.setting.threads):
                self._update(done)
        state.step += 1
        state.loss += loss
        state.correct += self.targets.correct(logits, labels)

    def _update(self, done: int) -> None:
        """Change the weights, the running statistics and the average, on the device."""
        recipe, weights, ops = self.state.recipe, self.weights, self.setting.ops
        now = self.state.epoch, self.state.step, self.steps
        update(weights, self.compute.gradients, recipe, self.groups, *now)
        update_statistics(ops, weights.params, self.compute.statistics, self.compute.positions)
        if weights.average is not None:
            update_average(ops, weights.average, weights.values, recipe.ema, done)

    def tell(self, seconds: float) -> None:
        """Report the step that has just been made."""
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
        """Evaluate the network on the validation set, and keep it if it is the best so far.

        Raises
        ------
        TrainingError
            The last step has made a weight infinite.
        """
        images, state = self.setting.validation, self.state
        if images is None:
            return {}
        self.download()
        resized = unchanged(self.setting.preprocess)

        def done(count: int) -> None:
            self.progress.say(f"validation {count} of {len(images)}")
            if stop.asked:
                self.stop()

        broken = self.setting.broken_in_validation
        with Loader(
            images, resized, batch=state.recipe.batch, shuffle=False, drop_last=False, broken=broken
        ) as loader:
            found = judged(self.model(), loader.epoch(0), progress=done)
        state.top1, state.tried, state.waited = found.score, found.pictures, state.waited + 1
        if state.best is None or found.score > state.best:
            state.best, state.waited = found.score, 0
            save(self.model(), self.folder.best, half=self.setting.half)
        return found.measures() | {"validation_loss": found.loss}

    def close_epoch(self, found: Mapping[str, float]) -> None:
        """Report the epoch, and save the state after it."""
        state, recipe, seen = self.state, self.state.recipe, self.steps * self.state.recipe.batch
        reported = {
            "learning_rate": recipe.learning_rate(state.epoch, self.steps - 1, self.steps),
            "loss": state.loss / self.steps,
            "accuracy": state.correct / seen,
            "seconds": state.seconds,
            "images_per_second": seen / max(state.seconds, 1e-9),
        }
        reported |= found
        short = {name: float(f"{value:.6g}") for name, value in reported.items()}
        self.log.line(epoch=state.epoch + 1, epochs=recipe.epochs, **short)
        self.progress.epoch(state.epoch, short)
        state.begin_epoch(state.epoch + 1)
        self.save()
        if not state.done and self.compute.x_shape[1] != self.side:
            del self.compute  # its memory is free before the next one takes some
            self.compute = self._step_for(self.side)

    def save(self) -> None:
        """Write the log and then the state, which records the log's length.

        Raises
        ------
        TrainingError
            The last step has made a weight infinite; the state on the disk stays.
        """
        self.download()
        self.state.log_bytes = self.log.sync()
        states.write(self.folder.state, self.state)
        if time.monotonic() - self._drawn > DRAWN_EVERY:
            self.draw()

    def draw(self) -> None:
        """Draw the curve of the epochs so far."""
        self._drawn = time.monotonic()
        curve.write(self.folder.curve, self.folder.log)

    def download(self) -> None:
        """Copy the arrays from the device to the state, if all are finite."""
        state, found = self.state, self.weights.download()
        for flat in found.values():
            if not np.isfinite(flat).all():
                named = views(flat, state.spec).items()
                wrong = next(name for name, value in named if not np.isfinite(value).all())
                raise TrainingError(f"{wrong} is not finite any more; {self._remedy()}")
        for kind, flat in found.items():
            setattr(state, kind, flat)

    def stop(self) -> None:
        """Save the state in the middle of an epoch, and end.

        Raises
        ------
        KeyboardInterrupt
        """
        state, how = self.state, "train or finetune again with resume=True"
        self.save()
        self.draw()
        if command := state.origin.get("command", "").split()[:2]:
            how = shown(" ".join([*command, "--resume", shlex.quote(str(self.folder.path))]))
        raise KeyboardInterrupt(
            f"stopped after step {state.step} of {self.steps} in epoch {state.epoch + 1} of "
            f"{state.recipe.epochs}; the state is in {shown(self.folder.state)}, and this goes on "
            f"from there: {how}"
        )

    def diverged(self, loss: float) -> TrainingError:
        """Return the error for a loss that is not finite."""
        state, where = self.state, self.compute.first_not_finite() or "loss"
        return TrainingError(
            f"the loss is {loss} in step {state.step + 1} of epoch {state.epoch + 1}: "
            f"the first value that is not finite is that of {where}; {self._remedy()}"
        )

    def _remedy(self) -> str:
        """Say what a user can do."""
        return (
            f"the last good state is in {shown(self.folder.state)}; begin in another folder with a "
            "smaller --lr"
        )

    def model(self) -> Model:
        """Return the network of the last download: with the averaged weights if there are any."""
        stored = contents(self.state, self.setting)
        params = views(self.state.result.copy(), self.state.spec)
        return Model(*stored._replace(params=params), self.setting.ops, self.setting.threads)

    def close(self) -> None:
        """End the progress line and close the log."""
        self.progress.close()
        self.log.close()


def contents(state: State, setting: Setting) -> Stored:
    """Return what a model file will hold, without the weights."""
    recipe = state.recipe
    provenance = {
        "source": f"trained by tinyresnext {__version__}",
        "recipe": json.dumps(recipe.to_json()),
        "seed": str(recipe.seed),
        "pictures": state.run["images"],
        "licence": "",
    }
    if state.top1 is not None:
        what = "mean average precision" if state.spec.several else "top-1"
        provenance["accuracy"] = f"{state.top1:.2%} {what} of {state.tried:,} images"
    provenance |= setting.provenance
    labels = tuple(setting.dataset.classes)
    return Stored(state.spec, {}, setting.preprocess, labels, provenance)


def check_savable(state: State, setting: Setting) -> None:
    """Refuse before the first step what could not be saved after the last.

    The texts of the model file are made and read, with the longest that the accuracy may become.

    Raises
    ------
    UsageError
    """
    tried = len(setting.validation or ())
    try:
        documents_of(contents(replace(state, top1=1.0, tried=tried), setting))
        shapes_of(state.spec)
    except WeightsError as error:
        raise UsageError(
            f"the model could not be saved in the end: {error}; rename that class, or give a "
            "shorter --licence in one line"
        ) from error
