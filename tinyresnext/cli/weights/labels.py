"""The file of `convert --labels`: one name a line, or a JSON list or object."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ...data.typed import encoding_of
from ...errors import UsageError
from ...system.console import tell
from ...system.files import regular

__all__ = ["read_labels"]

MOST_LABELS, MOST_CLASSES = 64 << 20, 1_000_000  # bytes and lines of a file of labels
WANTED = "the name of one class a line"

_NUMBERED = re.compile(r"\s*(\d{1,7})(?:\s*[-:.)]\s+|:|\s+)(?=\S)", re.ASCII)
_ROW = re.compile(r"\s*\"?\d{1,7}\"?\s*[,;\t]", re.ASCII)


def read_labels(path: str) -> list[str]:
    """Return the names of the classes in a file, in the order of their numbers.

    Raises
    ------
    UsageError
        It is no text, a line is empty, it is a table, or JSON of another form; or its lines are
        numbered in another order.
    """
    with regular(path, error=UsageError) as file:
        text = file.read(MOST_LABELS + 1)
    if len(text) > MOST_LABELS or text.count(b"\n") > MOST_CLASSES:
        raise UsageError(
            f"{path!r} has more than {MOST_LABELS:,} bytes or {MOST_CLASSES:,} lines; expected "
            f"{WANTED}"
        )
    try:
        whole = text.decode(encoding_of(text) or "utf-8").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path!r} is not text in UTF-8; expected {WANTED}") from error
    if (found := _json(path, whole)) is not None:
        return found
    lines = whole.split("\n")
    if empty := next((i for i, line in enumerate(lines, 1) if not line.strip()), 0):
        raise UsageError(
            f"line {empty} of {path!r} is empty; expected {WANTED}: remove the line, or name the "
            "class"
        )
    named = os.path.splitext(path)[1].lower() in (".csv", ".tsv")
    rows = sum(_ROW.match(line) is not None for line in lines)
    if named or (len(lines) > 1 and rows == len(lines)) or (rows > 1 and rows == len(lines) - 1):
        raise UsageError(
            f"{path!r} is a table, whose columns are not read; expected {WANTED} in the order of "
            "the classes, without a heading, in a file that is no .csv"
        )
    return _without_numbers(path, lines)


def _without_numbers(path: str, lines: list[str]) -> list[str]:
    """Return lines without the numbers of the classes, if each begins with its own."""
    found = [match for line in lines if (match := _NUMBERED.match(line))]
    numbers = [int(match[1]) for match in found]
    if len(found) < max(2, len(lines)) or {*numbers} not in (
        {*range(len(lines))},
        {*range(1, len(lines) + 1)},
    ):
        return lines
    if numbers != sorted(numbers):
        raise UsageError(
            f"the lines of {path!r} are numbered in another order; sort them by number, since the "
            "first line names the first class"
        )
    tell(f"{path!r}: each line begins with its number, which is no part of the name")
    return [match.string[match.end() :] for match in found]


def _json(path: str, text: str) -> list[str] | None:
    """Return the names in a JSON text, None if it is none."""
    named = os.path.splitext(path)[1].lower() == ".json"
    if not named and not text.lstrip().startswith(("[", "{")):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if not named:
            return None
        raise UsageError(f"{path!r} is no valid JSON: {str(error)[:80]}; mend it") from None
    names = _in_order(value) if isinstance(value, dict) else value
    names = names if isinstance(names, list) else []
    if all(isinstance(one, list) and len(one) == 2 for one in names):
        names = [one[1] for one in names]  # Keras' own list has a WordNet id before each name
    if not names or not all(isinstance(one, str) and one.strip() for one in names):
        raise UsageError(
            f"{path!r} is JSON, and no list of names, no object from the numbers 0, 1, 2 ... to "
            "names, and none from names to these numbers; give one of the three"
        )
    return list(names)


def _in_order(value: dict[str, Any]) -> list[Any]:
    """Return the names of an object from numbers to names, or the other way round.

    The list is empty if it is neither.
    """
    count = range(len(value))
    if {*value} == {str(i) for i in count}:
        return [value[str(i)] for i in count]
    numbers = [*value.values()]
    if all(type(one) is int for one in numbers) and sorted(numbers) == [*count]:
        return sorted(value, key=lambda name: value[name])
    return []


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object without any key twice."""
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)
