"""Ctrl-C while a command computes: the first is answered at once, a second ends the process.

Python handles a signal when it gets to run, and a computation can take seconds before that. So a
thread listens for the signals themselves.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .progress import say

AFTER = 0.5  # seconds; most computations have ended by then, and nothing needs to be said
INTERRUPTED = 130  # exit code


@contextmanager
def interruptible(speaks: bool) -> Iterator[None]:
    """Say at the first Ctrl-C in the ``with`` block what is waited for, if that takes a while.

    A second Ctrl-C ends the process. Only the main thread of a program can do this, and not on
    Windows; elsewhere nothing changes.

    Parameters
    ----------
    speaks : bool
        Whether something is said at the first one; training says it itself.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_listen, args=(reading, ended, speaks), daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        ended.set()
        os.close(writing)  # which ends the thread
        thread.join()
        os.close(reading)


def _listen(reading: int, ended: threading.Event, speaks: bool) -> None:
    """Read the numbers of signals, as Python writes them the moment they arrive."""
    asked = False
    while number := os.read(reading, 1):
        if number[0] != signal.SIGINT:
            continue
        if asked:
            os._exit(INTERRUPTED)
        asked = True
        if speaks and not ended.wait(AFTER):
            say("stopping when the computation that is going on has ended; Ctrl-C again ends it")
