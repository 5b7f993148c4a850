"""What a training run reports while it goes on, and how it is asked to stop."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, BinaryIO

from ...errors import UsageError
from ...system.console import at_terminal, rewrite, tell
from ...system.files import PIECE, shown
from ...system.writing import opened

EVERY = 0.25  # seconds between two looks at the terminal
HANGUP = getattr(signal, "SIGHUP", None)  # what a process gets whose terminal has gone


class Log:
    """A file of JSON Lines that continues where a state says it was.

    So no line is ever doubled or torn.

    Parameters
    ----------
    path : path
    length : int
        How many bytes of an earlier part of the run are kept; what was written after its last state
        is written again.

    Raises
    ------
    UsageError
        The file cannot be written.
    """

    def __init__(self, path: Path, length: int = 0) -> None:
        self.path = path
        self._file = opened(path)
        try:
            self._file.truncate(_end_of_line(self._file, length))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise UsageError(
                f"the log {shown(path)} cannot be written: {error.strerror}; choose another folder"
            ) from error

    def line(self, **values: Any) -> None:
        """Add a line."""
        try:
            self._file.write(
                (json.dumps(values, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
            )
            self._file.flush()
        except OSError as error:
            raise UsageError(
                f"the log {shown(self.path)} cannot be written: {error.strerror}; make room and "
                "resume"
            ) from error

    def sync(self) -> int:
        """Bring everything to the disk, and return the length of the file in bytes."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UsageError(
                f"the log {shown(self.path)} cannot be written: {error.strerror}; make room and "
                "resume"
            ) from error
        return self._file.tell()

    def close(self) -> None:
        """Close the file; what could not be written has been told before, and fails again here."""
        with suppress(OSError):
            self._file.close()


def _end_of_line(file: BinaryIO, length: int) -> int:
    """Return the end of the last line that ends within the first ``length`` bytes of a file."""
    at = min(length, file.seek(0, os.SEEK_END))
    while at > 0:
        start = max(0, at - PIECE)
        file.seek(start)
        if end := file.read(at - start).rfind(b"\n") + 1:
            return start + end
        at = start
    return 0


class Progress:
    """A line for each epoch; on a terminal also one that shows how far the epoch is.

    Parameters
    ----------
    epochs, steps : int
        Epochs of the whole run, and steps of an epoch.
    batch : int
    done : int
        Steps of the whole run that are done.
    """

    def __init__(self, epochs: int, steps: int, batch: int, done: int) -> None:
        self.epochs, self.steps, self.batch, self._first = epochs, steps, batch, done
        self._start, self._last = time.monotonic(), 0.0
        self._shown, self._on = False, at_terminal()

    def step(self, epoch: int, step: int, seconds: float, loss: float, accuracy: float) -> None:
        """Show a step.

        ``step`` counts within the epoch, ``seconds`` are those of the last step, and loss and
        accuracy are means over the epoch so far.
        """
        now = time.monotonic()
        if not self._on or now - self._last < EVERY:
            return
        self._last, done = now, epoch * self.steps + step
        left = (now - self._start) / max(done - self._first, 1) * (self.epochs * self.steps - done)
        self._show(
            f"epoch {epoch + 1}/{self.epochs}  {step}/{self.steps}  "
            f"{self.batch / max(seconds, 1e-9):.0f} images/s  "
            f"loss {loss:.4f}  accuracy {accuracy:.1%}  {clock(left)} left"
        )

    def epoch(self, epoch: int, found: dict[str, float]) -> None:
        """Leave a line about an epoch."""
        if self._on:
            rewrite("")
        self._shown = False
        validation = f"  top-1 {found['top1']:.2%}" if "top1" in found else ""
        if "exact" in found:
            validation = f"  average precision {found['average_precision']:.2%}"
        tell(
            f"epoch {epoch + 1}/{self.epochs}  {found['images_per_second']:.0f} images/s  "
            f"loss {found['loss']:.4f}  "
            f"accuracy {found['accuracy']:.1%}{validation}  {clock(found['seconds'])}"
        )

    def say(self, text: str) -> None:
        """Show a text in place of the line."""
        if self._on:
            self._show(text)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            tell("")
        self._shown = False

    def _show(self, text: str) -> None:
        """Write over the last text."""
        rewrite(text)
        self._shown = True


def clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Stop:
    """Inside its ``with`` block, Ctrl-C and SIGTERM ask for a stop; a second one stops at once.

    So does SIGHUP, as when a connection by ssh is lost. Of these a shell and the system send
    several, so they never stop at once. The first signal is answered at once with what the run
    waits for. Only the main thread receives signals: in another, they do what they always do. What
    the process was started to ignore stays ignored, such as Ctrl-C in what a script runs in the
    background, and SIGHUP behind `nohup`.

    Attributes
    ----------
    asked : bool
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, HANGUP):
                if number is None or signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        kept = {}
        if HANGUP in self._before:  # first, since others follow at once
            signal.signal(HANGUP, signal.SIG_IGN)
            kept[HANGUP] = self._before.pop(HANGUP)
        self._restore()
        self._before = kept
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        second = "SIGTERM" if number == HANGUP else f"second {name}"
        if at_terminal():
            tell("")  # the line has the progress, and ^C behind it
        tell(
            f"{name}: the run ends when this step is done and the state is saved; a {second} "
            "ends it at once, and then the state is that of the last epoch"
        )

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
