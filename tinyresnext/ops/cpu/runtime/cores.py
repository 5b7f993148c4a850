"""How many cores this process may use, which is often fewer than the machine has.

Three things limit it: the cores of the machine; the cores that the process may run on (affinity);
and a container's quota of processor time, which shows in neither of the others. More threads than
that only wait for each other.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def cores(root: str | os.PathLike[str] = "/") -> int:
    """Return the number of cores in the affinity, or in the quota (rounded up) if that is lower.

    Parameters
    ----------
    root : path
        The folder that has ``proc`` and ``sys``.
    """
    # macOS and Windows have no affinity or quota to read.
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min([count, *(math.ceil(quota) for quota in _quotas(Path(root)))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield, in cores, the quotas of this process's control group and of the groups around it."""
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
    """Yield the group's folder and those above it.

    Inside a container some of the folders may not exist; the top does.
    """
    names = [name for name in PurePosixPath(path).parts if name not in ("/", "..")]
    for depth in range(len(names), -1, -1):
        yield top.joinpath(*names[:depth])


def _ratio(words: list[str]) -> Iterator[float]:
    """Yield quota over period if both are given; ``max`` and -1 mean that there is no quota."""
    if (
        len(words) == 2
        and all(word.isdecimal() for word in words)
        and int(words[0])
        and int(words[1])
    ):
        yield int(words[0]) / int(words[1])


def _read(path: Path) -> str:
    """Return the text of a file, or an empty text if it cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
