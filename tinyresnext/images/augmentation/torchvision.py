"""The policies of torchvision: AutoAugment, RandAugment, TrivialAugment and AugMix.

Each draws operations and amounts for one image. Amounts come from a table: a number from 0 to
``bins - 1``, the magnitude, chooses one of ``bins`` equal steps. The tables, and the order in which
random numbers are used, are those of ``torchvision.transforms.autoaugment``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .operations import How, apply, shares

__all__ = ["AugMix", "AutoAugment", "RandAugment", "TrivialAugmentWide"]

_GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_COLOURS = ("brightness", "color", "contrast", "sharpness")
_SIGNED = (*_GEOMETRY, *_COLOURS)
_LEVELS = ("posterize", "solarize", "autocontrast", "equalize")
_ALL = ("identity", *_GEOMETRY, *_COLOURS, *_LEVELS)
_MIXED = (*_GEOMETRY, *_LEVELS, *_COLOURS)  # in the order of torchvision's AugMix

# Of AutoAugment, table 9 of its paper: two operations, each with its probability and magnitude.
IMAGENET = """
posterize 0.4 8 rotate 0.6 9; solarize 0.6 5 autocontrast 0.6 -; equalize 0.8 - equalize 0.6 -;
posterize 0.6 7 posterize 0.6 6; equalize 0.4 - solarize 0.2 4; equalize 0.4 - rotate 0.8 8;
solarize 0.6 3 equalize 0.6 -; posterize 0.8 5 equalize 1.0 -; rotate 0.2 3 solarize 0.6 8;
equalize 0.6 - posterize 0.4 6; rotate 0.8 8 color 0.4 0; rotate 0.4 9 equalize 0.6 -;
equalize 0.0 - equalize 0.8 -; invert 0.6 - equalize 1.0 -; color 0.6 4 contrast 1.0 8;
rotate 0.8 8 color 1.0 2; color 0.8 8 solarize 0.8 7; sharpness 0.4 7 invert 0.6 -;
shear_x 0.6 5 equalize 1.0 -; color 0.4 0 equalize 0.6 -; equalize 0.4 - solarize 0.2 4;
solarize 0.6 5 autocontrast 0.6 -; invert 0.6 - equalize 1.0 -; color 0.6 4 contrast 1.0 8;
equalize 0.8 - equalize 0.6 -
"""
# Table 7 of the same paper.
CIFAR10 = """
invert 0.1 - contrast 0.2 6; rotate 0.7 2 translate_x 0.3 9; sharpness 0.8 1 sharpness 0.9 3;
shear_y 0.5 8 translate_y 0.7 9; autocontrast 0.5 - equalize 0.9 -; shear_y 0.2 7 posterize 0.3 7;
color 0.4 3 brightness 0.6 7; sharpness 0.3 9 brightness 0.7 9; equalize 0.6 - equalize 0.5 -;
contrast 0.6 7 sharpness 0.6 5; color 0.7 7 translate_x 0.5 8; equalize 0.3 - autocontrast 0.4 -;
translate_y 0.4 3 sharpness 0.2 6; brightness 0.9 6 color 0.2 8; solarize 0.5 2 invert 0.0 -;
equalize 0.2 - autocontrast 0.6 -; equalize 0.2 - equalize 0.6 -; color 0.9 9 equalize 0.6 -;
autocontrast 0.8 - solarize 0.2 8; brightness 0.1 3 color 0.7 0; solarize 0.4 5 autocontrast 0.9 -;
translate_y 0.9 9 translate_y 0.7 9; autocontrast 0.9 - solarize 0.8 3; equalize 0.8 - invert 0.1 -;
translate_y 0.7 9 autocontrast 0.9 -
"""


@dataclass(frozen=True)
class Space:
    """The amounts that a policy draws from.

    Parameters
    ----------
    bins : int
        Steps from the least to the largest amount.
    shear, degrees, factor : float
        The largest amounts.
    translation : float
        The largest one: a part of the image's side, or pixels if ``in_pixels`` is set.
    bits : tuple of int
        What posterising keeps at the least and at the largest magnitude.
    in_pixels : bool
    """

    bins: int
    shear: float = 0.3
    degrees: float = 30.0
    factor: float = 0.9
    translation: float = 150.0 / 331.0
    bits: tuple[int, int] = (8, 4)
    in_pixels: bool = False

    def amount(self, name: str, magnitude: int, size: tuple[int, int]) -> float:
        """Return torchvision's magnitude of an operation: unsigned, as its table has it."""
        if name in ("shear_x", "shear_y"):
            return _step(0, self.shear, self.bins, magnitude)
        if name in ("translate_x", "translate_y"):
            side = 1 if self.in_pixels else size[name == "translate_y"]
            return _step(0, self.translation * side, self.bins, magnitude)
        if name == "rotate":
            return _step(0, self.degrees, self.bins, magnitude)
        if name in _COLOURS:
            return _step(0, self.factor, self.bins, magnitude)
        if name == "posterize":
            most, least = self.bits
            # Rounded in float32, half to even.
            return most - float(
                np.round(np.float32(magnitude) / np.float32((self.bins - 1) / (most - least)))
            )
        return _step(255, 0, self.bins, magnitude) if name == "solarize" else 0.0


_WIDE = Space(31, shear=0.99, degrees=135, factor=0.99, translation=32, bits=(8, 2), in_pixels=True)
_MIXING = Space(10, translation=1 / 3, bits=(4, 0))


@dataclass(frozen=True)
class RandAugment:
    """Two operations of the same magnitude, 9 of 30 (Cubuk et al. 2020).

    Parameters
    ----------
    how : How
    """

    how: How
    operations: int = 2
    magnitude: int = 9

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        space = Space(31)
        for _ in range(self.operations):
            name = _ALL[_below(rng, len(_ALL))]
            amount = space.amount(name, self.magnitude, image.size)
            image = _applied(image, name, _either(name, amount, rng), self.how)
        return image


@dataclass(frozen=True)
class TrivialAugmentWide:
    """One operation of any magnitude, from a wide range (Müller and Hutter 2021).

    Parameters
    ----------
    how : How
    """

    how: How

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        name = _ALL[_below(rng, len(_ALL))]
        magnitude = 0
        if name not in ("identity", "autocontrast", "equalize"):
            magnitude = _below(rng, _WIDE.bins)
        amount = _WIDE.amount(name, magnitude, image.size)
        return _applied(image, name, _either(name, amount, rng), self.how)


@dataclass(frozen=True)
class AutoAugment:
    """One of 25 pairs of operations that were searched for a data set (Cubuk et al. 2019).

    Parameters
    ----------
    how : How
    pairs : str
        `IMAGENET` or `CIFAR10`.
    """

    how: How
    pairs: str

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        pairs = self.pairs.split(";")
        words = pairs[_below(rng, len(pairs))].split()
        drawn = rng.random(2)
        signs = [_below(rng, 2) for _ in range(2)]
        for i, (name, likely, magnitude) in enumerate((words[:3], words[3:])):
            if drawn[i] <= float(likely):
                amount = Space(10).amount(name, int(magnitude.replace("-", "0")), image.size)
                if name in _SIGNED and signs[i] == 0:
                    amount = -amount
                image = _applied(image, name, amount, self.how)
        return image


@dataclass(frozen=True)
class AugMix:
    """A mixture of the image and three chains of operations on it (Hendrycks et al. 2020).

    The operations are Pillow's, as in the authors' code; torchvision computes them on tensors,
    where some round otherwise. Draws and mixture are torchvision's.

    Parameters
    ----------
    how : How
    """

    how: How
    severity: int = 3
    chains: int = 3

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image, changed at random."""
        kept, changed = shares(rng, 2)
        mixed = kept * np.asarray(image, np.float32)
        for share in shares(rng, self.chains) * changed:
            chain = image
            for _ in range(1 + _below(rng, 3)):
                name = _MIXED[_below(rng, len(_MIXED))]
                magnitude = 0
                if name not in ("autocontrast", "equalize"):
                    magnitude = _below(rng, self.severity)
                amount = _either(name, _MIXING.amount(name, magnitude, image.size), rng)
                chain = _applied(chain, name, amount, self.how)
            mixed += share * np.asarray(chain, np.float32)
        return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _below(rng: np.random.Generator, n: int) -> int:
    """Draw a whole number from 0 to n - 1."""
    return int(rng.random(1)[0] * n)


def _either(name: str, amount: float, rng: np.random.Generator) -> float:
    """Return the amount, with the other sign in half of the cases, if the operation has two."""
    return -amount if name in _SIGNED and _below(rng, 2) else amount


def _step(first: float, last: float, bins: int, k: int) -> float:
    """Return element k of ``torch.linspace(first, last, bins)``, which is in float32.

    Product and sum are rounded once, as a fused multiply-add does it.
    """
    first, last = float(np.float32(first)), float(np.float32(last))
    step = float(np.float32(last - first) / np.float32(bins - 1))
    found = first + step * k if k < bins // 2 else last - step * (bins - k - 1)
    return float(np.float32(found))


def _applied(image: Image.Image, name: str, amount: float, how: How) -> Image.Image:
    """Apply an operation, of which torchvision measures the amount in another way than Pillow."""
    if name in ("shear_x", "shear_y"):
        # It goes by way of the angle.
        amount = math.tan(math.radians(math.degrees(math.atan(amount))))
    elif name in ("translate_x", "translate_y"):
        amount = -int(amount)
    elif name in _COLOURS:
        amount = 1.0 + amount
    return apply(image, name, amount, how)
