"""The stack of the pickle machine, with its open MARKs, and the memo."""

from __future__ import annotations

from typing import Any

from ...errors import FormatError, UnsafeError
from .source import Source

__all__ = ["MAX_DEPTH", "MAX_MEMO", "Stack"]

MAX_MEMO = 100_000  # slots, about 100 bytes each: 10 MB
MAX_DEPTH = 1_000  # open MARKs; real files have four


class Stack:
    """Objects that the pickle has pushed, and those that it remembers.

    Parameters
    ----------
    source : Source
        Whose position stands in messages.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.items: list[Any] = []  # since the last open MARK
        self._outer: list[list[Any]] = []  # the items below each open MARK
        self._memo: dict[int, object] = {}

    def last(self) -> Any:
        """Return what must be the only object left."""
        if self._outer or len(self.items) != 1:
            raise FormatError(
                f"the pickle ends with {len(self.items)} objects and {len(self._outer)} open "
                "marks, not one object"
            )
        return self.items[0]

    @property
    def remembered(self) -> int:
        """How many slots of the memo are written."""
        return len(self._memo)

    def push(self, value: object) -> None:
        """Put an object on top."""
        self.items.append(value)

    def pop(self) -> Any:
        """Take the object on top, not reaching below the last MARK."""
        if not self.items:
            raise FormatError(
                f"the pickle takes an object from an empty stack at byte {self._source.position}"
            )
        return self.items.pop()

    def mark(self) -> None:
        """Open a level of the stack."""
        if len(self._outer) >= MAX_DEPTH:
            raise UnsafeError(f"the pickle nests deeper than {MAX_DEPTH}")
        self._outer.append(self.items)
        self.items = []

    def pop_mark(self) -> list:
        """Take everything since the last MARK."""
        if not self._outer:
            raise FormatError(
                f"the pickle closes a mark that was never opened at byte {self._source.position}"
            )
        items, self.items = self.items, self._outer.pop()
        return items

    def top(self, kinds: tuple[type, ...], action: str) -> Any:
        """Return the object on top, which must be exactly of one of these types."""
        if not self.items or type(self.items[-1]) not in kinds:
            found = type(self.items[-1]).__name__ if self.items else "nothing"
            allowed = ", ".join(kind.__name__ for kind in kinds)
            raise UnsafeError(f"the pickle wants to {action} {found}; allowed are {allowed}")
        return self.items[-1]

    def put(self, index: int) -> None:
        """Remember the object on top.

        A slot is written once: rewriting one only serves to mislead other readers.
        """
        if not 0 <= index < MAX_MEMO:
            raise UnsafeError(f"the pickle asks for memo slot {index}; the limit is {MAX_MEMO}")
        if index in self._memo or not self.items:
            raise FormatError(
                f"memo slot {index} is written twice, or with nothing to write, at byte "
                f"{self._source.position}"
            )
        self._memo[index] = self.items[-1]

    def get(self, index: int) -> None:
        """Push a remembered object."""
        if index not in self._memo:
            raise FormatError(
                f"memo slot {index} is read before it is written, at byte {self._source.position}"
            )
        self.items.append(self._memo[index])

    def tuple_of(self, count: int) -> None:
        """Replace the last ``count`` objects by their tuple."""
        self.items.append(tuple([self.pop() for _ in range(count)][::-1]))
