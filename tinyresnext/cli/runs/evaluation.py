"""What `evaluate` does: images with labels in, accuracies out, and a row for each image."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...data.rules import alike
from ...errors import ImageError, UsageError
from ...system.files import shown
from ..output.progress import announce_compiling, counted, say
from ..output.results import beside_others, check_plain, sentence
from ..output.tables import SCHEMA, check_not_read, print_json, table, table_target, target
from .images import batch_of, computed_by
from .models import digests_of
from .rows import keep_rows, rows_target
from .scores import HEADING, read_scores, score_form

if TYPE_CHECKING:
    from distributed import Client

    from ...data.dataset import Dataset, LabelledImages
    from ...data.trees.sources import Source
    from ...inference.ensemble import Ensemble
    from ...inference.many.comparison import Comparison
    from ...inference.scores.rule import Found
    from ...inference.scores.single import ImageScore


class Outputs(NamedTuple):
    """The files to write: for each class, of timm's columns, the picture, a row for each image."""

    table: str | None
    results: str | None
    picture: str | None
    rows: str | None


def outputs(a: argparse.Namespace) -> Outputs:
    """Return the files to write, if none of them is lost or written twice.

    Raises
    ------
    UsageError
        A file is there and --force is not given, or it is read, or it is to have two results.
    """
    from ...inference.scores import confusion

    picture = a.picture
    if picture is not None:
        picture = confusion.named(target(picture, a.force))
    tables = table_target(a.csv, a.force), table_target(a.results, a.force)
    found = Outputs(*tables, picture, rows_target(a))
    written = [file for file in found if file]
    for number, file in enumerate(written):
        check_not_read(file, [*a.data, a.truth, *(a.model or ())])
        if any(_one(file, other) for other in written[:number]):
            raise UsageError(
                f"{file!r} is to have two results (capital letters may not tell files apart); give "
                "each a name of its own"
            )
    return found


def _one(file: str, other: str) -> bool:
    """Return whether two names may be those of one file, which need not be there yet.

    On Windows and macOS, capital letters and forms of accents do not tell files apart.
    """
    (folder, name), (second, another) = (os.path.split(os.path.realpath(x)) for x in (file, other))
    return alike(name) == alike(another) and os.path.samefile(folder, second)


def evaluate_all(
    a: argparse.Namespace,
    files: Outputs,
    asked: dict[str, Any],
    model: Ensemble,
    client: Client | None,
) -> int:
    """Evaluate a model on images; return 1 if some count as wrong because they are broken."""
    from ...inference.many.comparison import Comparison

    _check_results(a, files, asked, model)
    data = _opened(a)
    if files.picture and data.any_is_right:
        raise UsageError(
            "an image of ReaL may have several right answers, so there is no confusion matrix; "
            "leave out --picture"
        )
    for file in files:
        check_not_read(file, (one.name for one in data))
    a.split = a.split or data.part
    say(f"{_named(a.data)}, {a.split}: {data.found()}")
    comparison = Comparison.of(model, data, a.labels_by_number, a.threshold)
    with announce_compiling(model.models[0].ops):
        found, failed = _found(a, files.rows, comparison, asked, client)
    if failed and files.rows and a.broken == "refuse":  # rows of a run that did not refuse them
        raise ImageError(f"{failed} of {len(data)} images cannot be read; see {shown(files.rows)}")
    row, says = beside_others(asked, model, data, found, a.fast_decode)
    if failed:
        what = "are left out" if data.skips else "count as wrong"
        say(f"{failed} of {len(data)} images cannot be read; they {what}")
        says |= {"left_out": failed} if data.skips else {}
    with suppress(BrokenPipeError):  # who reads that has ended; the files are wanted all the same
        _report(found, a, asked, row | says)  # before anything can go wrong with the files
    _write(files, found, row, a, asked)
    return 1 if failed and not data.skips else 0


def _write(
    files: Outputs, found: Found, row: dict[str, Any], a: argparse.Namespace, asked: dict[str, Any]
) -> None:
    """Write the files, and then the table that goes to standard output, whatever befalls them."""
    streamed = files.table == "-"
    try:
        with (
            table(None if streamed else files.table) as writer,
            table(files.results) as results,
        ):
            if writer is not None:
                writer.writerows(found.table())
            if results is not None:
                results.writerows([list(row["results"]), list(row["results"].values())])
        if files.picture:
            _draw(files.picture, found, a, asked)
    finally:
        if streamed:
            with suppress(BrokenPipeError), table("-") as writer:
                writer.writerows(found.table())


def _check_results(
    a: argparse.Namespace, files: Outputs, asked: dict[str, Any], model: Ensemble
) -> None:
    """Raise `UsageError` for results that there are none of, before they are computed."""
    from ...inference.scores.evaluation import check_matrix

    if files.results:
        check_plain(asked, model)
    if files.picture and model.spec.several:
        raise UsageError("a model of several labels has no confusion matrix; leave out --picture")
    if not model.spec.several and (a.csv or a.json or files.picture):
        check_matrix(model.spec.classes)


def _opened(a: argparse.Namespace) -> Dataset | LabelledImages:
    """Open the images and their labels; none of them is decoded yet."""
    from ...data.open import open_labelled

    broken = "refuse" if a.broken == "refuse" else "wrong"  # what is left out has a row, too
    data = open_labelled(a.data, a.split, broken, truth=a.truth)
    skips = a.broken == "skip"
    return replace(data, skips=skips, keeps=data.keeps and not skips)


def _found(
    a: argparse.Namespace,
    rows: str | None,
    comparison: Comparison,
    asked: dict[str, Any],
    client: Client | None,
) -> tuple[Found, int]:
    """Compute what there is to find, and how many images cannot be read."""
    data, labels = comparison.data, comparison.model.labels
    batch = a.batch if rows is None else batch_of(a)[0]

    def scores(sources: Iterable[Source]) -> Iterator[ImageScore]:
        return comparison.scores(sources, batch, a.fast_decode, client)

    if rows is not None:
        limit = comparison.rule.threshold
        asked = asked | ({} if limit is None else {"threshold": limit})
        settings = asked | computed_by(a, comparison.model.models) | {"batch": batch}
        settings |= {"data": comparison.digest(), "sha256": digests_of(comparison.model)}
        images, form = (data, len(data)), score_form(labels)
        done, failed = keep_rows(
            a, rows, scores, images, settings, HEADING, asked, form, step=batch or 1
        )
        say(f"{shown(rows)}: {done} row{'' if done == 1 else 's'}")
        return comparison.total(read_scores(rows, len(labels))), failed
    count = [0]

    def told() -> Iterator[ImageScore]:
        for one in counted(scores(data), len(data)):
            if one.error is not None:
                say(one.error)
                count[0] += 1
            yield one

    return comparison.total(told()), count[0]


def _draw(picture: str, found: Found, a: argparse.Namespace, asked: dict[str, Any]) -> None:
    """Draw the confusion matrix, if there is one."""
    from ...inference.scores import confusion
    from ...inference.scores.evaluation import Evaluation

    if not isinstance(found, Evaluation):
        return
    images = _named([Path(one).name for one in a.data])
    title = f"{asked['model']} on {images}, {a.split}: {found.top1:.2%} of {found.pictures:,} right"
    escaped = confusion.write(picture, found.confusion, found.classes, title)
    if escaped:
        say(
            f"{shown(picture)}: no font on this computer has {escaped[:20]!r}, so they are "
            "escaped there; install a font that has them, such as Noto Sans CJK"
        )


def _report(
    found: Found, a: argparse.Namespace, asked: dict[str, Any], others: dict[str, Any]
) -> None:
    """Print an evaluation as JSON or as text, unless its table goes to standard output."""
    if a.json:
        data = a.data[0] if len(a.data) == 1 else a.data
        head = {"schema": SCHEMA, "data": data, "split": a.split}
        print_json(head | asked | found.to_json() | others)
    elif a.csv != "-":
        text = f"\n\n{sentence(others['published'])}" if "published" in others else ""
        print(f"{found}{text}", flush=True)


def _named(data: list[str]) -> str:
    """Return what was typed as images, for a message."""
    others = len(data) - 1
    more = f" and {others} other{'' if others == 1 else 's'}" if others else ""
    return f"{shown(data[0])}{more}"
