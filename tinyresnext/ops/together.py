"""What several processes that share a mini-batch add up, so that its batch norms see all of it.

Each has as many positions of a channel as it has images. ``reduce`` replaces a float64 array by its
sum over all processes; None means that there is one process.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Reduce = Callable[[Array], None]


def moments_of_all(
    mean: Array, var: Array, count: int, reduce: Reduce | None
) -> tuple[Array, Array]:
    """Return mean and biased variance of each channel over the positions of all processes.

    In float64 the difference of squares keeps the digits of a float32 variance, unless a mean is
    ten thousand times the standard deviation.

    Parameters
    ----------
    mean, var : [c]
        Of the positions that this process has.
    count : int
        How many these are.
    reduce : callable, optional
    """
    if reduce is None:
        return mean, var
    wide = np.asarray(mean, np.float64), np.asarray(var, np.float64)
    sums = np.concatenate([count * wide[0], count * (wide[1] + wide[0] * wide[0]), [count]])
    reduce(sums)
    mean, squares = sums[:-1].reshape(2, -1) / sums[-1]
    return mean, np.maximum(squares - mean * mean, 0)


def means_of_all(
    first: Array, second: Array, count: int, reduce: Reduce | None
) -> tuple[Array, Array]:
    """Return two sums of each channel [c], divided by the number of positions, of all processes."""
    if reduce is None:
        return first / count, second / count
    sums = np.concatenate([first, second, [count]]).astype(np.float64)
    reduce(sums)
    first, second = sums[:-1].reshape(2, -1) / sums[-1]
    return first, second
