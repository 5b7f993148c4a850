"""What a kind of pickle may name, and what the machine makes of each name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import FormatError

__all__ = ["Global", "OtherKey", "Placeholder", "Vocabulary", "set_item"]

MAX_ITEMS = 50_000  # that a list or dict keeps; it forgets what comes then


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle mentions. Nothing was imported to make it."""

    module: str
    name: str

    def __str__(self) -> str:
        return ascii(f"{self.module}.{self.name}")[1:-1][:120]


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands where the pickle wanted an object of this class. It holds nothing else."""

    cls: Global


@dataclass(frozen=True, slots=True, eq=False)
class OtherKey:
    """Stands for a key of a dict that is neither text nor a whole number.

    Each is equal to itself only: hashing a deeply nested tuple would exhaust the C stack.
    """

    kind: str

    def __str__(self) -> str:
        return f"a key of type {self.kind}"


@dataclass(frozen=True)
class Vocabulary:
    """The names that one kind of pickle may mention, and how the machine reads its strings.

    Attributes
    ----------
    calls : mapping of Global to callable
        What the pickle may call: each callable receives the tuple of arguments and builds what the
        call means.
    types : collection of Global
        Names that may stand as arguments, but cannot be called.
    is_inert : callable
        Whether a name in neither may be mentioned. What is made by it is a `Placeholder`, whatever
        the arguments are.
    states : mapping of type to callable
        How the machine sets the state (the attributes) of an object of each type that may have
        one: the callable receives the object and the state.
    old_string : callable
        What the bytes of a Python 2 string become. It may raise ``UnicodeDecodeError``.
    longest : int
        Bytes of a text. A longer one is passed over if ``passes_over``, and refused if not.
    most_memory : int
        Bytes that all objects together may take, about.
    refusal : str
        Completes the message "the file names X, which ..." for a name that is not permitted.
    passes_over : bool
        Whether texts that are too long are passed over.
    passed : callable
        What such a text becomes: the callable receives the byte at which it begins, how many bytes
        it has, and whether it is text in UTF-8; by default a placeholder.
    """

    calls: Mapping[Global, Callable[[tuple], object]]
    types: Collection[Global]
    is_inert: Callable[[Global], bool]
    states: Mapping[type, Callable[[Any, object], None]]
    old_string: Callable[[bytes], object]
    longest: int
    most_memory: int
    refusal: str
    passes_over: bool = False
    passed: Callable[[int, int, bool], object] = lambda start, count, is_text: Placeholder(
        Global("builtins", "str")
    )

    def permits(self, name: Global) -> bool:
        """Return whether the pickle may mention this name."""
        return name in self.calls or name in self.types or self.is_inert(name)


def set_item(target: dict, key: object, value: object) -> None:
    """Set a key once. A dict that is full forgets it."""
    if type(key) not in (str, int):
        key = OtherKey(type(key).__name__)
    if key in target:
        raise FormatError(f"a dict in the pickle has the key {ascii(key)[:80]} twice")
    if len(target) < MAX_ITEMS:
        target[key] = value
