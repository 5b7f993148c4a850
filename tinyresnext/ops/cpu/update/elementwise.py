"""What training does to weights and averages, in place: one pass over memory each, on all threads.

The arithmetic is that of `tinyresnext.ops.reference.update`, operation by operation, so the results
are the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from ...reference.update import (
    clip_norm_step,
    clip_units_step,
    clip_value_step,
    statistics_step,
    trust,
)
from ..runtime.kernel import kernel
from ..runtime.launch import launch
from ..runtime.memory import Array, changed, flat

# The running statistics are tiny, and gradients are clipped in two passes over memory at most: for
# these the reference is used.
__all__ = [
    "adamw_step",
    "average_step",
    "clip_norm_step",
    "clip_units_step",
    "clip_value_step",
    "lamb_step",
    "rmsprop_step",
    "sgd_step",
    "statistics_step",
]


# --- kernels --------------------------------------------------------------------------------------


@kernel(parallel=True)
def _sgd(weight, gradient, velocity, lr, momentum, decay, nesterov):
    """Update each weight and its velocity."""
    for i in prange(len(weight)):
        step = weight[i] * decay + gradient[i]
        v = velocity[i] * momentum + step
        velocity[i] = v
        weight[i] -= (step + v * momentum if nesterov else v) * lr


@kernel(parallel=True)
def _average(average, values, new):
    """Move each average towards its value."""
    for i in prange(len(average)):
        average[i] = values[i] if new == 1 else average[i] + (values[i] - average[i]) * new


@kernel(parallel=True)
def _adamw(weight, gradient, velocity, squares, lr, new, beta2, fresh, root, eps, kept):
    """Update each weight and its two moments."""
    for i in prange(len(weight)):
        w = weight[i] * kept
        v = velocity[i] + (gradient[i] - velocity[i]) * new
        s = squares[i] * beta2 + gradient[i] * gradient[i] * fresh
        velocity[i], squares[i] = v, s
        weight[i] = w - v / (math.sqrt(s) / root + eps) * lr


@kernel(parallel=True)
def _lamb(weight, gradient, velocity, squares, update, scale, new, beta2, fresh, root, eps, decay):
    """Compute the direction of each weight, and update its two moments."""
    for i in prange(len(weight)):
        v = velocity[i] + (gradient[i] - velocity[i]) * new
        s = squares[i] * beta2 + gradient[i] * gradient[i] * fresh
        velocity[i], squares[i] = v, s
        update[i] = v * scale / (math.sqrt(s) / root + eps) + weight[i] * decay


@kernel(parallel=True)
def _move(weight, update, ratio, lr):
    """Subtract a part of the direction from each weight."""
    for i in prange(len(weight)):
        weight[i] -= update[i] * ratio * lr


@kernel(parallel=True)
def _rmsprop(weight, gradient, velocity, squares, lr, momentum, fresh, eps, decay):
    """Update each weight, its velocity and the average of its squared gradient."""
    for i in prange(len(weight)):
        g = weight[i] * decay + gradient[i]
        s = squares[i] + (g * g - squares[i]) * fresh
        v = velocity[i] * momentum + g / math.sqrt(s + eps) * lr
        squares[i], velocity[i] = s, v
        weight[i] -= v


# --- public functions -----------------------------------------------------------------------------


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
    """Make one step of stochastic gradient descent in one pass: read three arrays, write two."""
    w, v = changed("sgd_step", "weight", weight), changed("sgd_step", "velocity", velocity)
    g = flat("sgd_step", "gradient", gradient)
    launch(_sgd, w, g, v, np.float32(lr), np.float32(momentum), np.float32(decay), bool(nesterov))


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
    """Make one step of AdamW in one pass: read four arrays, write three."""
    numbers = lr / (1 - momentum**step), 1 - momentum, beta2, 1 - beta2
    more = math.sqrt(1 - beta2**step), eps, 1 - lr * decay
    arrays = _flat("adamw_step", weight, gradient, velocity, squares)
    launch(_adamw, *arrays, *map(np.float32, (*numbers, *more)))


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
    """Make one step of LAMB in two passes, with the norms of weight and direction between them."""
    arrays = _flat("lamb_step", weight, gradient, velocity, squares)
    update = np.empty_like(weight)
    numbers = 1 / (1 - momentum**step), 1 - momentum, beta2, 1 - beta2
    more = math.sqrt(1 - beta2**step), eps, decay
    launch(_lamb, *arrays, update.reshape(-1), *map(np.float32, (*numbers, *more)))
    ratio = trust(weight, update) if decay else 1
    launch(_move, arrays[0], update.reshape(-1), np.float32(ratio), np.float32(lr))


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
    """Make one step of RMSprop in one pass: read four arrays, write three."""
    arrays = _flat("rmsprop_step", weight, gradient, velocity, squares)
    launch(_rmsprop, *arrays, *map(np.float32, (lr, momentum, 1 - beta2, eps, decay)))


def _flat(
    word: str, weight: Array, gradient: Array, velocity: Array, squares: Array
) -> tuple[Array, ...]:
    """Return the four arrays of an adaptive optimiser as flat ones; three of them are changed."""
    w, g = changed(word, "weight", weight), flat(word, "gradient", gradient)
    return w, g, changed(word, "velocity", velocity), changed(word, "squares", squares)


def average_step(average: Array, values: Array, *, new: float) -> None:
    """Move an average in one pass: read two arrays, write one."""
    launch(
        _average,
        changed("average_step", "average", average),
        flat("average_step", "values", values),
        np.float32(new),
    )
