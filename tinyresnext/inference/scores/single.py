"""How right a network is about single images: what every result of an evaluation is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..heads import sigmoid

__all__ = ["ImageScore", "answer_scores", "class_scores", "label_scores"]


class ImageScore(NamedTuple):
    """How right a network is about one image, or the error of an image that cannot be read.

    Attributes
    ----------
    path : str
    right : tuple of int
        The network's classes that are right: one, or any number.
    error : str, optional
        Then there is nothing of the rest.
    named : tuple of int
        What the network names: its most probable class, or the labels above the threshold.
    probability : float, optional
        Of the class that is named.
    rank : int, optional
        The place of the right class, or of the first that is right, from 1.
    within : int, optional
        The same if only the classes of the data set count, where they are not all.
    loss : float, optional
        Cross entropy, in natural units.
    values : tuple of float
        What average precisions need: the logits of labels, or that of the second label of two.
    """

    path: str
    right: tuple[int, ...]
    error: str | None = None
    named: tuple[int, ...] = ()
    probability: float | None = None
    rank: int | None = None
    within: int | None = None
    loss: float | None = None
    values: tuple[float, ...] = ()


def class_scores(
    names: Sequence[str],
    logits: np.ndarray,
    truth: np.ndarray,
    own: np.ndarray,
    threshold: float | None,
) -> Iterator[ImageScore]:
    """Yield the score of each image that has one class.

    Of classes with equal logits, the one with the smaller number comes first, as in `Model.rank`;
    of two with a threshold, the second comes first from this probability on, as there.

    Parameters
    ----------
    names : sequence of str
    logits : [n, classes] float64
    truth : [n] int
        The right class.
    own : [k] int
        The classes of the data set, in increasing order.
    threshold : float, optional
        For two classes: the probability from which on the second is predicted.
    """
    every, count = np.arange(len(truth)), logits.shape[1]
    losses = _cross_entropy(logits, truth)
    values: list[tuple[float, ...]] = [()] * len(truth)
    order = logits
    if threshold is not None:
        margins = logits[:, 1] - logits[:, 0]  # how far the second is above the first
        values = [(v,) for v in margins.tolist()]
        second = sigmoid(margins) >= threshold
        order = np.stack([~second, second], 1).astype(np.float64)
    right = order[every, truth][:, None]
    before = (order > right) | ((order == right) & (np.arange(count) < truth[:, None]))
    named = order.argmax(1)
    columns = (
        truth.tolist(),
        named.tolist(),
        np.exp([-loss for loss in _cross_entropy(logits, named)]).tolist(),
        (before.sum(1) + 1).tolist(),
        (before[:, own].sum(1) + 1).tolist() if 1 < len(own) < count else [None] * len(truth),
        losses,
        values,
    )
    for name, one, first, probability, rank, within, loss, value in zip(
        names, *columns, strict=True
    ):
        yield ImageScore(name, (one,), None, (first,), probability, rank, within, loss, value)


def answer_scores(
    names: Sequence[str], logits: np.ndarray, rows: np.ndarray
) -> Iterator[ImageScore]:
    """Yield the score of each image of which several classes [n, classes] are right answers."""
    order = np.argsort(-logits, axis=1, kind="stable")
    hits = np.take_along_axis(rows, order, 1)
    ranks = np.where(hits.any(1), hits.argmax(1), hits.shape[1]) + 1
    parts = np.exp([-loss for loss in _cross_entropy(logits, order[:, 0])])
    for i, name in enumerate(names):
        first = (int(order[i, 0]),)
        yield ImageScore(name, _where(rows[i]), None, first, float(parts[i]), int(ranks[i]))


def label_scores(
    names: Sequence[str], logits: np.ndarray, rows: np.ndarray, threshold: float
) -> Iterator[ImageScore]:
    """Yield the score of each image that has any number of labels [n, labels]."""
    named = sigmoid(logits) >= threshold
    for i, name in enumerate(names):
        values = tuple(logits[i].tolist())
        yield ImageScore(name, _where(rows[i]), None, _where(named[i]), values=values)


def _where(row: np.ndarray) -> tuple[int, ...]:
    """Return the places at which a row is true."""
    return tuple(np.flatnonzero(row).tolist())


def _cross_entropy(logits: np.ndarray, classes: np.ndarray) -> list[float]:
    """Return the loss of each row of logits [n, all] for its class [n]."""
    largest = logits.max(1, keepdims=True)  # so that no exponential overflows
    exponentials = np.exp(logits - largest).sum(1, keepdims=True)
    own = logits[np.arange(len(classes)), classes][:, None]
    losses: list[float] = (np.log(exponentials) + largest - own).ravel().tolist()
    return losses
