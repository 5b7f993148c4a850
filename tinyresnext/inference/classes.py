"""Match the classes of a data set with the labels of a model, by name or by number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import UsageError

__all__ = ["first_classes", "match_classes"]


def match_classes(labels: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return for each class of a data set the number of the model's label with the same name.

    If no label has exactly the same name, differences of case, and ``_`` or ``-`` instead of a
    space, are ignored.

    Parameters
    ----------
    labels : sequence of str
        The model's.
    classes : sequence of str
        The data set's.

    Raises
    ------
    UsageError
        No label has the name of a class, or several have.
    """
    if tuple(labels) == tuple(classes):  # names may repeat
        return tuple(range(len(labels)))
    exact, plain = _places(labels), _places(map(_plain, labels))
    found = []
    for name in classes:
        same = exact.get(name) or plain.get(_plain(name), [])
        if len(same) != 1:
            what = (
                f"{len(same)} of the model's labels have that name"
                if same
                else "the model has no such label"
            )
            some = ", ".join(map(repr, labels[:10])) + (" ..." if len(labels) > 10 else "")
            raise UsageError(
                f"the data set has a class {name!r}, and {what} ({some:.300}); use a model of "
                "these classes, or match them by number (by_number=True, --labels-by-number)"
            )
        found.append(same[0])
    if len(set(found)) < len(found):
        raise UsageError(
            "two of the data set's classes match the same label of the model "
            f"({', '.join(classes):.300}); rename one of them"
        )
    return tuple(found)


def first_classes(labels: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the model's first labels, one for each class of a data set.

    Raises
    ------
    UsageError
        The data set has more classes than the model has labels.
    """
    if len(classes) > len(labels):
        raise UsageError(
            f"the data set has {len(classes)} classes, and the model {len(labels)}; they cannot be "
            "matched by number: use a model with at least as many classes"
        )
    return tuple(range(len(classes)))


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the numbers at which each name stands."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


def _plain(name: str) -> str:
    """Return a name in one spelling: lower case, with spaces between its words."""
    return name.replace("_", " ").replace("-", " ").casefold().strip()
