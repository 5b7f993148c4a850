"""What the outputs of a network mean: one class of several, one of two labels, or any of several.

The head of a `Spec` says which. A single output under a sigmoid is the same as two logits under a
softmax of which the first is zero, so all that is known of classes holds for its two labels too.
"""

from __future__ import annotations

from decimal import Decimal
from numbers import Real
from typing import NamedTuple

import numpy as np

from ..errors import IntegrityError, ShapeError, UsageError
from ..images.checks import whole_number
from ..network.spec import Spec

__all__ = [
    "THRESHOLD",
    "TOP",
    "Prediction",
    "both",
    "check_finite",
    "check_head",
    "check_probability",
    "check_ranking",
    "check_rows",
    "check_threshold",
    "checked_logits",
    "chosen",
    "percent",
    "same_first",
    "sigmoid",
]

THRESHOLD = 0.5
TOP = 5


class Prediction(NamedTuple):
    """One predicted class: its name, its number and its probability."""

    label: str
    index: int  # type: ignore[assignment]  # a field may hide the method of tuples
    probability: float


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return ``1 / (1 + exp(-logits))`` in float64, without overflow; of zero exactly one half."""
    wide = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(wide))
    probabilities: np.ndarray = np.where(wide < 0, small, 1) / (1 + small)
    return probabilities


def both(logits: np.ndarray) -> np.ndarray:
    """Return the logits of both labels [n, 2] of a single output [n, 1]."""
    return np.concatenate([np.zeros_like(logits), logits], 1)


def percent(threshold: float) -> str:
    """Return a threshold as a percentage with all its digits: it is never said to be another."""
    return f"{(100 * Decimal(repr(float(threshold)))).normalize():f}%"


def chosen(
    spec: Spec, logits: np.ndarray, row: np.ndarray, top: int | None, threshold: float | None
) -> list[int]:
    """Return the numbers of the labels to name, the most probable first.

    Parameters
    ----------
    spec : Spec
    logits : [outputs]
        These decide the order: probabilities that underflow, or are nearly 1, have none.
    row : [labels]
        The probability of each label.
    top : int, optional
        How many at most; by default `TOP`, or all that reach the threshold where an image has
        several labels.
    threshold : float, optional
        Where an image has several labels: the least probability of those that are named. For a
        single output: the probability from which on the second label comes first, by default one
        half.
    """
    order = np.argsort(-logits.astype(np.float64), kind="stable")
    if top is None:
        top = len(row) if threshold is not None and spec.several else TOP
    if spec.classes == 1:
        limit = THRESHOLD if threshold is None else threshold
        order = np.array([1, 0] if row[1] >= limit else [0, 1])
    elif threshold is not None:
        order = order[row[order] >= threshold]
    found: list[int] = order[:top].tolist()
    return found


def same_first(spec: Spec, logits: np.ndarray, others: np.ndarray) -> int | None:
    """Return for how many images both have the same first label, None if there is but one or none.

    Parameters
    ----------
    spec : Spec
    logits, others : [n, outputs]
    """
    if spec.labels < 2:
        return None
    if spec.classes == 1:
        found, wanted = sigmoid(logits) >= THRESHOLD, sigmoid(others) >= THRESHOLD
    else:
        found, wanted = logits.argmax(1), others.argmax(1)
    return int(np.count_nonzero(found == wanted))


def check_head(spec: Spec) -> None:
    """Raise `UsageError` unless there are labels to tell apart.

    A single class has 100 % under a softmax, whatever is seen.
    """
    if spec.labels == 0:
        raise UsageError(
            "the network has no classifier, so it names no classes; `tinyresnext finetune` gives "
            "it one for your images, and model.features(x) returns what it computes"
        )
    if spec.labels == 1:
        raise UsageError(
            "the network has a single output, and one class means nothing under a softmax: it "
            "would have 100 % for every image; if it was trained with a sigmoid, convert it again "
            "(--head sigmoid); else use a model of at least two classes"
        )


def check_threshold(spec: Spec, threshold: float | None) -> None:
    """Raise `UsageError` for a threshold that is no probability, or has nothing to decide."""
    check_probability(threshold)
    if threshold is not None and spec.head == "softmax":
        raise UsageError(
            "a threshold is for labels with probabilities of their own, and under the softmax of "
            "this model exactly one class holds; leave it out"
        )


def check_probability(threshold: float | None) -> None:
    """Raise `UsageError` for a threshold that is no probability."""
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)
    if threshold is not None and not (number and 0 <= threshold <= 1):
        raise UsageError(
            f"the threshold is {threshold!r}: expected a probability from 0 to 1, such as 0.5"
        )


def check_finite(logits: np.ndarray) -> None:
    """Raise `IntegrityError` if a logit is not finite."""
    if not np.isfinite(logits).all():
        raise IntegrityError(
            "the network's logits are not finite: its weights make it overflow; use other weights"
        )


def check_rows(spec: Spec, logits: np.ndarray) -> None:
    """Raise `UsageError` unless there is a row of logits for each image."""
    if np.ndim(logits) != 2 or np.shape(logits)[1] != spec.classes:
        raise UsageError(
            f"the logits are {np.shape(logits)}, expected (n, {spec.classes}): a row for each "
            "image, as calling the model returns them"
        )


def check_ranking(
    spec: Spec,
    labels: tuple[str, ...],
    logits: np.ndarray,
    top: int | None,
    threshold: float | None,
) -> None:
    """Raise an error unless the labels of logits can be ranked, as `Model.rank` says."""
    check_head(spec)
    check_threshold(spec, threshold)
    if top is not None:
        whole_number("top", top, 1)
    if len(labels) != spec.labels:
        raise ShapeError(f"the model has {len(labels)} labels for {spec.labels} classes; give each")
    check_rows(spec, logits)
    check_finite(logits)


def checked_logits(logits: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return logits in float64, if they have the expected shape and are finite."""
    found = np.asarray(logits, np.float64)
    if found.shape != shape:
        raise UsageError(
            f"the logits are {found.shape}, expected {shape}: a row for each image, and a column "
            "for each class; name the classes of this network"
        )
    check_finite(found)
    return found
