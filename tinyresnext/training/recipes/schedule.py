"""The part of a recipe that says how the learning rate changes.

A moment of a run is given as a part of it, from 0 to 1, so that a recipe keeps its shape when it is
made shorter: the paper's cuts at epochs 150 and 225 of 300 are 0.5 and 0.75.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass

from ...errors import UsageError
from .kinds import Choice, Flag, Fractions, Real, check_fields, setting


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
    warmup_from : float
        What the rate begins with, as a part of ``lr``. With 0 the first step has the rate of a
        first equal step up; else it has this one, and the first after the warm-up has ``lr``, as
        PyTorch and timm have it.
    lowest : float
        For "cosine" and "linear": where the rate ends, as a part of ``lr``.
    constant : float
        For these: the part of the run, at its end, in which the rate stays lowest (timm's
        cool-down). Where that and the warm-up are the whole run, it is lowest right after the
        warm-up.
    from_start : bool
        For these: whether the curve begins with the run, so that the warm-up takes the place of its
        first part, as timm has it; else it begins after the warm-up.
    changes : {"step", "epoch"}
        How often the rate changes.
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

    warmup_from: float = setting(
        0.0, Real(0, 1), "the first learning rate, as a part of --lr, such as 0.01"
    )
    lowest: float = setting(
        0.0, Real(0, 1), "for cosine and linear: the last learning rate, as a part of --lr"
    )
    constant: float = setting(
        0.0, Real(0, 1), "for these: the part of the run at its end in which it stays lowest"
    )
    from_start: bool = setting(
        False, Flag(), "for these: begin the curve with the run, behind the warm-up"
    )
    changes: str = setting("step", Choice(("step", "epoch")), "how often the learning rate changes")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.schedule == "step" and (self.lowest or self.constant or self.from_start):
            raise UsageError(
                "schedule is step, which has milestones: lowest, constant and from_start are "
                "settings of cosine and linear; leave them out"
            )
        if self.warmup_from and not self.warmup:
            raise UsageError(
                f"warmup_from is {self.warmup_from:g} and warmup 0: give the part of the run in "
                "which the rate rises, such as warmup 0.05"
            )
        if self.warmup + self.constant > 1:
            raise UsageError(
                f"warmup is {self.warmup:g} and constant {self.constant:g}: together they are at "
                "most the whole run, 1"
            )

    def rising(self, total: int) -> int:
        """Return in how many of so many steps, or epochs, the rate rises."""
        return math.ceil(self.warmup * total - 1e-9)  # 0.07 * 100 is a little above 7

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
        if self.changes == "epoch":
            step, steps = 0, 1
        done, total = epoch * steps + step, epochs * steps
        rising, level = self.rising(total), round(self.constant * total)
        if done < rising:
            if self.warmup_from:
                return highest * (self.warmup_from + (1 - self.warmup_from) * done / rising)
            return highest * (done + 1) / rising
        if self.schedule == "step":
            return highest * self.gamma ** sum(epoch / epochs >= part for part in self.milestones)
        first = 0 if self.from_start else rising
        falling = total - level - first
        part = min(1.0, (done - first) / falling) if falling > 0 else 1.0
        shape = 0.5 * (1 + math.cos(math.pi * part)) if self.schedule == "cosine" else 1 - part
        return highest * (self.lowest + (1 - self.lowest) * shape)
