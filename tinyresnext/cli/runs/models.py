"""The models that were typed: those that predict together, and those that a network learns from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...system.console import tell
from ...system.files import shown
from ..output.progress import announce_compiling, counter, say
from ..output.tables import check_not_read, target

if TYPE_CHECKING:
    from ...inference.ensemble import Ensemble
    from ...inference.model import Model
    from ...training.samples.teacher import Teaches


def together(a: argparse.Namespace) -> tuple[dict[str, Any], Ensemble]:
    """Return the models that were asked for, or the bundled one, after what JSON says of them."""
    from ...hub.bundled import shipped_model
    from ...inference.ensemble import Ensemble
    from ...inference.files import load

    files = a.model or [shipped_model()]
    models = tuple(load(file, a.device, a.threads, a.precision) for file in files)
    together = Ensemble(models, int(a.crops), a.mirror)
    views = together.crops * (2 if a.mirror else 1)
    if len(models) * views > 1:
        count = f"{len(models)} models" if len(models) > 1 else "one model"
        seen = f"{views} views of each image" if views > 1 else "one view of each image"
        say(f"{count}, {seen}: the mean of the probabilities counts")
    names = [Path(file).name for file in files]
    asked = {"model": " + ".join(names), "models": names, "crops": together.crops}
    asked |= {"mirror": together.mirror}
    return asked | say_precisions(models, names), together


def digests_of(model: Ensemble) -> list[str]:
    """Return the digests of models as they were loaded, whatever their files have become since."""
    from ...inference.files import digest_of

    return [digest_of(one) for one in model.models]


def say_precisions(models: Sequence[Model], names: Sequence[str]) -> dict[str, Any]:
    """Say which models compute in another precision than float32, and return what JSON says."""
    found = [model.precision for model in models]
    for name, precision in zip(names, found, strict=True):
        if precision == "int8":
            say(f"{shown(name)} is quantised: its convolutions compute in int8")
    for precision in sorted(set(found) - {"float32", "int8"}):
        say(f"{'the models compute' if found[1:] else 'the model computes'} in {precision}")
    return {} if set(found) == {"float32"} else {"precisions": found}


def keep_logits(a: argparse.Namespace, model: Ensemble) -> int:
    """Write the logits of a data set to a file, and print how right they are.

    Raises
    ------
    UsageError
        The file does not end as it must, or exists; or other options ask for more than that.
    """
    from ...data.open import open_dataset
    from ...inference.files import digest_of
    from ...inference.many.logits import logits_of, scored, write_logits

    _check_logits(a, model)
    file, one, [data_path] = target(a.logits, a.force), model.models[0], a.data
    check_not_read(file, [data_path, *(a.model or ())])
    threads = one.ops.thread_count(a.threads)
    broken = a.broken or "refuse"
    # As `train` opens it, so that images have the same names.
    data = open_dataset(data_path, a.split, broken, memory=0, threads=threads)
    say(f"{shown(data_path)}, {a.split or data.part}: {data.found()}")
    with announce_compiling(one.ops):
        count = counter(len(data))
        found = logits_of(one, digest_of(one), data, batch=a.batch, progress=count)
    if count is not None and len(found.names) < len(data):
        tell("")  # some images were skipped, so the counter did not end its line
    write_logits(file, found)
    say(f"{shown(file)}: the logits of {len(found.names):,} images")
    print(scored(found), flush=True)
    return 0


def _check_logits(a: argparse.Namespace, model: Ensemble) -> None:
    """Raise `UsageError` unless logits are asked for of one model and one data set, alone."""
    if not a.logits.lower().endswith(".npz"):
        raise UsageError(
            f"--logits {a.logits!r} does not end in .npz, as `train --teacher` expects"
        )
    if len(model.models) > 1 or model.crops > 1 or model.mirror:
        raise UsageError(
            "--logits keeps those of one model that sees one view of each image; leave out --crops "
            "and --mirror, and write a file for each model: `train` takes several --teacher"
        )
    given = vars(a)
    others = (
        "labels_by_number", "fast_decode", "threshold", "truth", "json", "csv", "results",
        "picture", "out", "resume", "dask",
    )  # fmt: skip
    if more := [name for name in others if given[name] not in (None, False)]:
        options = ", ".join("--" + name.replace("_", "-") for name in more)
        raise UsageError(
            f"--logits keeps what a model says of whole images, by their names; leave out {options}"
        )
    if a.broken == "wrong":
        raise UsageError(
            "an image that cannot be read has no logits, so it cannot count as wrong; give "
            "--broken skip, or leave --broken out: then the first such image ends the run"
        )
    _check_data(a.data)


def _check_data(data: list[str]) -> None:
    """Raise `UsageError` unless logits are asked for of one data set that `train` reads, too."""
    from ...data.trees.labelled import is_labelled

    if len(data) > 1:
        raise UsageError(
            f"--logits is for one data set, which `train` then finds again, and {len(data)} are "
            "given; write a file for each"
        )
    if is_labelled(data[0]):
        raise UsageError(
            f"{shown(data[0])} is a list, a pattern or a shard, and --logits is for a data set "
            "that `train` reads, too: folders of classes, also in a zip or tar, a table, CIFAR or "
            "MNIST; give a table of the images (unpack shards first): a .csv with the first line "
            "image,label and a comma between each path and its label, where paths begin in the "
            "folder of the table"
        )


def add_teacher(c: argparse.ArgumentParser) -> None:
    """Add ``--teacher``, which may be given several times."""
    c.add_argument(
        "--teacher",
        action="append",
        metavar="NAME|FILE",
        help="learn from this model too, which sees the same images, or from its logits that "
        "`evaluate --logits FILE.npz` wrote; of several, each with its own --teacher, the mean of "
        "the probabilities counts",
    )


def teachers_of(a: argparse.Namespace) -> list[Teaches] | None:
    """Return the models or logits to learn from, if there are any."""
    from ...inference.files import load
    from ...inference.many.logits import read_logits

    if a.teacher is None:
        return None
    return [
        read_logits(file) if file.lower().endswith(".npz") else load(file, a.device, a.threads)
        for file in a.teacher
    ]
