"""The loop: mutate an input of the corpus, read it, and keep it if it reached a new line.

Lines are traced for the first inputs only, because tracing takes ten times the time of reading.
"""

from __future__ import annotations

import gc
import random
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import tinyresnext
from tinyresnext.errors import TinyResNeXtError

try:
    import resource
except ImportError:  # it is of Unix
    resource = None  # type: ignore[assignment]

PACKAGE = str(Path(tinyresnext.__file__).parent)
MOST_SECONDS = 1.0  # of processor time, for an input of at most `LONGEST` bytes
ENDLESS = 20.0  # an input that takes so many is ended
MOST_MEMORY = 64 << 20  # beyond the bytes of the input
LONGEST = 1 << 16
NUMBERS = (0, 1, 2, 127, 128, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40)
FORMS = ("<H", ">H", "<I", ">I", "<Q", ">Q")
LAYOUTS = [(struct.Struct(form), struct.calcsize(form)) for form in FORMS]


class Endless(BaseException):  # no reader may take it for an error of its own
    """An input took `ENDLESS` seconds of processor time."""


class Finding(NamedTuple):
    """An input, and what was wrong with the answer."""

    data: bytes
    what: str


def mutated(data: bytes, corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """Return an input changed in one to four places."""
    out = bytearray(data)

    def below(count: int) -> int:  # `randrange` takes most of the time of the loop
        return int(rng.random() * count)

    for _ in range((1, 1, 2, 4)[below(4)]):
        at = below(len(out) + 1)
        kind = below(9)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << below(8)
        elif kind == 1 and at < len(out):
            out[at] = below(256)
        elif kind == 2:  # a number of any size and order
            layout, whole = LAYOUTS[below(len(LAYOUTS))]
            number = NUMBERS[below(len(NUMBERS))]
            out[at : at + whole] = layout.pack(number % (1 << 8 * whole))
        elif kind == 3:
            del out[at : at + 1 + below(20)]
        elif kind == 4:
            out[at:at] = rng.randbytes(1 + below(8))
        elif kind == 5:  # a part again, sometimes very often
            part = bytes(out[at : at + 1 + below(40)])
            out[at:at] = part * (1, 1, 2, 8, 200)[below(5)]
        elif kind == 6 and out:  # a part from elsewhere in the file
            start = below(len(out))
            out[at : at + 8] = out[start : start + 1 + below(30)]
        elif kind == 7:  # a part of another input
            other = corpus[below(len(corpus))]
            start = below(len(other) + 1)
            out[at:at] = other[start : start + 1 + below(100)]
        elif kind == 8 and below(10) < 3:
            del out[at:]
    return bytes(out[:LONGEST])


def fuzz(
    read: Callable[[bytes], object],
    seeds: Sequence[bytes],
    count: int,
    *,
    seed: int = 0,
    traced: int = 400,
    until: float = float("inf"),
) -> Iterator[Finding]:
    """Yield what is found in so many inputs, or until a time of `time.monotonic`.

    Parameters
    ----------
    read : callable
    seeds : sequence of bytes
        Each must be read without an error.
    count : int
    seed : int
        The random seed: the same seed makes the same inputs.
    traced : int
        For how many of the inputs lines are traced, spread over all.
    until : float
    """
    rng, lines = random.Random(seed), set[tuple[str, int]]()
    corpus = list(seeds)
    if resource is not None:
        signal.signal(signal.SIGPROF, _ended)
    for data in seeds:
        read(data)
        _reaches(read, data, lines)
    gc.collect()
    most, every = _peak() + MOST_MEMORY, max(1, count // traced)
    small = 1024 + 2 * max(map(len, seeds))  # what is mutated again must not grow for ever
    for number in range(count):
        if time.monotonic() > until:
            return
        data = mutated(rng.choice(corpus), corpus, rng)
        begin = time.process_time()
        try:
            _watched(read, data)
        except TinyResNeXtError:
            pass
        except (Exception, Endless) as error:
            yield Finding(data, f"{type(error).__name__}: {error}")
        if (spent := time.process_time() - begin) > MOST_SECONDS:
            yield Finding(data, f"{spent:.1f} s of processor time")
        if _peak() > most + len(data):
            yield Finding(data, f"{(_peak() - most) >> 20} MiB of memory too many")
            most = _peak()
        if number % every == 0 and spent < MOST_SECONDS and _reaches(read, data, lines):
            corpus += [data] if len(data) <= small else []


def _watched(read: Callable[[bytes], object], data: bytes) -> None:
    """Read an input, and raise `Endless` where it does not end."""
    if resource is None:  # Windows has no timers either
        read(data)
        return

    signal.setitimer(signal.ITIMER_PROF, ENDLESS)
    try:
        read(data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _ended(_: int, frame: FrameType | None) -> None:
    """End what is read, and say where."""
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "unknown"
    raise Endless(f"no answer after {ENDLESS:.0f} s, at {where}")


def _reaches(read: Callable[[bytes], object], data: bytes, lines: set[tuple[str, int]]) -> bool:
    """Return whether an input reaches a line of the package that none before has reached."""
    before = len(lines)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return None
        lines.add((name, frame.f_lineno))
        return trace

    old = sys.gettrace()
    sys.settrace(trace)
    try:
        read(data)
    except Exception:  # the loop reads it again
        pass
    finally:
        sys.settrace(old)
    return len(lines) > before


def _peak() -> int:
    """Return the most memory that the process had, in bytes, where the system says it."""
    if resource is None:
        return 0
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if sys.platform == "darwin" else kib * 1024
