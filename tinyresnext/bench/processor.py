"""The processor's name, and how busy other processes keep its cores while something is measured."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def processor() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())


class Others:
    """How busy everyone else keeps the cores, from when it is made: a disturbed measurement should say so."""

    def __init__(self) -> None:
        self._began = self._now()

    def share(self) -> float | None:
        """Time that other processes (and a host's other guests) took, over the time that all cores had; None if unknown."""
        busy, total, own = (
            later - sooner for later, sooner in zip(self._now(), self._began, strict=True)
        )
        return max(0.0, min(1.0, (busy - own) / total)) if total > 0 else None

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """Seconds that all cores together were busy, that they had, and that this process took; zeros where none tells."""
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
            own.user + own.system,
        )
