"""Random erasing (Zhong et al. 2020): a rectangle of an image is taken away.

torchvision and timm draw the same rectangles. The first fills them with zero, the mean colour;
timm's mode "pixel" fills them with noise of a standard normal distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODES", "erase"]

MODES = ("zero", "pixel")
_AREA = {"zero": (0.02, 0.33), "pixel": (0.02, 1 / 3)}  # of torchvision, and of timm
_SHAPE = {"zero": (0.3, 3.3), "pixel": (0.3, 1 / 0.3)}  # height / width
_TRIES = 10


def erase(
    x: NDArray[np.float32],
    likely: float,
    mode: str,
    each: Sequence[np.random.Generator],
    most: int = 1,
) -> None:
    """Erase rectangles of some images of a mini-batch, in place.

    Parameters
    ----------
    x : [n, h, w, c] float32
        Normalised.
    likely : float
        The probability, for each image.
    mode : {"zero", "pixel"}
    each : n generators
    most : int
        Of an image that is erased, from one to so many rectangles are, and each is smaller by their
        number, as in timm.
    """
    for image, rng in zip(x, each, strict=True):
        if rng.random(1)[0] >= likely:
            continue
        count = 1 + int(rng.random(1)[0] * most) if most > 1 else 1
        for _ in range(count):
            if found := _rectangle(image.shape, mode, rng, count):
                top, left, height, width = found
                part = image[top : top + height, left : left + width]
                part[:] = _normal(part.shape, rng) if mode == "pixel" else 0


def _rectangle(
    shape: tuple[int, ...], mode: str, rng: np.random.Generator, count: int
) -> tuple[int, int, int, int] | None:
    """Draw top, left, height and width; None if no rectangle fits in ten tries."""
    high, wide = shape[:2]
    (least, most), (flat, tall) = _AREA[mode], map(math.log, _SHAPE[mode])
    for _ in range(_TRIES):
        share, aspect = rng.random(2)
        area = high * wide * (least + (most - least) * share) / count
        ratio = math.exp(flat + (tall - flat) * aspect)
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < high and width < wide:
            down, across = rng.random(2)
            return int(down * (high - height + 1)), int(across * (wide - width + 1)), height, width
    return None


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw numbers of a standard normal distribution (Box and Muller 1958).

    NumPy promises to keep the bits of uniform numbers only.
    """
    radius, angle = rng.random((2, *shape))
    found: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return found.astype(np.float32)
