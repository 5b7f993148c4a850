"""What a person at a terminal sees while a command runs. Elsewhere nothing of it is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from ...system.console import at_terminal, plain, rewrite, tell

if TYPE_CHECKING:
    from ...ops import Backend
    from ...ops.contract import Compiling

Item = TypeVar("Item")
FEW = 16  # up to so many images no counter is shown: they take a moment


def say(text: object) -> None:
    """Print a message for people on standard error, in one line, as far as it can be written."""
    tell(f"tinyresnext: {plain(text)}")


def announce_compiling(ops: Backend) -> AbstractContextManager[None]:
    """Return a context that shows what compiles while kernels compile, at a terminal only."""
    if not at_terminal():
        return nullcontext()
    words = [f"compiling kernels for {ops.described()}, once; later runs start at once"]

    def show(now: Compiling | None) -> None:
        if now is None:
            rewrite("")
            return
        while words:
            say(words.pop())
        name = f", now {now.name}" if now.name else ""
        rewrite(f"{now.done} functions compiled in {now.seconds:.0f} s{name}")

    return ops.when_compiling(show)


def counted(items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and count them at a terminal when there are many."""
    count = counter(total)
    for done, item in enumerate(items, 1):
        yield item
        if count is not None:
            count(done)


def counter(total: int) -> Callable[[int], None] | None:
    """Return a function that shows how many images are done, or None if nobody needs to see it."""
    if not at_terminal() or total <= FEW:
        return None

    def show(done: int) -> None:
        rewrite(f"{done} of {total}")
        if done >= total:
            tell("")

    return show


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
