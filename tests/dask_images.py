"""Images that do something when they are opened, for tests of workers: workers import this."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

from tinyresnext.data.trees.sources import Source
from tinyresnext.errors import ImageError

LIMIT = 300  # seconds that an image is held at most, so that nothing is left where a test failed


def held(folder: Path, path: str) -> Source:
    """Return an image that says in a folder which other process opens it, and waits for ``go``."""
    return Source(path, partial(_wait, os.getpid(), str(folder), path))


def _wait(process: int, folder: str, path: str) -> str:
    if os.getpid() == process:
        return path
    (Path(folder) / f"{Path(path).stem}-{os.getpid()}").touch()
    end = time.monotonic() + LIMIT
    while not (Path(folder) / "go").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return path


def only_here(path: str) -> Source:
    """Return an image that no other process than this one can open."""
    return Source(path, partial(_only_in, os.getpid(), path))


def _only_in(process: int, path: str) -> str:
    if os.getpid() != process:
        raise ImageError("there is no such file")
    return path


def ends_others(path: str) -> Source:
    """Return an image that ends every other process in which it is opened."""
    return Source(path, partial(_end, os.getpid(), path))


def _end(process: int, path: str) -> str:
    if os.getpid() != process:
        os.kill(os.getpid(), signal.SIGKILL)
    return path
