"""Paddle's ``.pdparams``: a pickle of NumPy arrays by name, read without running its content.

The dictionary also says what each tensor is called in Paddle's program; this is passed over. In a
dictionary inside another, a tensor is a tuple of that name and the array. Files of protocols 2 and
3 have arrays over 1 GiB in parts, which ``UnpackBigParamInfor@@`` names::

    {"fc.weight@@.0": ..., "fc.weight@@.1": ...,
     "UnpackBigParamInfor@@": {"fc.weight": {"OriginShape": (m, n), "slices": [...]}}}

Source: ``_unpack_saved_dict`` of Paddle's ``framework/io_utils.py``.
"""

from __future__ import annotations

import codecs
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO

from ....errors import FormatError, UnsafeError
from ....formats.dtypes import BY_TORCH, MAX_DIMENSIONS
from ....formats.pickle.arrays import PlacedArray, Run, weights
from ....formats.pickle.machine import load
from ....formats.pickle.tensors import Storage, Tensor, rebuilt
from ....formats.pickle.vocabulary import Global, Placeholder
from ....system.checks import is_int
from ....system.files import pieces
from ..checkpoint import Listed
from .torch_storages import Contents, partly_used, stored, without_a_loader
from .wrappers import MOST_DEPTH, MOST_ENTRIES, choose, clean

__all__ = ["begins", "listed"]

PARTS = "UnpackBigParamInfor@@"
MOST_PARTS = 64  # of an array
_UNREAD = Placeholder(Global("numpy", "_reconstruct"))


def begins(head: bytes) -> bool:
    """Return whether a file begins as a pickled dictionary of protocol 2 to 5.

    PyTorch's own files begin with the pickle of a number.
    """
    if head[:1] != b"\x80" or not 2 <= int.from_bytes(head[1:2], "little") <= 5:
        return False
    opcode = head[11:12] if head[2:3] == b"\x95" else head[2:3]  # behind a frame
    return opcode == b"}" or head[2:28] == b"ccollections\nOrderedDict\nq"


def listed(file: BinaryIO, ema: bool = False, key: str | None = None) -> Listed:
    """List the arrays of an open file, at its beginning.

    ``ema`` and ``key`` are as for PyTorch's files.

    Raises
    ------
    FormatError
        Cut short, or without arrays of weights.
    UnsafeError
        The file asks for something that weights never need. Nothing was run.
    UsageError
        ``ema=True``, but there are no averaged weights; or nothing lies under ``key``.
    """
    try:
        top = load(file, weights())
    except UnsafeError as error:
        raise without_a_loader(error) from None
    if file.read(1):
        raise UnsafeError("the file continues behind the end of its pickle")
    runs = _Runs(file)
    choice = choose(runs.tensors(top), ema, key)
    prefix, tensors, skipped = clean(choice)
    contents = Contents("paddle", top, runs.start, runs.whole)
    return Listed(
        {name: stored(file, contents, tensor) for name, tensor in tensors.items()},
        "paddle",
        wrapper=choice.key,
        others=choice.others,
        prefix=prefix,
        skipped=skipped,
        besides=partly_used(file, contents, tensors.values()),
    )


class _Runs:
    """The bytes of arrays, as storages that are numbered in the order in which they are met."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._runs: list[list[Run]] = []
        self._made: dict[PlacedArray, Tensor | Placeholder] = {}  # an array may stand twice
        self._met = 0

    def tensors(self, value: Any, depth: int = 0) -> Any:
        """Return a value with tensors in the place of arrays, as deep as dicts are searched."""
        if type(value) is tuple and len(value) == 2 and type(value[1]) is PlacedArray:
            value = value[1]  # with its name in the program
        if type(value) is PlacedArray:
            if value not in self._made:
                self._made[value] = self._tensor(value, [value.run]) if value.run else _UNREAD
            return self._made[value]
        self._met += 1
        if type(value) in (dict, OrderedDict) and depth <= MOST_DEPTH and self._met < MOST_ENTRIES:
            return self._dict(value, depth)
        return value

    def _dict(self, value: dict, depth: int) -> dict:
        """Return a dict with tensors, of which those in parts are whole."""
        found = {key: self.tensors(one, depth + 1) for key, one in value.items() if key != PARTS}
        whole = value.get(PARTS)
        if whole is None:
            return found
        if type(whole) is not dict:
            raise FormatError(f"{PARTS} does not say which arrays are in parts; save it again")
        for name, entry in whole.items():
            shape = entry.get("OriginShape") if type(entry) is dict else None
            names = entry.get("slices") if type(entry) is dict else None
            if type(names) is not list or not 1 <= len(names) <= MOST_PARTS:
                raise FormatError(f"{ascii(name)[:80]} has no list of its parts; save it again")
            parts = [value.get(one) if type(one) is str else None for one in names]
            found[name] = self._joined(ascii(name)[:80], shape, parts)
            for one in names:
                found.pop(one, None)
        return found

    def _joined(self, name: str, shape: object, parts: list) -> Tensor:
        """Return the tensor that has the numbers of several rows, one behind the other."""
        arrays = [one for one in parts if type(one) is PlacedArray and one.run is not None]
        rows = len(arrays) == len(parts) and all(len(one.shape) == 1 for one in arrays)
        if not rows or len({one.word for one in arrays}) != 1 or type(shape) not in (tuple, list):
            raise FormatError(f"{name} has parts that are not rows of numbers; save it again")
        sides = tuple(shape) if isinstance(shape, (tuple, list)) else ()
        count = sum(one.shape[0] for one in arrays)
        if len(sides) > MAX_DIMENSIONS or not all(is_int(n, 0, 1 << 40) for n in sides):
            raise FormatError(f"{name} has no shape of up to {MAX_DIMENSIONS} whole numbers")
        if math.prod(sides) != count:
            raise FormatError(
                f"{name} has {count:,} numbers in its parts, and not those of {sides}"
            )
        runs = [one.run for one in arrays if one.run is not None]
        return self._tensor(PlacedArray(arrays[0].word, sides), runs)

    def _tensor(self, array: PlacedArray, runs: Sequence[Run | None]) -> Tensor:
        """Return the tensor that has all numbers of a new storage."""
        shape = array.shape
        self._runs.append([run for run in runs if run is not None])
        storage = Storage(str(len(self._runs) - 1), array.word, math.prod(shape))
        axes = range(len(shape))
        order = [shape[:i] if array.is_fortran else shape[i + 1 :] for i in axes]
        return rebuilt((storage, 0, shape, tuple(math.prod(one) for one in order)))

    def start(self, storage: Storage) -> int:
        """Return where a storage begins; its numbers are only read whole."""
        return self._runs[int(storage.key)][0].start

    def whole(self, storage: Storage) -> Iterator[memoryview]:
        """Read a storage, in pieces of whole numbers."""
        width, rest = BY_TORCH[storage.kind].itemsize, b""
        for run in self._runs[int(storage.key)]:
            for piece in _bytes(self._file, run):
                joined = piece if not rest else memoryview(rest + bytes(piece))
                end = len(joined) // width * width
                rest = bytes(joined[end:])
                yield joined[:end]
        if rest:
            raise FormatError("an array has a part of a number at its end; fetch the file again")


def _bytes(file: BinaryIO, run: Run) -> Iterator[memoryview]:
    """Read bytes of an array; those that are written as text are decoded."""
    if run.data is not None:
        yield memoryview(run.data)
        return
    read = partial(pieces, file, run.start, run.count, "an array")
    if not run.is_text:
        yield from read()
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in read():
            yield memoryview(decoder.decode(bytes(piece)).encode("latin-1"))
        decoder.decode(b"", final=True)
    except UnicodeError:
        raise FormatError("the bytes of an array are not written as text; fetch it again") from None
