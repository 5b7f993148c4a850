"""The check that a network learns one mini-batch by heart, before a long run is begun.

Its images are those of the first step of the run, drawn from the classes and repeated as the recipe
says.

What cannot learn a few images by heart cannot learn many: the labels are mixed up, the images are
prepared wrongly, or the learning rate does not fit. Here nothing hinders it: the same images are
seen in each step, as they are, at one learning rate, with nothing that keeps weights small.
"""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np

from ...data.dataset import Dataset, to_stderr
from ...errors import TrainingError, UsageError
from ...inference.model import Model
from ..record import state as states
from ..record.folder import TrainingFolder
from ..record.state import State
from ..run import Run
from ..samples.augmentation import unchanged
from ..setting import Setting

__all__ = ["MOST", "by_heart", "check_trial"]

MOST = 300  # steps
LEARNT = 0.1  # loss of a mini-batch whose labels have nine tenths of the probability on average
_NOTHING_ELSE = {
    "epochs": 1,
    "schedule": "step",
    "milestones": (),
    "warmup": 0.0,
    "warmup_from": 0.0,
    "lowest": 0.0,
    "constant": 0.0,
    "from_start": False,
    "smoothing": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "teacher_weight": 0.0,
    "temperature": 0.0,
    "drop_path": 0.0,
    "dropout": 0.0,
    "ema": 0.0,
    "sides": (),
}
# LAMB has its rate from the norm of each weight, but not where it has no decay (`ops.lamb_step`).
_NO_DECAY = {"weight_decay": 0.0}


def check_trial(overfit: bool, dry_run: bool, resume: bool, processes: int) -> None:
    """Raise `UsageError` for trials of a run, this one or the dry run, that cannot be made."""
    if overfit and dry_run:
        raise UsageError("--overfit and --dry-run (overfit, dry_run) are two checks; give one")
    if (overfit or dry_run) and resume:
        raise UsageError(
            "a trial of a run begins with new weights: leave out --resume (resume=True)"
        )
    if (overfit or dry_run) and processes > 1:
        raise UsageError("a trial of a run is for one process: leave out --mpi")


def by_heart(start: State, setting: Setting) -> Model:
    """Train on the first mini-batch until it is learnt by heart; nothing is kept.

    Parameters
    ----------
    start : State
        Before the first step of a run. It is not changed.
    setting : Setting

    Returns
    -------
    Model
        Its provenance says under ``learnt by heart`` how many steps it took.

    Raises
    ------
    TrainingError
        It was not learnt.
    """
    decay = {} if start.recipe.optimiser.optimiser == "lamb" else _NO_DECAY
    recipe, crop = start.recipe.changed(_NOTHING_ELSE | decay), setting.preprocess.crop
    with setting.loader(recipe, crop, images=unchanged(setting.preprocess)) as loader:
        x, numbers = next(loader.epoch(0))
    _say_of_one_label(setting.dataset, numbers)
    state = states.new(start.spec, recipe, start.values.copy())
    state.run = start.run
    with TemporaryDirectory() as place:
        run = Run(state, setting, TrainingFolder(place))
        try:
            for step in range(1, MOST + 1):
                state.loss, state.correct = 0.0, 0
                _step(run, x, numbers, step)
                run.progress.say(f"step {step} of at most {MOST}: loss {state.loss:.4f}")
                if state.correct == len(x) and state.loss < LEARNT:
                    return _learnt(run, step)
        finally:
            run.close()
    raise TrainingError(
        f"a mini-batch of {len(x)} images was not learnt by heart: after {MOST} steps, "
        f"{state.correct} of them are right and the loss is {state.loss:.3f}; see whether the "
        f"labels are right, and try another --lr than {recipe.schedule.lr:g}"
    )


def _say_of_one_label(dataset: Dataset, numbers: np.ndarray) -> None:
    """Warn of a mini-batch that is learnt without a look at its images."""
    labels = dataset.labels[numbers]
    if (labels == labels[0]).all():
        there = np.flatnonzero(labels[0]) if labels.ndim == 2 else labels[:1]
        named = ", ".join(dataset.classes[i] for i in there) or "none"
        to_stderr(
            f"all images of the mini-batch have the same label ({named}), so it can be learnt by "
            "heart without a look at them; give a larger --batch, or --balance sampling"
        )


def _step(run: Run, x: np.ndarray, numbers: np.ndarray, step: int) -> None:
    """Make one step; name what to do if it leads nowhere."""
    try:
        run.step(x, numbers)
    except TrainingError as error:
        raise TrainingError(
            f"the loss is not finite in step {step} on the same mini-batch; give a smaller --lr "
            f"than {run.state.recipe.schedule.lr:g}"
        ) from error


def _learnt(run: Run, step: int) -> Model:
    """Return the network that has learnt its mini-batch."""
    state = run.state
    run.download()
    made = run.model()
    made.provenance["learnt by heart"] = (
        f"a mini-batch of {state.recipe.batch} images in {step} step{'s' * (step != 1)}, with a "
        f"loss of {state.loss:.3f}"
    )
    return made
