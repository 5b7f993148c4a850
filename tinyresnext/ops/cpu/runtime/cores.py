"""How many threads are worth starting: what this process may use, which is often less than the machine has.

Three things limit it. The machine has so many cores; the process may be confined to some of them
(affinity); and a container may have a quota of processor time, which shows in neither. More threads
than that only wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cores(root: str | os.PathLike[str] = "/") -> int:
    """Cores that this process may use: its affinity, and no more than its quota of processor time, rounded up.

    Parameters
    ----------
    root : path
        Where ``proc`` and ``sys`` are.
    """
    # macOS and Windows do not tell, or have no such thing.
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """Each quota that this process lives under, in cores: its control group's and those of the groups around it."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":  # the second version: one tree for everything
            for folder in _upwards(root / "sys/fs/cgroup", path):
                yield from _ratio(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):  # the first: a tree for each controller
            for name in (controllers, "cpu"):
                for folder in _upwards(root / "sys/fs/cgroup" / name, path):
                    yield from _ratio(
                        [
                            _read(folder / f"cpu.cfs_{what}_us").strip()
                            for what in ("quota", "period")
                        ]
                    )


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it. Inside a container, some of the path may not be there; the top is."""
    names = [name for name in PurePosixPath(path).parts if name not in ("/", "..")]
    for depth in range(len(names), -1, -1):
        yield top.joinpath(*names[:depth])


def _ratio(words: list[str]) -> Iterator[float]:
    """Quota over period, if both are there and mean something: ``max`` and -1 mean that there is no quota."""
    if (
        len(words) == 2
        and all(word.isdecimal() for word in words)
        and int(words[0])
        and int(words[1])
    ):
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    """The text of a file, or nothing."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
