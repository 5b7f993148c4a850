"""How a picture becomes the model's input: decode, resize, crop, normalise.

A network knows pictures only as its training showed them. A resize without antialiasing, or a crop
one pixel off, costs up to a point of accuracy and never raises an error. So every step here gives,
to the pixel, what torchvision's evaluation transforms give on Pillow pictures (``Resize``,
``CenterCrop``, ``ToTensor``, ``Normalize``); timm and mmpretrain (with its Pillow backend) cut the
same pixels, with other numbers in `Preprocess`. The arithmetic of the resize is that of the
installed Pillow, as it is for them: since version 13 it shrinks pictures more than twice as tall as
wide in another order, and some of their pixels differ by a level from what older versions gave. Two
systems go ways of their own, which `Preprocess.interpolation` names: the authors' Torch7 code
(`torch7_resize`) and Keras.

`decode` differs from ``PIL.Image.open(path).convert("RGB")`` where that gives what nobody means:

===================================  ====================================  =====================================
picture                              ``convert("RGB")``                    here
===================================  ====================================  =====================================
EXIF orientation 2 to 8              ignored: the picture lies on a side   turned upright
transparent pixels                   their hidden colour, often black      laid over white, as a page shows them
16-bit grey                          everything above 255 is white         the high byte, as Pillow does in colour
animation                            the first frame                       the first frame
floating point                       cut off at 0 and 255                  refused: no one can know its range
===================================  ====================================  =====================================

Colour profiles are ignored, as in the pipelines that the published weights were trained with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import FormatError, ImageError, UsageError
from .decode import check_size, load_picture, orientation
from .torch7 import scale_and_crop, scaled_size

__all__ = ["FILTERS", "Picture", "Preprocess", "decode", "normalise", "prepare", "resize_and_crop"]

Picture = str | os.PathLike[str] | Image.Image | np.ndarray
"""What stands for a picture: the name of a file, a Pillow picture, or pixels: uint8 [h, w] or [h, w, 1, 3 or 4]."""

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "torch7": Image.Resampling.BICUBIC,  # the nearest relative, for the random parts of training
    "keras": Image.Resampling.NEAREST,
}
"""Pillow's filter for each `Preprocess.interpolation`."""

_MAX_SIDE = 4096  # of the network's input: 200 MB of float32
_TURNS = {  # EXIF orientation -> what puts the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes the model's input; it travels with the weights.

    Parameters
    ----------
    resize
        Length of the shorter side after resizing, in pixels; the longer one keeps the shape of the
        picture.
    crop
        Side of the square cut from the middle, in pixels; where it is larger than the resized
        picture, the rim is black.
    interpolation
        How pictures are resized:

        * "bilinear" or "bicubic": Pillow's filters, which widen when they shrink a picture
          (antialiasing). So do torchvision,
          timm, mmpretrain and Cadene.
        * "torch7": as facebookresearch/ResNeXt (``Scale``, ``ColorNormalize`` and ``CenterCrop`` of
          its
          ``datasets/transforms.lua``): Torch7's bicubic ``image.scale``, whose results are not
          rounded to 8 bits, and a crop whose corner is rounded up. `torch7_resize` says the rest.
        * "keras": as the documentation of keras-applications, ``load_img(path, target_size=(224,
          224))``: the whole picture is
          squeezed or stretched to the square that the network sees, each pixel the nearest one.
          `resize` is the same as `crop`.
    mean, std
        Of each channel, for values in [0, 1]: red, green and blue; or a single one for a network
        that sees grey.

    Raises
    ------
    UsageError
        A value is of the wrong type or out of range.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            side = getattr(self, name)
            if (
                not isinstance(side, Integral)
                or isinstance(side, bool)
                or not 1 <= side <= _MAX_SIDE
            ):
                raise UsageError(
                    f"{name} is {_short(side)}; give a whole number of pixels from 1 to {_MAX_SIDE}"
                )
            object.__setattr__(self, name, int(side))
        if not isinstance(self.interpolation, str) or self.interpolation not in FILTERS:
            raise UsageError(
                f"interpolation is {_short(self.interpolation)}; give one of {', '.join(FILTERS)}"
            )
        if self.interpolation == "keras" and self.resize != self.crop:
            raise UsageError(
                f"resize is {self.resize} and crop {self.crop}, but keras shows whole pictures; give the same for both"
            )
        object.__setattr__(self, "mean", _per_channel("mean", self.mean, least=-1e4))
        object.__setattr__(self, "std", _per_channel("std", self.std, least=1e-4))
        if len(self.mean) != len(self.std):
            raise UsageError(
                f"mean has {len(self.mean)} values and std {len(self.std)}; give one of each for every channel"
            )

    @property
    def channels(self) -> int:
        """Number of input channels: 3 for colour, 1 for grey."""
        return len(self.mean)

    def to_json(self) -> dict[str, object]:
        """Build the JSON object that `from_json` reads; its floats survive the journey exactly."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, value: object) -> Preprocess:
        """Read what `to_json` wrote.

        Raises
        ------
        FormatError
            A key is missing or unknown, or a value is of the wrong type or out of range.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or set(value) != set(names):
            found = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
            raise FormatError(
                f"the preprocessing is {_short(found)}; expected an object with the keys {', '.join(names)}"
            )
        try:
            return cls(**value)
        except UsageError as error:
            raise FormatError(f"the preprocessing cannot be used: {error}") from error


def decode(source: Picture, channels: int = 3) -> NDArray[np.uint8]:
    """Decode a picture and put it upright.

    Parameters
    ----------
    source
        The name of a JPEG, PNG, WebP, BMP or GIF file (the first frame counts), a Pillow picture,
        or an array of uint8: [h, w] or [h, w, 1] grey, [h, w, 3] RGB, [h, w, 4] RGB with alpha. The
        module's text says what becomes of transparency, 16-bit grey and EXIF orientation. The
        source's pixels are left as they are.
    channels
        3 for RGB; 1 for grey, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Returns
    -------
    uint8 [h, w, channels]
        The caller's own array.

    Raises
    ------
    ImageError
        The picture cannot be read or is larger than `tinyresnext.images.decode.MAX_PIXELS`.
    UsageError
        `source` is none of the above, or `channels` is neither 1 nor 3.
    """
    if not isinstance(channels, Integral) or channels not in (1, 3):
        raise UsageError(f"channels is {_short(channels)}; give 3 for RGB or 1 for grey")
    if isinstance(source, np.ndarray):
        image, name = _from_array(source), "the array"
    elif isinstance(source, Image.Image):
        image, name = source, f"the Pillow picture of mode {source.mode}"
    elif isinstance(source, str | os.PathLike):
        image, name = load_picture(source), f"the picture {os.fspath(source)!r}"
    else:
        raise UsageError(
            f"a {type(source).__name__} is no picture; give a file name, a Pillow picture or a uint8 array"
        )
    try:
        check_size(*image.size)
        image.load()
        turn = _TURNS.get(orientation(image.info.get("exif")))
        image = _to_rgb(image if turn is None else image.transpose(turn))
        pixels = np.array(image if channels == 3 else image.convert("L"))
    # A Pillow picture may still be an open file of any format, and its info may hold anything.
    except Exception as error:
        raise ImageError(f"{name} cannot be used: {error or type(error).__name__}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def resize_and_crop(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Resize the shorter side to `preprocess.resize`, then cut a square of `preprocess.crop` from the middle.

    The rounding is torchvision's: the longer side is cut off to a whole number, the corner of the
    crop is rounded half to even, and a crop that is larger than the picture is filled with zeros,
    the odd one at the right and at the bottom. With "torch7" it is Torch7's, and the result, which
    `prepare` leaves as it is, is rounded to the nearest level. With "keras", both sides become
    `preprocess.crop`.

    Parameters
    ----------
    pixels
        uint8 [h, w, c], c = 1 or 3.

    Returns
    -------
    uint8 [crop, crop, c]

    Raises
    ------
    ImageError
        `pixels` is something else, or so long and narrow that it would be resized to more than
        `MAX_PIXELS`.
    """
    size, crop = _resized(pixels, preprocess), preprocess.crop
    if preprocess.interpolation == "torch7":
        x = scale_and_crop(pixels, size, crop)
        return np.rint(np.clip(x, 0, 1) * np.float32(255)).astype(np.uint8)
    image = Image.fromarray(
        np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    )
    image = image.resize(size, FILTERS[preprocess.interpolation])
    left, top = (_corner(side, crop) for side in size)
    image = image.crop((left, top, left + crop, top + crop))  # outside the picture: zeros
    return np.array(image).reshape(crop, crop, pixels.shape[2])


def normalise(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.float32]:
    """``(pixels / 255 - mean) / std`` in float32, each step rounded as torchvision's ``ToTensor`` and ``Normalize`` round it.

    Parameters
    ----------
    pixels
        uint8 [..., c] with as many channels as `preprocess.mean`.

    Returns
    -------
    float32 [..., c]

    Raises
    ------
    ImageError
        `pixels` is something else.
    """
    if (
        not isinstance(pixels, np.ndarray)
        or pixels.dtype != np.uint8
        or pixels.ndim < 1
        or pixels.shape[-1] != preprocess.channels
    ):
        raise ImageError(
            f"found {_describe(pixels)}; expected uint8 [..., {preprocess.channels}], as resize_and_crop gives it"
        )
    x = pixels.astype(np.float32)
    x /= np.float32(255)
    return _standardised(x, preprocess)


def prepare(source: Picture, preprocess: Preprocess) -> NDArray[np.float32]:
    """Decode, resize, crop and normalise one picture: float32 [crop, crop, channels]. Errors as in the three steps."""
    pixels = decode(source, preprocess.channels)
    if preprocess.interpolation == "torch7":
        return _standardised(
            scale_and_crop(pixels, _resized(pixels, preprocess), preprocess.crop), preprocess
        )
    return normalise(resize_and_crop(pixels, preprocess), preprocess)


def _standardised(x: NDArray[np.float32], preprocess: Preprocess) -> NDArray[np.float32]:
    """``(x - mean) / std``, in place."""
    x -= np.asarray(preprocess.mean, np.float32)
    x /= np.asarray(preprocess.std, np.float32)
    return x


def _resized(pixels: NDArray[np.uint8], preprocess: Preprocess) -> tuple[int, int]:
    """Width and height after resizing; refuses what is no picture, or too narrow to be resized."""
    _check_pixels(pixels)
    height, width, _ = pixels.shape
    if preprocess.interpolation == "keras":
        return preprocess.resize, preprocess.resize
    if preprocess.interpolation == "torch7":
        size = scaled_size(width, height, preprocess.resize)
    else:
        short, long = min(height, width), max(height, width)
        resized = preprocess.resize, int(preprocess.resize * long / short)
        size = resized if width <= height else resized[::-1]
    try:
        check_size(*size)
    except ImageError as error:
        raise ImageError(
            f"a picture of {width} x {height} pixels is too narrow: with its shorter side resized, {error}"
        ) from error
    return size


def _per_channel(name: str, values: object, least: float) -> tuple[float, ...]:
    """Check one or three finite numbers in [least, 1e4] and return them as floats."""
    if not isinstance(values, tuple | list) or len(values) not in (1, 3):
        raise UsageError(
            f"{name} is {_short(values)}; give a number for each of red, green and blue, or a single one for grey"
        )
    for value in values:
        if (
            not isinstance(value, Real) or isinstance(value, bool) or not least <= value <= 1e4
        ):  # NaN fails the comparison
            raise UsageError(
                f"{name} holds {_short(value)}; give numbers from {least:g} to 1e4, for pixels in [0, 1]"
            )
    return tuple(float(value) for value in values)


def _corner(side: int, crop: int) -> int:
    """Where a crop begins; negative where the picture is smaller than the crop."""
    return -((crop - side) // 2) if side < crop else round((side - crop) / 2)


def _from_array(pixels: np.ndarray) -> Image.Image:
    """Wrap an array as a Pillow picture."""
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    _check_pixels(pixels, (1, 3, 4))
    pixels = np.ascontiguousarray(pixels)
    return Image.fromarray(pixels if pixels.shape[2] > 1 else pixels[:, :, 0])


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB, transparency laid over white."""
    if image.mode.startswith("I"):
        image = _from_deep_grey(image)
    elif image.mode == "F":
        raise ImageError(
            "its pixels are floating point without a stated range; scale them to 0..255 and convert to mode L"
        )
    elif image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, in any of Pillow's I modes, to 8 bits, with the transparent value as alpha if there is one."""
    deep = np.asarray(image)
    if deep.min() < 0 or deep.max() > 65535:
        raise ImageError(
            f"its pixels run from {deep.min()} to {deep.max()}; scale them to 0..65535"
        )
    key = image.info.get("transparency")
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if key is not None:
        grey.putalpha(Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8)))
    return grey


def _check_pixels(pixels: object, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuse what is not uint8 [h, w, c] with a pixel in it, and say what to do."""
    if (
        isinstance(pixels, np.ndarray)
        and pixels.dtype == np.uint8
        and pixels.ndim == 3
        and pixels.shape[2] in channels
    ):
        check_size(pixels.shape[1], pixels.shape[0])
        return
    remedy = f"give uint8 [height, width, channels] with {' or '.join(map(str, channels))} channels"
    if isinstance(pixels, np.ndarray):
        if np.issubdtype(pixels.dtype, np.floating):
            remedy += ": for values in [0, 1], (x * 255).round().astype(np.uint8)"
        elif pixels.ndim == 4:
            remedy += ", one picture at a time"
        elif pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
            remedy += ": channels come last, x.transpose(1, 2, 0)"
    raise ImageError(f"found {_describe(pixels)}; {remedy}")


def _describe(pixels: object) -> str:
    """Say what an argument is: the dtype and shape of an array, the type of anything else."""
    return (
        f"{pixels.dtype} {list(pixels.shape)}"
        if isinstance(pixels, np.ndarray)
        else f"a {type(pixels).__name__}"
    )


def _short(value: object) -> str:
    """Quote a value in at most 80 characters, whatever it is."""
    try:
        text = repr(value)
    except Exception as error:  # such as an int of more digits than Python prints
        text = f"a {type(value).__name__} ({error})"
    return text if len(text) <= 80 else text[:77] + "..."


# Mean and standard deviation of CIFAR-10's training pictures, as Xie et al. and nearly everyone
# after them use them.
CIFAR = Preprocess(
    resize=32,
    crop=32,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
# Those of CIFAR-100, which the authors' own code uses for it; their Torch7 pipeline for ImageNet
# resizes with another filter.
CIFAR_100 = Preprocess(
    resize=32,
    crop=32,
    mean=(129.3 / 255, 124.1 / 255, 112.4 / 255),
    std=(68.2 / 255, 65.4 / 255, 70.4 / 255),
)
