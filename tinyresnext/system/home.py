"""Where files are kept that can be made or downloaded again: compiled kernels, pulled models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["home"]


def home() -> Path | None:
    """Return the folder for files that can be made again, or None if the system has no such place.

    It is ``TINYRESNEXT_HOME`` if that is set; else the folder ``tinyresnext`` in the user's cache
    folder, which is ``XDG_CACHE_HOME`` or ``~/.cache``; on macOS ``~/Library/Caches``; on Windows
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
    except RuntimeError:  # a user without a home folder
        return None
