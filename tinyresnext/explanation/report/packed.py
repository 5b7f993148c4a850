"""Maps as text for the page: 16-bit whole numbers in base64, with one scale for each group."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

__all__ = ["factor_for", "packed"]

LARGEST = 32767


def factor_for(sides: tuple[int, ...], most: int) -> int:
    """Return the power of two that makes both sides of a map at most ``most``."""
    factor = 1
    while -(-max(sides) // factor) > most:
        factor *= 2
    return factor


def packed(maps: np.ndarray, most: int, *, mean: bool = False) -> dict[str, Any]:
    """Return maps as a JSON object.

    Squares of ``factor`` x ``factor`` positions are added up, so that a map keeps its sum, and maps
    that add up still do. Each value errs by half of its scale at most.

    Parameters
    ----------
    maps : [groups, maps, h, w]
        The maps of a group share a scale.
    most : int
        The longest side that a map may have.
    mean : bool
        Take the mean of a square and not the sum, for maps that are only looked at; of a square at
        an edge, that of the positions that it has.
    """
    groups, count, h, w = maps.shape
    factor = factor_for((h, w), most)
    down, across = -(-h // factor), -(-w // factor)
    whole = np.zeros((groups, count, down * factor, across * factor))
    whole[:, :, :h, :w] = maps
    squares = whole.reshape(groups, count, down, factor, across, factor)
    small = squares.sum((3, 5))
    if mean:
        rows, columns = (np.minimum(factor, side - np.arange(0, side, factor)) for side in (h, w))
        small /= np.outer(rows, columns)
    scales = np.abs(small).max((1, 2, 3), initial=0.0) / LARGEST
    divided = small / np.where(scales > 0, scales, 1)[:, None, None, None]
    numbers = np.rint(divided).clip(-LARGEST, LARGEST).astype("<i2")
    return {
        "height": h,
        "width": w,
        "factor": factor,
        "maps": count,
        "scales": scales.tolist(),
        "data": base64.b64encode(numbers.tobytes()).decode("ascii"),
    }
