"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Mapping

from ...ops import Backend
from ...ops.contract import Array
from ..recipes.optimiser import Optimiser


def sgd(
    ops: Backend,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    velocity: Mapping[str, Array],
    settings: Optimiser,
    lr: float,
    scales: Mapping[str, float] | None = None,
) -> None:
    """Make one step of SGD for every weight that has a gradient, in place.

    Parameters
    ----------
    ops : Backend
        Whose arrays these are; its ``sgd_step`` has the formula.
    params, velocity : mapping of str to array
        Weights, and the memory of the momentum, of the same names and shapes; zeros at the
        beginning.
    gradients : mapping of str to array
        For every name that is trained.
    settings : Optimiser
    lr : float
        The learning rate of this step.
    scales : mapping of str to float, optional
        What it is multiplied by for some weights.
    """
    scales = scales or {}
    for name, gradient in gradients.items():
        ops.sgd_step(
            params[name],
            gradient,
            velocity[name],
            lr=lr * scales.get(name, 1.0),
            momentum=settings.momentum,
            decay=settings.decay(gradient.shape),
            nesterov=settings.nesterov,
        )
