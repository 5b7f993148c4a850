"""Telling a caller what Numba compiles while it compiles: which kernel, how many, for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba.core import event

from ....contract import Compiling

EVERY = 0.25  # seconds between two calls of ``tell``
LOCK, FUNCTION = "numba:compiler_lock", "numba:compile"  # the events, as Numba calls them
ROOM = __name__.removesuffix("runtime.compiling.watch")


@contextmanager
def when_compiling(tell: Callable[[Compiling | None], None], after: float = 1.0) -> Iterator[None]:
    """Call ``tell`` again and again while kernels compile inside the ``with`` block.

    Parameters
    ----------
    tell : function
        Called in another thread, and with None when a compilation that it was told of has ended.
    after : float
        Seconds of compiling, all kernels taken together, before it is called first.
    """
    watch = Watch(after, tell)
    with event.install_listener(LOCK, watch), event.install_listener(FUNCTION, watch):
        yield


class Watch(event.Listener):
    """Adds up how long Numba compiles, and counts our functions that are done.

    Numba holds a lock while it compiles, which is one event, and reports each function, which is
    another; functions that a function calls are compiled inside it.
    """

    def __init__(self, after: float, tell: Callable[[Compiling | None], None]) -> None:
        self._after, self._tell, self._told = after, tell, False
        self._depth, self._began, self._before = 0, 0.0, 0.0
        self._names: list[str] = []
        self._done = 0
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def on_start(self, event: Any) -> None:
        """Hear that Numba takes its lock, or begins with a function, or with a GPU's kernel."""
        if event.kind != LOCK:  # first, so that what is told has a name
            self.begin_function(_name(event))
        if event.kind != FUNCTION:
            self.begin()

    def on_end(self, event: Any) -> None:
        """Hear that Numba releases its lock, or is done with a function or a GPU's kernel."""
        if event.kind != LOCK:
            self.end_function(_name(event))
        if event.kind != FUNCTION:
            self.end()

    def begin_function(self, name: str) -> None:
        """Begin to compile a function, perhaps inside another; without a name it does not count."""
        with self._lock:
            self._names.append(name)

    def end_function(self, name: str) -> None:
        """End compiling that function; helpers compile others meanwhile."""
        with self._lock:
            if name in self._names:
                self._names.reverse()
                self._names.remove(name)
                self._names.reverse()
                self._done += bool(name)

    def begin(self) -> None:
        """Begin to compile, perhaps for a second time before the first has ended."""
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._began = time.monotonic()
                self._wait(0.0 if self._told else max(self._after - self._before, 0.0))

    def end(self) -> None:
        """End what `begin` began."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._timer is not None:
                self._timer.cancel()
                self._before += time.monotonic() - self._began
                self._timer = None
                if self._told:
                    self._tell(None)

    def _wait(self, seconds: float) -> None:
        """Call ``tell`` after some seconds, unless everything is compiled by then."""
        self._timer = threading.Timer(seconds, self._ring)
        self._timer.daemon = True
        self._timer.start()

    def _ring(self) -> None:
        """Call ``tell``: Numba still compiles."""
        with self._lock:
            if self._timer is not threading.current_thread():
                return
            seconds = self._before + time.monotonic() - self._began
            name = next((name for name in reversed(self._names) if name), "")
            self._told = True
            self._tell(Compiling(name, self._done, seconds))
            self._wait(EVERY)


def _name(event: Any) -> str:
    """Return which of our functions is compiled, such as ``conv.gemm.tile``; Numba's have none."""
    data = event.data or {}
    if "name" in data:
        return str(data["name"])
    function: Any = getattr(data.get("dispatcher"), "py_func", None)
    module = getattr(function, "__module__", None) or ""
    return f"{module.removeprefix(ROOM)}.{function.__name__}" if module.startswith(ROOM) else ""
