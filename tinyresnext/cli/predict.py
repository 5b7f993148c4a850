"""The commands `classify` and `evaluate`: what a model says of images, how often it is right."""

from __future__ import annotations

import argparse
import codecs
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import UsageError
from ..system.console import tell
from ..system.files import shown
from .options import (
    Commands,
    add_broken,
    add_command,
    add_data,
    add_device,
    add_ensemble,
    add_force,
    positive,
)
from .output.progress import announce_compiling, counted, counter, say
from .output.tables import SCHEMA, csv_row, json_row, print_json, table, table_target, target

if TYPE_CHECKING:
    from ..inference.classify import Row
    from ..inference.ensemble import Ensemble
    from ..inference.scores.evaluation import Evaluation
    from ..inference.scores.labels import LabelEvaluation

MOST_NAMES = 64 << 20  # bytes of the names on standard input
_MARKS = {  # UTF-32 first: its mark begins with that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NO_LABEL = "     --    no label reaches the threshold"


def add_commands(commands: Commands) -> None:
    """Add the parsers of `classify` and `evaluate`."""
    sentence = "Print the most probable classes of images."
    example = "tinyresnext classify photo.jpg"
    add_command(commands, "classify", sentence, example, _add_classify, _classify)
    sentence = "Measure how often a model is right about images whose classes are known."
    example = "tinyresnext evaluate images.zip --split test"
    add_command(commands, "evaluate", sentence, example, _add_evaluate, _evaluate)


def _add_classify(c: argparse.ArgumentParser) -> None:
    """Add the options of `classify`."""
    add_paths(c)
    add_ensemble(c)
    c.add_argument(
        "--top",
        type=positive,
        metavar="N",
        help="classes for each image (5; of a model of several labels, all above the threshold)",
    )
    _add_threshold(c)
    add_batch(c, 8)
    add_device(c, precision=True)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line for each image")
    form.add_argument(
        "--csv", metavar="FILE", help="write a table, a row for each image; - is standard output"
    )
    add_force(c, "the table")


def _add_evaluate(c: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add_data(c)
    add_ensemble(c)
    c.add_argument("--split", default="test", metavar="NAME", help="which part of the data (test)")
    add_broken(c)
    c.add_argument(
        "--labels-by-number",
        action="store_true",
        help="match the classes by their order and not by their names",
    )
    _add_threshold(c)
    add_batch(c, 64)
    add_device(c, precision=True)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    form.add_argument(
        "--csv",
        metavar="FILE",
        help="write a row for each class, with the confusion matrix; - is standard output",
    )
    c.add_argument("--picture", metavar="FILE.png", help="draw the confusion matrix")
    add_force(c, "a file")


def _add_threshold(c: argparse.ArgumentParser) -> None:
    """Add ``--threshold``."""
    c.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="for a model whose labels have probabilities of their own: name those of at least "
        "this (0.5)",
    )


def add_paths(c: argparse.ArgumentParser) -> None:
    """Add the positional ``PATH...``, for commands that read images."""
    c.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an image, a directory of images, or - for names on standard input",
    )


def add_batch(c: argparse.ArgumentParser, usual: int) -> None:
    """Add ``--batch``."""
    c.add_argument(
        "--batch",
        type=positive,
        default=usual,
        metavar="N",
        help=f"images that go through the network together ({usual})",
    )


def _classify(a: argparse.Namespace) -> int:
    """Classify images as they come; return 1 if one of them failed."""
    from ..inference.classify import classify
    from ..inference.heads import THRESHOLD

    table_path = table_target(a.csv, a.force)
    paths = images_of(a.paths)
    asked, model = _together(a)
    several = model.spec.several
    top = a.top or (model.spec.labels if several else 5)
    limit = THRESHOLD if several and a.threshold is None else a.threshold
    rows = counted(classify(model, paths, top=top, batch=a.batch, threshold=limit), len(paths))
    if several:
        say(
            f"an image has any number of this model's labels: those of at least {limit:.0%} are "
            "named (--threshold), each with its own probability"
        )
    asked, failed = asked | ({} if limit is None else {"threshold": limit}), 0
    with table(table_path) as writer, announce_compiling(model.models[0].ops):
        if writer is not None:
            writer.writerow(_heading(min(top, model.spec.labels)))
        for row in rows:
            failed += row.error is not None
            _show(row, writer, asked if a.json else None)
    return 1 if failed else 0


def _together(a: argparse.Namespace) -> tuple[dict[str, Any], Ensemble]:
    """Return the models that were asked for, or the bundled one, after what JSON says of them."""
    from ..hub.bundled import shipped_model
    from ..inference.ensemble import Ensemble
    from ..inference.files import load

    files = a.model or [shipped_model()]
    models = tuple(load(file, a.device, a.threads, a.precision) for file in files)
    together = Ensemble(models, int(a.crops), a.mirror)
    views = together.crops * (2 if a.mirror and together.crops < 10 else 1)
    if len(models) * views > 1:
        count = f"{len(models)} models" if len(models) > 1 else "one model"
        seen = f"{views} views of each image" if views > 1 else "one view of each image"
        say(f"{count}, {seen}: the mean of the probabilities counts")
    names = [Path(file).name for file in files]
    asked = {"model": " + ".join(names), "models": names, "crops": together.crops}
    return asked | {"mirror": together.mirror}, together


def _heading(top: int) -> list[str]:
    """Return the names of a table's columns for so many predictions."""
    from ..inference.model import Prediction

    columns = [f"{field}{rank}" for rank in range(1, top + 1) for field in Prediction._fields]
    return ["path", "error", *columns]


def _show(row: Row, writer: Any, asked: dict[str, Any] | None) -> None:
    """Write one row to a table, or print it: as JSON beside what was asked, or as text."""
    if row.error is not None:
        say(row.error)
    if writer is not None:
        writer.writerow(csv_row(row))
    elif asked is not None:
        print_json(json_row(row, asked))
    elif row.error is None:
        lines = [f"  {p.probability:6.1%}  {p.label}" for p in row.predictions] or [_NO_LABEL]
        print("\n".join([shown(row.path), *lines]), flush=True)


def images_of(paths: list[str]) -> list[str]:
    """Return the image files that were typed; raise `UsageError` if there is none."""
    from ..inference.classify import expand

    found = expand(paths, _names_on_stdin() if "-" in paths else ())
    if not found:
        raise UsageError(
            f"there is no image in {', '.join(paths)}; expected files such as photo.jpg or "
            "directories of them"
        )
    return found


def _names_on_stdin() -> Iterator[str]:
    """Yield the lines of standard input; raise `UsageError` if it is not text, or too long."""
    try:
        missing = sys.stdin is None or getattr(sys.stdin, "closed", False)
        text = "" if missing else _text_of(sys.stdin)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            "standard input is not text; - expects the names of images there, one a line"
        )
    # Not splitlines: a name may have other characters in it that end a line for Unicode.
    # Empty lines are no names, and there may be more of them than a list should have.
    return (line[0].removeprefix("\ufeff") for line in re.finditer(r"[^\r\n]+", text))


def _text_of(stream: TextIO) -> str:
    """Return all text of a stream; a byte order mark says its encoding, whatever the terminal's is.

    PowerShell writes one, in UTF-8 or UTF-16.
    """
    raw = getattr(stream, "buffer", None)
    data: Any = (stream if raw is None else raw).read(MOST_NAMES + 1)
    if len(data) > MOST_NAMES:
        raise UsageError(f"standard input has more than {MOST_NAMES:,} bytes of names; give fewer")
    if raw is None:
        return str(data)
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return str(data.removeprefix(mark).decode(encoding))
    return str(data.decode(stream.encoding or "utf-8", stream.errors or "strict"))


def _evaluate(a: argparse.Namespace) -> int:
    """Evaluate a model on a data set."""
    from ..data.open import open_dataset
    from ..inference.evaluate import evaluate
    from ..inference.scores import confusion
    from ..inference.scores.evaluation import Evaluation, check_matrix

    table_path = table_target(a.csv, a.force)
    picture = a.picture and confusion.named(target(a.picture, a.force))
    asked, model = _together(a)
    ops = model.models[0].ops
    if picture and model.spec.several:
        raise UsageError("a model of several labels has no confusion matrix; leave out --picture")
    if not model.spec.several and (a.csv or a.json or picture):
        check_matrix(model.spec.classes)
    data = open_dataset(a.data, a.split, a.broken, threads=ops.thread_count(a.threads))
    say(f"{shown(a.data)}, {a.split}: {data.found()}")
    with announce_compiling(ops):
        count = counter(len(data))
        found = evaluate(
            model,
            data,
            batch=a.batch,
            by_number=a.labels_by_number,
            threshold=a.threshold,
            progress=count,
        )
        if count is not None and found.pictures < len(data):
            tell("")  # some images were skipped, so the counter did not end its line
    _report(found, a, asked)  # before anything can go wrong with the files
    with table(table_path) as writer:
        if writer is not None:
            writer.writerows(found.table())
    if picture and isinstance(found, Evaluation):
        title = (
            f"{asked['model']} on {Path(a.data).name}, {a.split}: {found.top1:.2%} of "
            f"{found.pictures:,} right"
        )
        escaped = confusion.write(picture, found.confusion, found.classes, title)
        if escaped:
            say(
                f"{shown(picture)}: no font on this computer has {escaped[:20]!r}, so they are "
                "escaped there; install a font that has them, such as Noto Sans CJK"
            )
    return 0


def _report(found: Evaluation | LabelEvaluation, a: argparse.Namespace, asked: dict) -> None:
    """Print an evaluation as JSON or as text, unless its table goes to standard output."""
    if a.json:
        head = {"schema": SCHEMA, "data": a.data, "split": a.split}
        print_json(head | asked | found.to_json())
    elif a.csv != "-":
        print(found, flush=True)
