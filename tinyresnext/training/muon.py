"""Muon (Jordan 2024, "Muon: an optimizer for hidden layers in neural networks"): every direction of a matrix moves alike.

The gradient of a convolution has few strong directions and many weak ones, and SGD follows the
strong ones. Muon takes the matrix that is nearest to the gradient among those whose singular values
are all alike, so the weak ones are learnt as fast.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..network.resnext import parameters
from ..network.spec import Spec

MOMENTUM = 0.6  # Nesterov's; what Jordan's code for CIFAR-10 has, and so are the next two
STEPS = 3
A, B, C = (
    3.4445,
    -4.7750,
    2.0315,
)  # of the polynomial: steep at 0, and the numbers near 1 stay there
LEAST = np.float32(1e-7)


class Muon:
    """The step of the convolutions inside the blocks, in place; the weights of each group keep their norm.

    A batch norm follows each of these convolutions, so their norm means nothing, and the rate is
    the share by which a group's weights turn: it loses ``lr * norm / sqrt(rows)`` times the
    orthogonal matrix, where ``norm`` is its own.

    Parameters
    ----------
    params : dict of str to array
        All weights of the network, which change in place.
    velocity : dict of str to array
        The momentum's memory, of the same names and shapes; zeros at the beginning.
    spec : Spec
        Says which convolution has groups: the filters of each group are a matrix of their own.
    """

    def __init__(
        self, params: dict[str, np.ndarray], velocity: dict[str, np.ndarray], spec: Spec
    ) -> None:
        self.params, self.velocity = params, velocity
        self.groups = {
            name: spec.cardinality if name.endswith(".conv2.weight") else 1
            for name, shape in parameters(spec).items()
            if name.startswith("layer") and len(shape) == 4
        }

    def __call__(self, gradients: Mapping[str, np.ndarray], lr: float) -> None:
        """One step. ``gradients`` may have other names too, which are left alone."""
        for name, groups in self.groups.items():
            if name in gradients:
                self._turn(name, groups, gradients[name], np.float32(lr))

    def _turn(self, name: str, groups: int, gradient: np.ndarray, lr: np.float32) -> None:
        """One convolution."""
        memory = self.velocity[name]
        memory *= MOMENTUM
        memory += gradient
        ahead = gradient + MOMENTUM * memory
        weight = self.params[name].reshape(
            groups, len(gradient) // groups, -1
        )  # [groups, filters, values of a filter]
        norm = np.sqrt(np.square(weight).sum((1, 2), keepdims=True))
        weight -= (
            lr
            / np.sqrt(np.float32(weight.shape[1]))
            * norm
            * orthogonal(ahead.reshape(weight.shape))
        )
        weight *= norm / (np.sqrt(np.square(weight).sum((1, 2), keepdims=True)) + LEAST)


def orthogonal(matrices: np.ndarray) -> np.ndarray:
    """Matrices with the same singular vectors, and all singular values near 1, by Newton-Schulz steps.

    Parameters
    ----------
    matrices : [n, rows, columns] float32

    Returns
    -------
    [n, rows, columns] float32
        Singular values of at least a fiftieth of a matrix's norm are now between 0.68 and 1.21.
    """
    x = matrices / (np.sqrt(np.square(matrices).sum((1, 2), keepdims=True)) + LEAST)
    high = x.shape[1] > x.shape[2]
    if high:
        x = x.transpose(0, 2, 1)
    for _ in range(STEPS):
        gram = x @ x.transpose(0, 2, 1)
        x = np.float32(A) * x + (np.float32(B) * gram + np.float32(C) * (gram @ gram)) @ x
    return x.transpose(0, 2, 1) if high else x
