"""Training: a network, pictures and a recipe in; a model out.

A run lives in a folder: ``state.npz`` (see `tinyresnext.training.state`), ``log.jsonl``,
``best.h5`` where there are pictures to validate with, and ``model.h5`` when it is done. The
network, the pictures, the recipe and the number of threads decide everything, so a run that was
stopped, in whatever way, goes on to the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import numpy as np

from ..data.dataset import Dataset, to_stderr
from ..data.loader import Loader
from ..errors import FormatError, UsageError
from ..images.preprocess import CIFAR, Preprocess
from ..inference.model import Model, backend, save
from ..network.spec import Spec
from ..system.files import shown
from . import state as training_state
from .folder import TrainingFolder
from .log import Stop
from .optimise import initialise, size, views
from .recipes import Recipe
from .run import Run, Setting, augment_as, without_chance
from .state import State
from .whiten import whitened


def train(
    spec: Spec,
    dataset: Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    validation: Dataset | None = None,
    preprocess: Preprocess | None = None,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    log_every: int = 0,
    half: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> Model:
    """Train a network from random weights.

    Parameters
    ----------
    spec : Spec
        With as many classes as the data set; `dataclasses.replace` changes them.
    dataset : Dataset
        What `tinyresnext.data.open_dataset` gives.
    recipe : Recipe
        Such as ``recipe("fast-cifar", epochs=10)``.
    out : path
        The folder of the run; it is made if it is not there.
    validation : Dataset, optional
        After each epoch the network is tried on it.
    preprocess : Preprocess, optional
        How the finished model will prepare pictures; training uses its size, mean and standard
        deviation. By default that of CIFAR for the stems "cifar" and "pooled", else ImageNet's.
    device : {"cpu", "auto", "reference"}
    threads : int, optional
        How many to compute on; the same number gives the same bits.
    resume : bool
        Go on with the run in ``out``. Everything else must be as it was.
    log_every : int
        Add a line to the log after every so many steps too.
    half : bool
        Keep the weights in half precision in the model files.
    provenance : mapping of str to str, optional
        More of what the model file is to say about where it comes from.

    Returns
    -------
    Model
        As it is in ``model.h5``.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, when the state has been saved; its text says how to go on.
    TrainingError
        When the loss is not finite; the text names the first layer where it happened.
    UsageError
        When the arguments do not fit together, or the folder already has a run, or none to resume.
    WeightsError
        When the state in the folder cannot be used.
    """
    preprocess = usual_preprocess(spec, recipe) if preprocess is None else preprocess
    setting = Setting(
        dataset,
        validation,
        preprocess,
        (),
        backend(device),
        threads,
        log_every,
        half,
        dict(provenance or {}),
    )
    _check(spec, recipe, setting)
    values = np.zeros(size(spec), np.float32)
    params = views(values, spec)
    initialise(params, spec, recipe)
    if recipe.whiten and not resume:
        stem = next(iter(params))
        params[stem][...] = whitened(params[stem], _some(setting, recipe.seed))
    return _run(training_state.new(spec, recipe, values), setting, out, resume)


def finetune(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    frozen_to: str | None = None,
    validation: Dataset | None = None,
    threads: int | None = None,
    resume: bool = False,
    log_every: int = 0,
    half: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> Model:
    """Train a model on: a new classifier for the classes of another data set, and as many of the layers as wanted.

    Parameters
    ----------
    model : Model
        It is left as it is; pictures are prepared as it prepares them, and what it computes with
        computes here too.
    frozen_to : str, optional
        The last stage that stays as it is: ``stem``, ``layer1`` ...; the last one leaves only the
        classifier to be trained. By default all layers are trained.
    dataset, recipe, out, validation, threads, resume, log_every, half, provenance
        As for `train`; the recipe ``finetune`` is meant for this. What a recipe says of ``whiten``,
        ``zero_gamma`` and ``interpolation`` has no meaning here: the model has filters, norms and
        preprocessing already. Of where it comes from, and of its licence, the new model tells
        unless ``provenance`` says otherwise.

    Returns
    -------
    Model

    Raises
    ------
    As `train`.
    """
    spec = replace(model.spec, classes=len(dataset.classes))
    values = np.zeros(size(spec), np.float32)
    params, head = views(values, spec), ("fc.weight", "fc.bias")
    for name in params.keys() - head:
        params[name][...] = model.params[name]
    initialise(params, spec, recipe, only=head)
    frozen, more = frozen_parts(spec, frozen_to), _origin(model) | dict(provenance or {})
    setting = Setting(
        dataset, validation, model.preprocess, frozen, model.ops, threads, log_every, half, more
    )
    _check(spec, recipe, setting)
    return _run(training_state.new(spec, recipe, values), setting, out, resume)


def _origin(model: Model) -> dict[str, str]:
    """What a model that is trained on hands down: where its weights came from, and their licence."""
    known = model.provenance
    origin = ", ".join(known[name] for name in ("model", "source", "sha256") if known.get(name))
    return {"initial weights": origin, "licence": known.get("licence", "")}


def frozen_parts(spec: Spec, stage: str | None) -> tuple[str, ...]:
    """The first parts of the names of all layers up to a stage.

    Raises
    ------
    UsageError
        When the network has no such stage.
    """
    stages = ["stem", *(f"layer{number + 1}" for number in range(len(spec.blocks)))]
    if stage is None:
        return ()
    if stage not in stages:
        raise UsageError(f"frozen_to is {stage!r}: {spec.name} has the stages {', '.join(stages)}")
    return ("conv1", "bn1", *stages[1 : stages.index(stage) + 1])


def usual_preprocess(spec: Spec, recipe: Recipe) -> Preprocess:
    """CIFAR's for small pictures, else ImageNet's, resized as the recipe says; for grey pictures, the mean over the colours."""
    usual = replace(CIFAR if spec.small else Preprocess(), interpolation=recipe.interpolation)
    if spec.channels == 1:
        return replace(usual, mean=(sum(usual.mean) / 3,), std=(sum(usual.std) / 3,))
    return usual


def _some(setting: Setting, seed: int) -> np.ndarray:
    """A few hundred pictures by chance, as the finished model would see them."""
    count, pictures = min(len(setting.dataset), 512), without_chance(setting.preprocess)
    with Loader(setting.dataset, pictures, batch=count, seed=seed, broken=setting.broken) as loader:
        return next(loader.epoch(0))[0]


def _run(start: State, setting: Setting, out: str | os.PathLike[str], resume: bool) -> Model:
    """Begin or go on, train, and leave the model in the folder."""
    setting = replace(setting, threads=setting.ops.thread_count(setting.threads))
    start.run, start.threads = _what_decides(setting), setting.threads
    folder = TrainingFolder(out)
    with folder.run(start, resume) as state:
        if state.threads != setting.threads:
            to_stderr(
                f"the run went on {state.threads} threads until now and goes on {setting.threads}: some bits will differ"
            )
            state.threads = setting.threads
        if state.step > len(setting.dataset) // state.recipe.batch:
            raise FormatError(
                f"{shown(folder.state)} is at step {state.step} of an epoch that has fewer; begin again in another folder"
            )
        with Stop() as stop, closing(Run(state, setting, folder)) as run:
            _loop(run, stop)
            model = run.model()
            save(model, folder.model, half=setting.half)
    return model


def _loop(run: Run, stop: Stop) -> None:
    """All epochs that are left: this is what training is."""
    state, recipe, setting = run.state, run.state.recipe, run.setting
    loaders = max(1, setting.threads // 4)  # a batch takes much longer to be learnt than to be made
    while state.epoch < recipe.epochs:
        pictures = augment_as(recipe, setting.preprocess, setting.dataset, run.side)
        with Loader(
            setting.dataset,
            pictures,
            batch=recipe.batch,
            seed=recipe.seed,
            threads=loaders,
            broken=setting.broken,
        ) as loader:
            started = time.perf_counter()
            for x, labels in loader.epoch(state.epoch, first=state.step):
                run.step(x, labels)
                now = time.perf_counter()
                run.tell(now - started)
                started = now
                if stop.asked:
                    run.stop()
        run.close_epoch(run.validate(stop))


def _check(spec: Spec, recipe: Recipe, setting: Setting) -> None:
    """Refuse what does not fit together, before anything is written."""
    count = len(setting.dataset)
    if setting.preprocess.channels != spec.channels:
        raise UsageError(
            f"the preprocessing makes {setting.preprocess.channels} channels and the network takes {spec.channels}"
        )
    for what, pictures in (("data set", setting.dataset), ("validation set", setting.validation)):
        if pictures is not None and len(pictures.classes) != spec.classes:
            raise UsageError(
                f"the {what} has {len(pictures.classes)} classes and the network {spec.classes}; both must have the same"
            )
        if pictures is not None and tuple(pictures.classes) != tuple(setting.dataset.classes):
            raise UsageError(
                f"the {what} has other classes, or in another order: {', '.join(pictures.classes[:5])} ..."
            )
    if count < recipe.batch:
        raise UsageError(
            f"the data set has {count} pictures and a batch {recipe.batch}; give --batch {count} at most"
        )
    if setting.validation is not None and len(setting.validation) == 0:
        raise UsageError("the validation set has no pictures; leave it out")
    for side in {*recipe.sides, setting.preprocess.crop}:
        augment_as(
            recipe, setting.preprocess, setting.dataset, side
        )  # refuses a rim or a square larger than the picture


def _what_decides(setting: Setting) -> dict[str, str]:
    """What beside network and recipe must be the same when a run goes on."""
    return {
        "pictures": _described(setting.dataset),
        "validation": "none" if setting.validation is None else _described(setting.validation),
        "frozen": " ".join(setting.frozen),
        "preprocess": json.dumps(setting.preprocess.to_json()),
    }


def _described(dataset: Dataset) -> str:
    """How many pictures of how many classes, and which."""
    classes, labels = list(dataset.classes), np.ascontiguousarray(dataset.labels, "<i8")
    digest = hashlib.sha256(json.dumps(classes).encode() + labels.tobytes()).hexdigest()
    return f"{len(dataset)} in {len(classes)} classes, sha256 of the labels {digest}"
