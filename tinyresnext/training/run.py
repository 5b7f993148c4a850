"""A training run that is going on: what each line of the loop in `train` does."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from ..data.loader import Loader
from ..errors import TrainingError, UsageError
from ..inference.evaluate import judged
from ..inference.files import save
from ..inference.model import Model
from ..network.step import Step
from ..system.console import tell
from ..system.ranks import all_have, by_the_first, part_of
from .optimisers.muon import matrices
from .optimisers.parts import Parts
from .optimisers.rates import layer_rates
from .optimisers.update import update
from .record import curve
from .record import state as states
from .record.begin import (
    costing_no_step,
    diverged,
    how_to_go_on,
    save_stopped,
    smaller_rate,
)
from .record.contents import model_of
from .record.folder import TrainingFolder
from .record.log import Log, Progress, Stop
from .record.silent import Silent
from .record.state import State
from .samples.augmentation import unchanged
from .samples.dropping import Gates, drawn, drop_rates
from .samples.sample import Samples
from .setting import Setting
from .weights import ARRAYS, not_finite, upload

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
        self.weights = upload(setting.ops, spec, *(getattr(state, name) for name in ARRAYS))
        self.samples = Samples(spec, recipe, setting)
        self.targets = self.samples.targets
        self.groups = matrices(spec) if recipe.optimiser.muon else {}
        rates, part = drop_rates(spec, recipe.drop), recipe.batch // setting.ranks.count
        self.gates = Gates(setting.ops, spec, rates, part // recipe.parts)
        self.scales = layer_rates(spec, recipe.optimiser.layer_decay)
        self.gradients = Parts(self.weights, self.gates, recipe.parts, setting.threads)
        self.compute = self._step_for(self.side)
        self.steps = len(setting.dataset) // recipe.batch
        self._drawn = time.monotonic()
        self.log: Log | Silent = Silent()
        self.progress: Progress | Silent = Silent()
        by_the_first(setting.ranks, self._open)  # of several, one leaves something on the disk

    def _open(self) -> None:
        """Open the log and begin the progress line."""
        state, recipe = self.state, self.state.recipe
        self.log = Log(self.folder.log, state.log_bytes)
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
            (recipe.batch // setting.ranks.count // recipe.parts, side, side, spec.channels),
            setting.step_ops(recipe),
            smoothing=0.0 if self.targets.softened else recipe.loss.smoothing,
            binary=recipe.loss.entropy == "binary",
            weighted=self.targets.balance is not None,
            distillation=self.samples.distillation,
            drops=self.gates.drops,
            frozen=setting.frozen,
            threads=setting.threads,
            ranks=setting.ranks,
            sync_norm=setting.sync_norm,
        )

    def step(self, x: np.ndarray, images: np.ndarray) -> None:
        """Make one step: loss, gradients, weights, running statistics, average.

        Parameters
        ----------
        x : [n, h, w, channels] float32
        images : [n]
            Their numbers in the data set.

        Raises
        ------
        TrainingError
            The loss is not finite; the weights have not changed then.
        """
        state, ops, ranks = self.state, self.setting.ops, self.setting.ranks
        seen = self.samples.of(x, images, state.epoch * self.steps + state.step)
        place = [state.recipe.seed, 2, state.epoch * self.steps + state.step]
        own = part_of(ranks, state.recipe.batch)
        chosen = drawn(self.gates.rates, state.spec, state.recipe.batch, place, own)
        # Overflow is found in the loss, now or in the next step.
        with np.errstate(over="ignore", invalid="ignore"):
            given = seen.x, *self.targets.weighed(seen.rows), seen.teacher, seen.soft
            loss, logits = self.gradients.computed(self.compute, *given, chosen)
            found = np.array([loss / ranks.count, self.targets.correct(logits, seen.labels)])
            ranks.sum(found)
            loss = float(found[0])
            if not math.isfinite(loss):
                raise diverged(loss, self.compute.first_not_finite(), state, self.folder)
            with ops.on_threads(self.setting.threads):
                self._update()
        state.step += 1
        state.loss += loss
        state.correct += int(found[1])

    def _update(self) -> None:
        """Change the weights and the average, on the device."""
        state, recipe, weights, ops = self.state, self.state.recipe, self.weights, self.setting.ops
        now = state.epoch, state.step, self.steps
        update(weights, self.gradients.of(self.compute), recipe, self.groups, self.scales, *now)
        if weights.average is not None and (left := recipe.kept(*now)) is not None:
            ops.average_step(weights.average, weights.values, new=1 - left)

    def tell(self, seconds: float) -> None:
        """Report the step that has just been made."""
        state = self.state
        state.seconds += seconds
        loss, accuracy = state.loss / state.step, state.correct / (state.step * state.recipe.batch)
        self.progress.step(state.epoch, state.step, seconds, loss, accuracy)
        made = state.epoch * self.steps + state.step  # since the run began
        if self.setting.log_every and made % self.setting.log_every == 0:
            found = {"loss": float(f"{loss:.6g}"), "accuracy": float(f"{accuracy:.6g}")}
            line = {"epoch": state.epoch + 1, "step": state.step} | found
            self._tell_log(line)

    def _tell_log(self, line: dict[str, Any]) -> None:
        """Add a line to the log; if that cannot be done, keep the state first, if there is room."""
        try:
            by_the_first(self.setting.ranks, lambda: self.log.line(**line))
        except UsageError:
            with suppress(UsageError):
                self.keep()
            raise

    def validate(self, stop: Stop) -> dict[str, float]:
        """Evaluate the network on the validation set, and keep it if it is the best so far.

        Of several ranks, the first does it, and the others wait.

        Raises
        ------
        TrainingError
            The last step has made a weight infinite.
        Exception
            An image cannot be used, or whatever else; the state is saved (`costing_no_step`).
        """
        if self.setting.validation is None:
            return {}
        self.download()
        with costing_no_step(self.keep):
            found, judgement = by_the_first(self.setting.ranks, lambda: self._judged(stop))
        for name, value in judgement.items():
            setattr(self.state, name, value)
        return found

    def _judged(self, stop: Stop) -> tuple[dict[str, float], dict[str, Any]]:
        """Return what is measured, and what changes in the state."""
        images, state = self.setting.validation, self.state
        assert images is not None
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
        state.top1, state.tried, waited = found.score, found.pictures, state.waited + 1
        if state.best is None or found.score > state.best:
            save(self.model(), self.folder.best, half=self.setting.half)  # else it is not the best
            state.best, waited = found.score, 0
        state.waited = waited
        judgement = {name: getattr(state, name) for name in ("top1", "tried", "waited", "best")}
        return found.measures() | {"validation_loss": found.loss}, judgement

    def close_epoch(self, found: Mapping[str, float]) -> None:
        """Report the epoch, and save the state after it."""
        state, recipe, seen = self.state, self.state.recipe, self.steps * self.state.recipe.batch
        reported = {
            "learning_rate": recipe.learning_rate(state.epoch, self.steps - 1, self.steps),
            "loss": state.loss / self.steps,
            "accuracy": state.correct / seen,
            "seconds": state.seconds,
            "images_per_second": seen / max(state.seconds, 1e-9),
        } | dict(found)
        short = {name: float(f"{value:.6g}") for name, value in reported.items()}
        line = {"epoch": state.epoch + 1, "epochs": recipe.epochs} | short
        self.progress.epoch(state.epoch, short)
        state.begin_epoch(state.epoch + 1)  # the validation is not to be made twice
        self._tell_log(line)
        self.save()
        if not all_have(self.setting.ranks, state.values):
            raise TrainingError(
                "the ranks do not have the same weights any more: give them processors of one kind"
            )
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
        by_the_first(self.setting.ranks, self._write)
        if self.setting.ranks.rank == 0 and time.monotonic() - self._drawn > DRAWN_EVERY:
            self.draw()

    def keep(self) -> None:
        """Save the state before an error that is not one of training ends the run, and say so."""
        self.save()
        if self.setting.ranks.rank == 0:
            where = how_to_go_on(self.state, self.steps, self.folder, self.setting.ranks.count)
            tell(f"the run ends {where}")

    def _write(self) -> None:
        """Do in the first rank what `save` says."""
        self.state.log_bytes = self.log.sync()
        states.write(self.folder.state, self.state)

    def draw(self) -> None:
        """Draw the curve of the epochs so far, as long as it can be drawn; in the first rank."""
        right = curve.write(self.folder.curve, self.folder.log)
        self._drawn = time.monotonic() if right else math.inf

    def download(self) -> None:
        """Copy the arrays from the device to the state, if all are finite."""
        state, found = self.state, self.weights.download()
        for flat in found.values():
            if (wrong := not_finite(flat, state.spec)) is not None:
                raise TrainingError(f"{wrong} is not finite any more; {smaller_rate(self.folder)}")
        for kind, flat in found.items():
            setattr(state, kind, flat)

    def stop(self) -> None:
        """Save the state in the middle of an epoch, and end; of several ranks, the first does it.

        Raises
        ------
        KeyboardInterrupt
        """
        self.download()
        self._write()
        model = save_stopped(self.state, self.setting, self.steps, self.folder)
        where = how_to_go_on(self.state, self.steps, self.folder, self.setting.ranks.count, model)
        self.draw()
        raise KeyboardInterrupt(f"stopped {where}")

    def model(self) -> Model:
        """Return the network of the last download: with the averaged weights if there are any."""
        return model_of(self.state, self.setting)

    def close(self) -> None:
        """End the progress line and close the log."""
        self.progress.close()
        self.log.close()
