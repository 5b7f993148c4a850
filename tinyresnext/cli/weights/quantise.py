"""The command `quantise`: from a float32 model and some images to a model of 8 bits."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ...errors import ImageError, UsageError
from ...system.console import tell
from ...system.files import shown
from ..options import add_device, add_force, positive
from ..output.progress import announce_compiling, counter, say
from ..output.tables import target
from ..runs.images import images_of

if TYPE_CHECKING:
    import numpy as np

    from ...data.trees.sources import Images, Source
    from ...images.files import Contents
    from ...inference.model import Model

COUNT = 512
_BATCH = 8
_MODELS = (".h5", ".hdf5", ".keras", ".pth", ".pt", ".safetensors", ".npz", ".t7", ".onnx")


def add_options(c: argparse.ArgumentParser) -> None:
    """Add the options of `quantise`."""
    c.add_argument("model", nargs="?", metavar="NAME|FILE", help="a model (the bundled model)")
    c.add_argument(
        "--images",
        nargs="+",
        action="extend",
        required=True,
        metavar="PATH",
        help="images such as the model will see, as for `classify`: files, directories, archives; "
        "the scales of 8 bits are found on them",
    )
    c.add_argument(
        "--count",
        type=positive,
        default=COUNT,
        metavar="N",
        help=f"how many of the images to use, spread over all of them ({COUNT})",
    )
    c.add_argument(
        "-o",
        "--out",
        metavar="FILE.h5",
        help="the file to write (the model's name with .int8.h5)",
    )
    add_device(c)
    add_force(c, "the file")


def run(a: argparse.Namespace) -> int:
    """Quantise a model, and say how it compares with the float32 one.

    Return 1 if some images cannot be read: the model is made with the others.
    """
    from ...hub.bundled import shipped_model
    from ...hub.catalogue import model_file
    from ...inference.files import load, save
    from ...inference.inputs import check_not_quantised
    from ...inference.many.quantise import quantised
    from ..output import report

    _check_images(a.images)
    file = os.fspath(shipped_model() if a.model is None else model_file(a.model))
    out = target(_named(a), a.force, not_over=file)
    images, total = images_of(a.images)
    model = load(file, a.device, a.threads)
    model.check_pictures()
    check_not_quantised(model.quantisation, "quantising it again")
    count, failed = min(a.count, total), list[str]()
    progress = counter(count)
    with announce_compiling(model.ops):
        found = quantised(model, _prepared(model, images, total, count, failed), progress)
    if progress is not None and failed:
        tell("")  # some images were left out, so the counter did not end its line
    save(found.model, out)
    before, after = os.path.getsize(file), os.path.getsize(out)
    assert found.model.quantisation is not None
    for line in report.quantised(model.spec, found.model.quantisation).splitlines():
        say(line)
    images_are = "were held back to compare"
    if not found.held_back:
        images_are = "are too few to hold one back, so the scales suit these better than others"
    same = ""
    if found.same is not None:
        same = f"the first class is that of float32 for {found.same}, and "
    say(
        f"{found.compared} of the images {images_are}: {same}logits differ by {found.error:.1%} "
        "of the largest at most"
    )
    say(f"{before:,} bytes became {after:,}; `tinyresnext evaluate --model` tells what it costs")
    if failed:
        say(f"{len(failed)} of {count} images cannot be read; the scales are those of the others")
    print(shown(out))
    return 1 if failed else 0


def _check_images(paths: list[str]) -> None:
    """Raise `UsageError` if a model is among the images, or one of them is not there.

    The option takes every word behind it; and only some of all images are looked at.
    """
    from ...data.typed import is_pattern
    from ...hub.catalogue import names, with_weights
    from ...network.spec import VARIANTS

    models = {*names(), *with_weights(), *VARIANTS}
    for path in paths:
        there = os.path.exists(path)
        known = not there and path in models
        if known or (path.lower().endswith(_MODELS) and not os.path.isdir(path)):
            raise UsageError(
                f"--images takes every path behind it, and {path!r} is a model and no image; give "
                f"the model first: `tinyresnext quantise {path} --images PATH...`"
            )
        if not (there or path == "-" or is_pattern(path)):
            raise UsageError(
                f"--images names {path!r:.200}, and nothing is found there; correct the name, or "
                "leave it out"
            )


def _named(a: argparse.Namespace) -> str:
    """Return the name of the file to write; raise `UsageError` if it is no such name."""
    from ...hub.bundled import BUNDLED
    from ...store.store import check_name

    if a.out is not None:
        check_name(a.out)
        return str(a.out)

    name = a.model or BUNDLED
    stem, suffix = os.path.splitext(name)
    return f"{stem if suffix in ('.h5', '.hdf5') else name}.int8.h5"


def _prepared(
    model: Model, images: Images, total: int, count: int, failed: list[str]
) -> Iterator[np.ndarray]:
    """Yield prepared images; one that cannot be read is named, kept in ``failed`` and left out."""
    from ...images.prepare import views
    from ...inference.many.batches import prepared

    def make(source: str | Contents) -> np.ndarray:
        [x] = views(source, model.preprocess)
        return x

    threads = model.ops.thread_count(model.threads)
    for group in prepared(_spread(images, total, count), make, _BATCH, threads):
        for _, made in group:
            if isinstance(made, str):
                say(made)
                failed.append(made)
            else:
                yield made


def _spread(images: Images, total: int, count: int) -> Iterator[Source]:
    """Yield so many of the images, evenly spread: folders are often sorted by class."""
    wanted = (number * total // count for number in range(count))
    remaining, passed = iter(images), 0
    for number in wanted:
        found = next(islice(remaining, number - passed, None), None)
        passed = number + 1
        if found is None:
            raise ImageError("the folders changed while they were read; leave them as they are")
        yield found
