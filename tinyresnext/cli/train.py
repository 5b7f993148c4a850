"""The commands `train` and `finetune`. `recipe` adds the options for what a recipe says."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..system.files import shown
from ..system.words import as_typed
from .options import (
    Commands,
    Once,
    add_broken,
    add_command,
    add_data,
    add_device,
    add_head,
    add_normalisation,
    positive,
)
from .output.progress import announce_compiling, say
from .runs.models import add_teacher, teachers_of
from .runs.network import add_network, preprocess_of, spec_of
from .runs.ranks import add_ranks, ranks_of
from .runs.resume import FOR_VAL, complete, origin

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..inference.model import Model
    from ..training.recipes import Recipe


def add_commands(commands: Commands) -> None:
    """Add the parsers of `train` and `finetune`."""
    sentence = "Train a network on images."
    example = "tinyresnext train images.zip --depth 20 --val images.zip --out run"
    add_command(commands, "train", sentence, example, _add_train, _train)
    sentence = "Train a model further, for other classes or the same."
    example = "tinyresnext finetune flowers/ --init run/model.h5 --out flowers-run"
    add_command(commands, "finetune", sentence, example, _add_finetune, _finetune)


# --- options --------------------------------------------------------------------------------------


def _add_train(c: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    from .runs.recipe import add_recipe

    add_data(c, "?")
    add_network(c)
    c.add_argument("--size", type=positive, metavar="N", help="side of the images (224, CIFAR 32)")
    add_normalisation(c)
    _add_run(c)
    add_recipe(c, "fast-cifar", first_weights=True)


def _add_finetune(c: argparse.ArgumentParser) -> None:
    """Add the options of `finetune`."""
    from .runs.recipe import add_recipe

    add_data(c, "?")
    c.add_argument(
        "--init",
        "--model",  # as the other commands call it
        dest="model",
        action=Once,
        metavar="NAME|FILE",
        help="the model to begin with (the bundled model)",
    )
    fixed = c.add_mutually_exclusive_group()
    fixed.add_argument(
        "--frozen-to", metavar="STAGE", help="the last stage that is not trained: stem, layer1 ..."
    )
    fixed.add_argument(
        "--all",
        action="store_true",
        help="train all layers (this is what is done without --frozen-to)",
    )
    _add_run(c)
    add_recipe(c, "finetune", first_weights=False)


def _add_run(c: argparse.ArgumentParser) -> None:
    """Add the options of every run: which images, on what, and what is kept."""
    from .runs.recipe import DRAWN

    c.add_argument("--out", metavar="FOLDER", help="folder for state, log and model")
    c.add_argument(
        "--resume",
        nargs="?",
        const=True,
        metavar="FOLDER",
        help="continue the run in FOLDER, with the data and options that it began with",
    )
    c.add_argument(
        "--split", default="train", metavar="NAME", help="which part of DATA to train on (train)"
    )
    c.add_argument(
        "--val", metavar="DATA", help="images to evaluate the network on after each epoch"
    )
    c.add_argument(
        "--val-split",
        metavar="NAME",
        help="with --val: which part of its data (val; test if there is no val; all if there are "
        "no parts)",
    )
    c.add_argument(
        "--val-part",
        type=float,
        metavar="X",
        help="hold this part of each class out for validation, such as 0.2",
    )
    add_teacher(c)
    c.add_argument(
        "--overfit",
        action="store_true",
        help="only check that the first mini-batch can be learnt by heart; write nothing",
    )
    c.add_argument(
        "--dry-run",
        nargs="?",
        const=DRAWN,
        metavar="FILE.png",
        help="only say what the run would take, and draw its first images and its learning rate "
        f"({DRAWN})",
    )
    add_head(
        c,
        "what the outputs mean: one class for each image, or labels with probabilities of their "
        "own (softmax; for a table of several labels, sigmoid)",
        "--loss",
    )
    add_broken(c)
    add_device(c)
    add_ranks(c)
    c.add_argument(
        "--log-every",
        type=positive,
        default=0,
        metavar="N",
        help="add a line to the log after so many steps too",
    )
    c.add_argument(
        "--licence",
        default="",
        metavar="TEXT",
        help="licence of the model, which is kept in its file",
    )
    c.add_argument(
        "--half",
        action="store_true",
        help="keep the weights in half precision, in a file half as large",
    )


# --- what runs them -------------------------------------------------------------------------------


def _train(a: argparse.Namespace) -> int:
    """Train a network, and print the name of the model file."""
    from dataclasses import replace

    from ..ops import backend
    from ..training.samples.augmentation import usual_preprocess
    from ..training.setting import headed
    from ..training.train import train

    with ranks_of(a) as ranks, announce_compiling(backend((a := complete(a)).device)):
        asked = spec_of(a)
        chosen, dataset, validation = _recipe_and_data(a)
        # Files are decoded in colour.
        channels = 3 if dataset.pixels is None else dataset.pixels.shape[3]
        spec = headed(replace(asked, channels=channels), dataset, a.head)
        model = train(
            spec,
            dataset,
            chosen,
            a.out,
            validation=validation,
            teacher=teachers_of(a),
            preprocess=preprocess_of(a, usual_preprocess(spec, chosen)),
            device=a.device,
            threads=a.threads,
            resume=a.resume,
            log_every=a.log_every,
            half=a.half,
            overfit=a.overfit,
            dry_run=a.dry_run,
            provenance=_provenance(a),
            origin=origin(a),
            reduce=ranks,
            sync_norm=a.sync_norm,
        )
        return 0 if ranks.rank else _done(a, model, chosen)


def _finetune(a: argparse.Namespace) -> int:
    """Train a model further, and print the name of the new model file."""
    from ..inference.files import load
    from ..inference.inputs import check_not_quantised
    from ..ops import backend
    from ..training.train import finetune

    with ranks_of(a) as ranks, announce_compiling(backend((a := complete(a)).device)):
        model = load(a.model, a.device, a.threads)
        check_not_quantised(model.quantisation, "training")  # before all images are read
        chosen, dataset, validation = _recipe_and_data(a)
        model = finetune(
            model,
            dataset,
            chosen,
            a.out,
            frozen_to=a.frozen_to,
            head=a.head,
            validation=validation,
            teacher=teachers_of(a),
            threads=a.threads,
            resume=a.resume,
            log_every=a.log_every,
            half=a.half,
            overfit=a.overfit,
            dry_run=a.dry_run,
            provenance=_provenance(a),
            origin=origin(a),
            reduce=ranks,
            sync_norm=a.sync_norm,
        )
        return 0 if ranks.rank else _done(a, model, chosen)


def _done(a: argparse.Namespace, model: Model, chosen: Recipe) -> int:
    """Print the name of the model file, and for people how to use it."""
    from ..system.writing import present
    from ..training.record.folder import TrainingFolder
    from .runs.recipe import described

    if a.overfit:
        print(f"learnt by heart: {model.provenance['learnt by heart']}")
        return 0
    if a.dry_run is not None:
        print(described(a, chosen))
        print(model.provenance["dry run"])
        print(shown(a.dry_run))
        return 0
    folder = TrainingFolder(a.out)
    print(shown(folder.model), flush=True)
    meta, best = folder.meta(), folder.model
    if meta["epoch"] < (epochs := meta["recipe"]["epochs"]):
        say(
            f"ended after epoch {meta['epoch']} of {epochs}: {meta['waited']} in a row were no "
            "better on the validation images"
        )
    if meta["best"] is not None and meta["best"] > meta["top1"] and present(folder.best):
        best = folder.best
        say(
            f"{shown(best)} was the best on the validation images, with {meta['best']:.1%}; "
            f"{folder.model.name} has {meta['top1']:.1%}"
        )
    command = as_typed(["tinyresnext", "classify", "IMAGE", "--model", str(best)])
    say(f"to use it: {shown(command)}")
    return 0


def _recipe_and_data(a: argparse.Namespace) -> tuple[Recipe, Dataset, Dataset | None]:
    """Return the recipe, the images to train on, and those to evaluate on if there are any."""
    from ..data.dataset import held_out
    from ..data.open import open_dataset
    from ..inference.scores.confusion import named
    from ..ops import backend
    from ..training.samples.classes import numbered
    from .runs.recipe import drawn_target, say_of_unused, typed_recipe, validated_on

    seed = typed_recipe(a).seed  # this refuses what was typed before any image is read
    if a.dry_run is not None:
        a.dry_run = drawn_target(named(a.dry_run))
    if a.val is not None and a.val_part is not None:
        raise UsageError("--val and --val-part both say which images to validate on; give one")
    if a.val_split is not None and a.val is None and not a.resume:
        raise UsageError(FOR_VAL)
    threads = backend(a.device).thread_count(a.threads)
    dataset = open_dataset(a.data, a.split, a.broken, threads=threads, first="val")
    say(f"{shown(a.data)}, {a.split}: {dataset.found()}")
    validation = None
    if a.val_part is not None:
        dataset = numbered(dataset) if a.head == "softmax" else dataset
        dataset, validation = held_out(dataset, a.val_part, seed)
        say(f"{len(validation):,} of them are held out for validation, {len(dataset):,} are left")
    elif a.val is not None:
        validation = validated_on(a, threads)
    else:
        say_of_unused(a, dataset)
    return typed_recipe(a, dataset), dataset, validation


def _provenance(a: argparse.Namespace) -> dict[str, str]:
    """Return the command that repeats the run, and the licence if one was typed."""
    command = shown(origin(a)["command"])
    return {"command": command} | ({"licence": a.licence} if a.licence else {})
