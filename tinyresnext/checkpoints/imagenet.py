"""ImageNet's 1,000 classes: their names and their WordNet ids, in the order of every checkpoint."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["imagenet_labels", "imagenet_wnids"]


@cache
def imagenet_labels() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, such as "tench"."""
    return _lines("imagenet_labels.txt")


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1,000 classes, such as "n01440764"."""
    return _lines("imagenet_wnids.txt")


def _lines(name: str) -> tuple[str, ...]:
    """Return the lines of a text file beside this module."""
    return tuple((files(__package__) / name).read_text("utf-8").splitlines())
