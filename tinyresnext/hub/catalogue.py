"""The published models, by name, and where those are that have been pulled.

A model is called ``architecture.tag``, with timm's tags where timm has one. The architecture alone
means the entry with the highest top-1 among those that can be pulled under a licence that allows
every use.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from ..errors import UsageError
from ..network.spec import VARIANTS, other
from ..system.home import home
from ..system.words import matching, similar
from .bundled import BUNDLED, manifest, shipped_model
from .entry import Entry
from .manifest import parse

__all__ = ["Entry", "entries", "find", "is_here", "model_file", "names", "place"]


@functools.cache
def entries() -> tuple[Entry, ...]:
    """Return all entries, in the manifest's order.

    Raises
    ------
    FormatError
        The manifest is not as it was published.
    """
    return parse(manifest().read_text("utf-8"))[0]


def names(pattern: str = "*") -> list[str]:
    """Return the names of the models that `matching` finds: the bundled one, then the published."""
    return matching(pattern, [BUNDLED, *(entry.name for entry in entries())])


def find(name: str) -> Entry:
    """Return the published model of that name.

    An architecture alone means its best model with a free licence.

    Raises
    ------
    UsageError
        There is none; the message says what there is.
    """
    known = {entry.name: entry for entry in entries()}
    if name in known:
        return known[name]
    tagged = [entry for entry in known.values() if entry.architecture == name]
    if free := [entry for entry in tagged if _can_stand_for_all(entry)]:
        return max(free, key=lambda entry: entry.top1 or 0)
    if tagged:
        others = ", ".join(entry.name for entry in tagged)
        raise UsageError(f"no weights of {name} have a free licence; there is {others}")
    if name in VARIANTS:
        raise UsageError(
            f"{name!r} is an architecture, and no weights of it are in the catalogue; `tinyresnext "
            "convert CHECKPOINT MODEL.h5` makes a model from a checkpoint that you have"
        )
    if why := other(name):
        raise UsageError(
            f"{name!r:.80} is another network than those here: it has {why}; `tinyresnext models` "
            "lists those that there are"
        )
    raise UsageError(
        f"there is no model called {name!r:.80}; {similar(name, with_weights())}`tinyresnext "
        "models` lists all"
    )


def with_weights() -> list[str]:
    """Return the names that mean weights: the bundled model, architectures, published models."""
    usable = [entry for entry in entries() if not entry.unreadable]
    architectures = [entry.architecture for entry in usable if _can_stand_for_all(entry)]
    return list(dict.fromkeys([BUNDLED, *architectures, *(entry.name for entry in usable)]))


def _can_stand_for_all(entry: Entry) -> bool:
    """Return whether the architecture alone can mean this model."""
    return entry.free and bool(entry.urls) and not entry.unreadable and entry.top1 is not None


def place(entry: Entry) -> Path:
    """Return where the model file is, or would be.

    Raises
    ------
    UsageError
        This system has no place for such files.
    """
    base = home()
    if base is None:
        raise UsageError(
            "there is no folder for models: this user has no home; TINYRESNEXT_HOME names one"
        )
    return base / "models" / f"{entry.name}.h5"


def is_here(entry: Entry) -> bool:
    """Return whether there is a model file of that name. Its content is checked when it is read."""
    return home() is not None and os.path.isfile(place(entry))


def model_file(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the file that a name means.

    A path means itself, the name of a published model the file that was pulled, and the name of the
    bundled model its file.

    Raises
    ------
    UsageError
        It is the name of a model, or of an architecture, that was not pulled, or resembles one, or
        is no name of a file.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else name
    if not isinstance(text, str) or os.path.exists(text):
        return name
    if text == BUNDLED:
        return shipped_model()
    known = text in VARIANTS or any(entry.name == text for entry in entries())
    if not known and _is_path(text):
        return name  # the reader says what is wrong with it
    entry = find(text)
    if not is_here(entry):
        raise UsageError(
            f"the model {entry.name} is not on this computer; `tinyresnext pull {text}` fetches it"
        )
    return place(entry)


def _is_path(text: str) -> bool:
    """Return whether a text can only be meant as the name of a file."""
    ending = Path(text).suffix
    if not text or os.path.dirname(text) or ending in (".h5", ".hdf5"):
        return True
    return bool(ending) and not similar(text, with_weights())
