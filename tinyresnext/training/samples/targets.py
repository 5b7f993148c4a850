"""What a step is to learn of labels: targets for the loss of the head, and how much they weigh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...data.dataset import Dataset
from ...errors import UsageError
from ...network.spec import Spec
from ..recipes.parts import Loss

__all__ = ["Targets", "check_balance", "targets"]


@dataclass(frozen=True, eq=False)
class Targets:
    """How the labels of a data set become targets.

    Parameters
    ----------
    spec : Spec
        Its head decides.
    balance : [classes] or [2, classes] float32, optional
        How much a sample of each class weighs; under a sigmoid, how much a sample without each
        label, and how much one with it.
    softened : float
        The part of a target that all classes share, where the loss itself does not smooth so: it is
        the binary cross entropy of one label an image. Under a sigmoid, the part that goes towards
        one half, where targets are cut after that.
    threshold : float
        Targets above it become 1 and the others 0; 0 leaves them.
    """

    spec: Spec
    balance: np.ndarray | None
    softened: float = 0.0
    threshold: float = 0.0

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Return targets [n, classes] float32 for labels [n], or [n, classes] of 0 and 1."""
        found, part = self.known(labels), self.softened
        if not part:
            return found
        if self.spec.head == "sigmoid":
            return found * np.float32(1 - part) + np.float32(part / 2)
        return found * np.float32(1 - part) + np.float32(part / self.spec.classes)

    def known(self, labels: np.ndarray) -> np.ndarray:
        """Return what `rows` does, without smoothing: 0 and 1."""
        if labels.ndim == 2 or self.spec.labels != self.spec.classes:
            return labels.reshape(len(labels), self.spec.classes).astype(np.float32)
        found = np.zeros((len(labels), self.spec.classes), np.float32)
        found[np.arange(len(labels)), labels] = 1
        return found

    def cut(self, rows: np.ndarray) -> np.ndarray:
        """Return targets of 0 and 1, if the recipe has a threshold."""
        return (rows > self.threshold).astype(np.float32) if self.threshold else rows

    def weights(self, rows: np.ndarray) -> np.ndarray | None:
        """Return how much each sample, or each label of it, weighs; None if all weigh the same.

        A mixture of samples weighs as much as the same mixture of weights.
        """
        if self.balance is None:
            return None
        if self.balance.ndim == 1:
            weights: np.ndarray = rows @ self.balance
            return weights
        return (1 - rows) * self.balance[0] + rows * self.balance[1]

    def correct(self, logits: np.ndarray, labels: np.ndarray) -> int:
        """Return for how many samples everything is right."""
        if self.spec.head == "softmax":
            return int(np.count_nonzero(logits.argmax(1) == labels))
        return int(np.count_nonzero(((logits > 0) == (self.known(labels) == 1)).all(1)))


def targets(spec: Spec, dataset: Dataset, said: Loss) -> Targets:
    """Return how the labels of a data set become targets.

    Parameters
    ----------
    spec : Spec
    dataset : Dataset
    said : Loss
        With ``balance`` "weights" all classes weigh the same, however many images each has: a
        sample of a class of m images weighs n / (k m) where n images have k classes. Under a
        sigmoid, this holds for the images with and without each label.
    """
    # Elsewhere the loss smooths. What is cut must have been smoothed before.
    here = said.entropy == "binary" and (spec.head == "softmax" or said.threshold > 0)
    plain = Targets(spec, None, said.smoothing if here else 0.0, said.threshold)
    if said.balance != "weights":
        return plain
    if spec.head == "softmax":
        counts = np.bincount(dataset.labels, minlength=spec.classes)
        return replace(plain, balance=_inverse(counts, int(np.count_nonzero(counts))))
    having = plain.known(dataset.labels).sum(0, dtype=np.float64)
    return replace(plain, balance=_inverse(np.stack([len(dataset) - having, having]), 2))


def check_balance(spec: Spec, dataset: Dataset, said: Loss) -> None:
    """Refuse a balance that is not defined for the head of a network, or for the labels.

    Raises
    ------
    UsageError
    """
    if said.balance == "sampling" and dataset.labels.ndim == 2:
        raise UsageError(
            "images with several labels cannot be drawn so that all labels are as frequent; give "
            "--balance weights"
        )
    if said.balance == "weights" and said.entropy == "binary" and spec.head == "softmax":
        raise UsageError(
            "entropy is binary and balance weights: under a softmax head the weights of classes "
            "are defined for the softmax cross entropy; give --balance sampling"
        )


def _inverse(counts: np.ndarray, classes: int) -> np.ndarray:
    """Return n / (classes * count), for a mean weight of 1; 1 where there is no image."""
    total = counts.sum(0)
    found = np.where(counts > 0, total / (classes * np.maximum(counts, 1)), 1)
    return found.astype(np.float32)
