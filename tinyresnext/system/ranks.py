"""Processes that train together: what each must know of the others, and what they do together.

A *rank* is one of them, numbered from 0. All ranks make the same calls in the same order, or they
would wait for each other for ever.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import TinyResNeXtError

Made = TypeVar("Made")


class Ranks(Protocol):
    """What training asks of the processes that share its mini-batches; `mpi.Mpi` is one."""

    @property
    def rank(self) -> int:
        """Return the number of this process."""

    @property
    def count(self) -> int:
        """Return how many processes there are."""

    @property
    def sharing(self) -> int:
        """Return how many processes share the cores of this one, this one included."""

    def sum(self, array: np.ndarray) -> None:
        """Replace the array by its sum over all ranks; all get the same bits."""

    def start(self, array: np.ndarray) -> None:
        """Begin what `sum` does, and return; the array is not touched until `wait`."""

    def progress(self) -> None:
        """Let what was begun go on; some systems move data only inside a call."""

    def wait(self) -> None:
        """Return when all that was begun is done."""

    def share(self, value: Any) -> Any:
        """Return what the first rank gives, however long that takes."""


class Alone:
    """The one process that has a whole mini-batch."""

    rank, count, sharing = 0, 1, 1

    def sum(self, array: np.ndarray) -> None:
        """Leave the array as it is, since it is the sum."""

    def start(self, array: np.ndarray) -> None:
        """Leave the array as it is."""

    def progress(self) -> None:
        """Do nothing."""

    def wait(self) -> None:
        """Return at once."""

    def share(self, value: Any) -> Any:
        """Return the value."""
        return value


ALONE = Alone()


def by_the_first(ranks: Ranks, make: Callable[[], Made]) -> Made:
    """Let the first rank alone make something, and return it in all; its error is raised in all.

    Of an error that cannot be sent, the others raise a `TinyResNeXtError` with its words.
    """
    if ranks.count == 1:
        return make()
    made: Any = None
    error: BaseException | None = None
    if ranks.rank == 0:
        try:
            made = make()
        except BaseException as raised:  # Ctrl-C too: all end together
            error = raised
    made, sent = ranks.share((made, None if error is None else _as_bytes(error)))
    if sent is not None:
        raise error or pickle.loads(sent)  # of this run itself
    return made


def _as_bytes(error: BaseException) -> bytes:
    """Return an error as any rank can read it; one that pickle does not give back, as its words.

    So it is with errors that have an open file, or that are made of other things than a text.
    """
    with suppress(Exception):
        data = pickle.dumps(error)
        if type(pickle.loads(data)) is type(error):
            return data
    return pickle.dumps(TinyResNeXtError(f"{type(error).__name__}: {error}"))


@contextmanager
def all_or_none(ranks: Ranks) -> Iterator[None]:
    """Raise an error of the ``with`` block in all ranks if one has it: that of the first such rank.

    It is sent as by `by_the_first`. In the block, no rank makes a call that others wait for.
    """
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:  # Ctrl-C too: all end together
        error = raised
    if (found := _first_error(ranks, error)) is not None:
        raise found


def _first_error(ranks: Ranks, error: BaseException | None) -> BaseException | None:
    """Return the error of the first rank that has one; None if none has."""
    if ranks.count == 1:
        return error
    own, lengths = b"" if error is None else _as_bytes(error), np.zeros(ranks.count, np.int64)
    lengths[ranks.rank] = len(own)
    ranks.sum(lengths)
    if not lengths.any():
        return None
    first = int(np.flatnonzero(lengths)[0])
    data = np.zeros(lengths[first], np.uint8)
    if ranks.rank == first:
        data[...] = np.frombuffer(own, np.uint8)
    ranks.sum(data)
    found: BaseException | None = error
    if ranks.rank != first:
        found = pickle.loads(data.tobytes())  # of this run itself
    return found


def which_ranks(ranks: Ranks, yes: bool) -> list[int]:
    """Return the numbers of the ranks in which it is so; all get the same answer."""
    found = np.zeros(ranks.count)
    found[ranks.rank] = yes
    ranks.sum(found)
    return np.flatnonzero(found).tolist()


def any_rank(ranks: Ranks, yes: bool) -> bool:
    """Return whether it is so in any rank; all get the same answer."""
    return bool(which_ranks(ranks, yes))


def all_have(ranks: Ranks, array: np.ndarray) -> bool:
    """Return whether all ranks have the bits that the first has; all get the same answer."""
    if ranks.count == 1:
        return True
    own = zlib.crc32(np.ascontiguousarray(array).data.cast("B"))
    return not any_rank(ranks, ranks.share(own) != own)


def part_of(ranks: Ranks, batch: int) -> tuple[int, int]:
    """Return the first and the last place, exclusive, that a rank has in a mini-batch."""
    own = batch // ranks.count
    return ranks.rank * own, (ranks.rank + 1) * own
