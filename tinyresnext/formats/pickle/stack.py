"""The stack of the pickle machine, with its open MARKs, the memo, and what all takes of memory."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from ...errors import FormatError, UnsafeError
from .source import Source

__all__ = ["MAX_DEPTH", "MAX_MEMO", "Stack"]

MAX_MEMO = 1 << 24  # slots; one byte for each
MAX_DEPTH = 1_000  # open MARKs; real files have four
SLOT = 8  # bytes of a place on the stack, in a tuple or a list


class Level(NamedTuple):
    """What was there when a MARK was opened.

    Attributes
    ----------
    items : list
        Below the mark.
    left : int
        Bytes of memory that were left.
    kept : int
        How often something was remembered, or something remembered was asked for again.
    """

    items: list[Any]
    left: int
    kept: int


class Stack:
    """Objects that the pickle has pushed, and those that it remembers.

    Only what is asked for again later (``wanted``) is really remembered. So what a list or an
    object forgets is gone, and its memory counts no longer.

    Parameters
    ----------
    source : Source
        Whose position stands in messages.
    most_memory : int
        Bytes that all objects together may take, about.
    wanted : collection of int
        The slots of the memo that are read somewhere.
    """

    def __init__(self, source: Source, most_memory: int, wanted: Collection[int]) -> None:
        self._source, self._wanted = source, wanted
        self.items: list[Any] = []  # since the last open MARK
        self._outer: list[Level] = []  # the items below each open MARK
        self._memo: dict[int, object] = {}
        self._written = bytearray()  # whether each slot of the memo is
        self.remembered = 0  # how many slots are written
        self._left, self._most, self._kept = most_memory, most_memory, 0

    def charge(self, size: int) -> None:
        """Count bytes of memory, about as many as a new object takes."""
        self._left -= size
        if self._left < 0:
            raise UnsafeError(
                f"the objects in the pickle take more than {self._most:,} bytes; save only "
                "model.state_dict()"
            )

    def keep(self) -> None:
        """Note that something outside of the stack has what was made last."""
        self._kept += 1

    def last(self) -> Any:
        """Return what must be the only object left."""
        if self._outer or len(self.items) != 1:
            raise FormatError(
                f"the pickle ends with {len(self.items)} objects and {len(self._outer)} open "
                "marks, not one object"
            )
        return self.items[0]

    def push(self, value: object, size: int = 0) -> None:
        """Put an object on top; ``size``: the bytes of memory that it takes."""
        self.charge(size + SLOT)
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
        self._outer.append(Level(self.items, self._left, self._kept))
        self.items = []

    def pop_mark(self) -> list:
        """Take everything since the last MARK."""
        return self._close()[0]

    def pop_forgotten(self) -> list:
        """Take everything since the last MARK; if nothing else has it, it is gone after this."""
        items, level = self._close()
        if level.kept == self._kept:
            self._left = level.left
        return items

    def _close(self) -> tuple[list, Level]:
        """Close a level of the stack."""
        if not self._outer:
            raise FormatError(
                f"the pickle closes a mark that was never opened at byte {self._source.position}"
            )
        level = self._outer.pop()
        items, self.items = self.items, level.items
        return items, level

    def below_mark(self) -> Any:
        """Return the object below the last MARK, None if there is nothing."""
        return self._outer[-1].items[-1] if self._outer and self._outer[-1].items else None

    def discard(self) -> None:
        """Take the object on top, or the last MARK if nothing is above it."""
        if self.items or not self._outer:
            self.pop()
        else:
            self.pop_mark()

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
        self._written.extend(bytes(max(0, index + 1 - len(self._written))))
        if self._written[index] or not self.items:
            raise FormatError(
                f"memo slot {index} is written twice, or with nothing to write, at byte "
                f"{self._source.position}"
            )
        self._written[index] = 1
        self.remembered += 1
        if index in self._wanted:
            self.charge(100)
            self._kept += 1
            self._memo[index] = self.items[-1]

    def get(self, index: int) -> None:
        """Push a remembered object."""
        if index not in self._memo:
            raise FormatError(
                f"memo slot {index} is read before it is written, at byte {self._source.position}"
            )
        value = self._memo[index]
        self._kept += isinstance(value, (list, dict, tuple))  # it may get new parts
        self.push(value)

    def tuple_of(self, count: int) -> None:
        """Replace the last ``count`` objects by their tuple."""
        self.push(tuple([self.pop() for _ in range(count)][::-1]), 56 + SLOT * count)
