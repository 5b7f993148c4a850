"""Say what a model answers to the photographs in this repository, as its card has it.

``python weights/photographs.py`` writes that section of the bundled model's card again, and leaves
the rest of the card as it is: ``card.py`` needs the log of the training for that.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from tinyresnext import load
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.images.decode import upright
from tinyresnext.inference.heads import Prediction
from tinyresnext.inference.model import Model

HOME = Path(__file__).resolve().parents[1]
SHOWN = "tests/data/chelsea.jpg"  # README.md classifies it
PHOTOGRAPHS = "tests/data/photographs"
SHAPES = ("middle square", "padded", "squeezed")
GREY = (128, 128, 128)

CARD = Path(__file__).with_name("card.txt")
BEGIN, END = "## On photographs\n", "## Limits\n"  # of the section in the card


class Answer(NamedTuple):
    """What a model answers to one photograph."""

    file: Path
    truth: str  # the class that the photograph shows
    guesses: list[Prediction]  # as the photograph is; the most probable first
    shaped: list[str]  # the answer in each of `SHAPES`

    @property
    def label(self) -> str:
        """Return the answer to the photograph as it is."""
        return self.guesses[0].label


def answers(model: Model) -> list[Answer]:
    """Return what the model answers to each of the photographs, in all shapes."""
    found = []
    for file in [HOME / SHOWN, *sorted((HOME / PHOTOGRAPHS).glob("*/*.jpg"))]:
        truth = "cat" if file == HOME / SHOWN else file.parent.name
        [guesses] = model.predict(str(file), top=2)
        shaped = [first.label for [first] in model.predict(squares(upright(file)), top=1)]
        found.append(Answer(file, truth, guesses, shaped))
    return found


def squares(image: Image.Image) -> list[Image.Image]:
    """Return an image as a square in each of `SHAPES`."""
    short, long = min(image.size), max(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    return [
        image.crop((left, top, left + short, top + short)),
        ImageOps.pad(image, (long, long), color=GREY),
        image.resize((short, short), Image.Resampling.BICUBIC),
    ]


def described(found: Sequence[Answer], labels: Sequence[str]) -> str:
    """Return the table of the answers, and under it how many of them are right."""
    names = ["photograph", "answer", "right", "probability", "second", *SHAPES]
    rows = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|", *map(_row, found)]
    return "\n".join([*rows, "", *_counts(found), *_missing(found, labels)])


def _row(one: Answer) -> str:
    """Return the row of one photograph."""
    first, second = one.guesses
    cells = [
        f"`{one.file.relative_to(HOME).as_posix()}`",
        first.label,
        "yes" if first.label == one.truth else "no",
        f"{first.probability:.1%}",
        f"{second.label} {second.probability:.1%}",
        *("right" if label == one.truth else label for label in one.shaped),
    ]
    return "| " + " | ".join(cells) + " |"


def _counts(found: Sequence[Answer]) -> list[str]:
    """Return the sentence that says how many answers are right, in each shape."""
    right = sum(one.label == one.truth for one in found)
    middle, padded, squeezed = (
        sum(label == one.truth for label, one in zip(labels, found, strict=True))
        for labels in zip(*(one.shaped for one in found), strict=True)
    )
    return [
        f"{right} of {len(found)} are right as they are, {middle} as middle squares, "
        f"{padded} padded and {squeezed} squeezed."
    ]


def _missing(found: Sequence[Answer], labels: Sequence[str]) -> list[str]:
    """Return the sentence that names the classes of which there is no photograph, if any."""
    missing = [label for label in labels if label not in {one.truth for one in found}]
    return [f"There is no photograph of these classes: {', '.join(missing)}."] if missing else []


def section(model: Model) -> str:
    """Return the section of the card: the words of ``card.txt`` with the model's answers."""
    _, _, rest = CARD.read_text("utf-8").partition(BEGIN)
    words, _, _ = rest.partition(END)
    return BEGIN + words.format(
        side=model.preprocess.crop, photographs=described(answers(model), model.labels)
    )


def main() -> int:
    """Write the section of the bundled model's card again."""
    card = shipped_model().with_suffix(".md")
    before, begin, rest = card.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{card} has no section from {BEGIN.strip()!r} to {END.strip()!r}")
    card.write_text(before + section(load()) + end + after, "utf-8")
    print(card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
