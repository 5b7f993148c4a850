"""Draw the curve of a run: loss and accuracy after each epoch, in training and in validation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ...data.dataset import to_stderr
from ...errors import TinyResNeXtError, UsageError
from ...system.checks import is_int
from ...system.files import regular
from ...system.writing import replacing

__all__ = ["draw", "panel", "points", "write"]

MOST = 10**9  # of a number that is drawn; a whole number of 400 digits is no float at all
WIDE, HIGH, LEFT, TOP, GAP = 640, 230, 64, 34, 66  # pixels: a panel, its margins, between panels
INK, FRAME, GRID = (20, 24, 32), (150, 156, 165), (226, 229, 233)
TRAINING, VALIDATION, PRECISION = (92, 158, 207), (200, 70, 40), (60, 140, 80)
AT = {"training": 310, "validation": 230, "average precision": 130}  # pixels from the right
Points = dict[str, list[tuple[int, float]]]
# Of each panel: its title, and the fields of the log with their names and colours.
PANELS = (
    ("loss", (("loss", "training", TRAINING), ("validation_loss", "validation", VALIDATION))),
    (
        "accuracy",
        (
            ("accuracy", "training", TRAINING),
            ("top1", "validation", VALIDATION),
            ("exact", "validation", VALIDATION),  # with several labels: all of them are right
            ("average_precision", "average precision", PRECISION),
        ),
    ),
)


def write(path: str | os.PathLike[str], log: Path) -> bool:
    """Draw what a log has about epochs into a PNG file; without a whole epoch, write nothing.

    A run can do without it. So what goes wrong is a warning, as when somebody has moved the log or
    made a link of the picture.

    Returns
    -------
    bool
        Whether nothing went wrong.
    """
    try:
        _write(path, log)
    except (TinyResNeXtError, OSError, MemoryError) as error:
        to_stderr(f"the curve is not drawn: {error or type(error).__name__}")
        return False
    return True


def _write(path: str | os.PathLike[str], log: Path) -> None:
    """Draw, or raise what goes wrong."""
    with regular(log, error=UsageError) as file:
        found = points(file.read().decode("utf-8", "replace").splitlines())
    if not any(found.values()):
        return
    picture = draw(found)
    with replacing(path) as temporary:
        picture.save(temporary, "PNG", optimize=True)


def points(lines: Sequence[str]) -> Points:
    """Return epoch and value of every field that is drawn; other lines and values are left out."""
    found: Points = {field: [] for _, fields in PANELS for field, _, _ in fields}
    for line in lines:
        try:
            values: Any = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if type(values) is not dict or "step" in values or not is_int(values.get("epoch"), 0, MOST):
            continue
        for field, sofar in found.items():
            value = values.get(field)
            if isinstance(value, (int, float)) and abs(value) < MOST:
                sofar.append((values["epoch"], float(value)))
    return found


def draw(found: Points) -> Image.Image:
    """Draw one panel for the loss and one for the accuracy."""
    height = TOP + len(PANELS) * (HIGH + GAP)
    picture = Image.new("RGB", (LEFT + WIDE + 24, height), "white")
    epochs = [epoch for some in found.values() for epoch, _ in some]
    for number, (title, fields) in enumerate(PANELS):
        corner = LEFT, TOP + number * (HIGH + GAP)
        highest = max((value for field, _, _ in fields for _, value in found[field]), default=1.0)
        top = 1.0 if title == "accuracy" else max(highest * 1.05, 1e-9)
        _axes(picture, corner, title, (min(epochs), max(epochs)), top)
        for field, name, colour in fields:
            if found[field]:
                _line(picture, corner, found[field], (min(epochs), max(epochs)), top, colour)
                at = corner[0] + WIDE - AT[name], corner[1] - 20
                ImageDraw.Draw(picture).text(at, name, colour, ImageFont.load_default(14))
    return picture


def panel(title: str, values: Sequence[tuple[int, float]]) -> Image.Image:
    """Draw one panel with one line: a value for each epoch."""
    picture = Image.new("RGB", (LEFT + WIDE + 24, TOP + HIGH + GAP // 2), "white")
    epochs = values[0][0], values[-1][0]
    top = max(max(value for _, value in values) * 1.05, 1e-9)
    _axes(picture, (LEFT, TOP), title, epochs, top)
    _line(picture, (LEFT, TOP), values, epochs, top, TRAINING)
    return picture


def _axes(
    picture: Image.Image, corner: tuple[int, int], title: str, epochs: tuple[int, int], top: float
) -> None:
    """Draw the frame of a panel, four lines across it, and what they stand for."""
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    left, upper = corner
    pen.text((left, upper - 22), title, INK, ImageFont.load_default(15))
    for quarter in range(5):
        y, value = upper + HIGH * quarter / 4, top * (1 - quarter / 4)
        pen.line((left, y, left + WIDE, y), GRID)
        text = f"{value:.0%}" if title == "accuracy" else f"{value:.3g}"
        pen.text((left - 8, y), text, INK, font, "rm")
    pen.rectangle((left, upper, left + WIDE, upper + HIGH), outline=FRAME)
    first, last = epochs
    pen.text((left, upper + HIGH + 6), f"epoch {first}", INK, font)
    pen.text((left + WIDE, upper + HIGH + 6), str(last), INK, font, "ra")


def _line(
    picture: Image.Image,
    corner: tuple[int, int],
    values: Sequence[tuple[int, float]],
    epochs: tuple[int, int],
    top: float,
    colour: tuple[int, int, int],
) -> None:
    """Draw one field: a line, or a dot for a single epoch."""
    (left, upper), (first, last) = corner, epochs
    places = [
        (
            left + WIDE * (epoch - first) / max(last - first, 1),
            upper + HIGH * (1 - min(max(value / top, 0.0), 1.0)),
        )
        for epoch, value in values
    ]
    pen = ImageDraw.Draw(picture)
    pen.line(places, colour, 2, "curve")
    for x, y in places if len(places) == 1 else ():
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), colour)
