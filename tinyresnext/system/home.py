"""Where everything is kept that can be made or fetched again: compiled kernels and pulled models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["home"]


def home() -> Path | None:
    """The folder for everything that can be made again, or nothing on a system that has no place for such things.

    ``TINYRESNEXT_HOME`` if that is set; else ``tinyresnext`` in the user's cache folder, which is
    ``XDG_CACHE_HOME`` or ``~/.cache``, on macOS ``~/Library/Caches``, on Windows
    ``%LOCALAPPDATA%``.
    """
    if chosen := os.environ.get("TINYRESNEXT_HOME"):
        return Path(chosen).absolute()
    if sys.platform == "win32":
        base, otherwise = os.environ.get("LOCALAPPDATA", ""), "AppData/Local"
    elif sys.platform == "darwin":
        base, otherwise = "", "Library/Caches"
    else:
        base, otherwise = os.environ.get("XDG_CACHE_HOME", ""), ".cache"
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / otherwise) / "tinyresnext"
    except RuntimeError:  # a user without a home
        return None
