"""A checkpoint in several files, as the Hugging Face Hub keeps large ones, found from its index.

The index is a JSON object::

    {"metadata": {"total_size": 162152},
     "weight_map": {"conv1.weight": "model-00001-of-00003.safetensors", ...}}

Only files in the folder of the index are opened. In the Hub's cache, the files of a folder
``snapshots/REVISION`` are links to ``../../blobs/DIGEST``, and from there perhaps to ``blobs`` of
the whole cache; no other links are followed out of the folder.

Source: ``save_torch_state_dict`` of huggingface_hub, and its documentation of the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from ...system.files import shown
from .checkpoint import Listed, Stored, checked_name
from .safetensors import json_object

__all__ = ["described", "inside", "joined", "of_the_cache", "of_the_folder", "refuse_one"]

MOST_INDEX = 2 << 20  # bytes; 20,000 tensors with long names have less
MOST_PARTS = 128  # each of them stays open
_PART = re.compile(r"-\d{1,6}-of-(\d{1,6})\.\w+", re.ASCII)


def described(file: BinaryIO) -> dict[str, str] | None:
    """Return the file of each tensor if this is the index of a checkpoint in parts.

    ``file`` is an open file at its beginning, where it is left.

    Raises
    ------
    FormatError, UnsafeError
        It is an index and cannot be used.
    """
    head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    if not text.startswith(b"{") or not any(word in head for word in (b'"weight_map"', b'"metad')):
        return None
    if head[5:8] == b"\0\0\0":  # safetensors: the length of a header stands before it
        return None
    raw = file.read(MOST_INDEX + 1)
    if len(raw) > MOST_INDEX:
        raise UnsafeError(f"the index has more than {MOST_INDEX:,} bytes; do not use it")
    index = json_object(raw.removeprefix(b"\xef\xbb\xbf"), "the index")
    found = index.get("weight_map")
    if type(found) is not dict or not found or any(type(v) is not str for v in found.values()):
        raise FormatError(
            "a JSON text without weights, or an index whose weight_map does not say the file of "
            "each tensor; name the file with the tensors"
        )
    return {checked_name(name): str(part) for name, part in found.items()}


def inside(folder: Path, index: dict[str, str]) -> list[Path]:
    """Return the files that an index names, in the order of their names.

    Raises
    ------
    FormatError, UnsafeError
        As `of_the_folder`; or there are too many.
    """
    names = sorted(set(index.values()))
    if len(names) > MOST_PARTS:
        raise UnsafeError(f"the index names {len(names):,} files; expected at most {MOST_PARTS}")
    paths = [of_the_folder(folder, name) for name in names]
    stated = [int(match[1]) for name in names if (match := _PART.search(name))]
    if {*stated} - {len(stated)}:
        raise FormatError(
            f"the index names {len(stated)} parts, and by their names there are {max(stated)}; "
            "fetch the index again"
        )
    return paths


def refuse_one(path: str | os.PathLike[str]) -> None:
    """Raise `FormatError` if a file is one part of several by its name.

    The first part alone may look like a smaller network.
    """
    match = _PART.search(Path(path).name)
    if match and int(match[1]) > 1:
        raise FormatError(
            f"{shown(path)}: by its name this is one of {int(match[1])} parts of a checkpoint; "
            "name the index (.index.json) that says what each part has, or their folder"
        )


def of_the_folder(folder: Path, name: str) -> Path:
    """Return the path of a file of a folder.

    Raises
    ------
    FormatError
        There is no such file.
    UnsafeError
        The name leads elsewhere, or the file is a link that leaves the folder and is not the
        Hub's.
    """
    plain = name.isprintable() and not {*name} & {*"/\\:"} and name not in ("", ".", "..")
    if not plain:
        raise UnsafeError(
            f"{ascii(name)[:80]} is not the name of a file in the same folder; do not use the index"
        )
    path = folder / name
    if not os.path.lexists(path):
        raise FormatError(f"there is no {name[:80]} in the same folder; fetch all files of it")
    if path.is_symlink() and not _stays(folder, path):
        raise UnsafeError(
            f"{name[:80]} is a link that leads out of its folder; put the file itself there"
        )
    return path


def _stays(folder: Path, path: Path) -> bool:
    """Return whether a link ends in its folder, or where the Hub's cache keeps the files."""
    here, to = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    return to.parent == here or of_the_cache(here, to)


def of_the_cache(folder: Path, file: Path) -> bool:
    """Return whether a file lies where the Hub's cache keeps those of a snapshot.

    Both paths have no links in them.
    """
    repository = folder.parent.parent
    if folder.parent.name != "snapshots" or "--" not in repository.name:
        return False
    shared = repository.parent / "blobs"
    return file.parent == repository / "blobs" or (file.parent.parent == shared and shared.is_dir())


def joined(index: dict[str, str], found: Sequence[Listed]) -> Listed:
    """Return the tensors of all parts as those of one file.

    Parameters
    ----------
    index : dict of str to str
        The file of each tensor.
    found : sequence of Listed
        What each part holds, in the order of their names.

    Raises
    ------
    FormatError
        A part holds other tensors than the index says, or the parts do not fit together.
    """
    stored: dict[str, Stored] = {}
    besides: dict[str, Stored] = {}
    first = found[0]
    for number, (name, part) in enumerate(zip(sorted(set(index.values())), found, strict=True)):
        if (part.container, part.prefix) != (first.container, first.prefix) or part.others:
            raise FormatError(f"{name[:80]} is of another kind than the first part")
        told = {key for key, where in index.items() if where == name}
        here = {part.prefix + key for key in part.stored}
        _same(name, told - {*part.skipped}, here)
        stored |= part.stored
        besides |= {f"{key} of part {number + 1}": one for key, one in part.besides.items()}
    carried = {part.carried for part in found if part.carried}
    if len(carried) > 1:
        raise FormatError("two parts carry different descriptions; export the model again")
    skipped = tuple(dict.fromkeys(name for part in found for name in part.skipped))
    return Listed(
        {name.removeprefix(first.prefix): stored[name.removeprefix(first.prefix)] for name in index
         if name.removeprefix(first.prefix) in stored},
        first.container,
        prefix=first.prefix,
        skipped=skipped,
        carried=carried.pop() if carried else b"",
        besides=besides,
    )  # fmt: skip


def _same(part: str, told: Collection[str], here: Collection[str]) -> None:
    """Raise `FormatError` unless a part has the tensors that the index says."""
    for name in sorted({*told} ^ {*here})[:1]:
        what = "is not in it" if name in told else "is in it, which the index does not say"
        raise FormatError(f"{part[:80]}: {ascii(name)[:80]} {what}; the files are not of one model")
