"""AdamW, LAMB and RMSprop: each weight has a rate of its own, from the average of its squares."""

from __future__ import annotations

from collections.abc import Mapping

from ...ops import Backend
from ...ops.contract import Array
from ..recipes.optimiser import Optimiser


def adaptive(
    ops: Backend,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    velocity: Mapping[str, Array],
    squares: Mapping[str, Array],
    settings: Optimiser,
    lr: float,
    done: int,
    scales: Mapping[str, float] | None = None,
) -> None:
    """Make one step for every weight that has a gradient, in place.

    Parameters
    ----------
    ops, params, gradients, velocity
        As for `sgd`; the formulas are those of the backend's ``adamw_step`` and so on.
    squares : mapping of str to array
        The averages of squared gradients; at the beginning 0, and for RMSprop 1.
    settings : Optimiser
        One of these three.
    lr : float
        The learning rate of this step.
    done : int
        How many steps were made before.
    scales : mapping of str to float, optional
        What the rate is multiplied by for some weights.
    """
    scales = scales or {}
    for name, gradient in gradients.items():
        arrays = params[name], gradient, velocity[name], squares[name]
        numbers = {
            "lr": lr * scales.get(name, 1.0),
            "momentum": settings.momentum,
            **settings.constants,
        }
        numbers["decay"] = settings.decay(gradient.shape)
        if settings.optimiser == "adamw":
            ops.adamw_step(*arrays, **numbers, step=done + 1)
        elif settings.optimiser == "lamb":
            ops.lamb_step(*arrays, **numbers, step=done + 1)
        else:
            ops.rmsprop_step(*arrays, **numbers)
