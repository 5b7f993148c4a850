"""A recipe: everything that decides a run but the network, the images and the number of threads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from ...errors import UsageError
from ...system.checks import from_fields
from ...system.words import similar
from .augmentation import Augmentation
from .kinds import Choice, Option, Real, Whole, check_fields, options, setting
from .optimiser import Optimiser
from .parts import Drop, Loss, Start
from .schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run but the network, the images and the number of threads.

    Parameters
    ----------
    epochs : int
    batch : int
        Images in a mini-batch.
    parts : int
        The mini-batch is computed in so many parts, one after another, and their mean gradient
        changes the weights: what does not fit into memory at once. A batch norm sees one part.
    precision : {"float32", "bfloat16"}
        What values between layers and their gradients are stored in, and weights are rounded to
        where a convolution reads them. Weights, sums and statistics are float32 in both.
    schedule : Schedule
    optimiser : Optimiser
    loss : Loss
    drop : Drop
    ema : float
        Decay of the moving average of weights and running statistics; 0 means none. The average is
        what is kept at the end.
    ema_every : int
        The average moves in the first of so many steps of an epoch, and in the first after each.
    ema_warmup : {"soft", "copy", "power", "none"}
        How the average begins, since the first weights are soon of no use. After n moves it keeps
        (1 + n) / (10 + n) at most; or it copies the weights while the learning rate rises, as
        torchvision has it; or it keeps 1 - (1 + n) ** (-2 / 3) at most, as timm has it with a
        warm-up; or it copies once, as timm has it without.
    patience : int
        After so many epochs in a row whose validation is no better than the best, the run ends; 0
        means never.
    start : Start
    augmentation : Augmentation
    seed : int
        The random seed of first weights, order and augmentation.

    Raises
    ------
    UsageError
        A value is not allowed.
    """

    epochs: int = setting(MISSING, Whole(1, 100_000), "how often all images are seen")
    batch: int = setting(MISSING, Whole(1, 65536), "images in a mini-batch")
    parts: int = setting(
        1,
        Whole(1, 65536),
        "compute the mini-batch in so many parts, one after another, for less memory",
    )
    precision: str = setting(
        "float32",
        Choice(("float32", "bfloat16")),
        "what values between layers and their gradients are stored in; weights are float32",
    )
    schedule: Schedule
    optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)
    loss: Loss = dataclasses.field(default_factory=Loss)
    drop: Drop = dataclasses.field(default_factory=Drop)
    ema: float = setting(
        0.0, Real(0, 1), "decay of the moving average of the weights, such as 0.999; 0 is none"
    )
    ema_every: int = setting(1, Whole(1, 100_000), "steps between two moves of that average")
    ema_warmup: str = setting(
        "soft",
        Choice(("soft", "copy", "power", "none")),
        "how that average begins: (1 + n) / (10 + n) is kept at most, copies in the warm-up as in "
        "torchvision, or timm's with and without a warm-up",
    )
    patience: int = setting(
        0,
        Whole(0, 100_000),
        "end after so many epochs without a better validation, such as 10; 0 is never",
    )
    start: Start = dataclasses.field(default_factory=Start)
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    seed: int = setting(
        0, Whole(0, 2**63 - 1), "random seed of first weights, order and augmentation"
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.batch % self.parts:
            raise UsageError(
                f"batch is {self.batch} and parts {self.parts}: a mini-batch has equal parts; give "
                "a number that divides it"
            )
        sides = self.augmentation.sides
        if len(sides) > self.epochs:
            raise UsageError(
                f"sides are {len(sides)} and epochs {self.epochs}: give fewer sides, or at least "
                "as many epochs"
            )

    def side(self, epoch: int, usual: int) -> int:
        """Return the side of the images of an epoch, counted from 0."""
        sides = self.augmentation.sides
        return sides[min(epoch, self.epochs - 1) * len(sides) // self.epochs] if sides else usual

    def learning_rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the learning rate of SGD in one step; ``steps`` are those of an epoch."""
        return self.schedule.rate(self.schedule.lr, epoch, step, steps, self.epochs)

    def muon_rate(self, epoch: int, step: int, steps: int) -> float:
        """Return the rate of Muon in one step."""
        return self.schedule.rate(self.optimiser.muon, epoch, step, steps, self.epochs)

    def kept(self, epoch: int, step: int, steps: int) -> float | None:
        """Return what remains of the average after a step; None if it does not move then."""
        if step % self.ema_every:
            return None
        moves = epoch * -(-steps // self.ema_every) + step // self.ema_every  # before this one
        if self.ema_warmup == "soft":
            return min(self.ema, (1 + moves) / (10 + moves))
        # torchvision's forgets its count in the epochs of the warm-up, and so copies once more.
        last = self.schedule.rising(self.epochs) if self.ema_warmup == "copy" else 0
        if (epoch, step) <= (last, 0):
            return 0.0
        if self.ema_warmup == "power":
            return min(self.ema, 1 - (1 + moves) ** (-2 / 3))
        return self.ema

    def changed(self, changes: Mapping[str, Any]) -> Recipe:
        """Return the recipe with other values for some settings, whichever part they are in.

        Raises
        ------
        UsageError
            A value is not allowed, or there is no such setting.
        """
        left = dict(changes)
        own: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            part = getattr(self, field.name)
            if dataclasses.is_dataclass(part) and not isinstance(part, type):
                names = [name for name, _ in options(part) if name in left]
                own[field.name] = dataclasses.replace(
                    part, **{name: left.pop(name) for name in names}
                )
            elif field.name in left:
                own[field.name] = left.pop(field.name)
        if left:
            known = [name for name, _ in settings()]
            near = "".join(similar(name, known) for name in left)
            raise UsageError(
                f"a recipe has no setting {', '.join(left)}; {near}expected some of "
                f"{', '.join(known)}"
            )
        return dataclasses.replace(self, **own)

    def to_json(self) -> dict[str, Any]:
        """Return all settings by name, without their parts, as JSON has them."""
        flat: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            flat |= vars(value) if dataclasses.is_dataclass(value) else {field.name: value}
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in flat.items()
        }

    @classmethod
    def from_json(cls, values: Any) -> Recipe:
        """Read what `to_json` wrote, also before there were teachers or precisions.

        Raises
        ------
        FormatError
            A setting is missing, unknown, or of the wrong kind.
        """

        def make(**values: Any) -> Recipe:
            schedule = Schedule(values["lr"], values["schedule"])
            return cls(epochs=1, batch=1, schedule=schedule).changed(values)

        if isinstance(values, dict):
            before = {"teacher_weight": 0.0, "temperature": 0.0, "precision": "float32"}
            values = before | values
        return from_fields(make, [name for name, _ in settings()], values, "the recipe")


PARTS = {
    "schedule": Schedule,
    "optimiser": Optimiser,
    "loss": Loss,
    "drop": Drop,
    "start": Start,
    "augmentation": Augmentation,
}


def settings() -> Iterator[tuple[str, Option]]:
    """Yield the name and the option of every setting of a recipe, part by part, in order."""
    own = dict(options(Recipe))
    for field in dataclasses.fields(Recipe):
        if field.name in PARTS:
            yield from options(PARTS[field.name])
        else:
            yield field.name, own[field.name]
