"""What a policy of a given name does to images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..preprocess import FILTERS
from . import timm, torchvision
from .names import check_name
from .operations import How

__all__ = ["Policy", "policy", "vary"]

Policy = Callable[[Image.Image, np.random.Generator], Image.Image]


def policy(name: str, interpolation: str, mean: Sequence[float]) -> Policy:
    """Return what changes an image at random.

    Parameters
    ----------
    name : str
        "imagenet", "cifar10" (AutoAugment), "ra" (RandAugment), "ta_wide" (TrivialAugment) or
        "augmix", as torchvision has them; "3a" (three augmentations) or a text such as
        "rand-m7-mstd0.5-inc1" (RandAugment) or "augmix-m3" (AugMix), as timm has them.
    interpolation : str
        As in `Preprocess`: how images are resampled that a policy moves.
    mean : sequence of float
        The mean colour of each channel, from 0 to 1. timm shows it where a moved image has no
        pixels; torchvision shows black.

    Raises
    ------
    UsageError
        There is no such policy.
    """
    check_name(name)
    resample = FILTERS[interpolation]
    black = How(resample, (0,) * len(mean) if len(mean) > 1 else 0)
    colour = tuple(min(255, round(255 * value)) for value in mean)
    mid = How(resample, colour if len(mean) > 1 else colour[0])
    match name:
        case "imagenet":
            return torchvision.AutoAugment(black, torchvision.IMAGENET)
        case "cifar10":
            return torchvision.AutoAugment(black, torchvision.CIFAR10)
        case "ra":
            return torchvision.RandAugment(black)
        case "ta_wide":
            return torchvision.TrivialAugmentWide(black)
        case "augmix":
            return torchvision.AugMix(black)
        case "3a":
            return timm.ThreeAugment(mid)
    return timm.parsed(name, mid)


def vary(image: NDArray[np.uint8], change: Policy, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply a policy to the pixels of one image, uint8 [h, w, 1 or 3]."""
    grey = image.shape[2] == 1
    changed = change(Image.fromarray(image[:, :, 0] if grey else image), rng)
    return np.asarray(changed).reshape(image.shape)
