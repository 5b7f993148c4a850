"""Where files are kept that can be made or downloaded again: compiled kernels, pulled models."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..errors import UsageError
from .files import shown
from .writing import renamed

__all__ = ["folder", "home", "rename"]


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


def rename(path: Path, to: Path) -> None:
    """Give a file its name, in place of one that has it.

    Raises
    ------
    UsageError
        That cannot be done.
    """
    try:
        renamed(path, to)
    except OSError as error:
        raise UsageError(
            f"cannot write {shown(to)}: {error.strerror}; choose another folder with "
            "TINYRESNEXT_HOME"
        ) from error


def folder(path: Path) -> Path:
    """Return the folder; a new one is made for the user alone, and so is the one that it is in.

    That may be the folder of `home`, where kernels are kept only if nobody else can write to it.

    Raises
    ------
    UsageError
        It cannot be made.
    """
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        for level in (path.parent, path):
            level.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot make {shown(path)}: {error.strerror}; choose another folder with "
            "TINYRESNEXT_HOME"
        ) from error
    return path
