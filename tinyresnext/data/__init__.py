"""Data sets of images for training and evaluation.

Start with `open`: it finds out what lies at a path. `trees` (images in folders and zips), `tables`,
`cifar` and `mnist` each read one kind, and `published` the classes of published test sets; `rules`
says what names of files and folders mean. `loader` makes mini-batches of a data set, and `later`
opens those of which nothing is kept, for evaluations. The room knows no networks. `dataset` is what
all of them return, and divides it.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Return ``open_dataset`` and its like, imported late: `rules` alone is needed to classify."""
    return getattr(import_module(".open", __name__), name)
