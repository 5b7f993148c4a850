"""The ops of a backend. What each means, takes and refuses: `tinyresnext.ops.shapes`."""

# ruff: noqa: D102 (the ops are documented once, in shapes)
from __future__ import annotations

from typing import Any, Protocol

from ..checks import Pair
from ..together import Reduce

Array = Any  # of the backend that is called


class Ops(Protocol):
    """The ops, forward."""

    def conv2d(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        dilation: Pair = 1,
        residual: Array | None = None,
        relu: bool = False,
        out: Array | None = None,
    ) -> Array: ...

    def batch_norm(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        mean: Array,
        var: Array,
        *,
        eps: float = 1e-5,
        out: Array | None = None,
    ) -> Array: ...

    def batch_norm_train(
        self,
        x: Array,
        scale: Array,
        shift: Array,
        residual: Array | None = None,
        *,
        eps: float = 1e-5,
        relu: bool = False,
        statistics: Array | None = None,
        reduce: Reduce | None = None,
        out: Array | None = None,
    ) -> Array: ...

    def relu(self, x: Array, *, out: Array | None = None) -> Array: ...

    def add(self, x: Array, y: Array, *, out: Array | None = None) -> Array: ...

    def excite(
        self,
        x: Array,
        s: Array,
        residual: Array | None = None,
        *,
        relu: bool = False,
        out: Array | None = None,
    ) -> Array: ...

    def max_pool2d(
        self,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        out: Array | None = None,
    ) -> Array: ...

    def avg_pool2d(
        self,
        x: Array,
        *,
        size: Pair,
        stride: Pair,
        padding: Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        out: Array | None = None,
    ) -> Array: ...

    def blur_pool(self, x: Array, *, stride: int = 2, out: Array | None = None) -> Array: ...

    def mean_pool(self, x: Array, *, keepdims: bool = False, out: Array | None = None) -> Array: ...

    def linear(
        self, x: Array, weight: Array, bias: Array, *, out: Array | None = None
    ) -> Array: ...

    def softmax(self, x: Array, *, out: Array | None = None) -> Array: ...

    def softmax_cross_entropy(
        self,
        x: Array,
        *,
        labels: Array,
        smoothing: float = 0.0,
        weights: Array | None = None,
        out: Array | None = None,
    ) -> Array: ...

    def binary_cross_entropy(
        self,
        x: Array,
        *,
        labels: Array,
        smoothing: float = 0.0,
        weights: Array | None = None,
        out: Array | None = None,
    ) -> Array: ...
