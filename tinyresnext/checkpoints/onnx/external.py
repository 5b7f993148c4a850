"""The files beside a model that hold its numbers: which of them may be opened, and opening them.

``location`` is a path relative to the model's folder. Only regular files inside of this folder are
opened. A link may lead to another place in it, or to where the Hugging Face Hub's cache keeps the
files: there ``snapshots/REVISION/model.onnx.data`` is a link to ``../../blobs/DIGEST``.

Source: https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from ...errors import FormatError, UnsafeError
from ...formats.onnx.tensor import Tensor
from ...system.files import regular
from ..readers.parts import of_the_cache

__all__ = ["Beside"]

MOST_FILES = 128  # each stays open
MOST_DIGITS = 18


class Beside:
    """The files beside a model, opened when they are first needed and closed with the stack."""

    def __init__(self, model: BinaryIO, path: str | os.PathLike[str], stack: ExitStack) -> None:
        self._model, self._folder, self._stack = model, Path(path).parent, stack
        self.files: dict[str, BinaryIO] = {}

    def place(self, tensor: Tensor) -> tuple[BinaryIO, int]:
        """Return the file that holds a tensor's numbers, and the byte at which they begin.

        Raises
        ------
        FormatError
            The file is missing or too short, or the range is not that of the tensor.
        UnsafeError
            The path leads out of the folder, or to no regular file.
        """
        name, shown = tensor.external.get("location", ""), f"{tensor.name!a:.80}"
        file = self._opened(name, shown)
        size = os.fstat(file.fileno()).st_size
        offset = _digits(tensor.external.get("offset", "0"), "offset", shown)
        expected = tensor.numel * tensor.kind.itemsize
        length = _digits(tensor.external.get("length", str(size - offset)), "length", shown)
        if length != expected or offset + length > size:
            raise FormatError(
                f"{shown} has {length:,} bytes from byte {offset:,} of {name!a:.80}, which has "
                f"{size:,}; its shape and type need {expected:,}; fetch both files again"
            )
        return file, offset

    def _opened(self, name: str, shown: str) -> BinaryIO:
        """Return an open file of the folder."""
        if name in self.files:
            return self.files[name]
        if len(self.files) == MOST_FILES:
            raise UnsafeError(f"the tensors lie in more than {MOST_FILES} files")
        parts = name.split("/")
        if not name.isprintable() or {*name} & {*"\\:"} or not all(parts) or {*parts} & {".", ".."}:
            raise UnsafeError(
                f"{shown} lies at {name[:80]!a}, which is no path inside the model's folder"
            )
        path = self._folder.joinpath(*parts)
        if not os.path.lexists(path):
            raise FormatError(
                f"the file {name[:80]!a}, which holds tensors such as {shown}, is missing; put it "
                "beside the model under this name"
            )
        to = Path(os.path.realpath(path))
        folder = Path(os.path.realpath(self._folder))
        if not to.is_relative_to(folder) and not of_the_cache(folder, to):
            raise UnsafeError(
                f"{name[:80]!a} is a link that leads out of the model's folder; put the file there"
            )
        file = self._stack.enter_context(regular(to))
        if os.path.samestat(os.fstat(file.fileno()), os.fstat(self._model.fileno())):
            raise UnsafeError(f"{shown} says that its numbers lie in the model file itself")
        self.files[name] = file
        return file


def _digits(text: str, what: str, shown: str) -> int:
    """Return a whole number from 0 that is written in decimal digits."""
    if not text.isascii() or not text.isdigit() or len(text) > MOST_DIGITS:
        raise FormatError(f"{shown} has the {what} {text[:40]!a}; expected a whole number from 0")
    return int(text)
