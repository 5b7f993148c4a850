"""The commands `explain` and `features`: what happens inside a network that sees an image."""

from __future__ import annotations

import argparse
import os
from itertools import chain
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..system.checks import check_ending
from ..system.files import shown
from .options import EIGHT_BITS, Commands, add_command, add_device, add_force, add_model, positive
from .output.progress import announce_compiling, counted, escapes_told, say
from .output.tables import check_not_read, target
from .runs.cluster import add_dask, with_workers
from .runs.images import (
    add_batch,
    add_fast_decode,
    add_paths,
    add_resume,
    computed_by,
    images_of,
)
from .runs.models import say_precisions

if TYPE_CHECKING:
    from distributed import Client


def add_commands(commands: Commands) -> None:
    """Add the parsers of `explain` and `features`."""
    sentence = "Write an HTML page that shows what each path of a network did with an image."
    example = "tinyresnext explain photo.jpg -o report.html"
    add_command(commands, "explain", sentence, example, _add_explain, _explain)
    sentence = "Write what a stage of a network computes of images to an HDF5 file."
    example = "tinyresnext features photos/ -o features.h5 --stage pooled"
    add_command(commands, "features", sentence, example, _add_features, with_workers(_features))


def _add_explain(c: argparse.ArgumentParser) -> None:
    """Add the options of `explain`."""
    c.add_argument("image", metavar="IMAGE", help="an image")
    c.add_argument("-o", "--out", required=True, metavar="FILE.html", help="the page to write")
    add_model(c)
    c.add_argument(
        "--class",
        dest="label",
        metavar="NAME|NUMBER",
        help="a class to explain, beside the most probable ones",
    )
    c.add_argument(
        "--block",
        metavar="NAME|all",
        help="the block whose paths are left out one by one, such as layer3.1 (the last one)",
    )
    c.add_argument(
        "--top",
        type=positive,
        default=5,
        metavar="N",
        help="how many of the most probable classes are explained, at most 20 (5)",
    )
    add_device(c)
    add_force(c, "the page")


def _explain(a: argparse.Namespace) -> int:
    """Explain one image."""
    from ..explanation.explain import MOST_CLASSES, explain
    from ..explanation.explanation import PAGES
    from ..explanation.report.page import check_size
    from ..images.checks import whole_number
    from ..inference.files import load

    check_ending(a.out, PAGES, "a page (HTML)")
    whole_number("--top", a.top, 1, MOST_CLASSES, " of classes")  # before a model is loaded
    page = target(a.out, a.force, not_over=a.image)
    check_not_read(page, [a.model])
    model = load(a.model, a.device, a.threads)
    check_size(model.spec, a.top, a.block)
    with announce_compiling(model.ops):
        found = explain(model, a.image, block=a.block, label=a.label, top=a.top)
    found.save(page)
    best = found.predictions[0]
    print(
        f"{shown(a.image)}: {best.label}, {best.probability:.1%}; open {shown(page)} in a browser"
    )
    return 0


def _add_features(c: argparse.ArgumentParser) -> None:
    """Add the options of `features`."""
    add_paths(c)
    c.add_argument("-o", "--out", required=True, metavar="FILE.h5", help="the file to write")
    add_model(c)
    c.add_argument(
        "--stage",
        default="pooled",
        metavar="NAME",
        help="whose output: stem, layer1, layer2 ..., or pooled, the mean of the last one (pooled)",
    )
    add_batch(c)
    add_fast_decode(c)
    add_device(c, precision=True, more=EIGHT_BITS)
    add_dask(c)
    add_resume(c)
    add_force(c, "the file")


def _features(a: argparse.Namespace, client: Client | None) -> int:
    """Write features of images; return 1 if one of them failed."""
    from ..inference.files import digest_of, load
    from ..inference.many.features import ENDINGS, save_features

    check_ending(a.out, ENDINGS, "a file of features (HDF5)")
    if a.resume and a.force:
        raise UsageError("--resume goes on with what is there, and --force drops it; give one")
    (images, count), file = images_of(a.paths), a.out
    if not a.resume:
        target(file, a.force, not_over=a.model)
        check_not_read(file, chain(a.paths, (one.name for one in images)))
    model = load(a.model, a.device, a.threads, a.precision)
    say_precisions([model], [a.model or ""])
    settings = {"sha256": [digest_of(model)], **computed_by(a, [model])}
    counts: dict[str, int] = {}
    with announce_compiling(model.ops):
        rows = save_features(
            model, images, file, a.stage, batch=a.batch, fast=a.fast_decode, settings=settings,
            resume=a.resume, force=a.force, counts=counts, client=client,
        )  # fmt: skip
        try:
            rows = counted(rows, count, lambda: counts["before"])
            for _, error in escapes_told(rows, lambda row: row[0]):
                if error is not None:
                    say(error)
        except KeyboardInterrupt:
            if not os.path.exists(f"{file}.part.rows"):  # it had not begun
                raise
            raise KeyboardInterrupt(
                f"interrupted: the rows so far are in {shown(file)}.part.rows; the same command "
                "with --resume goes on"
            ) from None
    good = counts["done"] - counts["failed"]
    print(f"{shown(file)}: {a.stage} of {good} image{'' if good == 1 else 's'}")
    return 1 if counts["failed"] else 0
