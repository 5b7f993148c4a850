"""The state of a training run: one file, from which the run resumes to the same bits.

It is an uncompressed ``.npz``: ``meta`` (JSON as bytes) and, as flat float32 arrays in the order of
`tinyresnext.network.resnext.parameters`, ``values``, ``velocity`` (the momentum's memory), with an
average ``average``, and with an optimiser that has them ``squares``. The zip format's checksums
find damage. Nothing in the file is trusted: `read` accepts only what `write` writes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from ...errors import FormatError, IntegrityError, ShapeError, UnsafeError
from ...formats.npy import header_bytes, write_npz
from ...formats.stored_zip.reader import Member, read_members, read_pieces
from ...network.spec import Spec
from ...system.checks import is_int
from ...system.files import regular, shown
from ..recipes import Recipe
from ..weights import ARRAYS, size, views

FORMAT = "tinyresnext training state 2"
MOST_META = 1 << 20  # bytes; the labels' names are not in it
HEADER = 128  # bytes of NumPy's before the numbers of an array of one dimension
AGAIN = "it was damaged or is of something else; begin again in another folder"


@dataclass
class State:
    """A moment of a run, between two steps.

    Parameters
    ----------
    spec : Spec
    recipe : Recipe
    values, velocity : [size(spec)] float32
        All parameters, and the memory of the momentum of each.
    average : [size(spec)] float32, optional
        The moving average of the values.
    squares : [size(spec)] float32, optional
        The averages of squared gradients, for the optimisers that have them.
    run : dict of str to str
        What else must be the same when the run goes on: the images, the frozen layers, the
        preprocessing and the validation set.
    epoch, step : int
        How many whole epochs are done, and how many steps of the present one.
    loss : float
        The sum of the losses of the epoch's steps; rounding may bring it a little below zero.
    correct : int
        How many images of the epoch were classified correctly when they were seen.
    seconds : float
        Spent on the epoch so far.
    top1, best : float, optional
        Accuracy in the last validation, and in the best; the mean average precision where an image
        has several labels.
    tried : int
        How many images the last validation had.
    waited : int
        How many validations in a row were no better than the best before them.
    threads : int
        How many threads the run computes on.
    log_bytes : int
        How long the log was.
    origin : dict of str to str
        The ``device`` that computes, ``by`` which version of this package on which kind of
        processor, and how many images batch norms see (``normed``). For a run
        that a command began, also the ``command`` as a shell takes it, the ``place`` where it was
        typed, where its ``data``, ``val``, ``model`` and ``teacher`` (a list, as JSON) were last,
        and the commands that changed options ``later`` (a list, as JSON). It decides nothing, but
        the user need not type it again.
    """

    spec: Spec
    recipe: Recipe
    values: np.ndarray
    velocity: np.ndarray
    average: np.ndarray | None = None
    squares: np.ndarray | None = None
    run: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    top1: float | None = None
    best: float | None = None
    tried: int = 0
    waited: int = 0
    threads: int = 0
    log_bytes: int = 0
    origin: dict[str, str] = field(default_factory=dict)

    def begin_epoch(self, epoch: int) -> None:
        """Set the counters of an epoch back to zero."""
        self.epoch, self.step, self.loss, self.correct, self.seconds = epoch, 0, 0.0, 0, 0.0

    @property
    def done(self) -> bool:
        """Return whether all epochs are done, or none got better for as long as is waited."""
        patience = self.recipe.patience
        return self.epoch >= self.recipe.epochs or 0 < patience <= self.waited

    @property
    def result(self) -> np.ndarray:
        """Return the values of the finished model: the average where there is one."""
        return self.values if self.average is None else self.average


_COUNTERS = ("epoch", "step", "correct", "tried", "waited", "threads", "log_bytes")
_NUMBERS = ("loss", "seconds", "top1", "best")


def new(spec: Spec, recipe: Recipe, values: np.ndarray) -> State:
    """Return the state before the first step."""
    average, optimiser = values.copy() if recipe.ema else None, recipe.optimiser.optimiser
    squares = None
    if optimiser != "sgd":
        squares = np.full_like(values, 1 if optimiser == "rmsprop" else 0)
    return State(spec, recipe, values, np.zeros_like(values), average, squares)


def write(path: str | os.PathLike[str], state: State) -> None:
    """Write the state in one step; at every moment the name means a whole file.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    meta = {
        "format": FORMAT,
        "spec": state.spec.to_json(),
        "recipe": state.recipe.to_json(),
        "run": state.run,
        "origin": state.origin,
    }
    meta |= {name: getattr(state, name) for name in (*_COUNTERS, *_NUMBERS)}
    arrays = {
        "meta": np.frombuffer(json.dumps(meta).encode(), np.uint8),
    }
    found = {name: getattr(state, name) for name in ARRAYS}
    arrays |= {name: flat for name, flat in found.items() if flat is not None}
    write_npz(path, arrays)


def read(path: str | os.PathLike[str]) -> State:
    """Read a state, and check everything in it.

    Raises
    ------
    FormatError
        No such file, not a state, or damaged.
    ShapeError
        The arrays do not belong to the architecture that it names.
    IntegrityError
        A value is not finite, or a variance negative.
    """
    with _opened(path) as (file, members):
        return _state(file, members)


def read_meta(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of a state that are no arrays, by name; the arrays are not looked at.

    Raises
    ------
    FormatError
        As `read` raises it.
    """
    with _opened(path) as (file, members):
        return _meta(file, members)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[BinaryIO, dict[str, Member]]]:
    """Open the zip archive; in the ``with`` block, errors get the file's name."""
    with regular(path) as file:
        try:
            # A deflated member is refused later, by its name.
            yield file, read_members(file, deflated=True)
        except (FormatError, ShapeError, IntegrityError) as error:
            raise type(error)(f"{shown(path)}: {error}") from error
        except (UnsafeError, ValueError, OverflowError) as error:
            raise FormatError(
                f"{shown(path)} is no state of a training run: {error}; {AGAIN}"
            ) from error


def _state(file: BinaryIO, members: dict[str, Member]) -> State:
    """Read everything in a file that is a zip archive."""
    meta = _meta(file, members)
    spec, recipe = Spec.from_json(meta["spec"]), Recipe.from_json(meta["recipe"])
    has = {"average": recipe.ema > 0, "squares": recipe.optimiser.optimiser != "sgd"}
    names = [name for name in ARRAYS if has.get(name, True)]
    expected, found = sorted(f"{name}.npy" for name in ("meta", *names)), sorted(members)
    if found != expected:
        raise FormatError(
            f"a state has the parts {', '.join(expected)}, found {', '.join(found[:8])!r:.200}; "
            f"{AGAIN}"
        )
    count = size(spec)
    arrays = {name: _array(file, members, name, np.dtype("<f4"), count) for name in names}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise IntegrityError(f"{name} has numbers that are NaN or infinite; {AGAIN}")
        variances = [
            value for key, value in views(array, spec).items() if key.endswith("running_var")
        ]
        if name in ("values", "average") and any((value < 0).any() for value in variances):
            raise IntegrityError(f"{name} has negative variances; {AGAIN}")
        if name == "squares" and (array < 0).any():
            raise IntegrityError(f"{name} has negative averages of squares; {AGAIN}")
    counters = {name: meta[name] for name in (*_COUNTERS, *_NUMBERS)}
    if (
        max(meta["epoch"], meta["waited"]) > recipe.epochs
        or meta["correct"] > meta["step"] * recipe.batch
        or max(meta["top1"] or 0, meta["best"] or 0) > 1
    ):
        raise FormatError(f"a counter in its meta is beyond what there can be; {AGAIN}")
    return State(
        spec,
        recipe,
        **arrays,  # type: ignore[arg-type]  # by their names
        run=meta["run"],
        origin=meta["origin"],
        **counters,
    )


def _meta(file: BinaryIO, members: dict[str, Member]) -> dict[str, Any]:
    """Read the JSON part, and check the kind of every field."""
    try:
        meta = json.loads(_array(file, members, "meta", np.dtype("u1"), None).tobytes())
    except RecursionError:
        raise FormatError(f"meta is nested too deeply; {AGAIN}") from None
    fields = {"format", "spec", "recipe", "run", "origin", *_COUNTERS, *_NUMBERS}
    if not isinstance(meta, dict) or set(meta) != fields or meta["format"] != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else type(meta).__name__
        raise FormatError(
            f"its meta is of {found!r:.80}, expected {FORMAT!r} with its fields; {AGAIN}"
        )
    fine = all(
        isinstance(meta[name], dict) and all(isinstance(text, str) for text in meta[name].values())
        for name in ("run", "origin")
    )
    fine &= all(is_int(meta[name], 0, 2**53 - 1) for name in _COUNTERS)
    for name in _NUMBERS:
        value = meta[name]
        fine &= (name in ("top1", "best") and value is None) or (
            type(value) is float
            and math.isfinite(value)
            # Rounding may bring a loss below zero: one with a teacher is a difference.
            and (value >= 0 or name == "loss")
        )
    if not fine:
        raise FormatError(f"a counter in its meta is not a number of the right kind; {AGAIN}")
    return meta


def _array(
    file: BinaryIO, members: dict[str, Member], name: str, dtype: np.dtype, count: int | None
) -> np.ndarray:
    """Read one part: its length is known before, and nothing is ever unpacked or unpickled."""
    if f"{name}.npy" not in members:
        raise FormatError(f"it has no part {name!r}; {AGAIN}")
    member = members[f"{name}.npy"]
    if count is None:
        count = min(max(0, member.size - HEADER), MOST_META) // dtype.itemsize
    expected = HEADER + dtype.itemsize * count
    if member.deflated or member.size != expected:
        raise FormatError(
            f"{name} is compressed or has {member.size:,} bytes, expected {expected:,}; {AGAIN}"
        )
    data = bytearray()
    try:
        for piece in read_pieces(file, member):
            data += piece
    except IntegrityError as error:  # the checksum of the archive, not a number that is wrong
        raise FormatError(f"{error}; {AGAIN}") from error
    if data[:HEADER] != header_bytes(dtype, (count,)):
        raise ShapeError(f"{name} does not begin as {count:,} numbers of type {dtype} do; {AGAIN}")
    return np.frombuffer(data, dtype, offset=HEADER)
