"""What programs read: CSV tables and JSON lines, and the names of the files they are written to."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ...errors import UsageError
from ...system.checks import check_ending
from ...system.writing import NewName, check_writable, present, replacing

if TYPE_CHECKING:
    from ...inference.classify import Row

_MARKS = tuple("=+-@\t\r\n'")  # what a formula begins with, and what marks a text
SCHEMA = 1  # of the JSON lines; a change that breaks a reader raises it


def target(
    path: str,
    force: bool,
    not_over: str | os.PathLike[str] | None = None,
    remedy: str = "give another name, or --force to write over it",
) -> str:
    """Return the name of a file to write, unless writing it would lose something.

    Without ``force`` it is a `NewName`: a file that another process makes before this one is whole
    is not written over either.

    Parameters
    ----------
    path : str
    force : bool
        Whether an existing file may be replaced.
    not_over : path, optional
        A file that is being read: it is never replaced.
    remedy : str
        What a user can do about a file that exists.

    Raises
    ------
    UsageError
        The file exists and must not be replaced; it is a link or no file at all; or it cannot be
        written.
    """
    there = present(path)
    if not_over is not None and there and _same(path, not_over):
        raise UsageError(f"{path!r} is the file to read; give another name to write to")
    if there and not force:
        raise UsageError(f"{path!r} exists; {remedy}")
    check_writable(path)
    return path if force else NewName(path, remedy)


def check_not_read(path: str | None, read: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse to write over a file that the same command reads, even by ``--force``.

    Parameters
    ----------
    path : str, optional
        As for `table_target`.
    read : iterable of path or None
        Also names of images in archives, such as ``photos.zip/cat/1.jpg``, and ``-``, which is
        standard input. Nothing is taken from it if there is no file to be written over.

    Raises
    ------
    UsageError
        One of them is the file to write.
    """
    if path is None or path == "-" or not os.path.exists(path):
        return
    if any(one is not None and _same(path, one) for one in read):
        raise UsageError(f"{path!r} is read by this command; give another name to write to")


def check_output(*files: str | None) -> None:
    """Refuse to compute results that go nowhere, since standard output was closed (``>&-``).

    A program that has no streams, or has taken them away, is another matter: it may not need them.

    Parameters
    ----------
    files : str or None
        Where results go besides; ``-`` is standard output itself.

    Raises
    ------
    UsageError
        None of them is a file.
    """
    closed = sys.__stdout__ is None and os.name != "nt"
    nowhere = getattr(sys.stdout, "name", None) == os.devnull  # as `cli.main` replaces it
    if closed and nowhere and all(file in (None, "-") for file in files):
        raise UsageError(
            "standard output is closed, and the results would go there; leave it open, or give a "
            "file (-o FILE)"
        )


def _same(path: str, other: str | os.PathLike[str]) -> bool:
    """Return whether two names are those of one file; an image has also that of its archive."""
    if other == "-":
        return _is_stdin(path)
    name = os.fspath(other)
    while not os.path.exists(name) and (above := os.path.dirname(name)) not in ("", name):
        name = above
    return os.path.exists(name) and os.path.samefile(path, name)


def _is_stdin(path: str) -> bool:
    """Return whether standard input comes from a file, as by ``< FILE``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdin.fileno()))
    except (OSError, ValueError, AttributeError):  # there may be none, or one without a file
        return False


def table_target(path: str | None, force: bool) -> str | None:
    """Return where to write a table: None for nowhere, ``-`` for standard output, or a `target`.

    Raises
    ------
    UsageError
        As `target` does; or the name is that of something else than a text with commas.
    """
    if path is None or path == "-":
        return path
    check_ending(path, (".csv", ".txt", ""), "a table (CSV)")
    return target(path, force)


@contextmanager
def table(path: str | None) -> Iterator[Any]:
    """Yield a CSV writer for what `table_target` returned, or None where no table is wanted.

    Raises
    ------
    UsageError
        The file cannot be written; then there is none, or the old one.
    """
    if path is None or path == "-":
        yield path and _Writer(sys.stdout)
        return
    # A file's name may be no UTF-8: `system.files.as_utf8`.
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        yield _Writer(stream)


class _Writer:
    """A CSV writer that a spreadsheet runs nothing of.

    A text that begins with one of ``= + - @``, a tab, a line break or ``'`` gets a ``'`` in front:
    so a spreadsheet takes it as text, and who reads the table removes one ``'`` from the front.
    """

    def __init__(self, stream: TextIO) -> None:
        # On Windows, standard output puts a carriage return before each line feed by itself.
        returned = stream is sys.stdout and sys.platform == "win32"
        self._writer = csv.writer(stream, lineterminator="\n" if returned else "\r\n")

    def writerow(self, row: Iterable[Any]) -> None:
        """Write a row."""
        self._writer.writerow([_cell(value) for value in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)


def _cell(value: Any) -> Any:
    """Return a value as it stands in a table."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _MARKS else value


def csv_row(row: Row) -> list[Any]:
    """Return path, error, and then label, index and probability of each prediction."""
    error = row.error or ""
    # A message that begins with a quoted name would get the ' of `_Writer` in front of its own.
    error = f"image {error}" if error.startswith("'") else error
    return [row.path, error, *(value for guess in row.predictions for value in guess)]


def json_row(row: Row, asked: dict[str, Any]) -> dict[str, Any]:
    """Return one image as a JSON object, with what was asked: the models, views and threshold."""
    head = {"schema": SCHEMA, "path": row.path} | asked
    if row.error is not None:
        return head | {"error": row.error}
    return head | {"predictions": [guess._asdict() for guess in row.predictions]}


def print_json(values: dict[str, Any]) -> None:
    """Print one JSON object on a line of standard output, at once.

    JSON is UTF-8: where the stream writes another encoding, the line is ASCII.
    """
    encoding = getattr(sys.stdout, "encoding", None) or ""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    print(_json(values, escaped=not utf8), flush=True)


def json_line(values: dict[str, Any]) -> bytes:
    """Return the line of one JSON object as a file has it."""
    return f"{_json(values)}\n".encode()


def csv_line(row: Iterable[Any]) -> bytes:
    """Return a row of a table as a file has it."""
    stream = io.StringIO(newline="")
    _Writer(stream).writerow(row)
    return stream.getvalue().encode("utf-8", "backslashreplace")


def _json(values: dict[str, Any], escaped: bool = False) -> str:
    """Return one JSON object as a line without its end."""
    import json  # late: only some commands print JSON

    text = json.dumps(values, ensure_ascii=escaped)
    if not text.isprintable():  # what a terminal must not see, as JSON's own escapes
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    return text
