"""PyTorch's ``.pth`` files, both formats, read without PyTorch and without running their content.

Zip format (PyTorch 1.6 and later): an archive of stored members; ``<root>/data.pkl`` describes the
tensors and ``<root>/data/<key>`` are their storages, or ``<root>/tensors/<key>`` where PyTorch 1.4
was asked for a zip. Legacy format (before, and still for torchvision's V1 weights): five pickles in
a row (a magic number, a version, the writer's byte order, the object, a list of storage keys), then
for each key the number of elements as int64 and the elements. Both are described by PyTorch's
``torch/serialization.py``. The format before them is read by `torch_tar`.

Reading goes in three steps, and the numbers are touched only in the last: interpret the pickle into
descriptions (`tinyresnext.formats.pickle`), check that the file holds exactly the storages that
they name, then hand over where each tensor's numbers lie.
"""

from __future__ import annotations

import os
import re
from io import BufferedReader
from typing import BinaryIO

from ....errors import FormatError, UnsafeError
from ....formats.others import archive_kind, file_kind
from ....formats.pickle.machine import load
from ....formats.pickle.names import CHECKPOINT
from ....formats.pickle.tensors import Storage
from ....formats.stored_zip.reader import Member, listed_names, read_members, read_pieces
from ....formats.stored_zip.records import LOCAL_MAGIC as ZIP
from ....system.files import Part, pieces
from ..checkpoint import CARRIED_MEMBER, MAX_CARRIED, Listed
from . import torch_tar
from .quantised import unpacked
from .torch_storages import (
    OTHER_PICKLE,
    SAVE,
    Contents,
    Views,
    bytes_of,
    check_system,
    partly_used,
    storage_reader,
    stored,
    without_a_loader,
)
from .wrappers import called, choose, clean

__all__ = ["listed"]

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the legacy format
LEGACY_VERSION = 1001  # the second
# What a pickle begins with: protocol 2 and later, or a number, a dict, a list or a name
_PICKLES = (b"\x80", b"L1", b"(dp", b"(lp", b"(tp", b"(ip", b"}q", b"]q", b"}.", b"].", b"c")

_KNOWN_MEMBERS = re.compile(
    rf"data\.pkl|(?:data|tensors)/\d+|version|byteorder|{re.escape(CARRIED_MEMBER)}|\..+", re.ASCII
)


def listed(file: BinaryIO, ema: bool = False, key: str | None = None) -> Listed:
    """List the tensors of an open file: open the container, and choose the state dict.

    Parameters
    ----------
    file : binary file
        At any position.
    ema : bool
        Which weights to take if the file has both: the plain ones (``state_dict``, ``model``), or
        the running average of training (``state_dict_ema``, ``model_ema``, ``ema_state_dict``),
        which timm prefers. From a file that has only averaged weights, these are taken in either
        case; asking for an average that is missing is an error.
    key : str, optional
        As in `wrappers.choose`.

    Raises
    ------
    FormatError
        Not a checkpoint, cut short, of an unsupported kind (TorchScript, big-endian), or without a
        state dict.
    IntegrityError
        A zip member's CRC differs.
    UnsafeError
        The file asks for something that weights never need. Nothing was run.
    UsageError
        ``ema=True``, but there are no averaged weights; or nothing lies under ``key``.
    """
    size = os.fstat(file.fileno()).st_size
    contents = _open_container(file, size)
    choice = choose(contents.top, ema, key)
    choice = choice._replace(mapping=unpacked(choice.mapping))
    prefix, tensors, skipped = clean(choice)
    return Listed(
        {name: stored(file, contents, tensor) for name, tensor in tensors.items()},
        contents.container,
        wrapper=choice.key,
        others=choice.others,
        prefix=prefix,
        skipped=skipped,
        carried=contents.carried,
        besides=partly_used(file, contents, tensors.values()),
        called=called(contents.top),
    )


def _open_container(file: BinaryIO, size: int) -> Contents:
    """Choose the format by the first bytes."""
    head = file.read(512)
    file.seek(0)
    if head.startswith(ZIP):
        return _open_zip(file)
    if head[257:262] == torch_tar.BEGINNING:
        return torch_tar.open_tar(file)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise FormatError("a safetensors file; expected a .pth file of PyTorch")
    if what := file_kind(head):
        raise FormatError(what)
    if not head.startswith(_PICKLES):
        raise FormatError(
            f"not a PyTorch checkpoint: it begins with {head[:8].hex(' ') or 'nothing'}"
        )
    return _open_legacy(file, size)


def _open_zip(file: BinaryIO) -> Contents:
    """Open the zip format: one root folder with data.pkl and data/<key>."""
    inside = _checkpoint_members(file)
    storages: dict[str, Storage] = {}
    pickle = inside["data.pkl"]
    for _ in read_pieces(file, pickle):
        pass  # the CRC is checked at the end
    stream = BufferedReader(Part(file, pickle.start, pickle.size))
    top = load(stream, CHECKPOINT, persistent_load=storage_reader(storages, arity=5))
    if stream.read(1):
        raise UnsafeError("data.pkl continues behind the end of its pickle")
    folder = "tensors" if any(name.startswith("tensors/") for name in inside) else "data"
    present = {
        name: member.size
        for name, member in inside.items()
        if name.startswith(("data/", "tensors/"))
    }
    wanted = {f"{folder}/{key}": bytes_of(storage) for key, storage in storages.items()}
    if present != wanted:
        name = min(present.items() ^ wanted.items())[0]
        raise FormatError(
            f"{name} has {present.get(name, 'no')} bytes, the pickle says "
            f"{wanted.get(name, 'nothing of it')}"
        )
    data = {key: inside[f"{folder}/{key}"] for key in storages}
    more = inside.get(CARRIED_MEMBER)
    carried = b"" if more is None else _small_member(file, more, MAX_CARRIED)
    return Contents(
        "zip",
        top,
        lambda one: data[one.key].start,
        lambda one: read_pieces(file, data[one.key]),
        carried,
    )


def _checkpoint_members(file: BinaryIO) -> dict[str, Member]:
    """Return the members of an archive by their names inside the root folder."""
    if what := archive_kind(listed_names(file)):
        raise FormatError(what)
    members = read_members(file)
    if all(name.endswith(".npy") for name in members):
        raise FormatError("an .npz archive of NumPy; expected a .pth file of PyTorch")
    roots = {name.split("/")[0] for name in members}
    if len(roots) != 1:
        raise UnsafeError(f"the archive has {len(roots)} folders at its top; a checkpoint has one")
    inside = {name.partition("/")[2]: member for name, member in members.items()}
    unknown = [name for name in members if not _KNOWN_MEMBERS.fullmatch(name.partition("/")[2])]
    if unknown:
        raise FormatError(f"not a PyTorch checkpoint: it holds {ascii(unknown[0])[:80]}")
    if "data.pkl" not in inside:
        raise FormatError("not a PyTorch checkpoint: it has no data.pkl")
    if "byteorder" in inside and _small_member(file, inside["byteorder"], 16) != b"little":
        raise FormatError(
            "the checkpoint was written on a big-endian machine; load it with PyTorch and save it "
            "again"
        )
    return inside


def _small_member(file: BinaryIO, member: Member, limit: int) -> bytes:
    """Return the bytes of a member that must be small."""
    if member.size > limit:
        raise UnsafeError(f"{member.name} has {member.size} bytes; at most {limit} were expected")
    return b"".join(bytes(piece) for piece in read_pieces(file, member))


def _open_legacy(file: BinaryIO, size: int) -> Contents:
    """Open the legacy format: five pickles, then the storages to the end of the file."""
    _read_magic(file)
    version = load(file, CHECKPOINT, max_opcodes=4)
    if version != LEGACY_VERSION:
        raise FormatError(
            f"the legacy format has version {LEGACY_VERSION}, the file says {ascii(version)[:40]}"
        )
    check_system(load(file, CHECKPOINT, max_opcodes=100), LEGACY_VERSION)
    storages: dict[str, Storage] = {}
    views = Views()
    top = load(file, CHECKPOINT, persistent_load=storage_reader(storages, 6, views))
    keys = load(file, CHECKPOINT, max_opcodes=16 + 4 * len(storages))
    texts = type(keys) is list and all(type(key) is str for key in keys)
    if type(keys) is not list or not texts or sorted(keys) != sorted(storages):
        raise FormatError("the list of storages differs from those that the tensors use")
    starts = views.placed(_legacy_starts(file, [storages[key] for key in keys], size))
    return Contents(
        "legacy",
        top,
        lambda one: starts[one.key],
        lambda one: pieces(file, starts[one.key], bytes_of(one), f"storage {one.key}"),
    )


def _read_magic(file: BinaryIO) -> None:
    """Raise `FormatError` unless the first pickle is the number that torch.save writes."""
    try:
        first = load(file, CHECKPOINT)
    except UnsafeError as error:
        raise without_a_loader(error) from None
    if first != MAGIC or type(first) is not int:
        raise FormatError(
            f"{OTHER_PICKLE}; load it where you trust it, and save its tensors {SAVE}"
        )


def _legacy_starts(file: BinaryIO, storages: list[Storage], size: int) -> dict[str, int]:
    """Return where each storage begins; they must fill the file from here to its end."""
    starts = {}
    at = file.tell()
    for storage in storages:
        file.seek(at)
        count = file.read(8)
        if count != storage.numel.to_bytes(8, "little"):
            raise FormatError(
                f"storage {storage.key} should begin with its length {storage.numel}, found "
                f"{count.hex() or 'nothing'}"
            )
        starts[storage.key] = at + 8
        at += 8 + bytes_of(storage)
        if at > size:
            raise FormatError(
                f"the file is cut short: storage {storage.key} ends at byte {at}, the file at "
                f"{size}"
            )
    if at != size:
        raise UnsafeError(f"{size - at} bytes follow the last storage")
    return starts
