"""The gradients of a backend's ops.

Every ``op`` has an ``op_backward(dy, y, *args, **attrs)`` that takes the gradient and the value of
the result and returns one gradient for each positional argument, in order (``None`` for an optional
one that was not given). `tinyresnext.ops.shapes.READ` says which values a gradient is computed
from.
"""

# ruff: noqa: D102 (they are documented once, above)
from __future__ import annotations

from typing import Protocol

from ..checks import Pair
from ..together import Reduce
from .forward import Array


class Gradients(Protocol):
    """The ops, backward."""

    def conv2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
    ) -> tuple[Array | None, ...]: ...

    def batch_norm_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        var: Array,
        *,
        eps: float = 1e-5,
    ) -> tuple[Array | None, ...]: ...

    def batch_norm_train_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        scale: Array,
        shift: Array,
        residual: Array | None = None,
        *,
        eps: float = 1e-5,
        relu: bool = False,
        statistics: Array | None = None,
        reduce: Reduce | None = None,
    ) -> tuple[Array | None, ...]: ...

    def relu_backward(self, dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]: ...

    def add_backward(self, dz: Array, z: Array, x: Array, y: Array) -> tuple[Array | None, ...]: ...

    def excite_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        s: Array,
        residual: Array | None = None,
        *,
        relu: bool = False,
    ) -> tuple[Array | None, ...]: ...

    def max_pool2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
    ) -> tuple[Array | None, ...]: ...

    def avg_pool2d_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> tuple[Array | None, ...]: ...

    def blur_pool_backward(
        self, dy: Array, y: Array, x: Array, *, stride: int = 2
    ) -> tuple[Array | None, ...]: ...

    def mean_pool_backward(
        self, dy: Array, y: Array, x: Array, *, keepdims: bool = False
    ) -> tuple[Array | None, ...]: ...

    def linear_backward(
        self, dy: Array, y: Array, x: Array, weight: Array, bias: Array
    ) -> tuple[Array | None, ...]: ...

    def softmax_backward(self, dy: Array, y: Array, x: Array) -> tuple[Array | None, ...]: ...

    def softmax_cross_entropy_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        labels: Array,
        smoothing: float = 0.0,
        weights: Array | None = None,
    ) -> tuple[Array | None, ...]: ...

    def binary_cross_entropy_backward(
        self,
        dy: Array,
        y: Array,
        x: Array,
        *,
        labels: Array,
        smoothing: float = 0.0,
        weights: Array | None = None,
    ) -> tuple[Array | None, ...]: ...
