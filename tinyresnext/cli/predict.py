"""The commands `classify` and `evaluate`: what a model says of images, how often it is right."""

from __future__ import annotations

import argparse
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..system.files import shown
from .options import (
    EIGHT_BITS,
    Commands,
    add_command,
    add_device,
    add_ensemble,
    add_force,
    braces,
    positive,
    word,
)
from .output.progress import announce_compiling, counted, escapes_told, say
from .output.tables import (
    check_not_read,
    check_output,
    csv_row,
    json_row,
    print_json,
    table,
    table_target,
)
from .runs.cluster import add_dask, with_workers
from .runs.images import (
    add_batch,
    add_fast_decode,
    add_paths,
    add_resume,
    computed_by,
    images_of,
)
from .runs.models import digests_of, keep_logits, together
from .runs.rows import rows_target, write_rows

if TYPE_CHECKING:
    from distributed import Client

    from ..inference.classify import Row

_NO_LABEL = "     --    no label reaches the threshold"


def add_commands(commands: Commands) -> None:
    """Add the parsers of `classify` and `evaluate`."""
    sentence = "Print the most probable classes of images."
    example = "tinyresnext classify photo.jpg"
    add_command(commands, "classify", sentence, example, _add_classify, with_workers(_classify))
    sentence = "Measure how often a model is right about images whose classes are known."
    example = "tinyresnext evaluate images.zip --split test"
    add_command(commands, "evaluate", sentence, example, _add_evaluate, with_workers(_evaluate))


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
    add_batch(c)
    add_fast_decode(c)
    add_device(c, precision=True, more=EIGHT_BITS)
    add_dask(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line for each image")
    form.add_argument(
        "--csv", metavar="FILE", help="write a table, a row for each image; - is standard output"
    )
    form.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="write a row for each image as it comes, to a file of JSON Lines (.jsonl) or a table "
        "(.csv); a run that was stopped can go on (--resume)",
    )
    add_resume(c)
    add_force(c, "the file")


def _add_evaluate(c: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    c.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="a directory, zip or tar with a folder for each class; a list (.txt) or a table "
        "(.csv, .tsv) of images and labels; shards of WebDataset; a pattern such as "
        "'val/*/*.jpg'; an archive of CIFAR, or the directory with the files of MNIST",
    )
    add_ensemble(c)
    c.add_argument(
        "--split",
        metavar="NAME",
        help="which part of the data (test; val if there is no test; all if there are no parts)",
    )
    c.add_argument(
        "--truth",
        metavar="FILE",
        help="the classes of validation images that are in no folders of classes: the devkit of "
        "ILSVRC2012, Caffe's val.txt, Kaggle's LOC_val_solution.csv, ReaL's real.json, or "
        "TinyImageNet's val_annotations.txt",
    )
    known = ("wrong", "skip", "refuse")
    c.add_argument(
        "--broken",
        type=word(known),
        metavar=braces(known),
        help="images that cannot be read: count them as wrong, leave them out, or end (wrong)",
    )
    c.add_argument(
        "--labels-by-number",
        action="store_true",
        help="match the classes by their order and not by their names",
    )
    _add_threshold(c)
    add_batch(c)
    add_fast_decode(c)
    add_device(c, precision=True, more=EIGHT_BITS)
    add_dask(c)
    form = c.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    form.add_argument(
        "--csv",
        metavar="FILE",
        help="write a row for each class, with the confusion matrix; - is standard output",
    )
    c.add_argument(
        "--results", metavar="FILE.csv", help="write a row with the columns of timm's results"
    )
    c.add_argument("--picture", metavar="FILE.png", help="draw the confusion matrix")
    c.add_argument(
        "--logits",
        metavar="FILE.npz",
        help="keep the logits of all images, for `train --teacher FILE.npz`",
    )
    c.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="write what the model says of each image, as it comes, to a file of JSON Lines "
        "(.jsonl) or a table (.csv); a run that was stopped can go on (--resume)",
    )
    add_resume(c)
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


def _classify(a: argparse.Namespace, client: Client | None) -> int:
    """Classify images as they come; return 1 if one of them failed."""
    from ..inference.classify import check_classified, classify
    from ..inference.heads import THRESHOLD, percent

    table_path, out = table_target(a.csv, a.force), rows_target(a)
    check_output(table_path, out)
    images, count = images_of(a.paths)
    for file in (a.csv, out):
        check_not_read(file, chain(a.paths, a.model or (), (one.name for one in images)))
    asked, model = together(a)
    check_classified(model, a.threshold)
    several = model.spec.several
    top = a.top or (model.spec.labels if several else 5)
    limit = THRESHOLD if several and a.threshold is None else a.threshold
    if several:
        say(
            f"an image has any number of this model's labels: those of at least {percent(limit)} "
            "are named (--threshold), each with its own probability"
        )
    asked |= {} if limit is None else {"threshold": limit}

    rows = partial(
        classify, model, top=top, batch=a.batch, threshold=limit, fast=a.fast_decode, client=client
    )
    heading = _heading(min(top, model.spec.labels))
    with announce_compiling(model.models[0].ops):
        if out is not None:
            settings = asked | computed_by(a, model.models) | {"top": top}
            settings |= {"sha256": digests_of(model)}
            return write_rows(a, out, rows, (images, count), settings, heading, asked)
        failed = 0
        try:
            with table(table_path) as writer:
                if writer is not None:
                    writer.writerow(heading)
                for row in escapes_told(counted(rows(images), count), lambda row: row.path):
                    failed += row.error is not None
                    _show(row, writer, asked if a.json else None)
        except BrokenPipeError:  # who reads the rows has ended; what failed before counts
            if not failed:
                raise
    return 1 if failed else 0


def _heading(top: int) -> list[str]:
    """Return the names of a table's columns for so many predictions."""
    from ..inference.heads import Prediction

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


def _evaluate(a: argparse.Namespace, client: Client | None) -> int:
    """Evaluate a model on images; return 1 if some of them could not be read."""
    from .runs.evaluation import evaluate_all, outputs

    files = outputs(a)
    check_output(*files, a.logits)
    asked, model = together(a)
    if a.logits is not None:
        return keep_logits(a, model)
    return evaluate_all(a, files, asked, model, client)
