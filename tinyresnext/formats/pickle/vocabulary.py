"""What a kind of pickle may name, and what the machine makes of each name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import FormatError, UnsafeError

__all__ = ["Global", "Placeholder", "Vocabulary", "set_item"]


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
    is_empty : callable
        Whether objects of a class become an empty `Placeholder`.
    forgets : callable
        Whether a `Placeholder` of a class accepts items, and forgets them.
    states : mapping of type to callable
        How the machine sets the state (the attributes) of an object of each type that may have
        one: the callable receives the object and the state.
    old_string : callable
        What the bytes of a Python 2 string become. It may raise ``UnicodeDecodeError``.
    most_text : int
        Bytes that all strings together may have.
    refusal : str
        Completes the message "the file names X, which ..." for a name that is not permitted.
    skipped : Global, optional
        A text that is pushed right behind this name is passed over, and may have any length.
    """

    calls: Mapping[Global, Callable[[tuple], object]]
    types: Collection[Global]
    is_empty: Callable[[Global], bool]
    forgets: Callable[[Global], bool]
    states: Mapping[type, Callable[[Any, object], None]]
    old_string: Callable[[bytes], object]
    most_text: int
    refusal: str
    skipped: Global | None = None

    def permits(self, name: Global) -> bool:
        """Return whether the pickle may mention this name."""
        return name in self.calls or name in self.types or self.is_empty(name)


def set_item(target: dict, key: object, value: object) -> None:
    """Set a key once.

    Only str and int are hashed: hashing a deeply nested tuple would exhaust the C stack.
    """
    if type(key) not in (str, int):
        raise UnsafeError(
            f"a dict in the pickle has a key of type {type(key).__name__}; names are text"
        )
    if key in target:
        raise FormatError(f"a dict in the pickle has the key {ascii(key)[:80]} twice")
    target[key] = value
