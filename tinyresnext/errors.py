"""Every error that bad input can cause.

A message says what was found, what was expected and what to do.
"""

from __future__ import annotations

__all__ = [
    "DeviceError",
    "DownloadError",
    "FormatError",
    "ImageError",
    "IntegrityError",
    "MachineError",
    "OutOfMemoryError",
    "PrecisionError",
    "ShapeError",
    "TinyResNeXtError",
    "TrainingError",
    "UnsafeError",
    "UsageError",
    "WeightsError",
]


class TinyResNeXtError(Exception):
    """The base class: catch it to catch everything that bad input can raise."""


class WeightsError(TinyResNeXtError):
    """A weight file cannot be used."""


class FormatError(WeightsError):
    """The file has an unknown format, is cut short, or contradicts itself."""


class IntegrityError(WeightsError):
    """The file is well formed, but its bytes or numbers are wrong: a digest differs, a NaN."""


class UnsafeError(WeightsError):
    """The file asks for what weights never need: code, other files, memory beyond its own size."""


class DownloadError(WeightsError):
    """The weights cannot be downloaded: there is no connection, or the answer is not the file."""


class ShapeError(WeightsError):
    """The tensors do not belong to the architecture: names, shapes or types differ."""


class ImageError(TinyResNeXtError):
    """An image cannot be used."""


class MachineError(TinyResNeXtError):
    """The machine fails while a file is read, which may be whole: it is no error of an image.

    Its storage or its network does not answer, too many files are open, or there is no memory to
    open one.
    """


class TrainingError(TinyResNeXtError):
    """Training cannot continue: a number that it computed is not finite."""


class DeviceError(TinyResNeXtError):
    """The requested device is missing, or cannot do the work."""


class OutOfMemoryError(DeviceError):
    """The device has less free memory than is needed; its memory is as it was before.

    Attributes
    ----------
    wanted, free : int
        Bytes that were asked for, and bytes that the device had left; 0 where that is not known,
        as on the processor.
    """

    def __init__(self, message: str, wanted: int = 0, free: int = 0) -> None:
        super().__init__(message)
        self.wanted, self.free = wanted, free


class PrecisionError(DeviceError):
    """A value is too large for the precision that was asked for."""


class UsageError(TinyResNeXtError, ValueError):
    """The call makes no sense: an unknown name, a value out of range, a missing choice."""
