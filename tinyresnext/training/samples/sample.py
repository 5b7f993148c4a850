"""The images of a step and all that it is to learn of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...inference.heads import check_finite
from ...network.spec import Spec
from ..recipes import Recipe
from ..setting import Setting
from .mixing import mixed
from .targets import targets
from .teacher import distillation

__all__ = ["Sample", "Samples"]


class Sample(NamedTuple):
    """What a step sees.

    Attributes
    ----------
    x : [n, h, w, channels] float32
        Mixed, if the recipe mixes images.
    labels : [n], or [n, classes] of 0 and 1
        Of the image that is the larger part of each mixture.
    rows : [n, classes] float32
        The targets of their mixture.
    teacher : [n, classes] float32, optional
        The probabilities of the teacher at the temperature.
    soft : [n] float32, optional
        How much these weigh, where that is not what the targets weigh: smoothing concerns the label
        alone.
    """

    x: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    teacher: np.ndarray | None
    soft: np.ndarray | None


class Samples:
    """How images become what a step sees, in a run.

    Parameters
    ----------
    spec : Spec
    recipe : Recipe
    setting : Setting

    Attributes
    ----------
    targets : Targets
    distillation : Distillation, optional
        If there is a teacher.
    """

    def __init__(self, spec: Spec, recipe: Recipe, setting: Setting) -> None:
        self.targets = targets(spec, setting.dataset, recipe.loss)
        self._recipe, self._setting = recipe, setting
        self._teacher = setting.teacher if recipe.loss.teacher_weight else None
        self.distillation = None if self._teacher is None else distillation(recipe)
        self._part = recipe.batch // setting.ranks.count // recipe.parts
        self._stored = None
        if self._teacher is not None and self.distillation is not None:
            temperature = self.distillation.temperature
            self._stored = self._teacher.remembered(setting.dataset, temperature)

    def of(self, x: np.ndarray, images: np.ndarray, step: int, before: int | None = None) -> Sample:
        """Return the samples of a step, counted from the first of the run.

        Parameters
        ----------
        x : [n, h, w, channels] float32
        images : [n]
            Their numbers in the data set.
        step : int
        before : int, optional
            How many of the first images are left out after mixing, since they are only neighbours
            of others; by default those that other ranks have.

        Raises
        ------
        IntegrityError
            What the teacher says is not finite.
        """
        recipe, labels = self._recipe, self._setting.dataset.labels[images]
        rng = np.random.default_rng([recipe.seed, 1, step])
        known = [] if self._stored is None else [self._stored[images]]
        soft = None if self._teacher is None else self.targets.of_labels(labels)
        known += [] if soft is None else [soft]
        rows = np.concatenate([self.targets.rows(labels), *known], axis=1)
        x, rows = mixed(x, rows, recipe.loss, rng)
        before = self._setting.before(recipe) if before is None else before
        classes = self.targets.spec.classes
        x, rows = x[before:], rows[before:]
        soft = None if soft is None else np.ascontiguousarray(rows[:, -1])
        taught = self._said(x, rows[:, classes : 2 * classes])
        rows = np.ascontiguousarray(rows[:, :classes])
        return Sample(x, self.targets.named(rows), self.targets.cut(rows), taught, soft)

    def _said(self, x: np.ndarray, stored: np.ndarray) -> np.ndarray | None:
        """Return what the teacher says of images, or has said."""
        if self._teacher is None or self.distillation is None:
            return None
        if self._stored is not None:
            check_finite(stored)
            return np.ascontiguousarray(stored)
        preprocess, temperature = self._setting.preprocess, self.distillation.temperature
        return self._teacher.probabilities(x, preprocess, temperature, self._part)
