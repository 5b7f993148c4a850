"""The folder of a training run: where its files are, and whether a run may begin there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...errors import FormatError, UsageError
from ...system.files import shown
from ...system.writing import locked, present
from . import state as training_state
from .state import State


class TrainingFolder:
    """The files in the folder of a run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if not isinstance(path, str | os.PathLike):
            raise UsageError(f"the folder of the run is {path!r}, expected a path, such as 'run'")
        self.path = Path(path)
        self.state, self.log = self.path / "state.npz", self.path / "log.jsonl"
        self.best, self.model = self.path / "best.h5", self.path / "model.h5"
        self.stopped, self.curve = self.path / "stopped.h5", self.path / "curve.png"
        self.lock = self.path / ".lock"
        self._files = (self.state, self.log, self.best, self.model, self.stopped, self.curve)

    @contextmanager
    def run(self, start: State, resume: bool) -> Iterator[State]:
        """Begin or resume, and keep other processes out until the ``with`` block ends.

        Yields
        ------
        State

        Raises
        ------
        UsageError, WeightsError
            As `begin` and `resume` raise; or another process trains in the folder.
        """
        if resume:
            self._found()
        else:
            self._made()
        with locked(self.lock, self._busy):
            yield self.resume(start) if resume else self.begin(start)

    def begin(self, start: State) -> State:
        """Make the folder if it is not there, and save the first state.

        From then on the run can be resumed.

        Raises
        ------
        UsageError
            There is a run already, or a file that it would write over, or the folder cannot be
            made.
        """
        self._made()
        for path in self._files:
            if present(path):
                raise UsageError(
                    f"{shown(path)} exists: --resume goes on with the run there, or give another "
                    "folder"
                )
        training_state.write(self.state, start)
        try:
            training_state.read_meta(self.state)  # what could not be resumed is not begun
        except FormatError:
            self.state.unlink()
            raise
        return start

    def resume(self, start: State) -> State:
        """Return the saved state.

        Parameters
        ----------
        start : State
            What the run would begin with: only a run with the same network, recipe and images
            goes on.

        Raises
        ------
        UsageError
            There is no run, or a different one.
        WeightsError
            The state cannot be used.
        """
        self._found()
        state = training_state.read(self.state)
        now, then = _decisions(start), _decisions(state)
        then = {"initial model": now.get("initial model")} | then  # earlier states do not say it
        if changed := [name for name in now | then if now.get(name) != then.get(name)]:
            first, more = (
                changed[0],
                f" (and so differ: {', '.join(changed[1:])})" if changed[1:] else "",
            )
            part = " (--val-split says which part of --val)" if first == "validation" else ""
            models = [path for path in (self.model, self.best, self.stopped) if present(path)]
            further = f", or train {shown(models[0])} further (finetune --init)" if models else ""
            had, has = _where_other(then.get(first), now.get(first))
            raise UsageError(
                f"the run in {shown(self.path)} has {first} {had!r}, and not "
                f"{has!r}{more}; resume it with what it began with{part}, or begin in "
                f"another folder{further}"
            )
        state.run = {**start.run, **state.run}
        return state

    def save(self, state: State) -> None:
        """Write the state in one step."""
        training_state.write(self.state, state)

    def drop_stopped(self) -> None:
        """Remove the model of an earlier stop; one that cannot be removed costs no run."""
        with suppress(OSError):
            self.stopped.unlink()

    def meta(self) -> dict[str, Any]:
        """Return what the state says beside its arrays, as `training_state.read_meta` reads it.

        Raises
        ------
        UsageError
            There is no run.
        FormatError
            The state cannot be used.
        """
        self._found()
        return training_state.read_meta(self.state)

    def _made(self) -> None:
        """Make the folder if it is not there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(
                f"the folder {shown(self.path)} cannot be made: {reason}; give another one"
            ) from error

    def _found(self) -> None:
        """Refuse to resume where there is nothing."""
        if self.path.is_file():
            raise UsageError(
                f"{shown(self.path)} is a file, and a run has a folder; give the folder: "
                f"--resume {shown(self.path.parent)}"
            )
        for path in self._files[1:]:  # a link is refused before anything is computed
            present(path)
        if not present(self.state):
            raise UsageError(
                f"there is no {shown(self.state)} to resume; leave out --resume to begin"
            )

    def _busy(self) -> None:
        """Refuse a folder that another process trains in."""
        raise UsageError(
            f"another process trains in {shown(self.path)}; wait until it ends, or give another "
            "folder"
        )


def _decisions(state: State) -> dict[str, object]:
    """Return what must be the same for a run to go on."""
    return {"network": state.spec.to_json()} | state.recipe.to_json() | dict(state.run)


def _where_other(then: object, now: object) -> tuple[object, object]:
    """Return what differs: of two JSON objects, only the fields that do.

    Fields that are as usual are left out of the JSON of a network.
    """
    if not (isinstance(then, dict) and isinstance(now, dict)):
        return then, now
    names = [name for name in then | now if then.get(name) != now.get(name)]
    had, has = ({name: one.get(name, "as usual") for name in names} for one in (then, now))
    return had, has
