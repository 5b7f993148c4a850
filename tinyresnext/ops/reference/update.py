"""The definition of what training does to weights, averages and running statistics, in place."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray
# This and the next two are those of Jordan's code for CIFAR-10.
MUON_MOMENTUM = 0.6  # Nesterov's momentum coefficient
NEWTON_SCHULZ_STEPS = 3
# Coefficients of the polynomial: it is steep at 0, and values near 1 stay near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
LEAST_NORM = np.float32(1e-7)
CLIP_EPS, LEAST_UNIT = 1e-6, 1e-3  # PyTorch's and timm's, and timm's


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
    ahead = MUON_MOMENTUM * velocity
    ahead += gradient
    w = weight.reshape(groups, len(gradient) // groups, -1)  # [groups, filters, values of a filter]
    norm = np.sqrt(np.square(w).sum((1, 2), keepdims=True))
    rate = np.float32(lr) / np.sqrt(np.float32(w.shape[1]))
    step = orthogonal(ahead.reshape(w.shape))
    step *= rate * norm
    w -= step
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
    one = np.eye(x.shape[1], dtype=np.float32)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(0, 2, 1)
        x = (a * one + b * gram + c * (gram @ gram)) @ x
    return x.transpose(0, 2, 1) if high else x


def adamw_step(
    weight: Array,
    gradient: Array,
    velocity: Array,
    squares: Array,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
    step: int,
) -> None:
    """Make a step of AdamW (Loshchilov and Hutter 2019), as ``torch.optim.AdamW`` defines it.

    ``m`` and ``s`` are the moving averages of the gradient and of its square, each divided by what
    it lacks of a whole average after ``step`` steps, counted from 1. The weight is multiplied by
    ``1 - lr * decay``, and ``lr * m / (sqrt(s) + eps)`` is subtracted.
    """
    weight *= 1 - lr * decay
    _average_moments(gradient, velocity, squares, momentum, beta2)
    root = math.sqrt(1 - beta2**step)
    weight -= velocity / (np.sqrt(squares) / root + eps) * (lr / (1 - momentum**step))


def lamb_step(
    weight: Array,
    gradient: Array,
    velocity: Array,
    squares: Array,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
    step: int,
) -> None:
    """Make a step of LAMB (You et al. 2020), as ``timm.optim.Lamb`` defines it.

    Its direction ``u`` is that of `adamw_step`, plus ``decay`` times the weight. What is subtracted
    is ``lr * u``, with ``decay`` multiplied by `trust`. The clipping of all gradients together,
    which timm's class does too, is not part of it.
    """
    _average_moments(gradient, velocity, squares, momentum, beta2)
    root = math.sqrt(1 - beta2**step)
    update = velocity * (1 / (1 - momentum**step)) / (np.sqrt(squares) / root + eps)
    if decay:
        update += weight * decay
        update *= trust(weight, update)
    weight -= update * lr


def trust(weight: Array, update: Array) -> Array:
    """Return how large the update of LAMB may be: ``|W| / |u|``, and 1 where one of them is 0."""
    norm, own = (np.sqrt(np.square(a).sum()) for a in (weight, update))
    return norm / own if norm > 0 and own > 0 else np.ones_like(norm)


def rmsprop_step(
    weight: Array,
    gradient: Array,
    velocity: Array,
    squares: Array,
    *,
    lr: float,
    momentum: float,
    beta2: float,
    eps: float,
    decay: float,
) -> None:
    """Make a step of RMSprop as TensorFlow has it, as ``timm.optim.RMSpropTF`` defines it.

    ``s`` is the moving average of the squared gradient and begins with 1; ``beta2`` is called alpha
    there. ``v = momentum * v + lr * g / sqrt(s + eps)`` is subtracted, with ``g`` the gradient plus
    ``decay`` times the weight.
    """
    g = weight * decay + gradient
    squares += (np.square(g) - squares) * (1 - beta2)
    velocity *= momentum
    velocity += g / np.sqrt(squares + eps) * lr
    weight -= velocity


def _average_moments(
    gradient: Array, velocity: Array, squares: Array, momentum: float, beta2: float
) -> None:
    """Move the averages of the gradient and of its square."""
    velocity += (gradient - velocity) * (1 - momentum)
    squares *= beta2
    squares += np.square(gradient) * (1 - beta2)


def clip_norm_step(gradient: Array, *, most: float) -> None:
    """Scale a gradient to a norm of ``most`` at most, as PyTorch's ``clip_grad_norm_`` does."""
    norm = np.sqrt(np.square(gradient).sum())
    gradient *= np.minimum(most / (norm + CLIP_EPS), 1)


def clip_value_step(gradient: Array, *, most: float) -> None:
    """Move values that are further than ``most`` from zero there (``clip_grad_value_``)."""
    np.clip(gradient, -most, most, out=gradient)


def clip_units_step(gradient: Array, weight: Array, *, most: float) -> None:
    """Scale the gradient of each unit to ``most`` times the norm of its weights, at most.

    It is adaptive gradient clipping (Brock et al. 2021), as timm has it. The units are the filters;
    a vector is one unit. A norm of weights counts as `LEAST_UNIT` at least.
    """
    units = len(weight) if weight.ndim > 1 else 1
    g, w = gradient.reshape(units, -1), weight.reshape(units, -1)
    own, norm = (np.sqrt(np.square(a).sum(1, keepdims=True)) for a in (g, w))
    largest = np.maximum(norm, LEAST_UNIT) * most
    np.copyto(g, g * (largest / np.maximum(own, CLIP_EPS)), where=own >= largest)


def average_step(average: Array, values: Array, *, new: float) -> None:
    """Compute ``average += new * (values - average)``; with 1 it becomes the values themselves."""
    np.copyto(average, values if new == 1 else average + (values - average) * new)


def statistics_step(mean: Array, var: Array, statistics: Array, *, count: int, new: float) -> None:
    """Move the running mean and variance as PyTorch does.

    The statistics are those of ``count`` values. The running variance is the unbiased one, and for
    a single value the biased one.
    """
    unbiased = statistics[1] * (count / max(count - 1, 1))
    for running, value in ((mean, statistics[0]), (var, unbiased)):
        running *= 1 - new
        running += new * value
