"""How the rows of a run are written and read: as JSON Lines, or as a table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from ....system.files import as_utf8

__all__ = ["Done", "Form", "cells_of", "csv_form", "json_form", "records"]

_MOST_ROW = 64 << 20  # bytes
# A cell in quotation marks, or without them, and what stands behind it.
_CELL = re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^",\r\n]*+))(,|\r?\n)')


class Done(NamedTuple):
    """What a row says that is on the disk: the name of its image, and the error if it has one."""

    name: str
    error: str | None


class Form(NamedTuple):
    """How rows are written.

    Parameters
    ----------
    read : callable
        Returns what the bytes of a row say, or None if they are no row.
    quotes : bool
        Whether a row may have line breaks within quotation marks, as in CSV.
    heading : bytes
        What stands before the first row.
    written : callable
        Returns the name of an image as a row has it.
    """

    read: Callable[[bytes], Done | None]
    quotes: bool = False
    heading: bytes = b""
    written: Callable[[str], str] = str


def records(file: BinaryIO, quotes: bool = False) -> Iterator[tuple[bytes, int]]:
    """Yield each row that has its end, and the place behind it."""
    record, at = b"", 0
    file.seek(0)
    while line := file.readline(_MOST_ROW + 1):
        at += len(line)
        record += line
        if not line.endswith(b"\n") or len(record) > _MOST_ROW:
            return
        if not quotes or record.count(b'"') % 2 == 0:
            yield record, at
            record = b""


def json_form(also: Callable[[dict[str, Any]], bool] = lambda row: True) -> Form:
    """Return the form of JSON Lines with ``path`` and perhaps ``error``.

    Parameters
    ----------
    also : callable
        Whether an object is a row, as far as only the caller knows.
    """

    def read(record: bytes) -> Done | None:
        try:
            row = json.loads(record)
            name, error = row["path"], row.get("error")
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        right = isinstance(name, str) and isinstance(error, str | None) and also(row)
        return Done(name, error) if right else None

    return Form(read)


def csv_form(heading: bytes, also: Callable[[list[str]], bool] = lambda row: True) -> Form:
    """Return the form of a CSV table whose first columns are ``path`` and ``error``.

    Parameters
    ----------
    heading : bytes
    also : callable
        Whether cells are a row, as far as only the caller knows.
    """

    def read(record: bytes) -> Done | None:
        row = cells_of(record)
        if len(row) < 2 or not also(row):
            return None
        # A ' in front marks a text (`cli.output.tables`).
        name, error = (value.removeprefix("'") for value in row[:2])
        return Done(name, error or None)

    return Form(read, quotes=True, heading=heading, written=as_utf8)


def cells_of(record: bytes) -> list[str]:
    """Return the cells of a row of a table; none if it is no such row.

    The csv module refuses cells of more than 131,072 characters, or of another number for the whole
    process. A row may have the logits of any number of labels.
    """
    found, at = list[str](), 0
    while cell := _CELL.match(record, at):
        quoted, plain, behind = cell.groups()
        data = plain if quoted is None else quoted.replace(b'""', b'"')
        found.append(data.decode("utf-8", "surrogateescape"))
        at = cell.end()
        if behind != b",":
            return found if at == len(record) else []
    return []
