"""The commands `train` and `finetune`: from what was typed to one call each."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import fields, replace

from ..data.dataset import Dataset
from ..data.open import open_dataset
from ..errors import UsageError
from ..images.preprocess import Preprocess
from ..inference.model import load
from ..network.spec import Spec, cifar, variant
from ..ops import backend
from ..system.files import shown
from ..training import train as training
from ..training.folder import TrainingFolder
from ..training.recipes import Recipe, recipe


def train(a: argparse.Namespace) -> str:
    """Train as the arguments say, and give the name of the model file."""
    chosen, (dataset, validation) = _recipe(a), _pictures(a)
    channels = (
        3 if dataset.pixels is None else dataset.pixels.shape[3]
    )  # files are decoded in colour
    spec = replace(_spec(a), classes=len(dataset.classes), channels=channels)
    preprocess = _preprocess(a, training.usual_preprocess(spec, chosen))
    training.train(
        spec,
        dataset,
        chosen,
        a.out,
        validation=validation,
        preprocess=preprocess,
        device=a.device,
        threads=a.threads,
        resume=a.resume,
        log_every=a.log_every,
        half=a.half,
        provenance=_provenance(a),
    )
    return shown(TrainingFolder(a.out).model)


def finetune(a: argparse.Namespace) -> str:
    """Train a model on as the arguments say, and give the name of the model file."""
    chosen, model, (dataset, validation) = (
        _recipe(a),
        load(a.model, a.device, a.threads),
        _pictures(a),
    )
    training.finetune(
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
    return shown(TrainingFolder(a.out).model)


def _recipe(a: argparse.Namespace) -> Recipe:
    """The recipe of that name, with whatever else was typed in place of what it says."""
    typed = {field.name: getattr(a, field.name, None) for field in fields(Recipe)}
    return recipe(a.recipe, **{name: value for name, value in typed.items() if value is not None})


def _pictures(a: argparse.Namespace) -> tuple[Dataset, Dataset | None]:
    """What is trained on, and what is tried on."""
    threads = backend(a.device).thread_count(a.threads)
    dataset = open_dataset(a.data, a.split, a.broken, threads=threads)
    return dataset, None if a.val is None else open_dataset(
        a.val, a.val_split, a.broken, threads=threads
    )


def _spec(a: argparse.Namespace) -> Spec:
    """The network: by its name, by its depth, or by its blocks."""
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
                f"--arch {a.arch} says what the network is; leave out {', '.join(given)}, or give --depth or --blocks"
            )
        return variant(a.arch)
    if a.depth is not None:
        if a.stem not in (None, "cifar"):
            raise UsageError(
                f"--depth is that of a CIFAR network and --stem is {a.stem}; give --blocks for other stems"
            )
        return replace(cifar(a.depth, 32, 4), **given)
    return Spec(a.blocks, **given)


def _preprocess(a: argparse.Namespace, usual: Preprocess) -> Preprocess:
    """The usual preprocessing with another size, mean or standard deviation; the margin around a crop stays in proportion."""
    if a.size is not None:
        usual = replace(usual, resize=round(usual.resize * a.size / usual.crop), crop=a.size)
    given = {
        name: value for name, value in {"mean": a.mean, "std": a.std}.items() if value is not None
    }
    return replace(usual, **given)


def _provenance(a: argparse.Namespace) -> dict[str, str]:
    """How to do it again."""
    command = shlex.join(["tinyresnext", *(word for word in a.typed if word != "--resume")])
    return {"command": shown(command)} | ({"licence": a.licence} if a.licence else {})
