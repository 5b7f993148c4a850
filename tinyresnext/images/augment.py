"""What happens to a picture between the data set and the network, with and without chance.

The order is always the same, and each step is there only if it is asked for:

1. to the network's size: a random part (`scale`; "RandomResizedCrop", Szegedy et al. 2014, section
6), or the shorter side
   resized and the middle cut out (`resize`, as `image.resize_and_crop` does it), or nothing: the
   picture has the size already;
2. colour jitter: brightness, contrast, saturation and hue by random factors, in random order; 3. to
float32, ``(pixels / 255 - mean) / std``; `lighting`, a random shift of the colour (Krizhevsky et
al. 2012, section 4.1); 4. a random window of the picture with a rim around it (`padding`; the "4
pixels on each side" of section 5.3 of the paper); 5. a horizontal flip, for every second picture;
6. a square somewhere that is wiped out (`cutout`; DeVries and Taylor 2017).

Steps 1 and 2 follow torchvision's transforms on Pillow pictures to the pixel for the same random
numbers; the numbers themselves come from a generator of our own choosing (`loader`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError, UsageError
from .preprocess import FILTERS, Preprocess, decode, resize_and_crop

__all__ = ["Augment", "jitter", "random_part"]

_TRIES = 10  # as torchvision: how often a part that does not fit into the picture is drawn anew
_DEVIATIONS = np.array(
    [0.2175, 0.0188, 0.0045]
)  # of ImageNet's colours, and the directions, one a column: transforms.lua
_DIRECTIONS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


@dataclass(frozen=True)
class Augment:
    """How pictures become batches.

    Without `scale`, `padding`, `flip`, jitter, `lighting` and `cutout` there is no chance in it:
    for evaluation.

    Parameters
    ----------
    size
        Side of the square that the network sees, in pixels.
    mean, std
        Of each channel, for values in [0, 1]; three, or one for a network that sees grey.
    resize
        Shorter side before the middle is cut out; None where the pictures are ``size x size`` as
        they are.
    interpolation
        For `resize` as `Preprocess` has it, rounded to 8 bits; for `scale`, a filter of Pillow's:
        with "torch7" bicubic, with "keras" the nearest pixel.
    scale
        Least and largest share of the picture's area in the random part that is resized to `size`;
        None for no such crop.
    ratio
        Least and largest width / height of that part.
    even
        Draw width / height itself evenly and exchange the two for every second part, as the
        authors' Torch7 code does it; by default its logarithm is drawn evenly, as torchvision does
        it.
    padding
        Width of the rim, in pixels, within which the window of ``size x size`` is placed at random.
    fill
        The rim: "black" (torchvision), "mean", zero after normalisation (the authors' Torch7 code),
        or "mirror": the picture goes on as its own mirror image, whose first row is the picture's
        second.
    flip
        Whether every second picture, by chance, is mirrored left to right.
    alternate
        With `flip`: whether a picture is mirrored in every other epoch rather than by chance each
        time, so that two epochs show both sides of each (Jordan 2024, "94% on CIFAR-10 in 3.29
        seconds", section 3.6). `finish` has to be told which.
    brightness, contrast, saturation
        d: a factor from ``max(0, 1 - d)`` to ``1 + d``.
    hue
        d: a shift from -d to d of the whole circle, at most 0.5.
    lighting
        Standard deviation of a shift along each of the principal directions in which the colours of
        ImageNet vary, in units of that variation; 0 for none. Grey pictures have no such
        directions, and none for them.
    cutout
        Side of a square that becomes zero, the mean colour, in pixels; 0 for none. Its middle is
        anywhere in the picture, so that a part of it may lie outside.

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
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    lighting: float = 0.0
    cutout: int = 0

    def __post_init__(self) -> None:
        checked = self.preprocess  # refuses a wrong size, resize, interpolation, mean or std
        object.__setattr__(self, "mean", checked.mean)
        object.__setattr__(self, "std", checked.std)
        if self.scale is not None:
            if self.resize is not None:
                raise UsageError(
                    "scale and resize are both given; a random part is resized to the network's size at once"
                )
            _check_range("scale", self.scale, 1.0)
        _check_range("ratio", self.ratio, 100.0)
        for name in ("padding", "cutout"):
            value = getattr(self, name)
            if (
                not isinstance(value, Integral)
                or isinstance(value, bool)
                or not 0 <= value <= checked.crop
            ):
                raise UsageError(
                    f"{name} is {value!r}; give a whole number of pixels from 0 to the size, {checked.crop}"
                )
        if self.alternate and not self.flip:
            raise UsageError("alternate is True and flip is False: give flip too, or neither")
        if self.fill not in ("black", "mean", "mirror"):
            raise UsageError(f"fill is {self.fill!r}; give black, mean or mirror")
        for name, most in (
            ("brightness", 10.0),
            ("contrast", 10.0),
            ("saturation", 10.0),
            ("hue", 0.5),
            ("lighting", 10.0),
        ):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value <= most:  # NaN fails the comparison
                raise UsageError(f"{name} is {value!r}; give a number from 0 to {most:g}")

    @property
    def channels(self) -> int:
        """Number of channels that the network sees: 3 for colour, 1 for grey."""
        return len(self.mean)

    @property
    def preprocess(self) -> Preprocess:
        """What a model trained this way expects of a picture; without `resize`, the shorter side comes to `size`."""
        resize = self.size if self.resize is None else self.resize
        return Preprocess(resize, self.size, self.interpolation, self.mean, self.std)

    def leaves(self, shape: tuple[int, ...]) -> bool:
        """Whether step 1 gives a picture of this shape back as it is."""
        return (
            shape == (self.size, self.size, self.channels)
            and self.scale is None
            and self.resize in (None, self.size)
        )

    def fit(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Step 1 for one picture: uint8 [h, w, 1 or 3] to uint8 [size, size, channels].

        Raises
        ------
        ImageError
            It is not ``size x size`` and neither `resize` nor `scale` says what to do, or it is no
            picture.
        """
        if picture.shape[2] != self.channels:
            picture = decode(picture, self.channels)
        if self.scale is not None:
            left, top, width, height = random_part(
                picture.shape[1], picture.shape[0], self.scale, self.ratio, rng, self.even
            )
            part = np.ascontiguousarray(picture[top : top + height, left : left + width])
            image = Image.fromarray(part if self.channels == 3 else part[:, :, 0])
            image = image.resize((self.size, self.size), FILTERS[self.interpolation])
            return np.asarray(image).reshape(self.size, self.size, self.channels)
        if self.resize is not None:
            return resize_and_crop(picture, self.preprocess)
        if picture.shape[:2] != (self.size, self.size):
            raise ImageError(
                f"a picture is {picture.shape[1]} x {picture.shape[0]} pixels and {self.size} x {self.size} were expected; "
                "say with resize or scale how to get there"
            )
        return picture

    def finish(
        self,
        block: NDArray[np.uint8],
        rng: np.random.Generator,
        mirrored: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Steps 2 to 6 for a batch: uint8 [n, size, size, channels] to float32 of the same shape.

        ``mirrored``, [n], says which pictures are to be; without it chance does, where `flip` asks
        for it.
        """
        if len(block) and (self.brightness or self.contrast or self.saturation or self.hue):
            block = np.stack([self._jittered(picture, rng) for picture in block])
        x = _normalised(block, self.mean, self.std)
        if self.lighting and self.channels == 3:
            x += (lights(len(x), self.lighting, rng) / self.std).astype(np.float32)[
                :, np.newaxis, np.newaxis
            ]
        n = len(x)
        if self.padding or self.flip:
            shift = (rng.random((n, 2)) * (2 * self.padding + 1)).astype(np.int64) - self.padding
            by_chance = (rng.random(n) < 0.5) & self.flip
            mirrored = by_chance if mirrored is None else mirrored
            x = (
                _moved_in_mirrors(x, shift, mirrored)
                if self.fill == "mirror"
                else _moved(x, shift, mirrored, self._rim)
            )
        if self.cutout:
            _wipe(x, (rng.random((n, 2)) * self.size).astype(np.int64), self.cutout)
        return x

    @property
    def _rim(self) -> NDArray[np.float32]:
        """The colour around a picture, after normalisation."""
        if self.fill == "mean":
            return np.zeros(self.channels, np.float32)
        return _normalised(
            np.zeros((1, 1, 1, self.channels), np.uint8), self.mean, self.std
        ).ravel()

    def _jittered(self, picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Draw an order and four factors, and apply those that are asked for."""
        order = np.argsort(rng.random(4), kind="stable")
        draws = rng.random(4)
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        for k in order:
            if k == 3 and self.hue:
                picture = jitter(picture, "hue", self.hue * (2 * draws[3] - 1))
            elif k < 3 and widths[k]:
                low, high = max(0.0, 1 - widths[k]), 1 + widths[k]
                picture = jitter(
                    picture,
                    ("brightness", "contrast", "saturation")[k],
                    low + (high - low) * draws[k],
                )
        return picture


def random_part(
    width: int,
    height: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
    even: bool = False,
) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random part.

    The area is uniform in `scale`, the place uniform. The logarithm of width / height is uniform in
    `ratio` (torchvision's ``RandomResizedCrop.get_params``), or with `even` itself, or the inverse
    of what is (``RandomSizedCrop`` of the authors' ``transforms.lua``). What does not fit is drawn
    again, ten times in all; then it is the largest part in the middle whose shape is within
    `ratio`, or with `even` the largest square.
    """
    low, high = ratio if even else (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(_TRIES):
        share, shape, down, across = rng.random(4)
        area = width * height * (scale[0] + (scale[1] - scale[0]) * share)
        aspect = low + (high - low) * shape
        if not even:
            aspect = math.exp(aspect)
        elif rng.random(1)[0] < 0.5:
            aspect = 1 / aspect
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(across * (width - w + 1)), int(down * (height - h + 1)), w, h
    w, h = width, height
    least, largest = (1, 1) if even else ratio
    if width / height < least:
        h = round(w / least)
    elif width / height > largest:
        w = round(h * largest)
    w, h = max(w, 1), max(h, 1)
    return (width - w) // 2, (height - h) // 2, w, h


def lights(n: int, deviation: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random shifts of red, green and blue for ``n`` pictures with values in [0, 1]: float64 [n, 3].

    Normal along each principal direction of ImageNet's colours, with that deviation times the
    direction's own.
    """
    # Three normal numbers of four even ones (Box and Muller 1958), whose bits NumPy promises to
    # keep.
    radius, angle = np.sqrt(-2 * np.log1p(-rng.random((n, 2)))), 2 * np.pi * rng.random((n, 2))
    alpha = deviation * np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)[:, :3]
    return (alpha * _DEVIATIONS) @ _DIRECTIONS.T


def jitter(picture: NDArray[np.uint8], what: str, amount: float) -> NDArray[np.uint8]:
    """Change one property of a picture's colours as torchvision does it on Pillow pictures (``adjust_brightness`` and so on).

    Parameters
    ----------
    picture
        uint8 [h, w, 1 or 3]. Saturation and hue leave grey as it is.
    what
        "brightness", "contrast" or "saturation", with a factor of at least 0: 1 changes nothing, 0
        leaves black, one grey or no colour; or "hue", with a shift from -0.5 to 0.5 of the circle.
    amount
        The factor or the shift.

    Returns
    -------
    uint8, as `picture`
    """
    grey = picture.shape[2] == 1
    if what in ("saturation", "hue") and grey:
        return picture
    if what == "hue":
        hue, *rest = Image.fromarray(picture).convert("HSV").split()
        turned = np.asarray(hue) + np.uint8(
            int(amount * 255) % 256
        )  # uint8 wraps around, as the circle does
        return np.array(Image.merge("HSV", [Image.fromarray(turned), *rest]).convert("RGB"))
    if what == "brightness":
        other: object = np.float32(0)
    elif what == "contrast":
        luma = picture if grey else _luma(picture)
        other = np.float32(int(luma.mean(dtype=np.float64) + 0.5))
    else:
        other = _luma(picture)[:, :, np.newaxis].astype(np.float32)
    mixed = other + np.float32(amount) * (picture.astype(np.float32) - other)
    return np.clip(mixed, 0, 255, out=mixed).astype(
        np.uint8
    )  # cut off, not rounded, as Pillow's blend


def _luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey of RGB with Pillow's integer weights (ITU-R BT.601 in units of 2**-16): uint8 [h, w]."""
    wide = picture.astype(np.uint32)
    return (
        (wide[:, :, 0] * 19595 + wide[:, :, 1] * 38470 + wide[:, :, 2] * 7471 + 0x8000) >> 16
    ).astype(np.uint8)


def _normalised(
    block: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]
) -> NDArray[np.float32]:
    """As `image.normalise`, to the bit; whole rows at a time, because NumPy is slow over a last axis of three."""
    n, height, width, channels = block.shape
    x = block.astype(np.float32, order="C").reshape(n * height, width * channels)
    x /= np.float32(255)
    x -= np.tile(np.asarray(mean, np.float32), width)
    x /= np.tile(np.asarray(std, np.float32), width)
    return x.reshape(block.shape)


def _moved(
    x: NDArray[np.float32],
    shift: NDArray[np.int64],
    mirrored: NDArray[np.bool_],
    rim: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Windows of the same size, each `shift` = (down, right) away, some then mirrored; what lies outside is `rim`."""
    n, height, width, channels = x.shape
    out = np.empty_like(x)
    out.reshape(n * height, width * channels)[:] = np.tile(rim, width)
    for i, ((down, right), mirror) in enumerate(
        zip(shift.tolist(), mirrored.tolist(), strict=True)
    ):
        target = out[i, :, ::-1] if mirror else out[i]
        target[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)] = x[
            i, max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)
        ]
    return out


def _moved_in_mirrors(
    x: NDArray[np.float32], shift: NDArray[np.int64], mirrored: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """As `_moved`, but each side of a picture is a mirror."""
    out = np.empty_like(x)
    for i, (places, mirror) in enumerate(zip(shift, mirrored.tolist(), strict=True)):
        rows, columns = (
            (side - 1)
            - abs(
                (side - 1) - (np.arange(side) + by) % max(1, 2 * side - 2)
            )  # there and back again
            for side, by in zip(x.shape[1:3], places, strict=True)
        )
        out[i] = x[i][rows[:, np.newaxis], columns[::-1] if mirror else columns]
    return out


def _wipe(x: NDArray[np.float32], middles: NDArray[np.int64], side: int) -> None:
    """Squares of that side become zero, in place, as far as they lie in the picture; `middles` are (down, right)."""
    for picture, (down, right) in zip(x, (middles - side // 2).tolist(), strict=True):
        picture[max(0, down) : down + side, max(0, right) : right + side] = 0


def _check_range(name: str, value: object, most: float) -> None:
    """Refuse what is not two numbers, 0 < least <= largest <= most."""
    good = (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(v, Real) for v in value)
    )
    if not good or not 0 < value[0] <= value[1] <= most:
        raise UsageError(
            f"{name} is {value!r}; give two numbers, the least and the largest, above 0 and up to {most:g}"
        )
