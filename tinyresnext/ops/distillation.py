"""The loss of distillation: what labels say of an image, and what a teacher says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["Distillation", "distilled"]

Array = Any


@dataclass(frozen=True)
class Distillation:
    """How much a teacher counts (Hinton, Vinyals and Dean 2015, section 2).

    Parameters
    ----------
    weight : float
        The part of the loss that compares with the teacher, from 0 to 1; the rest is that of the
        labels.
    temperature : float
        By which the logits of both are divided before their softmax; above 0.
    """

    weight: float
    temperature: float

    def shares(self, weights: np.ndarray, soft: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return how much both cross entropies of each sample weigh.

        ``weights`` is how much its label weighs, and ``soft`` how much what the teacher says of it.
        """
        return (1 - self.weight) * weights, self.weight * self.temperature**2 * soft

    def constant(self, teacher: np.ndarray, soft: np.ndarray) -> float:
        """Return what `distilled` leaves out, which is not positive.

        It is the mean of ``w T^2 sum(q log(q))`` over the samples, as each weighs.
        """
        logarithms = np.log(teacher, where=teacher > 0, out=np.zeros(teacher.shape))
        return float((self.shares(soft, soft)[1] * (teacher * logarithms).sum(1)).mean())


def distilled(
    ops: ModuleType | Any,
    logits: Array,
    *,
    labels: Array,
    teacher: Array,
    shares: tuple[Array, Array],
    temperature: float,
    smoothing: float = 0.0,
    dtype: Any = None,
    at: Callable[[str, Array], Array] = lambda name, value: value,
) -> Array:
    """Compute ``(1 - w) CE(y, softmax(z)) + w T^2 KL(q, softmax(z / T))``, but for a constant.

    z are the logits, y the targets of the labels, q the probabilities of the teacher at temperature
    T. ``KL(q, p) = CE(q, p) - H(q)``, and the entropy H(q) does not depend on the network: it is
    left out here, and `Distillation.constant` has it. So two cross entropies are enough, which
    every backend has, and the chain rule finds their gradient:

        dCE(y, softmax(z)) / dz = softmax(z) - y
        dCE(q, softmax(z / T)) / dz = (softmax(z / T) - q) / T
        dloss / dz = (1 - w) (softmax(z) - y) + w T (softmax(z / T) - q)

    Let v be the teacher's logits. If z and v have a mean of zero, for a large T the last difference
    is about (z - v) / (T classes) (Hinton, Vinyals and Dean 2015, Equation 4). So the factor T^2 of
    the loss keeps the two parts of the gradient in the same proportion, whatever T is.

    Parameters
    ----------
    ops : backend
    logits : [n, classes]
    labels, teacher : [n, classes]
        Distributions: y and q.
    shares : ([n], [n])
        What `Distillation.shares` returned: 1 - w and w T^2, times the weight of each sample.
    temperature : float
    smoothing : float
        Label smoothing, of y alone.
    dtype : NumPy type
        Of the arrays, where ``logits`` only stand for them.
    at : callable
        It is called with the name and the value of each result, and returns the value.

    Returns
    -------
    a scalar, ``()``
    """
    colder = logits
    if temperature != 1:
        # A multiple of the identity is a classifier that divides; no backend has an op for that.
        classes, dtype = logits.shape[1], np.dtype(dtype or logits.dtype)
        divided = ops.upload(np.eye(classes, dtype=dtype) / dtype.type(temperature))
        colder = at("fc.colder", ops.linear(logits, divided, ops.upload(np.zeros(classes, dtype))))
    given, taught = shares
    hard = ops.softmax_cross_entropy(logits, labels=labels, smoothing=smoothing, weights=given)
    soft = ops.softmax_cross_entropy(colder, labels=teacher, weights=taught)
    return at("loss", ops.add(at("loss.labels", hard), at("loss.teacher", soft)))
