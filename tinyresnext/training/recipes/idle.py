"""Settings that are given and would change nothing, since they count only beside another one.

What a named recipe has of these is no mistake: ``recipe("torchvision-v1", schedule="cosine")``
keeps its milestones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...errors import UsageError
from .recipe import PARTS, Recipe

# Settings, when they count, and what to give for that.
BESIDE: tuple[tuple[tuple[str, ...], Callable[[Recipe], bool], str], ...] = (
    (("milestones", "gamma"), lambda r: r.schedule.schedule == "step", "schedule step"),
    (("ema_every", "ema_warmup"), lambda r: r.ema > 0, "ema, such as 0.999"),
    (("erase_count", "erase_with"), lambda r: r.augmentation.erase > 0, "random-erase (erase)"),
    (("padding", "fill"), lambda r: r.augmentation.crop in ("pad", "usual"), "crop pad"),
    (
        ("fill",),
        lambda r: r.augmentation.padding > 0 or r.augmentation.crop == "usual",
        "padding, such as 4",
    ),
)


def check_changes(changes: Mapping[str, Any], chosen: Recipe) -> None:
    """Refuse changes that would change nothing in the recipe that they lead to.

    Raises
    ------
    UsageError
        There is one; the text says what to give beside it.
    """
    for names, counts, give in BESIDE:
        if not counts(chosen) and (idle := not_usual(changes, names)):
            raise UsageError(f"{' and '.join(idle)} would change nothing here: give {give}, too")
    if changes.get("schedule") == "step" and not chosen.schedule.milestones:
        raise UsageError(
            "schedule step has no milestones, so the learning rate would never fall: give "
            "milestones, such as 0.5,0.75, too"
        )
    if changes.get("crop") == "pad" and not ("padding" in changes or chosen.augmentation.padding):
        raise UsageError("crop pad has a padding of 0: give padding, such as 4, too")


def not_usual(changes: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return those of the names for which another value is given than a recipe usually has."""
    fields = [field for part in (Recipe, *PARTS.values()) for field in dataclasses.fields(part)]
    usual = {field.name: field.default for field in fields}
    given = {name: changes[name] for name in names if changes.get(name) is not None}
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    return [name for name, value in plain.items() if value != usual[name]]
