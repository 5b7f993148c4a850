"""What comes with tinyresnext besides its code: a model, and the list of the published ones."""

from __future__ import annotations

from pathlib import Path

from ..errors import FormatError

__all__ = ["BUNDLED", "MANIFEST", "SHIPPED", "manifest", "shipped_model"]

BUNDLED = "tinyresnext_cifar10"  # the name of the bundled model
SHIPPED = f"{BUNDLED}.h5"
MANIFEST = "manifest.toml"
PACKAGE = Path(__file__).parent.parent


def shipped_model() -> Path:
    """Return the bundled model file, which is used if no other is named.

    Raises
    ------
    FormatError
        The file is missing.
    """
    remedy = "name one with --model, or fetch one: `tinyresnext pull resnext50_32x4d`"
    return _bundled(SHIPPED, "a model of its own", remedy)


def manifest() -> Path:
    """Return the list of the published models, which `tinyresnext.hub.manifest` reads.

    Raises
    ------
    FormatError
        The file is missing.
    """
    return _bundled(MANIFEST, "its list of published models", "install tinyresnext again")


def _bundled(name: str, what: str, remedy: str) -> Path:
    """Return a file of the folder ``weights``.

    In a wheel the folder is inside the package; in a checkout it is beside the package.
    """
    places = [folder / "weights" / name for folder in (PACKAGE, PACKAGE.parent)]
    for place in places:
        if place.is_file():
            return place
    raise FormatError(
        f"this tinyresnext comes without {what}: there is no {places[0]} and no {places[1]}; "
        f"{remedy}"
    )
