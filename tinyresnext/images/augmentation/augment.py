"""The random changes of images in training: `Augment` draws them and applies them in order.

Each step is applied only if it is asked for:

1. Bring the image to the network's size: resize a random crop (`scale`; "RandomResizedCrop",
   Szegedy et al. 2015, section 6), or resize the shorter side and cut the middle out (`resize`, as
   `resize_and_crop` does it), or do nothing where the image already has this size.
2. Apply the operations that a policy draws (`policy`, such as RandAugment). Then colour jitter:
   change brightness, contrast, saturation and hue by random factors, in random order.
3. Convert to float32, ``(pixels / 255 - mean) / std``, and shift the colours at random (`lighting`;
   Krizhevsky et al. 2012, section 4.1).
4. Cut a random window out of the padded image (`padding`; the 40 x 40 pixels of the paper's
   appendix A).
5. Mirror each image left to right with probability 1/2 (`flip`).
6. Set a square at a random place to zero (`cutout`; DeVries and Taylor 2017).
7. Erase a rectangle of random size in some images (`erase`; Zhong et al. 2020).

`crops`, `colour`, `policy` and `erase` hold the functions that compute the steps. A new
augmentation needs a function there, a field and a line in `Augment`, a ``setting(...)`` in
`training.recipes.augmentation` (which makes the option, the JSON and the help), and a key in
`training.samples.augmentation`.

Steps 1 and 2 return the same pixels as torchvision's transforms on Pillow images for the same
random numbers. The random numbers themselves come from the generator that the caller passes (see
`data.loader`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageError, UsageError
from ..checks import check_range, is_between, whole_number
from ..decode import decode
from ..prepare import normalise
from ..preprocess import Preprocess
from ..resize import resize_and_crop, resize_with_pillow
from .colour import jitter, lighting
from .crops import cut_out, random_crop, shift_mirrored_windows, shift_windows
from .erase import MODES, erase
from .policy import policy, vary

__all__ = ["Augment"]

_LARGEST = {
    "brightness": 10.0,
    "contrast": 10.0,
    "saturation": 10.0,
    "hue": 0.5,
    "lighting": 10.0,
    "erase": 1.0,
}


@dataclass(frozen=True)
class Augment:
    """How images become mini-batches.

    Without `scale`, `policy`, jitter, `lighting`, `padding`, `flip`, `cutout` and `erase` nothing
    is random: this is the form for evaluation.

    Parameters
    ----------
    size
        Side of the square that the network sees, in pixels.
    mean, std
        Of each channel, for values in [0, 1]; three, or one for a network with grey input.
    resize
        Shorter side before the middle is cut out; None where all images are ``size x size``.
    interpolation
        For `resize` as in `Preprocess`, rounded to 8 bits. For `scale`, a filter of Pillow's: with
        "torch7" bicubic, with "keras" the nearest pixel.
    scale
        Least and largest share of the image's area in the random crop that is resized to `size`;
        None for no such crop.
    ratio
        Least and largest width / height of that crop.
    even
        Draw width / height itself from a uniform distribution and exchange the two for every second
        crop, as the authors' Torch7 code does. By default its logarithm is uniform, as in
        torchvision.
    padding
        Width of the padding, in pixels, within which the window of ``size x size`` is placed at
        random.
    fill
        Content of the padding: "black" (torchvision), "mean", zero after normalisation (the
        authors' Torch7 code), or "mirror", the image reflected at its sides, without repeating the
        outermost pixels.
    flip
        Whether to mirror each image left to right with probability 1/2.
    alternate
        With `flip`: whether an image is mirrored in every other epoch and not at random, so that
        two epochs show both sides of each image (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds",
        section 3.6). The caller has to pass `mirrored` to `finish`.
    policy
        The name of a policy (`tinyresnext.images.augmentation.policy`), or empty for none. Images
        that it moves are resampled as `interpolation` says.
    brightness, contrast, saturation
        d: a factor from ``max(0, 1 - d)`` to ``1 + d``.
    hue
        d: a shift from -d to d of the whole circle, at most 0.5.
    lighting
        Standard deviation of a shift along each of the principal directions in which the colours of
        ImageNet vary, in units of their variance along it (the eigenvalue); 0 for none. Grey images
        are not shifted.
    cutout
        Side of a square that becomes zero, the mean colour, in pixels; 0 for none. Its middle is
        anywhere in the image, so that a part of it may lie outside.
    erase, erase_count, erase_with
        The probability that rectangles of an image are erased, how many at most, and with what:
        "zero", the mean colour, with torchvision's range of sizes, or "pixel", noise of a standard
        normal distribution after normalisation, with timm's.

    Raises
    ------
    UsageError
        A value is of the wrong type or out of range, or `scale` and `resize` are both given.
    """

    size: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    resize: int | None = None
    interpolation: str = "bilinear"
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    even: bool = False
    padding: int = 0
    fill: str = "black"
    flip: bool = False
    alternate: bool = False
    policy: str = ""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    erase_count: int = 1
    erase_with: str = "zero"

    def __post_init__(self) -> None:
        checked = self.preprocess  # raises for a wrong size, resize, interpolation, mean or std
        object.__setattr__(self, "mean", checked.mean)
        object.__setattr__(self, "std", checked.std)
        if self.scale is not None:
            if self.resize is not None:
                raise UsageError(
                    "scale and resize are both given; a random crop is resized to the network's "
                    "size at once, so give one of the two"
                )
            check_range("scale", self.scale, 1.0)
        check_range("ratio", self.ratio, 100.0)
        for name in ("padding", "cutout"):
            whole_number(name, getattr(self, name), 0, checked.crop, " of pixels")
        whole_number("erase_count", self.erase_count, 1)
        for name in ("flip", "alternate", "even"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise UsageError(f"{name} is {getattr(self, name)!r}; give True or False")
        if not isinstance(self.policy, str):
            raise UsageError(f"policy is {self.policy!r}; give the name of one, or '' for none")
        if self.alternate and not self.flip:
            raise UsageError("alternate is True and flip is False: give flip too, or neither")
        if self.policy:
            policy(self.policy, self.interpolation, self.mean)  # raises if there is no such policy
        if self.erase_with not in MODES:
            raise UsageError(f"erase_with is {self.erase_with!r}; give {' or '.join(MODES)}")
        if self.fill not in ("black", "mean", "mirror"):
            raise UsageError(f"fill is {self.fill!r}; give black, mean or mirror")
        for name, most in _LARGEST.items():
            value = getattr(self, name)
            if not is_between(value, 0, most):
                raise UsageError(f"{name} is {value!r}; give a number from 0 to {most:g}")

    @property
    def channels(self) -> int:
        """Number of channels that the network sees: 3 for colour, 1 for grey."""
        return len(self.mean)

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing for a model trained this way.

        Without `resize`, the shorter side of an image is resized to `size`.
        """
        resize = self.size if self.resize is None else self.resize
        return Preprocess(resize, self.size, self.interpolation, self.mean, self.std)

    def leaves(self, shape: tuple[int, ...]) -> bool:
        """Return whether step 1 does not change an image of this shape."""
        return (
            shape == (self.size, self.size, self.channels)
            and self.scale is None
            and self.resize in (None, self.size)
        )

    def fit(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Apply step 1 to one image: uint8 [h, w] or [h, w, c] to uint8 [size, size, channels].

        Raises
        ------
        ImageError
            The image is not ``size x size`` and neither `resize` nor `scale` is given, or
            `picture` is no image.
        """
        if picture.shape[2:] != (self.channels,):
            picture = decode(picture, self.channels)
        if self.scale is not None:
            left, top, width, height = random_crop(
                picture.shape[1], picture.shape[0], self.scale, self.ratio, rng, self.even
            )
            crop = picture[top : top + height, left : left + width]
            return resize_with_pillow(crop, (self.size, self.size), self.interpolation)
        if self.resize is not None:
            return resize_and_crop(picture, self.preprocess)
        if picture.shape[:2] != (self.size, self.size):
            raise ImageError(
                f"an image is {picture.shape[1]} x {picture.shape[0]} pixels and "
                f"{self.size} x {self.size} were expected; give resize or scale to change its size"
            )
        return picture

    def finish(
        self,
        block: NDArray[np.uint8],
        rng: np.random.Generator,
        mirrored: NDArray[np.bool_] | None = None,
        each: Sequence[np.random.Generator] | None = None,
    ) -> NDArray[np.float32]:
        """Apply steps 2 to 7 to a mini-batch.

        Parameters
        ----------
        block
            uint8 [n, size, size, channels].
        mirrored
            bool [n]: which images are mirrored; None to draw it, where `flip` asks for it.
        each
            n generators, for steps 2 and 7; by default all are `rng`.

        Returns
        -------
        float32 [n, size, size, channels]
        """
        n, each = len(block), [rng] * len(block) if each is None else each
        if n and self.policy:
            change = policy(self.policy, self.interpolation, self.mean)
            block = np.stack([vary(a, change, own) for a, own in zip(block, each, strict=True)])
        if n and (self.brightness or self.contrast or self.saturation or self.hue):
            block = np.stack(list(map(self._jittered, block, each)))
        x = normalise(block, self.preprocess)
        if self.lighting and self.channels == 3:
            shifts = (lighting(n, self.lighting, rng) / self.std).astype(np.float32)
            x += shifts[:, np.newaxis, np.newaxis]
        if self.padding or self.flip:
            shift = (rng.random((n, 2)) * (2 * self.padding + 1)).astype(np.int64) - self.padding
            drawn = (rng.random(n) < 0.5) & self.flip
            mirrored = drawn if mirrored is None else mirrored
            if self.fill == "mirror":
                x = shift_mirrored_windows(x, shift, mirrored)
            else:
                x = shift_windows(x, shift, mirrored, self._padding_colour)
        if self.cutout:
            cut_out(x, (rng.random((n, 2)) * self.size).astype(np.int64), self.cutout)
        if self.erase:
            erase(x, self.erase, self.erase_with, each, self.erase_count)
        return x

    @property
    def _padding_colour(self) -> NDArray[np.float32]:
        """The colour of the padding after normalisation, float32 [channels]."""
        if self.fill == "mean":
            return np.zeros(self.channels, np.float32)
        return normalise(np.zeros(self.channels, np.uint8), self.preprocess)

    def _jittered(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw an order and four factors, and apply those that are asked for."""
        order, draws = np.argsort(rng.random(4), kind="stable"), rng.random(4)
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        for k in order:
            if k == 3 and self.hue:
                image = jitter(image, "hue", self.hue * (2 * draws[3] - 1))
            elif k < 3 and widths[k]:
                low, high = max(0.0, 1 - widths[k]), 1 + widths[k]
                amount = low + (high - low) * draws[k]
                image = jitter(image, ("brightness", "contrast", "saturation")[k], amount)
        return image
