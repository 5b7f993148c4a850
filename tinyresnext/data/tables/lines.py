"""The lines of a table: values with commas or tabs between them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from ...errors import FormatError, UnsafeError
from ...system.files import regular
from ..typed import encoding_of

__all__ = ["lines", "text_of"]

MOST_BYTES = 64 << 20  # of a table: a million images with thirty labels
MOST_LINE = 1 << 20  # characters
MOST_LINES = 1 << 21


@contextmanager
def text_of(path: Path, name: str) -> Iterator[TextIO]:
    """Open a table, if it is not too large."""
    with regular(path) as file:
        if os.fstat(file.fileno()).st_size > MOST_BYTES:
            raise UnsafeError(f"{name} has more than {MOST_BYTES:,} bytes; divide the table")
        text = io.TextIOWrapper(file, encoding_of(file.read(4)) or "utf-8", newline="")
        try:
            yield text
        finally:
            text.detach()


def lines(text: TextIO, name: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that is not empty, and its values without spaces around."""
    text.seek(0)
    number, delimiter = 0, ","
    try:
        while line := text.readline(MOST_LINE + 1):
            number += 1
            if number > MOST_LINES:
                raise UnsafeError(f"{name} has more than {MOST_LINES:,} lines; divide the table")
            if len(line) > MOST_LINE:
                raise UnsafeError(f"{name}, line {number} has more than {MOST_LINE:,} characters")
            if number == 1 and "\t" in line:
                delimiter = "\t"
            # One line at a time: a quotation that is never closed takes no more than its own.
            row = next(csv.reader([line], delimiter=delimiter, strict=True), [])
            if row:
                yield number, [value.strip() for value in row]
    except UnicodeDecodeError as error:
        kind = error.encoding.upper()
        raise FormatError(f"{name} is not {kind} ({error.reason}); save it as UTF-8") from error
    except csv.Error as error:
        raise FormatError(f"{name}, line {number} is no line of a table: {error}") from error
