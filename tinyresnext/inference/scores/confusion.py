"""Draw a confusion matrix: a row for each class, a column for each prediction.

A darker cell has a larger part of its row.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...errors import UsageError
from ...system.writing import replacing
from .evaluation import check_matrix
from .lettering import Font, Letters

__all__ = ["draw", "named", "write"]

# Pixels: up to so many classes, the side of a cell and the height of its letters.
CELLS = ((20, 46, 15), (128, 21, 10), (400, 9, 7))
SMALLEST = 2  # the side of a cell for more classes than that; such cells have no letters
MARGIN, GAP, BAR = 16, 8, 18
LONGEST = 24  # letters of a class name
TICKS = (0.0, 0.01, 0.05, 0.2, 0.5, 1.0)
INK, FRAME = (20, 24, 32), (150, 156, 165)
LIGHT, MIDDLE, DARK = np.array([[255, 255, 255], [92, 158, 207], [8, 40, 90]], np.float64)


def write(
    path: str | os.PathLike[str], confusion: np.ndarray, classes: Sequence[str], title: str
) -> str:
    r"""Draw the matrix into a PNG file.

    Parameters
    ----------
    path : path
        Its name ends in ``.png``.
    confusion, classes, title
        As for `draw`.

    Returns
    -------
    str
        The characters that no font on this computer has, each once: they are escaped in the
        picture, as in ``\u65e5``.

    Raises
    ------
    UsageError
        The name does not end in ``.png``, or the file cannot be written.
    """
    picture, escaped = draw(confusion, classes, title)
    with replacing(named(path)) as temporary:
        picture.save(temporary, "PNG", optimize=True)
    return escaped


def named(path: str | os.PathLike[str]) -> str:
    """Return the path as text, if it can name a PNG file; check it before long work.

    Raises
    ------
    UsageError
        The name does not end in ``.png``.
    """
    name = os.fsdecode(path)
    if not name.lower().endswith(".png"):
        raise UsageError(f"{name!r} does not end in .png; the picture is a PNG file")
    return name


def draw(confusion: np.ndarray, classes: Sequence[str], title: str) -> tuple[Image.Image, str]:
    """Draw the matrix, and return with it the characters that no font has and that are escaped.

    The colour of a cell shows its part of the row, on the scale of the square root, so that rare
    mistakes are visible. Counts above zero are written into the cells that are large enough.

    Parameters
    ----------
    confusion : [classes, classes] int
        As in `tinyresnext.Evaluation`.
    classes : sequence of str
    title : str
        The first line of the picture.

    Raises
    ------
    UsageError
        There are too many classes.
    """
    check_matrix(len(classes))
    side, letters = next(
        ((side, letters) for most, side, letters in CELLS if len(classes) <= most), (SMALLEST, 0)
    )
    font, axes = (ImageFont.load_default(size) for size in (max(letters, 7), 13))
    heading, lettering = Letters(17).of(title), Letters(letters or 1)
    names = [lettering.of(_short(name)) for name in classes] if letters else []
    room = round(max((name.font.getlength(name.text) for name in names), default=0)) + GAP
    left, top = MARGIN + 22 + room, MARGIN + 52 + room
    wide = side * len(classes)
    scale = left + wide + 2 * MARGIN
    width = max(scale + BAR + 60, 2 * MARGIN + round(heading.font.getlength(heading.text)))
    picture = Image.new("RGB", (width, top + max(wide, 140) + MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, MARGIN), heading.text, INK, heading.font)
    pen.text((left, MARGIN + 28), "the network's answer", INK, axes)
    _upwards(picture, "the class", axes, MARGIN + 8, top + wide)
    for i, name in enumerate(names):
        pen.text((left - GAP, top + side * i + side / 2), name.text, INK, name.font, "rm")
        _upwards(picture, name.text, name.font, left + side * i + side // 2, top - GAP)
    _cells(picture, confusion, (left, top), side, font if letters else None)
    pen.rectangle((left - 1, top - 1, left + wide, top + wide), outline=FRAME)
    _scale(picture, scale, top, max(min(wide, 400), 140))
    escaped = heading.escaped + "".join(name.escaped for name in names)
    return picture, "".join(dict.fromkeys(escaped))


def _short(name: str) -> str:
    """Return a class name, cut to `LONGEST` letters."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def _colours(parts: np.ndarray) -> np.ndarray:
    """Return the colours of parts [...] from 0 to 1, white to dark blue, as uint8 [..., 3]."""
    way = np.sqrt(parts)[..., None]
    first, second = np.minimum(2 * way, 1), np.maximum(2 * way - 1, 0)
    return np.rint(LIGHT + (MIDDLE - LIGHT) * first + (DARK - MIDDLE) * second).astype(np.uint8)


def _cells(
    picture: Image.Image,
    confusion: np.ndarray,
    corner: tuple[int, int],
    side: int,
    font: Font | None,
) -> None:
    """Draw the cells from their upper left corner on, and with a font, their counts."""
    (left, top), wide = corner, side * len(confusion)
    parts = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    colours = Image.fromarray(_colours(parts)).resize((wide, wide), Image.Resampling.NEAREST)
    picture.paste(colours, corner)
    if font is None:
        return
    pen = ImageDraw.Draw(picture)
    for row, column in np.argwhere(confusion):
        text, light = str(confusion[row, column]), parts[row, column] > 0.25
        if font.getlength(text) <= side - 1:
            at = left + side * column + side / 2, top + side * row + side / 2
            pen.text(at, text, "white" if light else INK, font, "mm")


def _upwards(picture: Image.Image, text: str, font: Font, x: int, bottom: int) -> None:
    """Write a text turned by 90 degrees, centred on column ``x``, from ``bottom`` upwards."""
    box = font.getbbox(text)
    high = max(round(box[3]), 1)
    line = Image.new("RGB", (max(round(box[2]), 1), high + 2), "white")
    ImageDraw.Draw(line).text((0, 0), text, INK, font)
    turned = line.transpose(Image.Transpose.ROTATE_90)
    picture.paste(turned, (x - turned.width // 2, bottom - turned.height))


def _scale(picture: Image.Image, left: int, top: int, height: int) -> None:
    """Draw the scale of the colours: parts of a row, from 0 at the bottom to 1 at the top."""
    ways = np.linspace(1, 0, height)[:, None].repeat(BAR, 1)
    picture.paste(Image.fromarray(_colours(ways**2)), (left, top))
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    pen.rectangle((left - 1, top - 1, left + BAR, top + height), outline=FRAME)
    for part in TICKS:
        y = top + (height - 1) * (1 - part**0.5)
        pen.line((left + BAR, y, left + BAR + 4, y), FRAME)
        pen.text((left + BAR + 8, y), f"{part:.0%}", INK, font, "lm")
