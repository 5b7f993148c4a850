"""PyTorch's ``.pth`` files, both formats, read without PyTorch and without running anything they contain.

Zip format (PyTorch 1.6 and later): an archive of stored members; ``<root>/data.pkl`` describes the
tensors and ``<root>/data/<key>`` are their storages. Legacy format (before, and still for
torchvision's V1 weights): five pickles in a row (a magic number, a version, the writer's byte
order, the object, a list of storage keys), then for each key the number of elements as int64 and
the elements. Both are described by PyTorch's ``torch/serialization.py``.

Reading goes in three steps, and the numbers are touched only in the last: interpret the pickle into
descriptions (`pickle`), check that the file holds exactly the storages that they name, then hand
over where each tensor's numbers lie.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import BinaryIO

import numpy as np

from ...errors import FormatError, UnsafeError
from ...formats import stored_zip
from ...formats.pickle import machine as pickle
from ...formats.pickle.names import KINDS, STORAGES, Global, Storage, Tensor
from ...system.files import pieces
from .checkpoint import Check, Checkpoint, Stored, finish, viewed
from .wrappers import choose, clean

__all__ = ["read"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy format
LEGACY_VERSION = 1001  # the second
MAX_PICKLE = (
    8 << 20
)  # bytes of data.pkl: more than `pickle`'s limits let it use, but for the arrays that it passes over;
PICKLE_PART = 4  # with those, it may be this part of the file

_TYPES = {  # kinds of storages -> their types as `checkpoint` calls them
    "Float": "F32",
    "Double": "F64",
    "Half": "F16",
    "BFloat16": "BF16",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
    "Bool": "BOOL",
}
_KNOWN_MEMBERS = re.compile(r"data\.pkl|data/\d+|version|byteorder|\..+", re.ASCII)
_OTHER_FORMATS = {  # first bytes -> what it is and what to do
    b"\x89HDF\r\n\x1a\n": "an HDF5 file; open it as a model instead",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with git lfs pull",
    b"<": "a web page, not a checkpoint; check the address that it was downloaded from",
    b"\x93NUMPY": "a NumPy array; a checkpoint was expected",
    b"PK\x05\x06": "an empty zip archive",
}


@dataclass(frozen=True, slots=True)
class _Contents:
    """The interpreted pickle, at which byte a storage begins, and how to read it all and check it."""

    container: str
    top: object
    start: Callable[[Storage], int]
    whole: Callable[[Storage], Iterator[memoryview]]


def read(file: BinaryIO, ema: bool = False, check: Check | None = None) -> Checkpoint:
    """Read an open file: open the container, choose the state dict, read its storages.

    Parameters
    ----------
    file : binary file
        At any position.
    ema : bool
        Which weights to take where the file has both: the plain ones (``state_dict``, ``model``),
        or the running average of training (``state_dict_ema``, ``model_ema``, ``ema_state_dict``),
        which timm prefers. A file that has only averaged weights gives those in either case; asking
        for an average that is not there is an error.
    check : callable, optional
        As in `container.opened`: a file of other tensors, however large, costs nothing.

    Raises
    ------
    FormatError
        Not a checkpoint, cut short, of an unsupported kind (tar of PyTorch 0.1.1, TorchScript,
        big-endian), or without a state dict.
    IntegrityError
        A zip member's CRC differs, or a double does not fit into float32.
    UnsafeError
        The file asks for something that weights never need. Nothing was run.
    UsageError
        ``ema=True``, but there are no averaged weights.
    """
    size = os.fstat(file.fileno()).st_size
    contents = _open_container(file, size)
    wrapper, mapping, others = choose(contents.top, ema)
    prefix, tensors, skipped = clean(mapping)
    stored = {name: _stored(file, contents, tensor) for name, tensor in tensors.items()}
    storages = [
        tensor.storage
        for name, tensor in tensors.items()
        if stored[name].numel < tensor.storage.numel
    ]
    besides = {
        f"storage {one.key}": Stored(
            _TYPES[one.kind], (one.numel,), one.numel, _as_read(one, partial(contents.whole, one))
        )
        for one in storages
    }
    kind = contents.container
    return finish(
        file,
        stored,
        kind,
        check,
        besides=besides,
        wrapper=wrapper,
        others=others,
        prefix=prefix,
        skipped=skipped,
    )


def _open_container(file: BinaryIO, size: int) -> _Contents:
    """Tell the format by its first bytes."""
    head = file.read(512)
    file.seek(0)
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(file, max(MAX_PICKLE, size // PICKLE_PART))
    if head[257:262] == b"ustar":
        raise FormatError(
            "a tar archive, PyTorch's format before 0.2; load it with an old PyTorch and save it again"
        )
    for start, what in _OTHER_FORMATS.items():
        if head.startswith(start):
            raise FormatError(what)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise FormatError("a safetensors file; expected a .pth file of PyTorch")
    if head[:1] != b"\x80":
        raise FormatError(
            f"not a PyTorch checkpoint: it begins with {head[:8].hex(' ') or 'nothing'}"
        )
    return _open_legacy(file, size)


def _open_zip(file: BinaryIO, max_pickle: int) -> _Contents:
    """The zip format: one root folder with data.pkl and data/<key>."""
    members = stored_zip.read_members(file)
    if all(name.endswith(".npy") for name in members):
        raise FormatError("an .npz archive of NumPy; expected a .pth file of PyTorch")
    roots = {name.split("/")[0] for name in members}
    if len(roots) != 1:
        raise UnsafeError(f"the archive has {len(roots)} folders at its top; a checkpoint has one")
    inside = {name.partition("/")[2]: member for name, member in members.items()}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise FormatError(
            "a TorchScript archive, which is a program; save model.state_dict() instead of torch.jit.save"
        )
    unknown = [name for name in inside if not _KNOWN_MEMBERS.fullmatch(name)]
    if unknown or "data.pkl" not in inside:
        raise FormatError(
            f"not a PyTorch checkpoint: it holds {ascii(unknown[0])[:80]}"
            if unknown
            else "it has no data.pkl"
        )
    if "byteorder" in inside and _small_member(file, inside["byteorder"], 16) != b"little":
        raise FormatError(
            "the checkpoint was written on a big-endian machine; load it with PyTorch and save it again"
        )
    storages: dict[str, Storage] = {}

    stream = BytesIO(_small_member(file, inside["data.pkl"], max_pickle))
    top = pickle.load(stream, persistent_load=_storage_reader(storages, arity=5))
    if stream.read(1):
        raise UnsafeError("data.pkl goes on behind the end of its pickle")
    present = {name[5:]: member.size for name, member in inside.items() if name.startswith("data/")}
    wanted = {key: _bytes(storage) for key, storage in storages.items()}
    if present != wanted:
        key = min(present.items() ^ wanted.items())[0]
        raise FormatError(
            f"data/{key} has {present.get(key, 'no')} bytes, the pickle says {wanted.get(key, 'nothing of it')}"
        )
    data = {key: inside[f"data/{key}"] for key in storages}
    return _Contents(
        "zip",
        top,
        lambda one: data[one.key].start,
        lambda one: stored_zip.read_pieces(file, data[one.key]),
    )


def _small_member(file: BinaryIO, member: stored_zip.Member, limit: int) -> bytes:
    """The bytes of a member that must be small."""
    if member.size > limit:
        raise UnsafeError(f"{member.name} has {member.size} bytes; at most {limit} were expected")
    return b"".join(bytes(piece) for piece in stored_zip.read_pieces(file, member))


def _open_legacy(file: BinaryIO, size: int) -> _Contents:
    """The legacy format: five pickles, then the storages to the end of the file."""
    if pickle.load(file, max_opcodes=4) != MAGIC:
        raise FormatError("a pickle, but not one that torch.save wrote")
    version = pickle.load(file, max_opcodes=4)
    if version != LEGACY_VERSION:
        raise FormatError(
            f"the legacy format has version {LEGACY_VERSION}, the file says {ascii(version)[:40]}"
        )
    system = pickle.load(file, max_opcodes=100)
    if (
        type(system) is not dict
        or system.get("little_endian") is not True
        or system.get("protocol_version") != LEGACY_VERSION
    ):
        raise FormatError(
            "the checkpoint was not written on a little-endian machine; load it with PyTorch and save it again"
        )
    storages: dict[str, Storage] = {}
    top = pickle.load(file, persistent_load=_storage_reader(storages, arity=6))
    keys = pickle.load(file, max_opcodes=16 + 4 * len(storages))
    if (
        type(keys) is not list
        or not all(type(k) is str for k in keys)
        or sorted(keys) != sorted(storages)
    ):
        raise FormatError("the list of storages differs from those that the tensors use")
    starts = {}
    at = file.tell()
    for key in keys:
        file.seek(at)
        count = file.read(8)
        if count != storages[key].numel.to_bytes(8, "little"):
            raise FormatError(
                f"storage {key} should begin with its length {storages[key].numel}, found {count.hex() or 'nothing'}"
            )
        starts[key] = at + 8
        at += 8 + _bytes(storages[key])
        if at > size:
            raise FormatError(
                f"the file is cut short: storage {key} ends at byte {at}, the file at {size}"
            )
    if at != size:
        raise UnsafeError(f"{size - at} bytes follow the last storage")

    def whole(one: Storage) -> Iterator[memoryview]:
        return pieces(file, starts[one.key], _bytes(one), f"storage {one.key}")

    return _Contents("legacy", top, lambda one: starts[one.key], whole)


def _storage_reader(storages: dict[str, Storage], arity: int) -> Callable[[object], Storage]:
    """A ``persistent_load`` that checks each id and collects the storages."""

    def persistent_load(pid: object) -> Storage:
        if type(pid) is not tuple or len(pid) != arity or pid[0] != "storage":
            what = (
                "a module's source code"
                if type(pid) is tuple and pid[:1] == ("module",)
                else "something unknown"
            )
            raise UnsafeError(
                f"the pickle refers to {what}, not to a storage; save only model.state_dict()"
            )
        _, kind, key, location, numel = pid[:5]
        if type(kind) is not Global or kind not in STORAGES:
            raise UnsafeError("the pickle names a storage of unknown type")
        if (
            type(key) is not str
            or not re.fullmatch(r"\d{1,20}", key, re.ASCII)
            or type(location) is not str
        ):
            raise UnsafeError(
                "the pickle names a storage by something other than a number in text, and a device"
            )
        if type(numel) is not int or not 0 <= numel < 1 << 48:
            raise UnsafeError(f"storage {key} declares an impossible number of elements")
        if arity == 6 and pid[5] is not None:
            raise FormatError(
                f"storage {key} is a view of another, which PyTorch wrote only before 0.4; save the file again"
            )
        storage = Storage(key, STORAGES[kind], numel)
        if storages.setdefault(key, storage) != storage:
            raise UnsafeError(f"storage {key} is described in two ways")
        return storages[key]

    return persistent_load


def _bytes(storage: Storage) -> int:
    """The storage's length in the file, in bytes."""
    return storage.numel * np.dtype(KINDS[storage.kind]).itemsize


def _stored(file: BinaryIO, contents: _Contents, tensor: Tensor) -> Stored:
    """Where a tensor's numbers lie; `pickle_names` has checked that it stays within its storage."""
    storage = tensor.storage
    start = contents.start(storage)
    found = viewed(
        file,
        _TYPES[storage.kind],
        start,
        tensor.offset,
        tensor.size,
        tensor.stride,
        f"storage {storage.key}",
    )
    read = partial(contents.whole, storage) if found.numel == storage.numel else found.pieces
    return found._replace(pieces=_as_read(storage, read))


def _as_read(
    storage: Storage, read: Callable[[], Iterator[memoryview]]
) -> Callable[[], Iterator[memoryview]]:
    """PyTorch takes any byte but zero for true."""

    def truths() -> Iterator[memoryview]:
        for piece in read():
            yield memoryview((np.frombuffer(piece, np.uint8) != 0).view(np.uint8))

    return truths if storage.kind == "Bool" else read
