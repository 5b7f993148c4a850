"""The processor's name, and how busy other processes keep its cores while something is measured."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def processor() -> str:
    """Return the processor's own name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())


class Others:
    """The load of other processes since this object was made, which disturbs a measurement."""

    def __init__(self) -> None:
        self._began = self._now()

    def share(self) -> float | None:
        """Return the processor time of other processes, divided by the time of all cores.

        The time that a virtual machine's host gives to others counts too. None means unknown.
        """
        busy, total, own = (
            later - sooner for later, sooner in zip(self._now(), self._began, strict=True)
        )
        return max(0.0, min(1.0, (busy - own) / total)) if total > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Return three times in seconds: all cores busy, all cores in total, and this process.

        Processes that it has started and that have ended, such as those that compile, are a part of
        it. All are zero if the system does not report them.
        """
        if sys.platform == "win32":
            return 0.0, 0.0, 0.0
        try:
            ticks = [
                int(word)
                for word in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]
            ]
        except (OSError, ValueError, IndexError):
            return 0.0, 0.0, 0.0
        per_second, own = os.sysconf("SC_CLK_TCK"), os.times()
        return (
            (sum(ticks) - ticks[3] - ticks[4]) / per_second,
            sum(ticks) / per_second,
            own.user + own.system + own.children_user + own.children_system,
        )
