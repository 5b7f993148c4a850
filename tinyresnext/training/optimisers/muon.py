"""Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks").

The gradient of a convolution has few strong directions and many weak ones, and SGD follows the
strong ones. Muon takes the matrix that is nearest to the gradient among those whose singular values
are all equal, so the weak directions are learnt as fast.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...network.resnext import parameters
from ...network.spec import Spec
from ...ops import Backend
from ...ops.contract import Array


def matrices(spec: Spec) -> dict[str, int]:
    """Return the convolutions that Muon trains, those inside the blocks, each with its groups.

    The filters of each group are a matrix of their own. The layers of squeeze and excitation are
    not among them: no batch norm follows these, so the norm of their weights matters.
    """
    return {
        name: spec.cardinality if name.endswith(".conv2.weight") else 1
        for name, shape in parameters(spec).items()
        if name.startswith("layer") and len(shape) == 4 and ".se." not in name
    }


def muon(
    ops: Backend,
    params: Mapping[str, Array],
    gradients: Mapping[str, Array],
    velocity: Mapping[str, Array],
    groups: Mapping[str, int],
    lr: float,
    scales: Mapping[str, float] | None = None,
) -> None:
    """Make one step of Muon, in place, for every weight of ``groups`` that has a gradient.

    Parameters
    ----------
    ops, params, gradients, velocity
        As for `sgd`; the formula is ``muon_step`` of the backend.
    groups : mapping of str to int
        What `matrices` returned. Gradients with other names are left alone.
    lr : float
        The rate of this step: the relative size of the update of a group's weights.
    scales : mapping of str to float, optional
        What it is multiplied by for some weights.
    """
    scales = scales or {}
    for name, count in groups.items():
        if name in gradients:
            rate = lr * scales.get(name, 1.0)
            ops.muon_step(params[name], gradients[name], velocity[name], groups=count, lr=rate)
