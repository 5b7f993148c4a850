"""A confusion matrix as a picture: a row for each class, a column for each answer, darker where there are more."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from ..system.files import replacing

__all__ = ["draw", "named", "write"]

CELLS = (
    (20, 46, 15),
    (128, 21, 10),
    (400, 9, 7),
)  # up to so many classes: side of a cell, height of letters, in pixels
SMALLEST = 2  # side of a cell where there are still more
MARGIN, GAP, BAR = 16, 8, 18
LONGEST = 24  # letters of a name
TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
INK, RIM = (20, 24, 32), (150, 156, 165)
LIGHT, MIDDLE, DARK = np.array([[255, 255, 255], [92, 158, 207], [8, 40, 90]], np.float64)


def write(
    path: str | os.PathLike[str], confusion: np.ndarray, classes: Sequence[str], title: str
) -> None:
    """Draw the matrix into a PNG file.

    Raises
    ------
    UsageError
        When the name does not end in .png, or the file cannot be written.
    """
    picture = draw(confusion, classes, title)
    with replacing(named(path)) as temporary:
        picture.save(temporary, "PNG", optimize=True)


def named(path: str | os.PathLike[str]) -> str:
    """The path, if it is one for a PNG file: what takes minutes to find out should not have nowhere to go."""
    name = os.fsdecode(path)
    if not name.lower().endswith(".png"):
        raise UsageError(
            f"{name!r} does not end in .png; the picture of the confusion matrix is a PNG file"
        )
    return name


def draw(confusion: np.ndarray, classes: Sequence[str], title: str) -> Image.Image:
    """Draw the matrix.

    A cell's colour is its part of the row; the scale is that of the square root, which leaves rare
    mistakes visible. Counts are written where there is room for them, and zeros nowhere.

    Parameters
    ----------
    confusion : [classes, classes] int
        As in `tinyresnext.inference.evaluate.Evaluation`.
    classes : sequence of str
    title : str
        For the line above.
    """
    side, letters = next(
        ((side, letters) for most, side, letters in CELLS if len(classes) <= most), (SMALLEST, 0)
    )
    font, heading = (ImageFont.load_default(size) for size in (max(letters, 7), 17))
    names = (
        [name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..." for name in classes]
        if letters
        else []
    )
    room = round(max((font.getlength(name) for name in names), default=0)) + GAP
    left, top = MARGIN + 22 + room, MARGIN + 52 + room
    wide = side * len(classes)
    scale = left + wide + 2 * MARGIN
    size = (
        max(scale + BAR + 60, 2 * MARGIN + round(heading.getlength(title))),
        top + max(wide, 140) + MARGIN,
    )
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), title, INK, heading)
    pen.text((left, MARGIN + 28), "the network's answer", INK, ImageFont.load_default(13))
    _upwards(picture, "the class", ImageFont.load_default(13), MARGIN + 8, top + wide)
    for i, name in enumerate(names):
        pen.text((left - GAP, top + side * i + side / 2), name, INK, font, "rm")
        _upwards(picture, name, font, left + side * i + side // 2, top - GAP)
    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    colours = Image.fromarray(_colours(parts)).resize((wide, wide), Image.Resampling.NEAREST)
    picture.paste(colours, (left, top))
    for row, column in np.argwhere(confusion) if letters else ():
        text, light = str(confusion[row, column]), parts[row, column] > 0.25
        if font.getlength(text) <= side - 1:
            at = left + side * column + side / 2, top + side * row + side / 2
            pen.text(at, text, "white" if light else INK, font, "mm")
    pen.rectangle((left - 1, top - 1, left + wide, top + wide), outline=RIM)
    _scale(picture, scale, top, max(min(wide, 400), 140))
    return picture


def _colours(parts: np.ndarray) -> np.ndarray:
    """From white by light blue to dark blue: uint8 [..., 3] for parts from 0 to 1."""
    way = np.sqrt(parts)[..., None]
    first, second = np.minimum(2 * way, 1), np.maximum(2 * way - 1, 0)
    return np.rint(LIGHT + (MIDDLE - LIGHT) * first + (DARK - MIDDLE) * second).astype(np.uint8)


def _upwards(
    picture: Image.Image,
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    x: int,
    bottom: int,
) -> None:
    """Write a text from below to above, around a vertical line."""
    box = font.getbbox(text)
    high = max(round(box[3]), 1)
    line = Image.new("RGB", (max(round(box[2]), 1), high + 2), "white")
    ImageDraw.Draw(line).text((0, 0), text, INK, font)
    turned = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (x - turned.width // 2, bottom - turned.height))


def _scale(picture: Image.Image, left: int, top: int, height: int) -> None:
    """What the colours mean: parts of a row, 0 below and 1 above."""
    ways = np.linspace(1, 0, height)[:, None].repeat(BAR, 1)
    picture.paste(Image.fromarray(_colours(ways**2)), (left, top))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    pen.rectangle((left - 1, top - 1, left + BAR, top + height), outline=RIM)
    for part in TICKS:
        y = top + (height - 1) * (1 - part**0.5)
        pen.line((left + BAR, y, left + BAR + 4, y), RIM)
        pen.text((left + BAR + 8, y), f"{part:.0%}", INK, font, "lm")
