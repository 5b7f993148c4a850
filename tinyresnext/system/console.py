"""Standard error, whatever it is: a terminal, a file, an object with `write` only, closed, None.

A program without a console, such as a window or a service, has no standard streams, or puts objects
of its own in their place. No work depends on what is said there.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["at_terminal", "plain", "rewrite", "tell"]

_MOST = 2000  # characters of a message; a path may have 4,096


def at_terminal() -> bool:
    """Return whether standard error is a terminal, where a person sees progress."""
    try:
        return bool(sys.stderr.isatty())
    except Exception:  # it is None or closed, or an object of any class
        return False


def plain(text: object) -> str:
    """Return a message as one line that can be shown, whatever is in it, and not too long.

    A name in it stands as `files.shown` returns it. This is for what came in another way: what
    could move the cursor, change the direction of the text or begin a line is escaped.
    """
    line = str(text)
    if len(line) > _MOST:
        line = f"{line[: _MOST // 2]} ... {line[-_MOST // 2 :]}"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def tell(text: object, end: str = "\n") -> None:
    """Write a text to standard error at once, as far as it can be written."""
    whole = f"{text}{end}"
    with suppress(Exception):  # what an object of any class may raise
        try:
            sys.stderr.write(whole)
        except UnicodeEncodeError:
            sys.stderr.write(whole.encode("ascii", "backslashreplace").decode())
        sys.stderr.flush()


def rewrite(text: str) -> None:
    """Write a text over the line of the terminal that the cursor is in; an empty one clears it.

    A line that is wider than the terminal could not be written over, so it is cut.
    """
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except Exception:  # no file, or an object of any class
        columns = 0
    wide = (columns or 80) - 1
    tell(f"\r{text[:wide]:{wide}}", end="" if text else "\r")
