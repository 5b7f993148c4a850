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
        the binary cross entropy of one label an image, or classes have weights. Under a sigmoid,
        the part that goes towards one half, where targets are cut after that or labels have
        weights.
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

    def named(self, rows: np.ndarray) -> np.ndarray:
        """Return the labels [n], or [n, classes], of the larger part of each mixture of `rows`.

        They are those before smoothing, which changes no order, and does not cross one half.
        """
        found: np.ndarray = rows.argmax(1) if self.spec.head == "softmax" else rows > 0.5
        return found

    def cut(self, rows: np.ndarray) -> np.ndarray:
        """Return targets of 0 and 1, if the recipe has a threshold."""
        return (rows > self.threshold).astype(np.float32) if self.threshold else rows

    def weighed(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return targets, and how much each sample weighs, or each label of it.

        Each class of a mixture has its own weight, as in PyTorch's cross entropy: the loss is the
        sum of ``row * balance * -log(p)``. That is the loss of the targets that are returned, which
        sum to one again, times the weights that are returned. Without a balance, the rows are
        returned as they are, and None.
        """
        if self.balance is None:
            return rows, None
        if self.balance.ndim == 1:
            parts = rows * self.balance
            weights = parts.sum(1)
            return parts / weights[:, None], weights
        parts = rows * self.balance[1]
        weights = parts + (1 - rows) * self.balance[0]
        return parts / weights, weights

    def of_labels(self, labels: np.ndarray) -> np.ndarray | None:
        """Return how much a sample of each class weighs [n, 1], where `weighed` says otherwise.

        It does where targets are smoothed: then each class has a part in the weight.
        """
        if self.balance is None or not self.softened or self.balance.ndim == 2:
            return None
        return self.balance[labels][:, None]

    def correct(self, logits: np.ndarray, labels: np.ndarray) -> int:
        """Return for how many samples everything is right.

        With a loss that is not finite there are logits of the first parts of a mini-batch only.
        """
        labels = labels[: len(logits)]
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
        sigmoid, this holds for the images with and without each label; one that all images have,
        or none, weighs 1.
    """
    # Elsewhere the loss smooths. What is cut or weighed must have been smoothed before.
    weighed = said.balance == "weights"
    binary = said.entropy == "binary" and (spec.head == "softmax" or said.threshold > 0)
    plain = Targets(spec, None, said.smoothing if binary or weighed else 0.0, said.threshold)
    if not weighed:
        return plain
    if spec.head == "softmax":
        return replace(plain, balance=_inverse(np.bincount(dataset.labels, minlength=spec.classes)))
    having = plain.known(dataset.labels).sum(0, dtype=np.float64)
    return replace(plain, balance=_inverse(np.stack([len(dataset) - having, having])))


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


def _inverse(counts: np.ndarray) -> np.ndarray:
    """Return n / (k count) of k classes that have images, for a mean weight of 1; 1 for others."""
    total, classes = counts.sum(0), np.count_nonzero(counts, 0)
    found = np.where(counts > 0, total / (classes * np.maximum(counts, 1)), 1)
    return found.astype(np.float32)
