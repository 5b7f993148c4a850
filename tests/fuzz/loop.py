"""The loop: mutate an input of the corpus, read it, and keep it if it reached a new line.

Lines are traced for the first inputs only, because tracing takes ten times the time of reading.
"""

from __future__ import annotations

import gc
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import tinyresnext
from tinyresnext.errors import TinyResNeXtError

PACKAGE = str(Path(tinyresnext.__file__).parent)
MOST_SECONDS = 1.0  # of processor time, for an input of at most `LONGEST` bytes
MOST_MEMORY = 64 << 20
LONGEST = 1 << 16
NUMBERS = (0, 1, 2, 127, 128, 255, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40)


class Finding(NamedTuple):
    """An input, and what was wrong with the answer."""

    data: bytes
    what: str


def mutated(data: bytes, corpus: Sequence[bytes], rng: random.Random) -> bytes:
    """Return an input changed in one to four places."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(9)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:  # a number of any size and order
            layout = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            whole = struct.calcsize(layout)
            out[at : at + whole] = struct.pack(layout, rng.choice(NUMBERS) % (1 << 8 * whole))
        elif kind == 3:
            del out[at : at + rng.randint(1, 20)]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 5:  # a part again, sometimes very often
            part = bytes(out[at : at + rng.randint(1, 40)])
            out[at:at] = part * rng.choice((1, 1, 2, 8, 200))
        elif kind == 6 and out:  # a part from elsewhere in the file
            start = rng.randrange(len(out))
            out[at : at + 8] = out[start : start + rng.randint(1, 30)]
        elif kind == 7:  # a part of another input
            other = rng.choice(corpus)
            start = rng.randrange(len(other) + 1)
            out[at:at] = other[start : start + rng.randint(1, 100)]
        elif kind == 8 and rng.random() < 0.3:
            del out[at:]
    return bytes(out[:LONGEST])


def fuzz(
    read: Callable[[bytes], object],
    seeds: Sequence[bytes],
    count: int,
    *,
    seed: int = 0,
    memory: int = MOST_MEMORY,
    seconds: float = 0,
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
    memory, seconds : number
        Bytes that an input may take beyond its own, and its processor time; the usual if 0.
    traced : int
        For how many of the inputs lines are traced, spread over all.
    until : float
    """
    rng, lines = random.Random(seed), set[tuple[str, int]]()
    corpus = list(seeds)
    for data in seeds:
        read(data)
        _reaches(read, data, lines)
    gc.collect()
    most, every = _peak() + memory, max(1, count // traced)
    for number in range(count):
        if time.monotonic() > until:
            return
        data = mutated(rng.choice(corpus), corpus, rng)
        if number % every == 0 and _reaches(read, data, lines):
            corpus.append(data)
        begin = time.process_time()
        try:
            read(data)
        except TinyResNeXtError:
            pass
        except Exception as error:
            yield Finding(data, f"{type(error).__name__}: {error}")
        if (spent := time.process_time() - begin) > (seconds or MOST_SECONDS):
            yield Finding(data, f"{spent:.1f} s of processor time")
        if _peak() > most + len(data):
            yield Finding(data, f"{(_peak() - most) >> 20} MiB of memory too many")
            most = _peak()


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
    try:
        import resource
    except ImportError:
        return 0
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib if sys.platform == "darwin" else kib * 1024
