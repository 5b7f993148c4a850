"""Match the classes of a data set with the labels of a model, by name or by number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ...checkpoints.imagenet import imagenet_labels, imagenet_wnids
from ...data.rules import alike
from ...errors import UsageError

__all__ = ["match_classes", "match_numbers", "same_classes"]

# As the folders of ImageNet are called (n02085620), and those of data sets made from it
# (n02085620-Chihuahua).
_WNID = re.compile(r"(n\d{8})(?![^\W_])", re.IGNORECASE)


def match_classes(
    labels: Sequence[str],
    classes: Sequence[str],
    data: str = "the data set",
    model: str = "the model",
    remedy: str = "use a model of these classes, or match them by number (by_number=True, "
    "--labels-by-number)",
) -> tuple[int, ...]:
    """Return for each class of a data set the number of the model's label with the same name.

    If no label has exactly the same name, differences of case and of how accents are stored, and
    ``_`` or ``-`` instead of a space, are ignored. WordNet ids are understood as well, alone or
    with a name behind (``n01440764``, ``n02085620-Chihuahua``), if the model has ImageNet's classes
    or its labels have ids; numbers from 0 too, in the order of the WordNet ids, if the model has
    ImageNet's classes.

    Parameters
    ----------
    labels : sequence of str
        The model's.
    classes : sequence of str
        The data set's.
    data, model, remedy : str
        What has the classes, what has the labels, and what is to be done, in an error.

    Raises
    ------
    UsageError
        No label has the name of a class, or several have.
    """
    if tuple(labels) == tuple(classes):  # names may repeat
        return tuple(range(len(labels)))
    exact, plain = _places(labels), _places(map(_plain, labels))
    ids = _wnids(labels)
    numbers = _are_numbers(classes) and not exact.keys() & set(classes)
    if numbers and ids.keys() >= set(imagenet_wnids()):
        return _numbered(ids, classes)
    found = []
    for name in classes:
        same = exact.get(name) or plain.get(_plain(name), [])
        if (wnid := _WNID.match(name)) and not same:
            same = [ids[wnid[1].lower()]] if wnid[1].lower() in ids else []
        if len(same) != 1:
            what = (
                f"{len(same)} labels of {model} have that name"
                if same
                else f"{model} has no such label"
            )
            some = ", ".join(map(repr, labels[:10])) + (" ..." if len(labels) > 10 else "")
            raise UsageError(f"{data} has a class {name!r}, and {what} ({some:.300}); {remedy}")
        found.append(same[0])
    if len(set(found)) < len(found):
        raise UsageError(
            f"two classes of {data} match the same label of {model} "
            f"({', '.join(classes):.300}); rename one of them"
        )
    return tuple(found)


def same_classes(labels: Sequence[str], classes: Sequence[str], whose: str) -> None:
    """Raise `UsageError` unless a model has a data set's classes, all of them, in its order.

    Parameters
    ----------
    labels : sequence of str
        The model's.
    classes : sequence of str
        The data set's; names are compared as `match_classes` does.
    whose : str
        What the model is called in the error.
    """
    if len(labels) != len(classes):
        raise UsageError(
            f"{whose} has {len(labels)} classes and the data set {len(classes)}; give a model of "
            "the same classes"
        )
    numbers = match_classes(labels, classes)  # this refuses other classes
    if wrong := [number for number, one in enumerate(numbers) if one != number]:
        raise UsageError(
            f"class {wrong[0]} is {classes[wrong[0]]!r} in the data set and "
            f"{labels[wrong[0]]!r} for {whose}; give a model whose classes have the same order"
        )


def match_numbers(labels: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """Return for each class of a data set its own number, which is that of the model's label.

    Names that are numbers, from 0 or from 1 without a gap, are meant as numbers: ``10`` comes
    behind ``9``, and not behind ``1`` as their texts do. If the model's labels are numbers as well,
    the smallest of the one is the smallest of the other, and so on, in whatever order each stand.
    Of numbers from 0 some may be missing. Then each is the label that is the same number, if the
    labels are numbers and 0 is one of them; else 0 is the smallest of the labels, 1 the next.

    Raises
    ------
    UsageError
        The data set has another number of classes than the model: then the second class of the one
        is hardly the second of the other, unless the names are numbers from 0. Or the names are
        numbers that do not say which they mean, or that no label is.
    """
    if len(classes) != len(labels):
        few = [int(name) for name in classes] if _are_numbers(classes) else []
        same = {int(name): i for i, name in enumerate(labels)} if _are_numbers(labels) else {}
        once = 0 in few and len(set(few)) == len(few)
        if once and 0 in same and len(same) == len(labels) and same.keys() >= set(few):
            return tuple(same[value] for value in few)
        if once and 0 not in same and max(few) < len(labels):
            order = _in_order(labels)
            return tuple(order[value] for value in few)
        known = same if 0 in same else range(len(labels))
        none = [name for name in classes if once and int(name) not in known]
        or_each = f", or each is the number of a label, and {none[0]!r} is not" if none else ""
        raise UsageError(
            f"the data set has {len(classes)} classes, and the model {len(labels)}; they can be "
            f"matched by number only if there are as many{or_each}: give the folders the names of "
            "the model's labels, or use a model of these classes"
        )
    if not _are_numbers(classes):
        return tuple(range(len(classes)))
    values = [int(name) for name in classes]
    if _are_numbers(labels) and len(set(map(int, labels))) == len(set(values)) == len(values):
        order = _in_order(labels)
        rank = {value: order[i] for i, value in enumerate(sorted(values))}
        return tuple(rank[value] for value in values)
    first = min(values)
    if sorted(values) != list(range(first, first + len(values))) or first > 1:
        raise UsageError(
            f"the data set's classes are numbers from {first} to {max(values)}, and {len(values)} "
            "of them; expected all numbers from 0, or from 1, up to the last: rename the folders"
        )
    return tuple(value - first for value in values)


def _in_order(labels: Sequence[str]) -> list[int]:
    """Return the places of labels by the numbers that they are; as they stand if they are none."""
    places = list(range(len(labels)))
    return sorted(places, key=lambda i: int(labels[i])) if _are_numbers(labels) else places


def _are_numbers(classes: Sequence[str]) -> bool:
    """Return whether all names are written in digits."""
    return all(name.isascii() and name.isdigit() and len(name) < 10 for name in classes)


def _numbered(ids: dict[str, int], classes: Sequence[str]) -> tuple[int, ...]:
    """Return the model's labels for numbers from 0, in the order of ImageNet's WordNet ids.

    Raises
    ------
    UsageError
        It is open whether they begin at 0, or they are no numbers of ImageNet's classes.
    """
    values, known = [int(name) for name in classes], imagenet_wnids()
    if len(set(values)) < len(values):
        raise UsageError("the data set has two classes of one number, such as 7 and 07; rename one")
    if 0 not in values or max(values) >= len(known):
        raise UsageError(
            f"the data set's classes are numbers from {min(values)} to {max(values)}, and numbers "
            f"of ImageNet's classes run from 0 to {len(known) - 1}: these may begin at 1, or be "
            "ILSVRC2012 ids, whose order is another one; name the folders by their WordNet ids, "
            "such as n01440764, or give the devkit (--truth)"
        )
    return tuple(ids[known[value]] for value in values)


def _wnids(labels: Sequence[str]) -> dict[str, int]:
    """Return the number of each WordNet id: of those in the labels, or of ImageNet's classes.

    ImageNet's labels may have more words than ours, such as "tench, Tinca tinca", and some other
    names. Without them and without ids in the labels, nothing is returned.
    """
    found = [_WNID.match(label) for label in labels]
    if any(found):
        return {one[1].lower(): i for i, one in enumerate(found) if one}
    known = imagenet_labels()
    if len(labels) != len(known):
        return {}
    same = sum(
        _plain(label) == _plain(name) or _plain(label).startswith(f"{_plain(name)},")
        for label, name in zip(labels, known, strict=True)
    )
    if same < 0.8 * len(known):
        return {}
    return {wnid: number for number, wnid in enumerate(imagenet_wnids())}


def _places(names: Iterable[str]) -> dict[str, list[int]]:
    """Return the numbers at which each name stands."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        found.setdefault(name, []).append(i)
    return found


def _plain(name: str) -> str:
    """Return a name in one spelling: as `alike` says, with spaces between its words."""
    return alike(name.replace("_", " ").replace("-", " ")).strip()
