"""Mixtures of neighbours in a mini-batch: mixup and CutMix."""

from __future__ import annotations

import math

import numpy as np

from ..recipes.parts import Loss

__all__ = ["mixed"]


def mixed(
    x: np.ndarray, targets: np.ndarray, said: Loss, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mix each image of a mini-batch with its neighbour, as a recipe says and torchvision does it.

    Parameters
    ----------
    x : [n, h, w, c] float32
    targets : [n, classes] float32
    said : Loss
        With ``mixup`` and ``cutmix``, one of the two is drawn for the mini-batch.
    rng : Generator

    Returns
    -------
    x : [n, h, w, c] float32
    targets : [n, classes] float32
        The same mixture of the targets.
    """
    if said.cutmix and not (said.mixup and rng.random() < 0.5):
        return _cutmix(x, targets, said.cutmix, rng)
    return _mixup(x, targets, said.mixup, rng) if said.mixup else (x, targets)


def _mixup(
    x: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Add a part of the neighbour (mixup, Zhang et al. 2018).

    The part, one for the mini-batch, is drawn from Beta(alpha, alpha).
    """
    kept = float(np.float32(rng.beta(alpha, alpha)))
    return _shared(x, kept), _shared(targets, kept)


def _cutmix(
    x: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Put a rectangle of the neighbour in its place (CutMix, Yun et al. 2019), as torchvision does.

    The rectangle, one for the mini-batch, has the image's shape and at most the part of its area
    that Beta(alpha, alpha) draws; the targets count what is really there.
    """
    height, width = x.shape[1:3]
    half = 0.5 * math.sqrt(1 - rng.beta(alpha, alpha))
    across, down = (
        int(part * side) for part, side in zip(rng.random(2), (width, height), strict=True)
    )
    left, right = max(across - int(half * width), 0), min(across + int(half * width), width)
    top, bottom = max(down - int(half * height), 0), min(down + int(half * height), height)
    put = x.copy()
    put[:, top:bottom, left:right] = np.roll(x, 1, axis=0)[:, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return put, _shared(targets, kept)


def _shared(values: np.ndarray, kept: float) -> np.ndarray:
    """Return what belongs to an image, float32 [n, ...], and to its neighbour, in proportion.

    Both factors are rounded to float32 before they are used, as torchvision's are.
    """
    found: np.ndarray = np.float32(kept) * values
    found += np.float32(1 - kept) * np.roll(values, 1, axis=0)
    return found
