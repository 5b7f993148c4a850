"""What training does to weights and averages, in place: one pass over memory each, on all threads.

The arithmetic is that of `tinyresnext.ops.reference.update`, operation by operation, so the results
are the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from ..reference.update import muon_step, statistics_step
from .runtime.kernel import kernel
from .runtime.launch import launch
from .runtime.memory import Array, flat

# `muon_step` is a few products of small matrices, which NumPy's library computes on its own
# threads, and the running statistics are tiny: both are those of the reference.
__all__ = ["average_step", "muon_step", "sgd_step", "statistics_step"]


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
        average[i] += (values[i] - average[i]) * new


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
    w, v = flat("sgd_step", "weight", weight), flat("sgd_step", "velocity", velocity)
    g = flat("sgd_step", "gradient", gradient)
    launch(_sgd, w, g, v, np.float32(lr), np.float32(momentum), np.float32(decay), bool(nesterov))


def average_step(average: Array, values: Array, *, new: float) -> None:
    """Move an average in one pass: read two arrays, write one."""
    launch(
        _average,
        flat("average_step", "average", average),
        flat("average_step", "values", values),
        np.float32(new),
    )
