"""The primitive operations and their backends. The room knows nothing of models or images.

Read `contract` first (what a backend is), then `shapes` (what each op takes, returns and refuses)
and `reference` (what each op computes, in NumPy). `cpu` computes the same with Numba; `checks` has
what the shape rules share, and `torch_reference` the inference ops in PyTorch, for comparisons.
`backend` chooses a backend by the name of a device.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from ..errors import DeviceError
from ..system.words import one_of
from .contract import Backend

__all__ = ["DEVICES", "Backend", "backend", "backend_module"]

DEVICES = ("cpu", "auto", "reference")


def __getattr__(name: str) -> Any:
    """Return a backend as an attribute, imported late: `tinyresnext.ops.reference`."""
    if name not in ("cpu", "reference"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".{name}", __name__)


def backend(device: str) -> Backend:
    """Return the module that computes on a device; it is imported only when it is asked for.

    Parameters
    ----------
    device : {"cpu", "auto", "reference"}
        ``reference`` computes with plain NumPy; ``auto`` is the fastest device that this version
        has.

    Raises
    ------
    DeviceError
        This version has no such device, or Numba cannot be imported. Nothing is ever computed on
        another device than the one asked for.
    """
    if device not in DEVICES:
        raise DeviceError(f"device is {device!r}: {one_of(device, DEVICES)}")
    if device == "reference":
        from . import reference

        return reference
    try:
        from . import cpu
    except (ImportError, ValueError) as error:  # Numba refuses settings with a ValueError
        settings = [f"{name} is {os.environ[name]!r}" for name in os.environ if "NUMBA" in name]
        said = ", ".join([str(error) or type(error).__name__, *settings])
        raise DeviceError(
            f"the device {device!r} cannot be used here ({said}); install Numba again, unset its "
            "environment variables, or compute on the device 'reference'"
        ) from error
    return cpu


def backend_module(name: str) -> Backend:
    """Return a backend by the full name of its module, as its ``__name__`` says it.

    Raises
    ------
    DeviceError
        This version has no such backend.
    """
    own = name.removeprefix(f"{__name__}.")
    if own == name or own not in DEVICES:
        raise DeviceError(
            f"the model computes with {name!r}, which is not there; load the model from its file "
            f"for one of the devices {', '.join(DEVICES)}"
        )
    return backend(own)
