"""One change of all weights: which optimiser changes which, and at what rate."""

from __future__ import annotations

from collections.abc import Mapping

from ...ops.contract import Array
from ..recipes import Recipe
from ..weights import Weights
from .adaptive import adaptive
from .clip import clip
from .muon import muon
from .sgd import sgd


def update(
    weights: Weights,
    found: tuple[Array, Mapping[str, Array]],
    recipe: Recipe,
    groups: Mapping[str, int],
    scales: Mapping[str, float],
    epoch: int,
    step: int,
    steps: int,
) -> None:
    """Change the weights by their gradients, in place.

    Parameters
    ----------
    weights : Weights
    found : (array, mapping of str to array)
        The gradients as one flat array, and for every name that is trained. They are clipped here.
    recipe : Recipe
    groups : mapping of str to int
        What Muon trains: what `matrices` returned, or nothing.
    scales : mapping of str to float
        What the rates of some weights are multiplied by; see `layer_rates`.
    epoch, step, steps : int
        Where the run is; ``steps`` are those of an epoch.
    """
    (flat, gradients), how = found, recipe.optimiser
    ops, params, velocities = weights.ops, weights.params, weights.velocities
    now = epoch, step, steps
    clip(ops, params, flat, gradients, how)
    muon(ops, params, gradients, velocities, groups, recipe.muon_rate(*now), scales)
    others = {name: g for name, g in gradients.items() if name not in groups}
    rate = recipe.learning_rate(*now)
    if how.optimiser == "sgd":
        sgd(ops, params, others, velocities, how, rate, scales)
    else:
        done = epoch * steps + step
        adaptive(ops, params, others, velocities, weights.second, how, rate, done, scales)
