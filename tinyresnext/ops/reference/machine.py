"""The machine as plain NumPy uses it: threads, limits, and no compiled kernels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from ...errors import UsageError
from ..contract import Compiling, Kept, Peak


def described() -> str:
    """Return what computes."""
    return "plain NumPy"


def kind() -> str:
    """Return nothing: no kernels are compiled."""
    return ""


def thread_count(asked: int | None = None) -> int:
    """Return 1: NumPy chooses its number of threads itself, when it is imported."""
    if asked not in (None, 1):
        raise UsageError(
            f"threads is {asked!r}, and plain NumPy has its own: set OPENBLAS_NUM_THREADS before "
            "Python starts, or choose another device"
        )
    return 1


def on_threads(count: int) -> AbstractContextManager[None]:
    """Change nothing: NumPy has its own threads."""
    return nullcontext()


def when_compiling(
    tell: Callable[[Compiling | None], None], after: float = 1.0
) -> AbstractContextManager[None]:
    """Change nothing: NumPy compiles nothing."""
    return nullcontext()


def repeated(call: Callable[[], Any]) -> tuple[Callable[[], Any], int]:
    """Return the call itself: a start takes little."""
    return call, 1


def wait() -> None:
    """Return at once: NumPy's calls end before they return."""


def loaders(count: int) -> int:
    """Return a quarter: a step takes much longer than preparing its mini-batch."""
    return max(1, count // 4)


def at_once(n: int, weights: int, values: int) -> int:
    """Return all ``n``: one array operation handles them together."""
    return max(1, n)


def peak(threads: Sequence[int]) -> list[Peak]:
    """Measure a matrix product, a sum and a copy in NumPy, on NumPy's own threads."""
    a, x = np.ones((1024, 1024), np.float32), np.ones(1 << 25, np.float32)
    y = np.empty_like(x)

    def shortest(run: Callable[[], Any]) -> float:
        found = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
        return min(found)

    speed = 2 * 1024**3 / shortest(lambda: a @ a) / 1e9
    read = x.nbytes / shortest(x.sum) / 1e9
    copied = 2 * x.nbytes / shortest(lambda: np.copyto(y, x)) / 1e9
    return [Peak(count, speed, read, copied) for count in threads]


def kernels_kept() -> list[Kept]:
    """Return nothing: NumPy compiles nothing."""
    return []


def kernels_problem() -> str | None:
    """Return why nothing is kept."""
    return "plain NumPy compiles no kernels"


def clear_kernels(others: bool = False) -> int:
    """Remove nothing."""
    return 0
