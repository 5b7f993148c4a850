"""What probabilities are worth: whether they put the right images first, and mean what they say."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from decimal import ROUND_FLOOR, Decimal
from fractions import Fraction
from typing import NamedTuple

import numpy as np

__all__ = ["Calibration", "Ranked", "calibration", "ranked", "shortest"]

BINS = 15  # as Guo et al. (2017) have it


class Ranked(NamedTuple):
    """What a label's scores are worth at all thresholds; None where no image has the label.

    Attributes
    ----------
    average_precision : float, optional
        The mean of the precisions at which each image with the label is found: the sum over
        thresholds of precision times the rise of the recall, without interpolation, as
        scikit-learn's ``average_precision_score`` has it.
    best : float, optional
        The score from which on naming the label gives the highest F1.
    f1 : float, optional
        That F1: the harmonic mean of precision and recall.
    """

    average_precision: float | None
    best: float | None
    f1: float | None


def ranked(scores: np.ndarray, truth: np.ndarray) -> Ranked:
    """Return how well scores [n] tell the images that have a label from the others.

    Parameters
    ----------
    scores : [n] floats
    truth : [n] bool
    """
    if not truth.any():
        return Ranked(None, None, None)
    order = np.argsort(-scores, kind="stable")
    # Images of equal scores are named together, so only the last of them is a threshold.
    last = np.append(np.diff(scores[order]) != 0, True)
    right = np.cumsum(truth[order])[last]
    named = np.flatnonzero(last) + 1
    precision, recall = right / named, right / truth.sum()
    rise = np.diff(recall, prepend=0.0)
    f1 = 2 * right / (named + truth.sum())
    best = int(f1.argmax())
    threshold = float(scores[order][last][best])
    return Ranked(float((precision * rise).sum()), threshold, float(f1[best]))


def shortest(threshold: float, scores: np.ndarray) -> float:
    """Return a number of few digits that names the same of some scores as a threshold does.

    It is not above the threshold, and above all scores that are below it: 0.9996 where the
    threshold is 0.99964 and the next score 0.9991. It has three decimals, or as many as it needs.
    """
    below = max(scores[scores < threshold].tolist(), default=-1.0)
    exact = Decimal(float(threshold))
    tries = (exact.quantize(Decimal(1).scaleb(-n), ROUND_FLOOR) for n in itertools.count(3))
    return next(found for found in map(float, tries) if found > below)


class Calibration(NamedTuple):
    """Whether the class that is named is right as often as its probability says.

    Attributes
    ----------
    confidence : float
        The mean probability of the class that is named.
    error : float
        How far probabilities are from how often they are right: the images are put into 15 bins of
        equal width by this probability; the error is the mean over all images of the distance, in
        their bin, between the mean probability and the part that is right (Guo et al. 2017, "On
        Calibration of Modern Neural Networks", equation 3).
    """

    confidence: float
    error: float


def calibration(found: Iterable[tuple[float, bool]]) -> Calibration | None:
    """Return the calibration, given each image's probability and whether it is right.

    Sums are exact, so the order of the images does not matter. None without images.
    """
    count, total, above = 0, Fraction(0), [Fraction(0)] * BINS
    for probability, right in found:
        count, total = count + 1, total + Fraction(probability)
        above[min(int(probability * BINS), BINS - 1)] += Fraction(probability) - right
    if not count:
        return None
    return Calibration(float(total / count), float(sum(map(abs, above)) / count))
