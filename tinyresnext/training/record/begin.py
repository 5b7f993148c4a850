"""How a run begins or goes on in its folder, and what is said then."""

from __future__ import annotations

from contextlib import ExitStack

from ...data.dataset import to_stderr
from ...errors import FormatError
from ...system.console import tell
from ...system.files import shown
from ..recipes.steps import warnings_for
from ..setting import Setting
from .folder import TrainingFolder
from .state import State


def begun(
    held: ExitStack, folder: TrainingFolder, start: State, resume: bool, setting: Setting
) -> State:
    """Return the state that a run begins with, and hold its folder."""
    state = held.enter_context(folder.run(start, resume))
    _continue_here(state, start, folder)
    if state.step > len(setting.dataset) // state.recipe.batch:
        raise FormatError(
            f"{shown(folder.state)} is at step {state.step} of an epoch that has fewer; begin "
            "again in another folder"
        )
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


def _continue_here(state: State, start: State, folder: TrainingFolder) -> None:
    """Say what computes other bits than before, and record where the run goes on."""
    then, now = map(computes, (state, start))
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


def computes(state: State) -> str:
    """Return what a run's bits depend on; those of a GPU do not depend on threads."""
    device, count = str(state.origin.get("device")), state.threads
    return device if device.startswith("cuda") else f"{device} ({count} thread{'s' * (count != 1)})"
