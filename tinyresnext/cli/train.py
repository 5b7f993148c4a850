"""The commands `train` and `finetune`. `recipe` adds the options for what a recipe says."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..system.files import shown
from .options import (
    Commands,
    add_broken,
    add_command,
    add_data,
    add_device,
    add_normalisation,
    add_stem,
    counts,
    positive,
)
from .output.progress import announce_compiling, say

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..images.preprocess import Preprocess
    from ..network.spec import Spec


def add_commands(commands: Commands) -> None:
    """Add the parsers of `train` and `finetune`."""
    sentence = "Train a network on images."
    example = "tinyresnext train images.zip --depth 20 --val images.zip --out run"
    add_command(commands, "train", sentence, example, _add_train, _train)
    sentence = "Train a model further, for other classes."
    example = "tinyresnext finetune flowers/ --init run/model.h5 --out flowers-run"
    add_command(commands, "finetune", sentence, example, _add_finetune, _finetune)


# --- options --------------------------------------------------------------------------------------


def _add_train(c: argparse.ArgumentParser) -> None:
    """Add the options of `train`."""
    from .recipe import add_recipe

    add_data(c)
    _add_network(c)
    c.add_argument("--size", type=positive, metavar="N", help="side of the images (224, CIFAR 32)")
    add_normalisation(c)
    _add_run(c)
    add_recipe(c, "fast-cifar", first_weights=True)


def _add_network(c: argparse.ArgumentParser) -> None:
    """Add the options that say which network is trained."""
    which = c.add_mutually_exclusive_group(required=True)
    which.add_argument("--arch", metavar="NAME", help="one of `tinyresnext models`")
    which.add_argument(
        "--depth", type=positive, metavar="N", help="a CIFAR network of 9 n + 2 layers, such as 29"
    )
    which.add_argument(
        "--blocks",
        type=counts,
        metavar="N,N...",
        help="a network with so many blocks in each stage, such as 3,4,6,3",
    )
    for name, what in {
        "--cardinality": "paths of a block (32)",
        "--width": "channels of a path (4)",
        "--widen": "expansion of a block (4)",
    }.items():
        c.add_argument(name, type=positive, metavar="N", help=f"with --depth or --blocks: {what}")
    add_stem(c, "with --blocks: the first layers (imagenet)")
    c.add_argument(
        "--avg-down",
        action="store_const",
        const=True,
        help="with --depth or --blocks: shortcuts that stride average, as ResNet-D's",
    )


def _add_finetune(c: argparse.ArgumentParser) -> None:
    """Add the options of `finetune`."""
    from .recipe import add_recipe

    add_data(c)
    c.add_argument(
        "--init",
        dest="model",
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
    c.add_argument("--out", required=True, metavar="FOLDER", help="folder for state, log and model")
    c.add_argument("--resume", action="store_true", help="continue the run in FOLDER")
    c.add_argument(
        "--split", default="train", metavar="NAME", help="which part of DATA to train on (train)"
    )
    c.add_argument(
        "--val", metavar="DATA", help="images to evaluate the network on after each epoch"
    )
    c.add_argument(
        "--val-split", default="test", metavar="NAME", help="split of the validation data (test)"
    )
    add_broken(c)
    add_device(c)
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
    from ..training.augmentation import usual_preprocess
    from ..training.train import train
    from .recipe import typed_recipe

    with announce_compiling(backend(a.device)):
        chosen, (dataset, validation) = typed_recipe(a), _data(a)
        # Files are decoded in colour.
        channels = 3 if dataset.pixels is None else dataset.pixels.shape[3]
        spec = replace(_spec(a), classes=len(dataset.classes), channels=channels)
        train(
            spec,
            dataset,
            chosen,
            a.out,
            validation=validation,
            preprocess=_preprocess(a, usual_preprocess(spec, chosen)),
            device=a.device,
            threads=a.threads,
            resume=a.resume,
            log_every=a.log_every,
            half=a.half,
            provenance=_provenance(a),
        )
        return _done(a)


def _finetune(a: argparse.Namespace) -> int:
    """Train a model further, and print the name of the new model file."""
    from ..inference.files import load
    from ..ops import backend
    from ..training.train import finetune
    from .recipe import typed_recipe

    with announce_compiling(backend(a.device)):
        chosen, model = typed_recipe(a), load(a.model, a.device, a.threads)
        dataset, validation = _data(a)
        finetune(
            model,
            dataset,
            chosen,
            a.out,
            frozen_to=a.frozen_to,
            validation=validation,
            threads=a.threads,
            resume=a.resume,
            log_every=a.log_every,
            half=a.half,
            provenance=_provenance(a),
        )
        return _done(a)


def _done(a: argparse.Namespace) -> int:
    """Print the name of the model file."""
    from ..training.record.folder import TrainingFolder

    print(shown(TrainingFolder(a.out).model))
    return 0


def _data(a: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    """Return the images to train on, and those to evaluate on if there are any."""
    from ..data.open import open_dataset
    from ..ops import backend

    threads = backend(a.device).thread_count(a.threads)
    dataset = open_dataset(a.data, a.split, a.broken, threads=threads)
    say(f"{shown(a.data)}, {a.split}: {dataset.found()}")
    if a.val is None:
        return dataset, None
    validation = open_dataset(a.val, a.val_split, a.broken, threads=threads)
    say(f"{shown(a.val)}, {a.val_split}: {validation.found()}")
    return dataset, validation


def _spec(a: argparse.Namespace) -> Spec:
    """Return the network: by its name, by its depth, or by its blocks."""
    from dataclasses import replace

    from ..network.spec import Spec, cifar, variant

    said = {
        "cardinality": a.cardinality,
        "width": a.width,
        "expansion": a.widen,
        "stem": a.stem,
        "avg_down": a.avg_down,
    }
    given = {name: value for name, value in said.items() if value is not None}
    if a.arch is not None:
        if given:
            raise UsageError(
                f"--arch {a.arch} says what the network is; leave out {', '.join(given)}, or give "
                "--depth or --blocks"
            )
        return variant(a.arch)
    if a.depth is not None:
        if a.stem not in (None, "cifar"):
            raise UsageError(
                f"--depth is that of a CIFAR network and --stem is {a.stem}; give --blocks for "
                "other stems"
            )
        return replace(cifar(a.depth, 32, 4), **given)
    return Spec(a.blocks, **given)


def _preprocess(a: argparse.Namespace, usual: Preprocess) -> Preprocess:
    """Return the usual preprocessing with the size, mean and standard deviation that were typed."""
    from dataclasses import replace

    if a.size is not None:
        # The margin around a crop stays in proportion.
        usual = replace(usual, resize=round(usual.resize * a.size / usual.crop), crop=a.size)
    given = {
        name: value for name, value in {"mean": a.mean, "std": a.std}.items() if value is not None
    }
    return replace(usual, **given)


def _provenance(a: argparse.Namespace) -> dict[str, str]:
    """Return the command that repeats the run, and the licence if one was typed."""
    command = shlex.join(["tinyresnext", *(word for word in a.typed if word != "--resume")])
    return {"command": shown(command)} | ({"licence": a.licence} if a.licence else {})
