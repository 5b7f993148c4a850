"""What comes with tinyresnext besides its code: a model, and the list of the published ones."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError

__all__ = ["MANIFEST", "SHIPPED", "manifest", "shipped_model"]

SHIPPED = "tinyresnext_cifar10.h5"
MANIFEST = "manifest.toml"


def shipped_model() -> Path:
    """The model file that is used where none is named, if this installation has one.

    Raises
    ------
    FormatError
        When the file is missing.
    """
    return _carried(
        SHIPPED,
        "a model of its own",
        "name one with --model, or fetch one: `tinyresnext pull resnext50_32x4d`",
    )


def manifest() -> Path:
    """The list of the published models, which `tinyresnext.hub.catalogue` reads.

    Raises
    ------
    FormatError
        When the file is missing.
    """
    return _carried(MANIFEST, "its list of published models", "install tinyresnext again")


def _carried(name: str, what: str, remedy: str) -> Path:
    """A file of the folder ``weights``: a wheel carries it inside the package; in a checkout it is beside the package."""
    package = Path(__file__).parent.parent
    places = [folder / "weights" / name for folder in (package, package.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FormatError(
        f"this tinyresnext comes without {what}: there is no {places[0]} and no {places[1]}; {remedy}"
    )
