"""What comes with tinyresnext besides its code: a model, and the list of the published ones."""

from __future__ import annotations

from pathlib import Path

from .errors import FormatError

__all__ = ["MANIFEST", "SHIPPED", "manifest", "shipped_model"]

SHIPPED = "tinyresnext_cifar10.h5"
MANIFEST = "manifest.toml"


def shipped_model() -> Path:
    """The model file that is used where none is named.

    Raises
    ------
    FormatError
        When the file is missing.
    """
    return _carried(SHIPPED, "the model that comes with tinyresnext", "name a model file, or install tinyresnext again")


def manifest() -> Path:
    """The list of the published models, which `tinyresnext.catalogue` reads.

    Raises
    ------
    FormatError
        When the file is missing.
    """
    return _carried(MANIFEST, "the list of published models", "install tinyresnext again")


def _carried(name: str, what: str, remedy: str) -> Path:
    """A file of the folder ``weights``: a wheel carries it inside the package; in a checkout it is beside the package."""
    package = Path(__file__).parent
    places = [folder / "weights" / name for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FormatError(f"{what} is neither at {places[0]} nor at {places[1]}; {remedy}")
