"""How the tasks of a step go through the samples of a mini-batch."""

from __future__ import annotations

from typing import NamedTuple


class Pace(NamedTuple):
    """The tasks of a step that takes one sample after the other.

    Attributes
    ----------
    samples : int
        Of the mini-batch.
    each : int
        Positions of a sample.
    tasks, length : int
        So many tasks do the next ``length`` positions: what they read and write of the values of
        samples belongs to the samples that have these positions.
    light : bool
        Whether the step only passes over values, so that reading them takes its time.
    """

    samples: int
    each: int
    tasks: int
    length: int
    light: bool = False

    def allowed(self, samples: int, tasks: int) -> int:
        """Return how many of all ``tasks`` need only the first ``samples``."""
        if samples == self.samples:
            return tasks
        return min(tasks, samples * self.each // self.length * self.tasks)

    def finished(self, done: int, tasks: int) -> int:
        """Return how many samples are complete when ``done`` of all ``tasks`` are.

        A step with all its tasks done holds nobody up, whatever samples these were of.
        """
        if done == tasks:
            return self.samples
        return done // self.tasks * self.length // self.each
