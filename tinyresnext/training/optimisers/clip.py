"""Gradients that are too large are made smaller before they change the weights."""

from __future__ import annotations

from collections.abc import Mapping

from ...ops import Backend
from ...ops.contract import Array
from ..recipes.optimiser import Optimiser


def clip(
    ops: Backend,
    params: Mapping[str, Array],
    flat: Array,
    gradients: Mapping[str, Array],
    settings: Optimiser,
) -> None:
    """Clip gradients in place, as a recipe says.

    Parameters
    ----------
    ops : Backend
    params : mapping of str to array
        The weights.
    flat : [size]
        All gradients as one array, with zeros between them.
    gradients : mapping of str to array
        The same, by name.
    settings : Optimiser
        Its ``clip`` and ``clip_at``.
    """
    if settings.clip == "norm":
        ops.clip_norm_step(flat, most=settings.clip_at)
    elif settings.clip == "value":
        ops.clip_value_step(flat, most=settings.clip_at)
    elif settings.clip == "adaptive":
        for name, gradient in gradients.items():
            if not name.startswith("fc."):  # as timm spares the classifier
                ops.clip_units_step(gradient, params[name], most=settings.clip_at)
