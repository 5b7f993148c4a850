"""The definition of what training does to weights, averages and running statistics, in place."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
# This and the next two are those of Jordan's code for CIFAR-10.
MUON_MOMENTUM = 0.6  # Nesterov's momentum coefficient
NEWTON_SCHULZ_STEPS = 3
# Coefficients of the polynomial: it is steep at 0, and values near 1 stay near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
LEAST_NORM = np.float32(1e-7)


def sgd_step(
    weight: Array,
    gradient: Array,
    velocity: Array,
    *,
    lr: float,
    momentum: float,
    decay: float,
    nesterov: bool,
) -> None:
    """Make a step of stochastic gradient descent with momentum, as ``torch.optim.SGD`` defines it.

    ``m = momentum * m + g``, with ``g`` the gradient plus ``decay`` times the weight. ``lr * m`` is
    subtracted from the weight, or with Nesterov's momentum (Sutskever et al. 2013) ``lr * (g +
    momentum * m)``.
    """
    step = weight * decay + gradient
    velocity *= momentum
    velocity += step
    weight -= (step + velocity * momentum if nesterov else velocity) * lr


def muon_step(weight: Array, gradient: Array, velocity: Array, *, groups: int, lr: float) -> None:
    """Make a step of Muon (Jordan, 2024), which changes the weights of each group as a matrix.

    From the matrix ``W`` of a group, ``lr * |W| / sqrt(rows)`` times `orthogonal` of its gradient
    with Nesterov's momentum is subtracted. Then ``W`` is scaled to the norm that it had before: a
    batch norm follows each of these convolutions, so their norm has no effect.
    """
    velocity *= MUON_MOMENTUM
    velocity += gradient
    ahead = gradient + MUON_MOMENTUM * velocity
    w = weight.reshape(groups, len(gradient) // groups, -1)  # [groups, filters, values of a filter]
    norm = np.sqrt(np.square(w).sum((1, 2), keepdims=True))
    rate = np.float32(lr) / np.sqrt(np.float32(w.shape[1]))
    w -= rate * norm * orthogonal(ahead.reshape(w.shape))
    w *= norm / (np.sqrt(np.square(w).sum((1, 2), keepdims=True)) + LEAST_NORM)


def orthogonal(matrices: Array) -> Array:
    """Return matrices with the same singular vectors and singular values near 1.

    They are computed by Newton-Schulz steps.

    Parameters
    ----------
    matrices : [n, rows, columns] float32

    Returns
    -------
    [n, rows, columns] float32
        Singular values of at least a fiftieth of a matrix's norm are now between 0.68 and 1.21.
    """
    x = matrices / (np.sqrt(np.square(matrices).sum((1, 2), keepdims=True)) + LEAST_NORM)
    high = x.shape[1] > x.shape[2]
    if high:
        x = x.transpose(0, 2, 1)
    a, b, c = map(np.float32, NEWTON_SCHULZ)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(0, 2, 1)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.transpose(0, 2, 1) if high else x


def average_step(average: Array, values: Array, *, new: float) -> None:
    """Compute ``average += new * (values - average)``."""
    average += (values - average) * new


def statistics_step(mean: Array, var: Array, statistics: Array, *, count: int, new: float) -> None:
    """Move the running mean and variance as PyTorch does.

    The statistics are those of ``count`` values. The running variance is the unbiased one, and for
    a single value the biased one.
    """
    unbiased = statistics[1] * (count / max(count - 1, 1))
    for running, value in ((mean, statistics[0]), (var, unbiased)):
        running *= 1 - new
        running += new * value
