"""The gradient of a mini-batch that is computed in parts, one after another."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...network.step import Step
from ...ops.contract import Array
from ..samples.dropping import Gates
from ..weights import Views, Weights
from .statistics import update_statistics


class Parts:
    """Loss and gradient of a mini-batch: the means of those of its parts, as PyTorch adds them up.

    Parameters
    ----------
    weights : Weights
        The running statistics among them move with every part, as PyTorch's do.
    gates : Gates
        Of one part.
    count : int
        How many parts there are.
    threads : int
    """

    def __init__(self, weights: Weights, gates: Gates, count: int, threads: int) -> None:
        self._ops, self._params, self._gates = weights.ops, weights.params, gates
        self._count, self._threads = count, threads
        self._mean: tuple[Array, Views] | None = None

    def computed(
        self,
        step: Step,
        x: np.ndarray,
        rows: np.ndarray,
        weights: np.ndarray | None,
        teacher: np.ndarray | None,
        soft: np.ndarray | None,
        kept: Mapping[str, np.ndarray],
    ) -> tuple[float, np.ndarray]:
        """Compute loss and logits of a mini-batch, and leave its gradient for `of`.

        Everything is as for `Step`, but for the whole mini-batch; ``kept`` is what
        `tinyresnext.training.samples.dropping.drawn` returned.

        With a loss that is not finite it ends at once, and the logits are those so far.
        """
        losses, logits = [], []
        for number in range(self._count):
            part = slice(number * step.x_shape[0], (number + 1) * step.x_shape[0])
            more = [None if one is None else one[part] for one in (weights, teacher, soft)]
            self._gates.open({name: one[part] for name, one in kept.items()})
            loss, found = step(x[part], rows[part], *more)
            losses.append(loss)
            logits.append(found)
            if not math.isfinite(loss):
                break
            with self._ops.on_threads(self._threads):
                update_statistics(self._ops, self._params, step.statistics, step.positions)
                if self._count > 1:
                    self._ops.average_step(
                        self.of(step)[0], step.buckets.flat, new=1 / (number + 1)
                    )
        return sum(losses) / len(losses), np.concatenate(logits)

    def of(self, step: Step) -> tuple[Array, Views]:
        """Return the gradient of the last mini-batch: as a flat array, and by name."""
        if self._count == 1:
            return step.buckets.flat, step.gradients
        if self._mean is None:
            self._mean = step.buckets.places(np.float32)
        return self._mean
