"""Which container a checkpoint is in, told from its first bytes and never from its name, and its reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from ...errors import FormatError, UsageError, WeightsError
from ...system.files import regular, shown
from . import keras_h5, npz, safetensors, torch7, torch_file
from .checkpoint import Check, Checkpoint

__all__ = ["opened", "read"]


@contextmanager
def opened(
    path: str | os.PathLike[str], *, ema: bool = False, check: Check | None = None
) -> Iterator[Checkpoint]:
    """Open a checkpoint of PyTorch, safetensors, NumPy, Torch7 or Keras, and judge all of it; it is open in the ``with`` block.

    Parameters
    ----------
    path : path
        A regular file. It is opened once.
    ema : bool
        Which weights to take where a ``.pth`` file has both plain and averaged ones, as
        `torch_file.read` says.
    check : callable, optional
        Is told the names and shapes before any number is read, and raises when they are not wanted.
        What it gives is told all numbers of each tensor, piece by piece, and raises when these are
        not wanted.

    Yields
    ------
    Checkpoint
        Names and orientation are the container's own. A tensor is read when it is asked for, and
        what is read is what was judged.

    Raises
    ------
    FormatError, IntegrityError, UnsafeError
        As the readers say. Nothing in the file was run, no other file was opened, and no tensor was
        ever in memory.
    UsageError
        ``ema=True``, but there are no averaged weights; or ``path`` is no path.
    """
    with regular(path) as file:
        try:
            found = _read(file, ema, check)
        except (WeightsError, UsageError) as error:
            raise type(error)(f"{shown(path)}: {error}") from None
        yield found


def read(
    path: str | os.PathLike[str], *, ema: bool = False, check: Check | None = None
) -> Checkpoint:
    """Read a whole checkpoint into memory. Parameters and errors as in `opened`."""
    with opened(path, ema=ema, check=check) as found:
        return replace(found, tensors=dict(found.tensors))


def _read(file: BinaryIO, ema: bool, check: Check | None) -> Checkpoint:
    """Look at the beginning, and hand on."""
    head = file.read(512)
    file.seek(0)
    for fits, reader in (
        (_is_torch7(head), torch7),
        (head.startswith(b"\x89HDF\r\n\x1a\n"), keras_h5),
        (_is_npz(head), npz),
        (_is_safetensors(head), safetensors),
    ):
        if fits:
            if ema:
                raise UsageError(
                    "only .pth files have averaged weights beside the plain ones; read it without ema"
                )
            return reader.read(file, check)
    if head.startswith((b"4\n1\n3\nV", b"3\n1\n")):
        raise FormatError(
            "a Torch7 file in its ASCII form; load it with Torch7 and save it again in the binary form"
        )
    return torch_file.read(file, ema, check)


def _is_torch7(head: bytes) -> bool:
    """A table or an object, numbered from 1; read as the length of a safetensors header this would be over 4 GiB."""
    return (
        len(head) >= 8
        and head[:4] in (b"\3\0\0\0", b"\4\0\0\0")
        and 0 < int.from_bytes(head[4:8], "little") < 1 << 31
    )


def _is_npz(head: bytes) -> bool:
    """A zip archive whose first member is an array."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(b"PK\x03\x04") and head[30 : 30 + length].endswith(b".npy")


def _is_safetensors(head: bytes) -> bool:
    """A brace behind the length, which is less than a tebibyte: so it is no text that happens to have one there."""
    return head[8:9] == b"{" and head[5:8] == b"\0\0\0"
