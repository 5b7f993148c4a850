"""What the ranks that write nothing have in place of a log and a progress line."""

from __future__ import annotations

from typing import Any


class Silent:
    """A `Log` and a `Progress` that do nothing."""

    def line(self, **values: Any) -> None:
        """Write nothing."""

    def sync(self) -> int:
        """Return that nothing was written."""
        return 0

    def step(self, epoch: int, step: int, seconds: float, loss: float, accuracy: float) -> None:
        """Show nothing."""

    def epoch(self, epoch: int, found: dict[str, float]) -> None:
        """Show nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Close nothing."""
