"""Compile the kernels of a plan before it runs, with the help of other processes.

Most of the time that compiling takes is spent in Python, of which a process runs one thread at a
time. So other processes help (`process`). All take the next kernel from one list until none is
left, as threads take tasks (`..crew`). A helper compiles its kernel into the cache, from where this
process loads it. What a helper does not finish, for whatever reason, this process compiles when it
needs it, as it does everything where nobody can help.

A helper is another Python that imports this package and nothing of the program that runs here: a
script is not run again. Of several processes that begin at once, such as the workers of a server,
one has helpers: each of the others would start as many.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import IO, TYPE_CHECKING

from numba.core import event

from .....errors import UsageError
from .....system.writing import locked
from .. import cache
from .watch import FUNCTION, LOCK, ROOM

if TYPE_CHECKING:
    from ..tasks import Kernel

PATIENCE = 60.0  # seconds that a helper may need for its last kernel
FREE = 1 << 20  # bytes that the disk must have for helpers to be of use: some kernels


def compile_all(kernels: Iterable[Kernel], processes: int, meanwhile: Callable[[], None]) -> None:
    """Compile those kernels that are neither loaded nor in the cache.

    Parameters
    ----------
    kernels : iterable of Kernel
    processes : int
        How many may compile, this one included.
    meanwhile : function
        What this process compiles first, while the others start.
    """
    missing = deque(kernel for kernel in dict.fromkeys(kernels) if not kernel.kept())
    if not missing:
        return
    wanted = min(processes, len(missing)) - 1
    # Waiting for a helper counts as compiling (`watch`).
    with event.trigger_event(LOCK), ExitStack() as stack:
        helped = wanted > 0 and _can_help(missing) and _takes_turn(stack)
        helpers = [Helper(missing) for _ in range(wanted if helped else 0)]
        try:
            with suppress(RuntimeError):  # no more threads are allowed
                for helper in helpers:
                    helper.start()
            meanwhile()
            with suppress(IndexError):  # helpers empty the list, too
                while True:
                    _ = missing.popleft().c_function
            until = time.monotonic() + PATIENCE
            for helper in helpers:
                helper.idle.wait(max(0.0, until - time.monotonic()))
        finally:
            for helper in helpers:
                helper.end()


def _can_help(kernels: Iterable[Kernel]) -> bool:
    """Return whether other processes can compile these for this one: they find the same kernels.

    In a program that has Python inside, or that was frozen, ``sys.executable`` is that program.
    """
    name = os.path.basename(sys.executable or "")
    is_python = re.fullmatch(r"python[\d.]*t?(\.exe)?", name, re.IGNORECASE)
    if is_python is None or hasattr(sys, "frozen") or cache.problem() is not None:
        return False
    return all(kernel.function.__module__.startswith(ROOM) for kernel in kernels)


def _takes_turn(stack: ExitStack) -> bool:
    """Return whether this process may have helpers until the stack ends: no other one has any.

    Nor may it where a disk is full, or has no locks.
    """
    place = cache.made()
    if place is None:
        return False
    try:
        file = stack.enter_context(locked(place.parent / "helpers.lock", _refuse))
        try:
            written = os.write(file.fileno(), bytes(FREE))
            os.fsync(file.fileno())  # a disk elsewhere says only then that it is full
            return written == FREE
        finally:
            os.ftruncate(file.fileno(), 0)
    except (OSError, UsageError):
        return False


def _refuse() -> None:
    """End the wait for a lock before it begins."""
    raise BlockingIOError


class Helper(threading.Thread):
    """Hands kernels to another process, one after the other, and waits for each.

    Parameters
    ----------
    missing : deque of Kernel
        The common list.

    Attributes
    ----------
    idle : threading.Event
        Set while the process has no kernel to compile.
    """

    def __init__(self, missing: deque[Kernel]) -> None:
        super().__init__(name="tinyresnext-compiling", daemon=True)
        self._missing, self._process, self._ended = missing, None, False
        self.idle = threading.Event()
        self.idle.set()

    _process: subprocess.Popen[str] | None

    def run(self) -> None:
        """Give the process kernels until none is left, or until it ends."""
        # An error: the process could not be started, or has ended while this one wrote to it.
        with suppress(OSError, ValueError), _started() as process:
            self._process = process
            if self._ended:
                process.kill()
            if process.stdin is not None and _is_done(process):
                self._give(process, process.stdin)
        self.idle.set()

    def _give(self, process: subprocess.Popen[str], to: IO[str]) -> None:
        """Write the place of a kernel, wait until it is compiled, and again."""
        with suppress(IndexError):
            while True:
                self.idle.clear()  # first: whoever finds the list empty then knows who is busy
                kernel = self._missing.popleft()
                place = kernel.place
                with event.trigger_event(FUNCTION, data={"name": place.replace(" ", ".")}):
                    to.write(f"{place}\n")
                    to.flush()
                    # Where it cannot keep a kernel, its work is lost.
                    if not _is_done(process) or not kernel.kept():
                        break
                self.idle.set()
        self.idle.set()

    def end(self) -> None:
        """End the process if it still runs: what it has finished is in the cache."""
        self._ended = True
        if self._process is not None:
            self._process.kill()
        if self.is_alive():
            self.join()


def _started() -> subprocess.Popen[str]:
    """Start a helper, with this process's search path."""
    paths = [path or os.getcwd() for path in sys.path if isinstance(path, str)]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.process", str(cache.folder())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _is_done(process: subprocess.Popen[str]) -> bool:
    """Wait until the process says that it is done, or ends; whatever else is printed is ignored."""
    return process.stdout is not None and any(line == "done\n" for line in process.stdout)


def found(place: str) -> Kernel:
    """Return the kernel at a place, as `Kernel.place` names it."""
    module, name, *key = place.split()
    name, *others = name.split("/")
    there = getattr(import_module(f".{module}", ROOM.rstrip(".")), name)
    return (there(*map(int, key)) if key else there).taking(tuple(others))
