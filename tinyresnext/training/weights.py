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
    params, velocities : dict of str to array
        Views of ``values`` and ``velocity``.
    """

    ops: Backend
    values: Array
    velocity: Array
    average: Array | None
    params: Views
    velocities: Views

    def download(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return values, velocity and average as NumPy arrays; they may share memory with these."""
        average = None if self.average is None else self.ops.download(self.average)
        return self.ops.download(self.values), self.ops.download(self.velocity), average


def upload(
    ops: Backend, spec: Spec, values: np.ndarray, velocity: np.ndarray, average: np.ndarray | None
) -> Weights:
    """Place the arrays of a training state on a device."""
    on_device = ops.upload(values), ops.upload(velocity)
    params, velocities = (views(flat, spec, ops) for flat in on_device)
    averaged = None if average is None else ops.upload(average)
    return Weights(ops, *on_device, averaged, params, velocities)
