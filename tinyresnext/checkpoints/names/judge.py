"""Judging the numbers of a checkpoint by the names that its tensors get."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError, IntegrityError
from ..readers.checkpoint import Look
from . import layouts
from .schemes import Names

__all__ = ["judge"]


def judge(shapes: Mapping[str, tuple[int, ...]], named: Names) -> Look:
    """Return a function that refuses weights with NaN, infinite or negative-variance values.

    It receives the numbers of each tensor of the file.
    """
    wanted = {
        key: name
        for name, (keys, layout) in named.parts.items()
        if layout not in layouts.CONSTANTS
        for key in keys
    }
    sums = {
        key
        for keys, layout in named.parts.values()
        if layout is layouts.DEPTHWISE
        for key in keys[1:]
    }

    def look(key: str, at: int | None, numbers: NDArray) -> None:
        if key not in wanted:
            return
        name = wanted[key]
        if numbers.dtype != np.float32:
            raise FormatError(
                f"{name} ({numbers.dtype}) is not floating point; quantised weights are not read"
            )
        if not np.isfinite(numbers).all():
            raise IntegrityError(f"{name} has values that are NaN or infinite; use other weights")
        if name.endswith("running_var") and (numbers < 0).any():
            raise IntegrityError(f"{name} has negative variances; use other weights")
        if key not in sums:
            return
        if at is None:
            raise FormatError(
                f"{name}: the sum behind its depthwise kernel is not in C order; save it again in "
                "that order"
            )
        if not layouts.is_fixed_sum(shapes[key], at, numbers):
            raise IntegrityError(f"{name}: {layouts.OTHER_SUM}")

    return look
