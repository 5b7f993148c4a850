"""The model that comes with tinyresnext: where it is."""

from __future__ import annotations

from pathlib import Path

from .errors import FormatError

__all__ = ["SHIPPED", "shipped_model"]

SHIPPED = "tinyresnext_cifar10.h5"


def shipped_model() -> Path:
    """The model file that is used where none is named.

    A wheel carries the folder ``weights`` inside the package; in a checkout, and where that was installed with ``pip install
    -e``, it is beside the package.

    Raises
    ------
    FormatError
        When the file is in neither place.
    """
    package = Path(__file__).parent
    places = [folder / "weights" / SHIPPED for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FormatError(
        f"the model that comes with tinyresnext is neither at {places[0]} nor at {places[1]}; name a model file, or install "
        "tinyresnext again"
    )
