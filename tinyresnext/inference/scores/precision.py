"""How well probabilities put the images that have a label before those that do not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Ranked", "ranked"]


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
