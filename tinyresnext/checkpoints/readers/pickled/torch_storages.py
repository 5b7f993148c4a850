"""The storages of a PyTorch checkpoint: which ones the pickle names, and the tensors in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from ....errors import FormatError, UnsafeError
from ....formats.dtypes import BY_TORCH, NUMBERS, Number
from ....formats.pickle.tensors import QUANTISED, STORAGES, UNREAD, Storage, Tensor
from ....formats.pickle.vocabulary import Global
from ....system.checks import is_int
from ..checkpoint import Stored, viewed
from .quantised import dequantised, inner

__all__ = [
    "OTHER_PICKLE",
    "SAVE",
    "Contents",
    "Views",
    "bytes_of",
    "check_system",
    "partly_used",
    "storage_reader",
    "stored",
    "without_a_loader",
]

OTHER_PICKLE, SAVE = "a pickle that torch.save did not write", "with torch.save"


@dataclass(frozen=True, slots=True)
class Contents:
    """An opened container.

    Attributes
    ----------
    container : str
        "zip", "legacy", "tar" or "paddle".
    top : object
        The interpreted pickle.
    start : callable
        Returns the byte at which a storage begins.
    whole : callable
        Reads a whole storage, and raises at the end if a checksum differs.
    carried : bytes
        What tinyresnext wrote beside the tensors; empty if nothing.
    """

    container: str
    top: object
    start: Callable[[Storage], int]
    whole: Callable[[Storage], Iterator[memoryview]]
    carried: bytes = b""


def bytes_of(storage: Storage) -> int:
    """Return the storage's length in the file, in bytes."""
    return storage.numel * width_of(storage)


def width_of(storage: Storage) -> int:
    """Return the bytes of a number in the storage."""
    kind = BY_TORCH.get(storage.kind)
    return UNREAD[storage.kind] if kind is None else kind.itemsize


def check_system(system: object, version: int) -> None:
    """Raise `FormatError` unless a file says that a little-endian machine wrote it, and how."""
    if (
        type(system) is not dict
        or system.get("little_endian") is not True
        or system.get("protocol_version") != version
    ):
        raise FormatError(
            "the checkpoint was not written on a little-endian machine; load it with PyTorch and "
            "save it again"
        )


class Views:
    """Storages that are parts of others, which PyTorch had before 0.4."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[Storage, Storage, int]] = {}

    def add(self, root: Storage, key: Any, offset: Any, numel: Any) -> Storage:
        """Return the part of a storage that begins at an element of it."""
        number = type(key) is str and re.fullmatch(r"\d{1,20}", key, re.ASCII)
        if not (number and is_int(offset, 0) and is_int(numel, 0)):
            raise UnsafeError(f"a part of storage {root.key} is not described by three numbers")
        if offset + numel > root.numel:
            raise UnsafeError(
                f"storage {key} ends at element {offset + numel} of a storage of {root.numel}"
            )
        view = Storage(key, root.kind, numel)
        if self._found.setdefault(key, (view, root, offset)) != (view, root, offset):
            raise UnsafeError(f"storage {key} is described in two ways")
        return view

    def placed(self, starts: dict[str, int]) -> dict[str, int]:
        """Return where each storage begins, given those that are no parts."""
        found = dict(starts)
        for key, (view, root, offset) in self._found.items():
            if key in found:
                raise UnsafeError(f"storage {key} is described in two ways")
            found[key] = found[root.key] + offset * width_of(view)
        return found


def storage_reader(
    storages: dict[str, Storage], arity: int, views: Views | None = None
) -> Callable[[object], Storage | Global]:
    """Return a ``persistent_load`` that checks each persistent id and collects the storages.

    Parameters
    ----------
    storages : dict of str to Storage
        Receives each storage under its key.
    arity : int
        The number of parts of a persistent id: 5 in the zip format, 6 in the legacy one, which may
        also name the class of a module.
    views : Views, optional
        Receives the storages that are parts of others, which only the legacy format has.
    """

    def persistent_load(pid: object) -> Storage | Global:
        # the legacy format has the source code of a module's class, which is not looked at
        parts = pid if arity == 6 and type(pid) is tuple and len(pid) == 4 else ("", None)
        if parts[0] == "module" and type(parts[1]) is Global:
            return parts[1]
        if type(pid) is not tuple or len(pid) != arity or pid[0] != "storage":
            module = type(pid) is tuple and pid[:1] == ("module",)
            what = "a module's source code" if module else "something unknown"
            raise UnsafeError(
                f"the pickle refers to {what}, not to a storage; save only model.state_dict()"
            )
        _, kind, key, location, numel = pid[:5]
        if type(kind) is not Global or kind not in STORAGES:
            raise UnsafeError("the pickle names a storage of unknown type")
        number = type(key) is str and re.fullmatch(r"\d{1,20}", key, re.ASCII)
        if not number or type(location) is not str:
            raise UnsafeError(
                "the pickle names a storage by something other than a number in text, and a device"
            )
        if not is_int(numel, 0, (1 << 48) - 1):
            raise UnsafeError(f"storage {key} declares an impossible number of elements")
        storage = Storage(key, STORAGES[kind], numel)
        if storages.setdefault(key, storage) != storage:
            raise UnsafeError(f"storage {key} is described in two ways")
        part = pid[5] if arity == 6 else None
        if part is None:
            return storage
        if views is None or type(part) is not tuple or len(part) != 3:
            raise UnsafeError(f"a part of storage {key} is not described by three numbers")
        return views.add(storage, *part)

    return persistent_load


def stored(file: BinaryIO, contents: Contents, tensor: Tensor) -> Stored:
    """Return where a tensor's numbers lie.

    `tinyresnext.formats.pickle.tensors` has checked that it stays within its storage.
    """
    storage = tensor.storage
    found = viewed(
        file,
        _kind(storage),
        contents.start(storage),
        tensor.offset,
        tensor.size,
        tensor.stride,
        f"storage {storage.key}",
    )
    read = partial(contents.whole, storage) if found.numel == storage.numel else found.pieces
    found = found._replace(pieces=_as_read(storage, read))
    if tensor.quantiser is None:
        return found
    return dequantised(found, tensor, tensor.quantiser, partial(stored, file, contents))


def _kind(storage: Storage) -> Number:
    """Return the type of the numbers in a storage that is read."""
    return BY_TORCH.get(storage.kind) or NUMBERS[QUANTISED[storage.kind]]


def partly_used(file: BinaryIO, contents: Contents, tensors: Iterable[Tensor]) -> dict[str, Stored]:
    """Return the storages of which a tensor has only a part, whole."""
    found = {}
    for tensor in [one for whole in tensors for one in inner(whole)]:
        storage = tensor.storage
        if stored(file, contents, tensor).numel < storage.numel:
            kind, read = _kind(storage), partial(contents.whole, storage)
            found[f"storage {storage.key}"] = Stored(
                kind, (storage.numel,), storage.numel, _as_read(storage, read)
            )
    return found


def _as_read(
    storage: Storage, read: Callable[[], Iterator[memoryview]]
) -> Callable[[], Iterator[memoryview]]:
    """Return a reader of the storage that makes truth values 0 or 1.

    PyTorch takes any byte but zero for true.
    """

    def truths() -> Iterator[memoryview]:
        for piece in read():
            yield memoryview((np.frombuffer(piece, np.uint8) != 0).view(np.uint8))

    return truths if storage.kind == "Bool" else read


def without_a_loader(error: UnsafeError) -> FormatError | UnsafeError:
    """Return the error for a pickle, in which Python's own puts a whole file for each tensor."""
    if "torch.storage._load_from_bytes" not in str(error):
        return error
    again = f"load it where you trust it, and save its tensors {SAVE}"
    return FormatError(f"{OTHER_PICKLE}, with tensors; {again}")
