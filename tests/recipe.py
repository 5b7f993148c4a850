"""Weights and images that are computed from a name, so that none need to be stored.

The first eight bytes of the name's sha256 seed PCG64; the top 24 bits of its raw 64-bit stream are
scaled to a uniform number in [-1, 1). This needs integers and one multiplication only, so the
values are the same with every NumPy. The files in ``data/`` hold what torchvision's own model code
computed, in float64, from such weights and images.
"""

from __future__ import annotations

import hashlib

import numpy as np


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return float32 values in [-1, 1)."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    bits = np.random.PCG64(seed).random_raw(int(np.prod(shape, dtype=np.int64))) >> np.uint64(40)
    return (bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)).reshape(shape)


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight of a key; its rank and the end of its name determine its kind."""
    last = key.rpartition(".")[2]
    if last == "num_batches_tracked":
        return np.array(100, dtype=np.int64)
    u = uniform(key, tuple(shape))
    if len(shape) >= 2:  # uniform with He's variance; the classifier without the factor for ReLU
        fan_in = int(np.prod(shape[1:]))
        return u * np.float32((3.0 * (2.0 if len(shape) == 4 else 1.0) / fan_in) ** 0.5)
    offset, spread = {"running_mean": (0, 0.2), "running_var": (1, 0.5), "weight": (0.5, 0.25)}.get(
        last, (0, 0.1)
    )
    return np.float32(offset) + u * np.float32(spread)


def pictures(name: str, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Return a mini-batch in about the range of normalised photographs.

    It is drawn as [n, c, h, w] and returned as [n, h, w, c].
    """
    drawn = uniform("input:" + name, shape) * np.float32(2.0)
    return np.ascontiguousarray(drawn.transpose(0, 2, 3, 1))
