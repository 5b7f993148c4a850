"""The part of a recipe that says how the learning rate changes.

A moment of a run is given as a part of it, from 0 to 1, so that a recipe keeps its shape when it is
made shorter: the paper's cuts at epochs 150 and 225 of 300 are 0.5 and 0.75.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass

from .kinds import Choice, Fractions, Real, check_fields, setting


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes over the run.

    Parameters
    ----------
    lr : float
        The highest learning rate.
    schedule : {"step", "cosine", "linear"}
        After the warm-up: the rate is multiplied by ``gamma`` at each milestone; it follows half a
        cosine to zero; or a straight line to zero.
    milestones : tuple of float
        For "step": the parts of the run at which the rate falls. It falls with the first epoch
        (counted from 0) that reaches one.
    gamma : float
        For "step": what the rate is multiplied by.
    warmup : float
        The part of the run in which the rate rises, step by step, from nearly zero.
    """

    lr: float = setting(MISSING, Real(0, 1e3), "the highest learning rate")
    schedule: str = setting(
        MISSING, Choice(("step", "cosine", "linear")), "how the learning rate falls"
    )
    milestones: tuple[float, ...] = setting(
        (),
        Fractions(),
        "for step: parts of the run at which the learning rate falls, such as 0.5,0.75",
    )
    gamma: float = setting(
        0.1, Real(0, 1), "for step: what the learning rate is multiplied by at each of them"
    )
    warmup: float = setting(
        0.0, Real(0, 1), "the part of the run in which the learning rate rises, such as 0.2"
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def rate(self, highest: float, epoch: int, step: int, steps: int, epochs: int) -> float:
        """Return the rate of one step of a run whose highest rate is given.

        Parameters
        ----------
        highest : float
            ``lr``, or Muon's own.
        epoch, step : int
            Counted from 0; ``step`` within the epoch.
        steps, epochs : int
            Steps in an epoch, and epochs in the run.
        """
        done, total = epoch * steps + step, epochs * steps
        rising = math.ceil(self.warmup * total)
        if done < rising:
            return highest * (done + 1) / rising
        if self.schedule == "step":
            return highest * self.gamma ** sum(epoch / epochs >= part for part in self.milestones)
        part = (done - rising) / (total - rising)
        return highest * (
            0.5 * (1 + math.cos(math.pi * part)) if self.schedule == "cosine" else 1 - part
        )
