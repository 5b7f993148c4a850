"""Watch the interpreter through audit events: imports, opened files, exec, sockets, processes."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_state: dict = {"installed": False, "events": None, "thread": None}


def _hook(event: str, arguments: tuple) -> None:
    """Record an event if a test watches.

    A hook cannot be removed again, so one serves the whole process.
    """
    events = _state["events"]
    if event == "open" and isinstance(arguments[0], int):
        return  # a handle that is open already
    if events is not None and threading.get_ident() == _state["thread"]:
        events.append((event, arguments[0] if arguments else None))


@contextmanager
def watching() -> Iterator[list]:
    """Collect the ``(event, first argument)`` pairs of this thread inside the ``with`` block."""
    if not _state["installed"]:
        sys.addaudithook(_hook)
        _state["installed"] = True
    events: list = []
    _state.update(thread=threading.get_ident(), events=events)
    try:
        yield events
    finally:
        _state["events"] = None
