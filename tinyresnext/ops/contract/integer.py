"""The functions for quantised networks; `tinyresnext.ops.shapes.integer` has their meaning."""

# ruff: noqa: D102 (the ops are documented once, in shapes)
from __future__ import annotations

from typing import Protocol

from ..checks import Pair
from .forward import Array


class Integer(Protocol):
    """What a backend has that computes with integers of 8 bits."""

    def pack_int8(self, weight: Array, groups: int) -> Array:
        """Lay an int8 weight out as this backend's ``conv2d_int8`` reads it fastest."""

    def quantise(
        self, x: Array, *, scale: float, signed: bool = False, out: Array | None = None
    ) -> Array: ...

    def dequantise(self, x: Array, *, scale: float, out: Array | None = None) -> Array: ...

    def conv2d_int8(
        self,
        x: Array,
        weight: Array,
        factor: Array,
        bias: Array,
        *,
        stride: Pair = 1,
        padding: Pair = 0,
        groups: int = 1,
        residual: Array | None = None,
        residual_scale: float = 1.0,
        relu: bool = False,
        scale: float | None = None,
        out: Array | None = None,
    ) -> Array: ...
