"""What may stand in the place of a standard stream where a program has no console."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


class TextOnly:
    """An object with `write` only, as a window has it for what is printed."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Failing(TextOnly):
    """An object whose every method fails, as one of a window that was closed."""

    def write(self, text: str) -> None:
        raise OSError("the window is closed")

    def flush(self) -> None:
        raise RuntimeError("the window is closed")

    def isatty(self) -> bool:
        raise TypeError("the window is closed")


class Terminal(TextOnly):
    """A terminal that has no `flush`, `fileno` or `reconfigure`."""

    def isatty(self) -> bool:
        return True


def closed_file() -> Any:
    """Return a file that was closed."""
    handle, name = tempfile.mkstemp()
    os.close(handle)
    with open(name, "w") as file:
        pass
    Path(name).unlink()
    return file


def closed_text() -> Any:
    """Return a text in memory that was closed."""
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "closed file": closed_file,
    "closed text": closed_text,
    "text only": TextOnly,
    "StringIO": io.StringIO,
    "ASCII": lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
    "failing": Failing,
    "terminal": Terminal,
}
