"""Scales for the values of a network: what an integer of 8 bits stands for.

A value of a layer has some range. A scale for its largest number (`maximum`) loses nothing beyond
the range, but a few very large numbers then make the steps coarse for all others. A smaller scale
cuts these off. Three ways propose one, from a histogram of a value's numbers over some images:

* ``maximum``: the largest number is the last integer;
* ``percentile``: 99.99 % of the numbers are inside;
* ``squares``: of many ranges, the one with the least sum of squared errors in the histogram.

Other images then decide: of the three, the one is taken with the least squared error there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ...errors import IntegrityError
from ...ops import reference
from .quantised import METHODS, Scale

BINS = 4096
INSIDE = 0.9999  # the part of the numbers that `percentile` keeps
RANGES = 128  # that `squares` tries
MOST = 1 << 18  # numbers of a value that are counted for a mini-batch
# A scale for values that were zero in all images; smaller numbers than this count as zero.
LEAST = 2.0**-100


def sample(values: np.ndarray) -> np.ndarray:
    """Return at most about `MOST` numbers of an array [..., channels], from all of its channels."""
    step = max(1, values.size // MOST)
    while math.gcd(step, values.shape[-1]) > 1:
        step += 1
    return values.reshape(-1)[::step]


class Histogram:
    """How often numbers of each size occurred, whatever their sign.

    The range doubles when a larger number comes: two bins become one. So one pass over the images
    is enough.

    Attributes
    ----------
    counts : [BINS] int64
    reach : float
        The end of the last bin.
    largest : float
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.reach = self.largest = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count the numbers of an array [..., channels], or so many of them as `sample` returns.

        Raises
        ------
        IntegrityError
            A number is not finite.
        """
        largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
        if not np.isfinite(largest):
            raise IntegrityError(
                "a value of the network is not finite for a calibration image; use other weights"
            )
        largest = largest if largest >= LEAST else 0.0  # for float32, bins would be too narrow
        self.largest = max(self.largest, largest)
        self.reach = self.reach or largest
        while largest > self.reach:
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.concatenate([pairs, np.zeros_like(pairs)])
            self.reach *= 2
        sizes, each = np.abs(sample(values)), BINS / self.reach if self.reach else 0.0
        bins = np.minimum((sizes * each).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def ranges(self, levels: int) -> dict[str, float]:
        """Return the largest number that each of `quantised.METHODS` keeps.

        Parameters
        ----------
        levels : int
            The last integer: 127 or 255.
        """
        ends = self.reach * np.arange(1, BINS + 1) / BINS
        inside = np.cumsum(self.counts) >= INSIDE * self.counts.sum()
        tried = [end for end in ends[BINS // RANGES - 1 :: BINS // RANGES] if end <= self.largest]
        tried.append(self.largest)
        found = self.largest, min(self.largest, float(ends[inside.argmax()]))
        return dict(zip(METHODS, (*found, self._least(tried, levels)), strict=True))

    def _least(self, tried: Iterable[float], levels: int) -> float:
        """Return the range with the least sum of squared errors, taken at the middle of bins."""
        middles = self.reach * (np.arange(BINS) + 0.5) / BINS

        def error(end: float) -> float:
            step = end / levels
            integers = np.minimum(np.rint(middles / step), levels)
            return float(self.counts @ (middles - step * integers) ** 2)

        return min((end for end in tried if end > 0), key=error, default=0.0)


class Candidates:
    """The scales that were proposed for a value, and the error of each on other images.

    Parameters
    ----------
    histogram : Histogram
    signed : bool
        Whether the value has negative numbers.
    """

    def __init__(self, histogram: Histogram, signed: bool) -> None:
        self.signed, levels = signed, 127 if signed else 255
        self.scales = {
            method: max(LEAST, float(np.float32(end / levels)))
            for method, end in histogram.ranges(levels).items()
        }
        self.errors = dict.fromkeys(self.scales, 0.0)
        self.squares = 0.0

    def measure(self, values: np.ndarray) -> None:
        """Add the squared errors for the numbers of an array, or for those of its `sample`."""
        values = sample(values)
        self.squares += float(np.square(values, dtype=np.float64).sum())
        for method, scale in self.scales.items():
            integers = reference.quantise(values, scale=scale, signed=self.signed)
            lost = values - reference.dequantise(integers, scale=scale)
            self.errors[method] += float(np.square(lost, dtype=np.float64).sum())

    def best(self) -> Scale:
        """Return the scale with the least error; of equal ones, the first method's."""
        method = min(self.errors, key=self.errors.__getitem__)
        error = self.errors[method] / self.squares if self.squares else 0.0
        return Scale(self.scales[method], method, error)


def best_of(candidates: Mapping[str, Candidates]) -> dict[str, Scale]:
    """Return the best scale of each value."""
    return {name: found.best() for name, found in candidates.items()}
