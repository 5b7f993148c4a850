"""The policies of timm: RandAugment and AugMix in its notation, and three augmentations (DeiT III).

The tables, and the order in which random numbers are used, are those of
``timm.data.auto_augment``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .names import options
from .operations import How, apply, shares

__all__ = ["AugMix", "RandAugment", "ThreeAugment", "parsed"]

_ALL = (
    "autocontrast",
    "equalize",
    "invert",
    "rotate",
    "posterize",
    "solarize",
    "solarize_add",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_MIXED = (
    "autocontrast",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "equalize",
    "rotate",
    "posterize",
    "solarize",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
_DENOMINATOR = 10.0  # of timm's magnitudes
_UNIFORM = math.inf  # a deviation that stands for a magnitude from 0 to the one that is given


@dataclass(frozen=True)
class RandAugment:
    """Operations of about the same magnitude, each of which is applied or left out.

    Parameters
    ----------
    how : How
    magnitude : int
        Of 10.
    operations : int
        How many are drawn.
    likely : float
        The probability that one of them is applied.
    deviation : float
        Standard deviation of the magnitude; infinite, it is uniform from 0 to the magnitude.
    most : float
        The magnitude is cut off here.
    increasing : bool
        Whether all operations change the image more with a higher magnitude.
    """

    how: How
    magnitude: int = 10
    operations: int = 2
    likely: float = 0.5
    deviation: float = 0.0
    most: float = 10.0
    increasing: bool = False

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        for k in (rng.random(self.operations) * len(_ALL)).astype(int):
            if self.likely < 1 and rng.random(1)[0] > self.likely:
                continue
            level = _level(self.magnitude, self.deviation, self.most, rng)
            amount = _amount(_ALL[k], level, self.increasing, image.size, rng)
            image = apply(image, _ALL[k], amount, self.how)
        return image


@dataclass(frozen=True)
class AugMix:
    """The image, and over it a mixture of chains of operations (Hendrycks et al. 2020).

    Parameters
    ----------
    how : How
    magnitude : int
        Of 10.
    chains : int
        How many are mixed.
    length : int
        How many operations a chain has; 0 draws it, from 1 to 3.
    deviation : float
        As of `RandAugment`.
    """

    how: How
    magnitude: int = 3
    chains: int = 3
    length: int = 0
    deviation: float = _UNIFORM

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        parts = shares(rng, self.chains)
        opaque = float(np.float32(rng.random(1)[0]))
        mixed = np.zeros_like(np.asarray(image), np.float32)
        for part in parts:
            length = self.length or 1 + int(rng.random(1)[0] * 3)
            chain = image
            for k in (rng.random(length) * len(_MIXED)).astype(int):
                level = _level(self.magnitude, self.deviation, _DENOMINATOR, rng)
                amount = _amount(_MIXED[k], level, True, image.size, rng)
                chain = apply(chain, _MIXED[k], amount, self.how)
            mixed += part * np.asarray(chain, np.float32)
        np.clip(mixed, 0, 255, out=mixed)
        return Image.blend(image, Image.fromarray(mixed.astype(np.uint8)), opaque)


@dataclass(frozen=True)
class ThreeAugment:
    """One of solarising, removing the colour, and blurring (Touvron et al. 2022, section 3).

    Parameters
    ----------
    how : How
    """

    how: How

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        which = int(rng.random(1)[0] * 3)
        if which == 0:
            return apply(image, "solarize", 128, self.how)
        if which == 1:
            return apply(image, "color", 0.0, self.how)
        return apply(image, "blur", 0.1 + (2.0 - 0.1) * float(rng.random(1)[0]), self.how)


def parsed(text: str, how: How) -> RandAugment | AugMix:
    """Return the policy of timm's notation: ``rand-m7-mstd0.5-inc1``, or ``augmix-m5-w4-d2``.

    Raises
    ------
    UsageError
        A part is unknown.
    """
    said = options(text)
    if text.startswith("augmix"):
        return AugMix(
            how,
            magnitude=int(said.get("m", 3)),
            chains=int(said.get("w", 3)),
            length=int(said.get("d", 0)),
            deviation=said.get("mstd", _UNIFORM),
        )
    deviation = said.get("mstd", 0.0)
    return RandAugment(
        how,
        magnitude=int(said.get("m", 10)),
        operations=int(said.get("n", 2)),
        likely=said.get("p", 0.5),
        deviation=_UNIFORM if deviation > 100 else deviation,
        most=said.get("mmax", _DENOMINATOR),
        increasing=bool(said.get("inc", 0)),
    )


def _level(magnitude: float, deviation: float, most: float, rng: np.random.Generator) -> float:
    """Draw the magnitude of one operation, as a part of 10."""
    if deviation == _UNIFORM:
        magnitude = float(rng.random(1)[0] * magnitude)
    elif deviation:
        angle, radius = rng.random(2)  # a normal distribution, as Box and Muller draw it
        normal = math.cos(2 * math.pi * angle) * math.sqrt(-2 * math.log1p(-radius))
        magnitude += deviation * normal
    return min(max(magnitude, 0.0), most) / _DENOMINATOR


def _amount(
    name: str, level: float, increasing: bool, size: tuple[int, int], rng: np.random.Generator
) -> float:
    """Return Pillow's amount for a level from 0 to 1 (or above it, with ``mmax``)."""
    if name == "rotate":
        return _either(level * 30.0, rng)
    if name in ("shear_x", "shear_y"):
        return _either(level * 0.3, rng)
    if name in ("translate_x", "translate_y"):
        return _either(level * 0.45, rng) * size[name == "translate_y"]
    if name in ("color", "contrast", "brightness", "sharpness"):
        return max(0.1, 1.0 + _either(level * 0.9, rng)) if increasing else level * 1.8 + 0.1
    if name == "posterize":
        return 4 - int(level * 4) if increasing else int(level * 4)
    if name == "solarize":
        threshold = min(256, int(level * 256))
        return 256 - threshold if increasing else threshold
    return min(128, int(level * 110))  # of solarize_add; the others have no amount


def _either(amount: float, rng: np.random.Generator) -> float:
    """Return the amount with either sign."""
    return -amount if rng.random(1)[0] > 0.5 else amount
