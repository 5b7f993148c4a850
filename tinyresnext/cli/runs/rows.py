"""Rows that go to a file one by one, as `-o` of `classify` and `evaluate` writes them."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import UsageError
from ...system.files import shown
from ...system.version import __version__
from ..output.progress import counted, escapes_told, say
from ..output.tables import csv_line, csv_row, json_line, json_row, target
from .images import batch_of, stopping

if TYPE_CHECKING:
    from ...data.trees.sources import Images, Source
    from ...inference.classify import Row


def rows_target(a: argparse.Namespace) -> str | None:
    """Return the file to write rows to, if one was typed.

    Raises
    ------
    UsageError
        Its ending is not that of rows; it exists; or ``--resume`` has no file.
    """
    if a.resume and (a.out is None or a.force):
        raise UsageError("--resume goes on with a file: give -o FILE, and no --force")
    if a.out is None:
        return None
    if not a.out.lower().endswith((".jsonl", ".csv")):
        raise UsageError(f"-o {a.out!r} ends in neither .jsonl (JSON Lines) nor .csv (a table)")
    return str(a.out) if a.resume else target(a.out, a.force)


class RowForm(NamedTuple):
    """How a row is written.

    Parameters
    ----------
    cells, values : callable
        Return the cells of a table, and the object of JSON, for a row and what was asked, which
        every object says beside it.
    right : callable
        Takes an object of JSON or the cells of a table, and what was asked; returns whether it is
        such a row.
    says : bool
        Whether a row of a table says what was asked, too.
    """

    cells: Callable[[Any, dict[str, Any]], list[Any]]
    values: Callable[[Any, dict[str, Any]], dict[str, Any]]
    right: Callable[[Any, dict[str, Any]], bool]
    says: bool = False


CLASSIFIED = RowForm(
    lambda row, asked: csv_row(row),
    json_row,
    lambda row, asked: isinstance(row, list) or all(row.get(k) == v for k, v in asked.items()),
)


def write_rows(
    a: argparse.Namespace,
    out: str,
    rows: Callable[..., Iterable[Row]],
    images: tuple[Images, int],
    settings: dict[str, Any],
    heading: list[str],
    asked: dict[str, Any],
) -> int:
    """Write a row for each image that has none, as `keep_rows`; return 1 if one has an error.

    ``rows`` also takes the number of images in a ``batch``: off the processor, only whole
    mini-batches are kept.
    """
    batch, step = batch_of(a)
    rows = partial(rows, batch=batch)
    return _ended(out, *keep_rows(a, out, rows, images, settings, heading, asked, step=step))


def keep_rows(
    a: argparse.Namespace,
    out: str,
    rows: Callable[[Iterable[Source]], Iterable[Any]],
    images: tuple[Iterable[Source], int],
    settings: dict[str, Any],
    heading: list[str],
    asked: dict[str, Any],
    row_form: RowForm = CLASSIFIED,
    step: int = 1,
) -> tuple[int, int]:
    """Write a row for each image that has none to a file; return how many there are, and failed.

    Parameters
    ----------
    a : Namespace
    out : str
    rows : callable
        Returns a row, with an ``error``, for each image that it is given.
    images : iterable of Source, int
        All images, as often as they are asked for, and their number.
    settings : dict
        What the rows depend on.
    heading : list of str
        Of a table.
    asked : dict
        What an object of JSON says beside the row itself.
    row_form : RowForm
    step : int
        As for `Journal.remaining`.
    """
    from ...inference.many.rows import forms, journal
    from ...inference.many.rows.settings import computed_on
    from ...ops import backend_of

    settings |= {"fast_decode": a.fast_decode, "version": __version__}
    place = "" if a.dask else computed_on(backend_of(a.device, a.precision))
    table_form = out.lower().endswith(".csv")
    first = csv_line(heading)
    asked = asked | {"settings": _digest(settings)}

    def right(row: Any) -> bool:
        return row_form.right(row, asked)

    form = forms.csv_form(first, right) if table_form else forms.json_form(right)
    sources, count = images
    if a.resume and (found := journal.whole(out, form, sources)):
        if table_form and not row_form.says:
            raise UsageError(
                f"{shown(out)} is whole, and a table does not say which model made it; give "
                "another name, or --force to write over it"
            )
        say(f"{shown(out)} is whole already; nothing was computed")
        return found
    begun = journal.journal(out, settings, form, a.resume, a.force, place=place)
    with begun as kept, stopping(out, kept):
        made = counted(rows(kept.remaining(sources, step)), count, lambda: kept.done)
        for row in escapes_told(made, lambda row: row.path):
            if row.error is not None:
                say(row.error)
            cells = row_form.cells if table_form else None
            line = csv_line(cells(row, asked)) if cells else json_line(row_form.values(row, asked))
            kept.write(line, row.error)
            kept.flush()
        kept.end()
    return kept.done, kept.failed


def _digest(settings: dict[str, Any]) -> str:
    """Return 16 digits that are others for other settings: a row has them, so it says what it is.

    The file is alone when its run has ended, and a model that was trained anew has the same name.
    """
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _ended(out: str, done: int, failed: int) -> int:
    """Print what is in a file of rows; return 1 if a row has an error."""
    errors = f", {failed} of them with an error" if failed else ""
    print(f"{shown(out)}: {done} row{'' if done == 1 else 's'}{errors}")
    return 1 if failed else 0
