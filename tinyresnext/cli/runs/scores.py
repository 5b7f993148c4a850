"""The rows of `evaluate -o`: how right a model is about one image, as JSON or as cells of a table.

The result of the whole evaluation is computed from them, so each number has all its digits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...system.files import regular, shown
from ..output.tables import SCHEMA
from .rows import RowForm

if TYPE_CHECKING:
    from ...inference.scores.single import ImageScore

_COLUMNS = (
    "path", "error", "labels", "indices", "predicted", "predicted_indices", "correct",
    "probability", "rank", "within", "loss", "values",
)  # fmt: skip
HEADING = [*_COLUMNS, "settings"]


def score_form(labels: Sequence[str]) -> RowForm:
    """Return how scores are written, given the labels of the model."""

    def values(score: ImageScore, asked: dict[str, Any]) -> dict[str, Any]:
        return {"schema": SCHEMA, "path": score.path} | asked | _values(score, labels)

    def cells(score: ImageScore, asked: dict[str, Any]) -> list[Any]:
        found = {"path": score.path} | _values(score, labels)
        return [_cell(found.get(name)) for name in _COLUMNS] + [asked["settings"]]

    def right(row: Any, asked: dict[str, Any]) -> bool:
        if isinstance(row, list):
            same = row[-1] == asked["settings"]
        else:
            same = all(row.get(name) == value for name, value in asked.items())
        return same and _score(row, len(labels)) is not None

    return RowForm(cells, values, right, says=True)


def read_scores(path: str, labels: int) -> Iterator[ImageScore]:
    """Yield the scores in a file of rows.

    Raises
    ------
    UsageError
        The file has changed since the rows were written.
    """
    from ...inference.many.rows.forms import cells_of, records

    is_table = path.lower().endswith(".csv")
    with regular(path, error=UsageError) as file:
        for number, (record, _) in enumerate(records(file, is_table)):
            if is_table and not number:
                continue
            row = cells_of(record) if is_table else _object_of(record)
            if (score := _score(row, labels)) is None:
                raise UsageError(
                    f"row {number + 1} of {shown(path)} has changed while it was read; begin anew "
                    "(--force)"
                )
            yield score


def _values(score: ImageScore, labels: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a row but its path."""
    right, named = list(score.right), list(score.named)
    found: dict[str, Any] = {"labels": [labels[i] for i in right], "indices": right}
    if score.error is not None:
        return {"error": score.error} | found
    found |= {"predicted": [labels[i] for i in named], "predicted_indices": named}
    found["correct"] = right == named if score.rank is None else score.rank == 1
    numbers = {
        "probability": score.probability,
        "rank": score.rank,
        "within": score.within,
        "loss": score.loss,
        "values": list(score.values) or None,
    }
    return found | {name: value for name, value in numbers.items() if value is not None}


def _cell(value: Any) -> Any:
    """Return a field as it stands in a table: a list as JSON."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _object_of(record: bytes) -> Any:
    """Return the object of a line of JSON; an empty one if it is none."""
    try:
        return json.loads(record)
    except ValueError:
        return {}


def _score(row: Any, labels: int) -> ImageScore | None:
    """Return the score in an object of JSON, or in the cells of a table; None if there is none."""
    from ...inference.scores.single import ImageScore

    try:
        if isinstance(row, list):
            row = _fields(row)
        right, named = (_numbers(row.get(name, []), labels) for name in _COLUMNS[3:6:2])
        path, error = row["path"], row.get("error")
        values = tuple(_real(one) for one in row.get("values", []))
        probability, loss = (
            None if row.get(name) is None else _real(row[name]) for name in ("probability", "loss")
        )
        rank, within = (row.get(name) for name in ("rank", "within"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    texts = isinstance(path, str) and isinstance(error, str | None)
    places = all(one is None or (type(one) is int and one > 0) for one in (rank, within))
    if not texts or not places or (error is None and rank is None and len(values) != labels):
        return None
    return ImageScore(path, right, error, named, probability, rank, within, loss, values)


def _fields(cells: list[str]) -> dict[str, Any]:
    """Return the fields in the cells of a table, as an object of JSON has them."""
    texts = dict(zip(_COLUMNS, cells[:-1], strict=True))
    found: dict[str, Any] = {}
    for name, text in texts.items():
        if name in ("path", "error"):
            found[name] = text.removeprefix("'")  # which marks a text (`cli.output.tables`)
        elif text and name not in ("labels", "predicted", "correct"):
            found[name] = json.loads(text)
    found["error"] = found["error"] or None
    return found


def _numbers(values: Any, labels: int) -> tuple[int, ...]:
    """Return numbers of labels; raise `ValueError` for anything else."""
    if not all(type(one) is int and 0 <= one < labels for one in values):
        raise ValueError
    return tuple(values)


def _real(value: Any) -> float:
    """Return a finite number; raise `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return float(value)
