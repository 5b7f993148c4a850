"""The input that a model expects: its size, how images are resized, and how they are normalised.

A network expects images as in its training. A resize without antialiasing, or a crop
one pixel off, costs up to a point of accuracy and never raises an error. So these numbers are
stored with the weights. `decode`, `resize` and `prepare` apply them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from PIL import Image

from ..errors import UsageError
from ..system.checks import from_fields
from .checks import is_between, short, whole_number

__all__ = ["CIFAR", "CIFAR_100", "FILTERS", "MOST", "Preprocess"]

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "torch7": Image.Resampling.BICUBIC,  # the most similar one, for the random crops of training
    "keras": Image.Resampling.NEAREST,
}
"""Pillow's filter for each `Preprocess.interpolation`."""

_MAX_SIDE = 4096  # of the network's input: 200 MB of float32
# Of a mean or a deviation. All published ones are from 0 to 1; a mean that a network has learned
# may lie a little beside that. Those for pixels from 0 to 255 are larger.
MOST = 10


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the model's input; stored with the weights.

    Parameters
    ----------
    resize
        Length of the shorter side after resizing, in pixels; the longer side keeps the
        aspect ratio.
    crop
        Side of the square that is cut from the middle, in pixels. Where it is larger than the
        resized image, the padding is black.
    interpolation
        How images are resized:

        * "bilinear" or "bicubic": Pillow's filters, which widen when they shrink an image
          (antialiasing). So do torchvision, timm, mmpretrain and Cadene.
        * "torch7": as facebookresearch/ResNeXt (``Scale``, ``ColorNormalize`` and ``CenterCrop``
          of its ``datasets/transforms.lua``): Torch7's bicubic ``image.scale``, whose results are
          not rounded to 8 bits, and a crop whose corner is rounded up. `images.torch7` describes
          the rest.
        * "keras": as the documentation of keras-applications, ``load_img(path, target_size=(224,
          224))``: the whole image is squeezed or stretched to the square that the network sees,
          and each pixel is the nearest one. `resize` is the same as `crop`.
    mean, std
        Of each channel, for values in [0, 1]: of red, green and blue; or a single number for a
        network with grey input.

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
            side = whole_number(name, getattr(self, name), 1, _MAX_SIDE, " of pixels")
            object.__setattr__(self, name, side)
        if not isinstance(self.interpolation, str) or self.interpolation not in FILTERS:
            raise UsageError(
                f"interpolation is {short(self.interpolation)}; give one of {', '.join(FILTERS)}"
            )
        if self.interpolation == "keras" and self.resize != self.crop:
            raise UsageError(
                f"resize is {self.resize} and crop {self.crop}, but keras resizes the whole image; "
                "give the same number for both"
            )
        object.__setattr__(self, "mean", _per_channel("mean", self.mean, least=-MOST))
        object.__setattr__(self, "std", _per_channel("std", self.std, least=1e-4))
        if len(self.mean) != len(self.std):
            raise UsageError(
                f"mean has {len(self.mean)} values and std {len(self.std)}; "
                "give one of each for every channel"
            )

    def described(self) -> str:
        """Return in words how images are prepared."""
        padding = ", with black padding" if self.crop > self.resize else ""
        cut = f"resized to {self.resize} ({self.interpolation}), cropped to {self.crop}{padding}"
        if self.interpolation == "keras":
            cut = f"squeezed to {self.crop} x {self.crop} (keras)"
        mean, std = (", ".join(f"{one:.4g}" for one in row) for row in (self.mean, self.std))
        return f"{cut}, mean ({mean}), std ({std})"

    @property
    def channels(self) -> int:
        """Number of input channels: 3 for colour, 1 for grey."""
        return len(self.mean)

    def misfit(self, channels: int) -> str:
        """Return why these images are none for a network, and what to do; empty if they are."""
        if self.channels == channels:
            return ""
        wrong = f"the network takes {channels} channels and the preprocessing makes {self.channels}"
        if channels not in (1, 3):
            return (
                f"{wrong}, and pictures are prepared in 1 or 3 only; call the model in Python with "
                f"arrays [n, h, w, {channels}] that are prepared as in its training"
            )
        numbers = "one number each" if channels == 1 else "three numbers each"
        return (
            f"{wrong}; convert the checkpoint with --mean and --std, {numbers} (preprocess= in "
            "Python), or call the model with arrays of your own"
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON object that `from_json` reads; every float keeps all its bits."""
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
        return from_fields(cls, names, value, "the preprocessing")


def _per_channel(name: str, values: object, least: float) -> tuple[float, ...]:
    """Check one or three numbers from ``least`` to ``MOST`` and return them as floats."""
    if not isinstance(values, tuple | list) or len(values) not in (1, 3):
        raise UsageError(
            f"{name} is {short(values)}; "
            "give a number for each of red, green and blue, or a single one for grey"
        )
    for value in values:
        if isinstance(value, bool) or not is_between(value, least, MOST):
            raise UsageError(
                f"{name} holds {short(value)}; give numbers from {least:g} to {MOST:g}, for "
                "pixels from 0 to 1: divide numbers for pixels from 0 to 255 by 255"
            )
    return tuple(float(value) for value in values)


CIFAR = Preprocess(
    resize=32,
    crop=32,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
"""Of CIFAR-10's training images, with the mean and deviation that Xie et al. and most others use.

``datasets/cifar10.lua`` of facebookresearch/ResNeXt has these numbers."""

CIFAR_100 = Preprocess(
    resize=32,
    crop=32,
    mean=(129.3 / 255, 124.1 / 255, 112.4 / 255),
    std=(68.2 / 255, 65.4 / 255, 70.4 / 255),
)
"""Of CIFAR-100's training images, with the numbers of the authors' ``datasets/cifar100.lua``."""
