"""Data sets of images for training and evaluation.

Start with `open`: it finds out what lies at a path. `trees` (images in folders and zips), `tables`
and `pixels` (CIFAR, MNIST, arrays) each make one kind, and `published` reads the classes of
published test sets; `rules` says what names of files and folders mean, and `typed` what patterns
stand for. `loader` makes mini-batches, and `later` opens what is not kept, for evaluations. The
room knows no networks. `dataset` is what all of them return, and divides it.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Return ``open_dataset`` and its like, imported late: `rules` alone is needed to classify."""
    return getattr(import_module(".open", __name__), name)


def __dir__() -> list[str]:
    late = import_module(".open", __name__).__all__
    return sorted({*globals(), *late} - {"Any", "import_module"})
