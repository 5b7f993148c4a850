"""How a run begins or goes on in its folder, and what is said then and when it ends early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np

from ...data.dataset import to_stderr
from ...errors import (
    DeviceError,
    FormatError,
    OutOfMemoryError,
    TrainingError,
    UsageError,
    WeightsError,
)
from ...inference.files import save
from ...network.spec import Spec
from ...store import store
from ...system.console import plain, tell
from ...system.files import shown
from ...system.version import __version__, computing
from ...system.words import as_typed
from ...system.writing import present
from ..recipes import Recipe
from ..recipes.steps import warnings_for
from ..samples.classes import said_of_classes
from ..samples.seen import said_of_seen
from ..setting import Setting
from .contents import check_savable, model_of
from .folder import TrainingFolder
from .state import State, new


def first_state(spec: Spec, recipe: Recipe, values: np.ndarray, setting: Setting) -> State:
    """Return the state before the first step, if a model of this run can be saved."""
    start = new(spec, recipe, values)
    start.run, start.threads = setting.decides(), setting.threads
    normed = setting.normed(recipe)
    start.origin = {
        **setting.origin,
        "device": setting.described(recipe),
        "normed": str(normed),
        "by": f"tinyresnext {__version__}, {computing(setting.step_ops(recipe).kind())}",
    }
    check_savable(start, setting)
    return start


def state_to_begin(
    held: ExitStack, folder: TrainingFolder, start: State, resume: bool, setting: Setting
) -> State:
    """Return the state that a run begins with, and hold its folder."""
    state = held.enter_context(folder.run(start, resume))
    if state.best is not None and not state.done and not present(folder.best):
        to_stderr(
            f"{shown(folder.best)} is not there, so the next validation counts as the best so far "
            f"(it was {state.best:.1%})"
        )
        state.best = None
    _continue_here(state, start, folder)
    if state.step > len(setting.dataset) // state.recipe.batch:
        raise FormatError(
            f"{shown(folder.state)} is at step {state.step} of an epoch that has fewer; begin "
            "again in another folder"
        )
    if resume:
        _models_anew(folder, setting)
    return state


def say_of_run(start: State, setting: Setting, resume: bool) -> None:
    """Say what will be of no use, unless a run goes on, and what the loss is with a teacher.

    So are the precision, and how ranks share a mini-batch.
    """
    if not resume:
        images = len(setting.dataset)
        for text in warnings_for(start.spec, start.recipe, images, setting.frozen):
            to_stderr(text)
    if setting.teacher is not None:
        tell(setting.teacher.said(start.recipe, setting.preprocess))
    count, batch, precision = setting.ranks.count, start.recipe.batch, start.recipe.precision
    if precision != "float32":
        tell(
            f"{setting.step_ops(start.recipe).described()}; weights, sums, statistics and "
            "validation are float32"
        )
    if count == 1:
        return
    of_norms = (
        "batch norms are shared, so the losses are those of one process, but for rounding"
        if setting.sync_norm
        else "each rank has batch norms of its own, so the losses are not those of one process "
        "(--sync-norm makes them so)"
    )
    threads = f"{setting.threads} thread{'s' * (setting.threads != 1)}"
    tell(
        f"{count} ranks with {threads} each share every mini-batch of {batch}, {batch // count} "
        f"images each; {of_norms}"
    )


def say_of_classes(spec: Spec, setting: Setting) -> None:
    """Say of which classes there are no images, and whether labels could be classes.

    Also say which validation images are trained on.
    """
    warnings, lines = said_of_classes(spec.several, setting.dataset, setting.validation)
    if text := said_of_seen(setting.dataset, setting.validation):
        warnings.append(text)
    for text in warnings:
        to_stderr(text)
    for text in lines:
        tell(plain(text))


@contextmanager
def costing_no_step(keep: Callable[[], None]) -> Iterator[None]:
    """Keep the state if an error of the ``with`` block ends the run.

    It is not kept where the other ranks may not answer, or where a weight is not finite.
    """
    try:
        yield
    except OutOfMemoryError:  # the one error of a device that all ranks get
        keep()
        raise
    except (DeviceError, TrainingError):
        raise
    except Exception:
        keep()
        raise


def how_to_go_on(
    state: State, steps: int, folder: TrainingFolder, ranks: int, model: bool = False
) -> str:
    """Say where a run of so many steps an epoch has ended, and how so many ranks go on with it.

    ``model`` says whether there is a model of what was learnt until then.
    """
    how = "train or finetune again with resume=True"
    if command := state.origin.get("command", "").split()[:2]:
        if ranks > 1:
            command = ["mpiexec", "-n", str(ranks), *command, "--mpi"]
        how = shown(as_typed([*command, "--resume", str(folder.path)]))
    learnt = f", the model so far in {shown(folder.stopped)}" if model else ""
    return (
        f"after {_place(state, steps)}; the state is in {shown(folder.state)}{learnt}, and this "
        f"goes on from there: {how}"
    )


def save_stopped(state: State, setting: Setting, steps: int, folder: TrainingFolder) -> bool:
    """Write the model of a run that has been stopped, which says so; no validation has seen it.

    Return whether it could be written; if not, that is a warning, since the state has been.
    """
    said = {**setting.provenance, "stopped": f"after {_place(state, steps)}"}
    model = model_of(replace(state, top1=None), replace(setting, provenance=said))
    try:
        save(model, folder.stopped, half=setting.half)
    except UsageError as error:
        to_stderr(f"there is no model of what was learnt so far: {error}")
        return False
    return True


def diverged(loss: float, where: str | None, state: State, folder: TrainingFolder) -> TrainingError:
    """Return the error for a loss that is not finite; ``where`` is the first such value."""
    return TrainingError(
        f"the loss is {loss} in step {state.step + 1} of epoch {state.epoch + 1}: the first value "
        f"that is not finite is that of {where or 'loss'}; {smaller_rate(folder)}"
    )


def smaller_rate(folder: TrainingFolder) -> str:
    """Say what a user can do about weights that are not finite."""
    place = shown(folder.state)
    return f"the last good state is in {place}; begin in another folder with a smaller --lr"


def _place(state: State, steps: int) -> str:
    """Say where a run of so many steps an epoch is."""
    return f"step {state.step} of {steps} in epoch {state.epoch + 1} of {state.recipe.epochs}"


def _continue_here(state: State, start: State, folder: TrainingFolder) -> None:
    """Say what computes other bits than before, and record where the run goes on."""
    then, now = map(computes, (state, start))
    was, by = (one.origin.get("by") for one in (state, start))
    if state.origin.get("device") == start.origin["device"] and was not in (None, by):
        then, now = f"{then}, {was},", f"{now}, {by}"
    if then != now:
        differs = "some bits may differ"
        saw, see = (one.origin.get("normed", str(one.recipe.batch)) for one in (state, start))
        if saw != see:
            differs = f"batch norms see {see} images at a time from here on, and saw {saw}"
        to_stderr(f"the run used {then} until now and continues on {now}: {differs}")
    state.threads = start.threads
    began = ("command", "place")  # these stay those of the beginning
    here = {name: text for name, text in start.origin.items() if name not in began}
    if here.items() - state.origin.items():
        state.origin |= here
        folder.save(state)


def _models_anew(folder: TrainingFolder, setting: Setting) -> None:
    """Write the models in the folder anew, if the run now says something else about its models.

    A model that gets no better is not written again by the run itself. What is in half precision
    stays so: the state has the weights of the last step only.
    """
    for path in (folder.best, folder.stopped):
        if not present(path):
            continue
        try:
            said, halved = store.said_of(path)
            wanted = {**said, "licence": "", **setting.provenance}
            if wanted == said and halved >= setting.half:
                continue
            stored = store.read(path)._replace(provenance=wanted)
        except WeightsError as error:
            to_stderr(f"this model stays as it is, whatever is said of the run now: {error}")
            continue
        store.write(path, stored, half=setting.half or halved)
        tell(f"{shown(path)} is written anew, with what is said of the run now")


def computes(state: State) -> str:
    """Return what a run's bits depend on; those of a GPU do not depend on threads."""
    device, count = str(state.origin.get("device")), state.threads
    return device if device.startswith("cuda") else f"{device} ({count} thread{'s' * (count != 1)})"
