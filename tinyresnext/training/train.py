"""Train a network: a specification, a data set and a recipe in; a model out.

A run has a folder (see `tinyresnext.training.record`). The network, the images, the recipe and the
number of threads decide everything, so a run that was stopped goes on to the same bits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial

import numpy as np

from ..data.dataset import Dataset
from ..data.loader import Batch
from ..errors import UsageError
from ..images.preprocess import Preprocess
from ..inference.files import check_model, save
from ..inference.inputs import check_not_quantised
from ..inference.model import Model
from ..network.spec import Spec, check_spec
from ..ops import Backend, backend
from ..store.weights import digest_of
from ..system.console import tell
from ..system.ranks import ALONE, Ranks, all_or_none, any_rank, by_the_first, which_ranks
from .initial import initialise, some_images, weights_to_finetune, whitened
from .recipes import Recipe
from .record.begin import costing_no_step, first_state, say_of_classes, say_of_run, state_to_begin
from .record.contents import origin_of
from .record.folder import TrainingFolder
from .record.log import Stop
from .record.state import State
from .run import Run
from .samples.augmentation import usual_preprocess
from .samples.classes import fitted, names_one
from .samples.given import check_kinds
from .samples.teacher import Teacher, Teaches, taught
from .setting import Setting, check, frozen_parts, headed
from .trial.overfit import by_heart, check_trial
from .trial.preview import preview
from .weights import size, views


def train(
    spec: Spec,
    dataset: Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    validation: Dataset | None = None,
    teacher: Teaches | Sequence[Teaches] | None = None,
    preprocess: Preprocess | None = None,
    device: str = "cpu",
    threads: int | None = None,
    resume: bool = False,
    log_every: int = 0,
    half: bool = False,
    overfit: bool = False,
    dry_run: str | os.PathLike[str] | None = None,
    provenance: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
    reduce: Ranks = ALONE,
    sync_norm: bool = False,
) -> Model:
    """Train a network from random weights.

    Parameters
    ----------
    spec : Spec
        With as many classes as the data set; `headed` changes them. Where it names one class for
        each image, labels may also be columns with a single 1 in each row.
    dataset : Dataset
        What `tinyresnext.data.open_dataset` returns, or `tinyresnext.data.from_arrays`.
    recipe : Recipe
        Such as ``recipe("fast-cifar", epochs=10)``.
    out : path
        The folder of the run; it is made if it is not there.
    validation : Dataset, optional
        After each epoch the network is evaluated on it. Its classes are matched by name, and some
        may be missing.
    teacher : Model, or what `tinyresnext.inference.many.logits.read_logits` returns; or several
        What the network learns from beside the labels (`tinyresnext.training.samples.teacher`), as
        the recipe's ``teacher_weight`` and ``temperature`` say.
    preprocess : Preprocess, optional
        How the finished model will prepare images; training uses its size, mean and standard
        deviation. By default a CIFAR's for the stems "cifar" and "pooled", else that of ImageNet.
    device : {"cpu", "cuda", "cuda:N", "auto", "reference"}
    threads : int, optional
        How many to compute on; the same number computes the same bits. `finetune` has a model's.
    resume : bool
        Go on with the run in ``out``. Everything else must be as it was.
    log_every : int
        Add a line to the log after every so many steps too.
    half : bool
        Keep the weights in half precision in the model files.
    overfit : bool
        Only check that the first mini-batch can be learnt by heart; see
        `tinyresnext.training.trial.overfit`. ``out`` is not used.
    dry_run : path, optional
        Only write a picture of what the run would do; see `tinyresnext.training.trial.preview`.
        ``out`` is not used.
    provenance : mapping of str to str, optional
        More that the model file says about its origin.
    origin : mapping of str to str, optional
        What the folder of the run records about the command that began it; see
        `tinyresnext.training.record.state.State`.
    reduce : Ranks, optional
        The processes that share each mini-batch, such as ``tinyresnext.system.mpi.Mpi()``. All of
        them call this function with the same arguments. The first alone writes to ``out``.
    sync_norm : bool
        Whether these processes share the statistics of batch norms too. Then the losses are those
        of one process, but for the order in which float32 numbers are added.

    Returns
    -------
    Model
        As it is in ``model.h5``.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, SIGTERM or SIGHUP, when the state has been saved; its text says how to go on.
    TrainingError
        The loss is not finite; the text names the first layer where it happened.
    UsageError
        The arguments do not fit together, or the folder already has a run, or none to resume.
    DeviceError
        Another of several processes does not answer.
    WeightsError
        The state in the folder cannot be used.
    """
    with all_or_none(reduce):
        check_spec(spec)
        check_kinds(dataset, recipe, validation)
        dataset, validation = fitted(not spec.several, dataset, validation)
        preprocess = usual_preprocess(spec, recipe) if preprocess is None else preprocess
        ops, teaching = backend(device), Teacher.of(teacher)
        recipe = taught(recipe, teaching)
        setting = Setting(
            dataset, validation, preprocess, (), ops, _threads(ops, threads, reduce), log_every,
            half, dict(provenance or {}), dict(origin or {}), ranks=reduce, sync_norm=sync_norm,
            teacher=teaching,
        )  # fmt: skip
        check(spec, recipe, setting, resume)
        values = np.zeros(size(spec), np.float32)
        params = views(values, spec)
        initialise(params, recipe.start, recipe.seed)
        if recipe.start.whiten and not resume and reduce.rank == 0:  # the others receive them
            stem = next(iter(params))
            params[stem][...] = whitened(params[stem], some_images(setting, recipe.seed))
        start = first_state(spec, recipe, values, setting)
    return _run(start, setting, out, resume, overfit, dry_run)


def finetune(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    frozen_to: str | None = None,
    head: str | None = None,
    validation: Dataset | None = None,
    teacher: Teaches | Sequence[Teaches] | None = None,
    threads: int | None = None,
    resume: bool = False,
    log_every: int = 0,
    half: bool = False,
    overfit: bool = False,
    dry_run: str | os.PathLike[str] | None = None,
    provenance: Mapping[str, str] | None = None,
    origin: Mapping[str, str] | None = None,
    reduce: Ranks = ALONE,
    sync_norm: bool = False,
) -> Model:
    """Train a model further, for other classes or the same, and as many layers as wanted.

    Other classes get a new classifier. It stays where the model has the classes of the data set
    already, in the same order and with the same head. Standard error says which of both is done.

    Parameters
    ----------
    model : Model
        It is not changed. Images are prepared as it prepares them, on its backend and threads.
    frozen_to : str, optional
        The last stage that is not trained: ``stem``, ``layer1`` ...; the last one leaves only the
        classifier to be trained. By default all layers are trained.
    head : {"softmax", "sigmoid"}, optional
        What the outputs mean; see `headed`.
    dataset, recipe, out, validation, teacher, threads, resume, log_every, half, overfit, dry_run, \
    provenance, origin, reduce, sync_norm
        As for `train`; the recipe ``finetune`` is meant for this. ``whiten``, ``zero_gamma`` and
        ``interpolation`` have no meaning here: the model has filters, norms and preprocessing
        already. The new model keeps the origin and the licence of ``model``, unless ``provenance``
        says otherwise.

    Returns
    -------
    Model

    Raises
    ------
    As `train`.
    """
    with all_or_none(reduce):
        check_not_quantised(check_model(model).quantisation, "training")
        check_kinds(dataset, recipe, validation)
        dataset, validation = fitted(names_one(head, dataset), dataset, validation)
        spec, teaching = headed(model.spec, dataset, head), Teacher.of(teacher)
        recipe, more = taught(recipe, teaching), origin_of(model) | dict(provenance or {})
        setting = Setting(
            dataset, validation, model.preprocess, frozen_parts(spec, frozen_to), model.ops,
            _threads(model.ops, threads, reduce, model.threads), log_every, half, more,
            dict(origin or {}), ranks=reduce, sync_norm=sync_norm, teacher=teaching,
            initial=digest_of(model.params),
        )  # fmt: skip
        check(spec, recipe, setting, resume)
        values, said = weights_to_finetune(model, spec, recipe, dataset.classes)
        if reduce.rank == 0 and not resume:
            tell(said)
        start = first_state(spec, recipe, values, setting)
    return _run(start, setting, out, resume, overfit, dry_run)


def _threads(ops: Backend, asked: int | None, ranks: Ranks, known: int | None = None) -> int:
    """Return how many threads to use; by default those of a model, as far as ranks share cores."""
    count = ops.thread_count(known if asked is None else asked)
    if asked is not None or ranks.sharing == 1:
        return count
    return min(count, max(1, ops.thread_count() // ranks.sharing))


def _run(
    start: State,
    setting: Setting,
    out: str | os.PathLike[str],
    resume: bool,
    overfit: bool,
    dry_run: str | os.PathLike[str] | None,
) -> Model:
    """Begin or resume, train, and leave the model in the folder."""
    check_trial(overfit, dry_run is not None, resume, setting.ranks.count)
    if setting.ranks.rank == 0 and not resume:
        say_of_classes(start.spec, setting)
    if overfit:
        return by_heart(start, setting)
    if dry_run is not None:
        return preview(start, setting, dry_run)
    if setting.ranks.rank == 0:
        say_of_run(start, setting, resume)
    folder = TrainingFolder(out)
    with ExitStack() as held:
        begin = partial(state_to_begin, held, folder, start, resume, setting)
        state = by_the_first(setting.ranks, begin)
        same = setting.ranks.rank == 0 or (state.run, state.recipe) == (start.run, start.recipe)
        if strangers := which_ranks(setting.ranks, not same):
            raise UsageError(
                f"rank {', '.join(map(str, strangers))} has other images or another recipe than "
                "rank 0; start all ranks with the same command, where they find the same files"
            )
        stop = held.enter_context(Stop())
        run = held.enter_context(closing(Run(state, setting, folder)))
        _loop(run, stop)
        model = run.model()
        by_the_first(setting.ranks, lambda: _left(model, run))
    return model


def _left(model: Model, run: Run) -> None:
    """Leave the model and the curve in the folder."""
    save(model, run.folder.model, half=run.setting.half)
    run.folder.drop_stopped()
    run.draw()


def _loop(run: Run, stop: Stop) -> None:
    """Train for the epochs that are left."""
    state, recipe, setting = run.state, run.state.recipe, run.setting
    loaders = setting.ops.loaders(setting.threads)
    while not state.done:
        with setting.loader(recipe, run.side, loaders) as loader:
            started = time.perf_counter()
            batches = loader.epoch(state.epoch, first=state.step)
            while (batch := _next(run, batches)) is not None:
                run.step(*batch)
                now = time.perf_counter()
                run.tell(now - started)
                started = now
                if any_rank(setting.ranks, stop.asked):
                    by_the_first(setting.ranks, run.stop)
        run.close_epoch(run.validate(stop))


def _next(run: Run, batches: Iterator[Batch]) -> Batch | None:
    """Return the next mini-batch, or None after the last; save the state if one cannot be made."""
    with costing_no_step(run.keep), all_or_none(run.setting.ranks):
        return next(batches, None)
