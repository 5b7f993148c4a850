"""What a step leaves out of the network: drawn by place, as everything else of a step.

A gate is the ``s`` of `tinyresnext.ops.shapes.excite`: the sigmoid of infinity is 1, that of minus
infinity 0. What is kept is multiplied by ``1 / (1 - p)``, which a batch norm with fixed statistics
does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...network.resnext import Drop as Dropped
from ...network.spec import Spec, blocks
from ...ops import Backend
from ..recipes.parts import Drop

__all__ = ["Gates", "drawn", "drop_rates"]


def drop_rates(spec: Spec, said: Drop) -> dict[str, float]:
    """Return with which probability a sample of each block's result is left out.

    The first block has 0, the last what is said, and between them it grows by equal steps (the
    linear decay rule of Huang et al. 2016, as timm counts the blocks). ``pooled`` is the
    probability of each feature before the classifier. What has 0 is not there.
    """
    names = [block.name for block in blocks(spec)]
    last = max(len(names) - 1, 1)
    found = {name: said.drop_path * i / last for i, name in enumerate(names)}
    found["pooled"] = said.dropout
    return {name: probability for name, probability in found.items() if probability}


def drawn(
    rates: Mapping[str, float],
    spec: Spec,
    count: int,
    place: Sequence[int],
    own: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Draw what is kept of a mini-batch of ``count`` samples.

    Parameters
    ----------
    rates : mapping of str to float
        What `drop_rates` returned.
    spec : Spec
    count : int
    place : sequence of int
        What seeds the draws.
    own : (first, last), optional
        The samples that are wanted; by default all.

    Returns
    -------
    dict of str to array
        For each block bool [count]; for the features bool [count, features].
    """
    rng, part = np.random.default_rng(place), slice(*own) if own else slice(None)
    shapes = {name: (count, spec.features) if name == "pooled" else (count,) for name in rates}
    return {name: (rng.random(shapes[name]) >= rate)[part] for name, rate in rates.items()}


class Gates:
    """What is left out, in the backend's memory: gates that are open or closed, and scales.

    Parameters
    ----------
    ops : Backend
    spec : Spec
    rates : mapping of str to float
        What `drop_rates` returned.
    count : int
        How many samples go through the network at once.
    dtype : NumPy type

    Attributes
    ----------
    rates : mapping of str to float
    drops : dict of str to Drop
        As a `tinyresnext.network.step.Step` takes them.
    """

    def __init__(
        self,
        ops: Backend,
        spec: Spec,
        rates: Mapping[str, float],
        count: int,
        dtype: type = np.float32,
    ) -> None:
        self.rates, self._ops, self.drops = rates, ops, dict[str, Dropped]()
        channels = {block.name: block.c_out for block in blocks(spec)}
        for name, rate in rates.items():
            c = channels.get(name, spec.features)
            ones: np.ndarray = np.ones(c, dtype)
            zeros: np.ndarray = np.zeros(c, dtype)
            scale, shift, mean, var = ones / dtype(1 - rate), zeros, zeros.copy(), ones.copy()
            norm = ops.upload(scale), ops.upload(shift), ops.upload(mean), ops.upload(var)
            self.drops[name] = ops.upload(np.full((count, 1, 1, c), np.inf, dtype)), norm

    def open(self, kept: Mapping[str, np.ndarray]) -> None:
        """Open the gates of what is kept, and close the others."""
        for name, (gate, _) in self.drops.items():
            wide = kept[name].reshape(len(kept[name]), 1, 1, -1)
            values = np.where(np.broadcast_to(wide, tuple(gate.shape)), np.inf, -np.inf)
            self._ops.upload(values.astype(gate.dtype), out=gate)
