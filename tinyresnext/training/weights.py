"""All values of a network in one flat array, with the parameters as views into it.

So each update is one pass over memory, and a checkpoint is a few arrays. From the first
step of a run to the last, the arrays are in the backend's memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..network.resnext import parameters
from ..network.spec import Spec
from ..ops import Backend, reference
from ..ops.contract import Array

Views = dict[str, Array]
ARRAYS = ("values", "velocity", "average", "squares")  # of a state, in this order


def size(spec: Spec) -> int:
    """Return how many values all parameters have together, running statistics included."""
    return sum(map(math.prod, parameters(spec).values()))


def views(flat: Array, spec: Spec, ops: Backend = reference) -> Views:
    """Return every parameter of the network as a part of one flat array.

    Parameters
    ----------
    flat : [size(spec)]
    spec : Spec
    ops : Backend
        Whose array it is; by default a NumPy array.

    Returns
    -------
    dict of str to array
        In the order of `tinyresnext.network.resnext.parameters`.
    """
    found, start = {}, 0
    for name, shape in parameters(spec).items():
        found[name] = ops.view(flat, shape, start)
        start += math.prod(shape)
    return found


def not_finite(flat: np.ndarray, spec: Spec) -> str | None:
    """Return the name of the first parameter that is not finite; None if all are."""
    if np.isfinite(flat).all():
        return None
    return next(name for name, part in views(flat, spec).items() if not np.isfinite(part).all())


@dataclass(frozen=True, eq=False)
class Weights:
    """What a run changes, in the backend's memory.

    Attributes
    ----------
    ops : Backend
    values, velocity : [size(spec)]
        All parameters, and the memory of the momentum of each.
    average : [size(spec)], optional
        The moving average of the values.
    squares : [size(spec)], optional
        The averages of squared gradients, where the optimiser has them.
    params, velocities, second : dict of str to array
        Views of ``values``, ``velocity`` and ``squares``; the last has none without ``squares``.
    """

    ops: Backend
    values: Array
    velocity: Array
    average: Array | None
    squares: Array | None
    params: Views
    velocities: Views
    second: Views

    def download(self) -> dict[str, np.ndarray]:
        """Return the arrays that there are, by name, in NumPy; they may share memory with these."""
        arrays = {name: getattr(self, name) for name in ARRAYS}
        return {name: self.ops.download(a) for name, a in arrays.items() if a is not None}


def upload(
    ops: Backend,
    spec: Spec,
    values: np.ndarray,
    velocity: np.ndarray,
    average: np.ndarray | None,
    squares: np.ndarray | None = None,
) -> Weights:
    """Place the arrays of a training state on a device."""
    there, moving = ops.upload(values), ops.upload(velocity)
    averaged, squared = (None if flat is None else ops.upload(flat) for flat in (average, squares))
    params, velocities = (views(flat, spec, ops) for flat in (there, moving))
    second = {} if squared is None else views(squared, spec, ops)
    return Weights(ops, there, moving, averaged, squared, params, velocities, second)
