"""The container of a checkpoint, found from its first bytes and not its name, and its reader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ...errors import FormatError, ShapeError, UsageError, WeightsError
from ...formats.hdf5.form import SIGNATURE as HDF5
from ...formats.stored_zip.records import LOCAL_MAGIC as ZIP
from ...system.files import regular, shown
from ..onnx import read as onnx
from . import keras_h5, npz, parts, safetensors, torch7
from .checkpoint import Check, Checkpoint, Listed
from .examine import finish
from .pickled import paddle, torch_file

__all__ = ["PICKLED", "opened", "read"]

# containers that may have several state dicts, each under a key
PICKLED = ("zip", "legacy", "tar", "paddle")


@contextmanager
def opened(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    check: Check | None = None,
    key: str | None = None,
) -> Iterator[Checkpoint]:
    """Open a checkpoint of PyTorch, safetensors, NumPy, Torch7, Keras or ONNX, and judge it all.

    It is open in the ``with`` block.

    Parameters
    ----------
    path : path
        A regular file. It is opened once. If it is the index of a checkpoint in parts, they are
        opened too: files in the same folder (`parts.inside`); and so are the files that an ONNX
        graph names in its folder (`onnx.external`).
    ema : bool
        Which weights to take if a ``.pth`` file has both plain and averaged ones, as
        `torch_file.listed` says.
    check : callable, optional
        Receives the names and shapes before any number is read, what tinyresnext wrote beside
        them, and the architecture of a graph, and raises if they are not wanted.
        It may return a callable, which receives all numbers of each tensor, piece by piece, and
        raises if these are not wanted.
    key : str, optional
        Under which a ``.pth`` file has the state dict; by default it is found.

    Yields
    ------
    Checkpoint
        Names and orientation are the container's own. A tensor is read when it is asked for, and
        what is read is what was judged.

    Raises
    ------
    FormatError, IntegrityError, UnsafeError
        As the readers say. Nothing in the file was run, no other file was opened but those that an
        ONNX file may name, and no tensor was ever in memory.
    UsageError
        ``ema=True``, but there are no averaged weights; nothing lies under ``key``; or ``path`` is
        not a path.
    """
    with ExitStack() as stack:
        file = stack.enter_context(regular(path))
        try:
            files, listed = [file], parts.described(file)
            if listed is None:
                found = _listed(file, ema, key, partial(onnx.listed, path=path, stack=stack))
                files += found.files
            else:
                if ema or key is not None:
                    raise UsageError("a checkpoint in parts has one network; name no other weights")
                named = parts.inside(Path(path).parent, listed)
                files = [stack.enter_context(regular(name)) for name in named]
                found = parts.joined(listed, [_listed(one, False, None) for one in files])
            result = _finished(files, found, check)
        except (WeightsError, UsageError) as error:
            raise type(error)(f"{shown(path)}: {error}") from None
        yield result


def read(
    path: str | os.PathLike[str],
    *,
    ema: bool = False,
    check: Check | None = None,
    key: str | None = None,
) -> Checkpoint:
    """Read a whole checkpoint into memory. Parameters and errors as in `opened`."""
    with opened(path, ema=ema, check=check, key=key) as found:
        return replace(found, tensors=dict(found.tensors))


def _finished(files: Sequence[BinaryIO], found: Listed, check: Check | None) -> Checkpoint:
    """Judge what was found; say which tensors these are where a file has others."""
    try:
        return finish(files, found, check)
    except (FormatError, ShapeError) as error:
        if not found.others or found.container not in PICKLED:
            raise
        keys = ", ".join(ascii(other)[:80] for other in found.others[:4])
        raise type(error)(
            f"{error}; these are the tensors under {found.wrapper!r}, and there are others under "
            f"{keys} (--key takes a state dict)"
        ) from None


def _listed(
    file: BinaryIO,
    ema: bool,
    key: str | None,
    graph: Callable[[BinaryIO], Listed] | None = None,
) -> Listed:
    """Choose the reader by the first bytes, and let it list the tensors.

    ``graph`` reads an ONNX graph, where one may be.
    """
    head = file.read(512)
    file.seek(0)
    for fits, reader in (
        (_is_torch7(head), torch7),
        (head.startswith(HDF5), keras_h5),
        (_is_npz(head), npz),
        (_is_safetensors(head), safetensors),
    ):
        if fits:
            if ema:
                raise UsageError(
                    "only .pth and .pdparams files have averaged weights under a key; read it "
                    "without ema; a prefix (--prefix ema.) takes those behind one"
                )
            if key is not None:
                raise UsageError(
                    "only .pth and .pdparams files have state dicts under keys; read it without a "
                    "key (--key); a prefix (--prefix) says which names to take"
                )
            return reader.listed(file)
    if graph is not None and onnx.is_onnx(file):
        if ema or key is not None:
            raise UsageError("an ONNX file has one network; read it without ema and without a key")
        try:
            return graph(file)
        except FormatError as error:
            raise FormatError(f"an ONNX file: {error}") from None
    if head.startswith((b"4\n1\n3\nV", b"3\n1\n")):
        raise FormatError(
            "a Torch7 file in its ASCII form; load it with Torch7 and save it again in the binary "
            "form"
        )
    reader = paddle if paddle.begins(head) else torch_file
    return reader.listed(file, ema, key)


def _is_torch7(head: bytes) -> bool:
    """Return whether a table or an object begins here, numbered from 1.

    Read as the length of a safetensors header, this would be over 4 GiB.
    """
    tagged = len(head) >= 8 and head[:4] in (b"\3\0\0\0", b"\4\0\0\0")
    return tagged and 0 < int.from_bytes(head[4:8], "little") < 1 << 31


def _is_npz(head: bytes) -> bool:
    """Return whether this is a zip archive whose first member is an array."""
    length = int.from_bytes(head[26:28], "little")
    return head.startswith(ZIP) and head[30 : 30 + length].endswith(b".npy")


def _is_safetensors(head: bytes) -> bool:
    """Return whether a brace stands behind a length of less than a tebibyte.

    So it is not a text that happens to have a brace there.
    """
    return head[8:9] == b"{" and head[5:8] == b"\0\0\0"
