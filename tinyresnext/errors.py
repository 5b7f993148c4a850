"""Every error that bad input can cause. Each message says what was found, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "DeviceError",
    "DownloadError",
    "FormatError",
    "ImageError",
    "IntegrityError",
    "ShapeError",
    "TinyResNeXtError",
    "TrainingError",
    "UnsafeError",
    "UsageError",
    "WeightsError",
]


class TinyResNeXtError(Exception):
    """The family: catch this to catch everything that bad input can raise."""


class WeightsError(TinyResNeXtError):
    """A weight file cannot be used."""


class FormatError(WeightsError):
    """The file is not of a kind we read, or it is cut short, or its parts contradict each other."""


class IntegrityError(WeightsError):
    """The file is well formed, but its bytes or numbers are not what its digests or its meaning allow."""


class UnsafeError(WeightsError):
    """The file asks for something that weights never need: code, other files, memory beyond its own size."""


class DownloadError(WeightsError):
    """The weights cannot be fetched: there is no connection, or what comes over it is no file."""


class ShapeError(WeightsError):
    """The tensors do not belong to the architecture: names, shapes or types differ."""


class ImageError(TinyResNeXtError):
    """A picture cannot be used."""


class TrainingError(TinyResNeXtError):
    """Training cannot go on: what it computes is not finite any more."""


class DeviceError(TinyResNeXtError):
    """The device that was asked for is not there, or cannot do the work."""


class UsageError(TinyResNeXtError, ValueError):
    """The call itself makes no sense: an unknown name, a value out of range, a missing choice."""
