"""Changes of an image's colours: brightness, contrast, saturation, hue and lighting.

`jitter` changes one property of one image as torchvision does it on Pillow images; `lighting` draws
shifts along the directions in which the colours of ImageNet vary (Krizhevsky et al. 2012, section
4.1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["jitter", "lighting"]

# Eigenvalues and eigenvectors (one a column) of the covariance of ImageNet's colours, for values in
# [0, 1], as in ``datasets/imagenet.lua`` of facebookresearch/ResNeXt. An eigenvalue is the variance
# of the colours along its vector.
_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
_EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


def jitter(image: NDArray[np.uint8], what: str, amount: float) -> NDArray[np.uint8]:
    """Change one property of an image's colours, as torchvision's ``adjust_...`` functions do.

    Parameters
    ----------
    image
        uint8 [h, w, 1 or 3]. Saturation and hue leave a grey image as it is.
    what
        "brightness", "contrast" or "saturation", with a factor of at least 0: 1 changes nothing; 0
        makes the image black, one grey, or colourless. Or "hue", with a shift from -0.5 to 0.5 of
        the circle.
    amount
        The factor or the shift.

    Returns
    -------
    uint8, of the same shape
    """
    grey = image.shape[2] == 1
    if what in ("saturation", "hue") and grey:
        return image
    if what == "hue":
        hue, *rest = Image.fromarray(image).convert("HSV").split()
        # uint8 wraps around, as the circle of hues does.
        turned = np.asarray(hue) + np.uint8(int(amount * 255) % 256)
        return np.array(Image.merge("HSV", [Image.fromarray(turned), *rest]).convert("RGB"))
    other: np.float32 | NDArray[np.float32]
    if what == "brightness":
        other = np.float32(0)
    elif what == "contrast":
        luma = image if grey else _luma(image)
        other = np.float32(int(luma.mean(dtype=np.float64) + 0.5))
    else:
        other = _luma(image)[:, :, np.newaxis].astype(np.float32)
    mixed = other + np.float32(amount) * (image.astype(np.float32) - other)
    # Truncated and not rounded, as Pillow's blend does it.
    return np.clip(mixed, 0, 255, out=mixed).astype(np.uint8)


def lighting(n: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw shifts of red, green and blue for ``n`` images with values in [0, 1].

    The shift along each principal direction of ImageNet's colours is its eigenvalue (the variance
    along it) times a normally distributed number, whose standard deviation is `deviation`.

    Returns
    -------
    float64 [n, 3]
    """
    # Three normally distributed numbers from four uniform ones (Box and Muller 1958): NumPy
    # promises to keep the bits of uniform numbers only.
    radius, angle = np.sqrt(-2 * np.log1p(-rng.random((n, 2)))), 2 * np.pi * rng.random((n, 2))
    alpha = deviation * np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :3]
    shifts: NDArray[np.float64] = (alpha * _EIGENVALUES) @ _EIGENVECTORS.T
    return shifts


def _luma(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute grey from RGB with Pillow's integer weights, ITU-R BT.601 in units of 2**-16.

    Returns uint8 [h, w].
    """
    wide = image.astype(np.uint32)
    red, green, blue = wide[:, :, 0], wide[:, :, 1], wide[:, :, 2]
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)
