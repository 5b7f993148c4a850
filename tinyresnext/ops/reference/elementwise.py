"""The definition of ReLU and the residual addition, and of their gradients."""

from __future__ import annotations

import numpy as np

from .. import shapes
from .windows import place

Array = np.ndarray


def relu(x: Array, *, out: Array | None = None) -> Array:
    """Return the larger of the value and zero."""
    shapes.relu(x, out=out)
    return place(np.maximum(x, 0), out)


def relu_backward(dy: Array, y: Array, x: Array) -> tuple[Array]:
    """Pass ``dy`` on where the input was positive; at zero the gradient is zero, as in PyTorch."""
    return (dy * (x > 0),)


def add(x: Array, y: Array, *, out: Array | None = None) -> Array:
    """Add value by value."""
    shapes.add(x, y, out=out)
    return place(x + y, out)


def add_backward(dz: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """Return ``dz`` for both summands."""
    return dz, dz
