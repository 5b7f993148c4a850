"""What a person sees while a command runs: a line that moves at a terminal, a few in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from ...system.console import at_terminal, plain, rewrite, tell
from ...system.files import as_utf8, shown

if TYPE_CHECKING:
    from ...ops import Backend
    from ...ops.contract import Compiling

Item = TypeVar("Item")
FEW = 16  # up to so many images no counter is shown: they take a moment
MOVES = 0.1  # seconds between two moves of the line at a terminal
EVERY = 60.0  # seconds between two lines of a log


def say(text: object) -> None:
    """Print a message for people on standard error, in one line, as far as it can be written."""
    tell(f"tinyresnext: {plain(text)}")


def announce_compiling(ops: Backend) -> AbstractContextManager[None]:
    """Return a context that shows what compiles while kernels compile, at a terminal only.

    Where kernels cannot be kept, so that every run compiles them again, a log is told so once, too.
    """
    moves, first = at_terminal(), [True]

    def show(now: Compiling | None) -> None:
        if now is None:
            if moves:
                rewrite("")
            return
        if first:
            first.clear()
            _say_first(ops, moves)
        if moves:
            name = f", now {now.name}" if now.name else ""
            rewrite(f"{now.done} functions compiled in {now.seconds:.0f} s{name}")

    return ops.when_compiling(show)


def _say_first(ops: Backend, moves: bool) -> None:
    """Say that kernels compile, and whether that will be so again."""
    if problem := ops.kernels_problem():
        say(
            f"compiling kernels for {ops.described()}, as every run will, since they cannot be "
            f"kept: {problem}; TINYRESNEXT_HOME names another folder"
        )
    elif moves:
        say(f"compiling kernels for {ops.described()}, once; later runs start at once")


def counted(
    items: Iterable[Item], total: int, done: Callable[[], int] = lambda: 0
) -> Iterator[Item]:
    """Yield the items, and count them when there are many.

    Parameters
    ----------
    items : iterable
    total : int
    done : callable
        Returns how many of the total were done before, when the first item is there.
    """
    count, before = counter(total), None
    for number, item in enumerate(items, 1):
        before = done() if before is None else before
        yield item
        if count is not None:
            count(before + number)


def escapes_told(rows: Iterable[Item], name: Callable[[Item], str]) -> Iterator[Item]:
    """Yield rows, and say at the end how many are of images whose names are not UTF-8."""
    odd, first = 0, ""
    for row in rows:
        if as_utf8(named := name(row)) != named:
            odd, first = odd + 1, first or named
        yield row
    if odd:
        images = f"{odd} image{'' if odd == 1 else 's'}"
        say(f"names that are not UTF-8 are written with escapes: {shown(first)} ({images})")


def counter(total: int) -> Callable[[int], None] | None:
    """Return a function that shows how many images are done, or None if nobody needs to see it.

    At a terminal a line moves; elsewhere, a line is written every minute.
    """
    moves = at_terminal()
    if moves and total <= FEW:
        return None
    begun: list[tuple[float, int]] = []  # when the first images were done, and how many
    shown = [time.monotonic()]

    def show(done: int) -> None:
        now = time.monotonic()
        begun[:] = begun or [(now, done)]
        if done < total and now - shown[0] < (MOVES if moves else EVERY):
            return
        shown[0] = now
        text = f"{done} of {total}{_speed(now - begun[0][0], done - begun[0][1], total - done)}"
        if moves:
            rewrite(text)
            if done >= total:
                tell("")
        elif done < total:
            say(text)

    return show


def _speed(seconds: float, images: int, left: int) -> str:
    """Return images a second, and the time that is left, in words; nothing at the beginning."""
    if seconds < 1 or images < 1:
        return ""
    rest = round(left * seconds / images)
    hours, minutes = divmod(-(-rest // 60), 60)
    time_left = (
        f"{rest} s" if rest < 90 else f"{hours} h {minutes} min" if hours else f"{minutes} min"
    )
    return f", {images / seconds:.1f} images/s" + (f", {time_left} left" if left else "")


class Megabytes:
    """A line at a terminal that shows how much of a file was fetched."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, done: int, total: int | None) -> None:
        """Show how many bytes have come, and of how many if that is known."""
        if not at_terminal():
            return
        whole = "" if total is None else f" of {total / 2**20:.1f}"
        text = f"{done / 2**20:.1f}{whole} MiB"
        if text != self.text:
            rewrite(text)
            self.text = text

    def end(self) -> None:
        """End the line, if there is one."""
        if self.text:
            tell("")
