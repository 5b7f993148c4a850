"""The operations that policies of augmentation choose from, on Pillow images.

AutoAugment (Cubuk et al. 2019) chose them, and later policies kept most of them. torchvision and
timm both compute them with Pillow; they differ in the amounts, which `torchvision` and `timm` (the
modules beside this one) work out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

__all__ = ["How", "apply", "shares"]


class How(NamedTuple):
    """How a moved image is resampled, and what is shown where it has no pixel.

    Parameters
    ----------
    resample : Image.Resampling
    fill : tuple of int or int
        A colour, or a grey value for a grey image.
    """

    resample: Image.Resampling
    fill: tuple[int, ...] | int


def apply(image: Image.Image, name: str, amount: float, how: How) -> Image.Image:
    """Apply one operation to one image.

    Parameters
    ----------
    image : Image
        In mode RGB or L.
    name : str
        One of the words below.
    amount : float
        For ``shear_x`` and ``shear_y``: pixels that a row (column) moves for each pixel down
        (across), to the left (up). For ``translate_x`` and ``translate_y``: pixels to the left
        (up). For ``rotate``: degrees, counter-clockwise. For ``brightness``, ``color``,
        ``contrast`` and ``sharpness``: the factor, where 1 changes nothing. For ``posterize``: the
        bits that are kept. For ``solarize``: values of at least this are inverted. For
        ``solarize_add``: what is added to values below 128. For ``blur``: the radius. The others,
        ``autocontrast``, ``equalize``, ``invert`` and ``identity``, have none.
    how : How

    Returns
    -------
    Image
        Of the same size and mode.
    """
    match name:
        case "identity":
            return image
        case "shear_x":
            return _moved(image, (1, amount, 0, 0, 1, 0), how)
        case "shear_y":
            return _moved(image, (1, 0, 0, amount, 1, 0), how)
        case "translate_x":
            return _moved(image, (1, 0, amount, 0, 1, 0), how)
        case "translate_y":
            return _moved(image, (1, 0, 0, 0, 1, amount), how)
        case "rotate":
            return image.rotate(amount, how.resample, fillcolor=how.fill)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(amount)
        case "color":
            return ImageEnhance.Color(image).enhance(amount)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(amount)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(amount)
        case "posterize":
            lost = (1 << (8 - min(max(int(amount), 0), 8))) - 1
            return image.point([value & ~lost for value in range(256)] * len(image.getbands()))
        case "solarize":
            inverted = [value if value < amount else 255 - value for value in range(256)]
            return image.point(inverted * len(image.getbands()))
        case "solarize_add":
            table = [min(255, i + int(amount)) if i < 128 else i for i in range(256)]
            return image.point(table * len(image.getbands()))
        case "blur":
            return image.filter(ImageFilter.GaussianBlur(amount))
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
    raise ValueError(f"there is no operation {name!r}")


def shares(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    """Draw n numbers with the sum 1, from Dirichlet(1, ..., 1): the shares of a mixture.

    Returns
    -------
    float32 [n]
    """
    drawn = -np.log1p(-rng.random(n))
    found: NDArray[np.float32] = (drawn / drawn.sum()).astype(np.float32)
    return found


def _moved(image: Image.Image, matrix: tuple[float, ...], how: How) -> Image.Image:
    """Return the image whose pixel (x, y) is that of (a x + b y + c, d x + e y + f)."""
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, how.resample, fillcolor=how.fill
    )
