"""The published models, by name, and where those are that have been pulled.

A model is called ``architecture.tag``, with timm's tags where timm has one. The architecture alone
means the entry with the highest top-1 among those that can be pulled under a licence that allows
every use.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import os
from pathlib import Path

from ..errors import UsageError
from ..network.spec import VARIANTS
from ..system.home import home
from .bundled import manifest
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
    """Return the names of the published models that match a pattern such as ``resnext50*``."""
    return [entry.name for entry in entries() if fnmatch.fnmatchcase(entry.name, pattern)]


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
    free = [
        entry
        for entry in tagged
        if entry.free and entry.urls and not entry.unreadable and entry.top1 is not None
    ]
    if free:
        return max(free, key=lambda entry: entry.top1 or 0)
    if tagged:
        others = ", ".join(entry.name for entry in tagged)
        raise UsageError(f"no weights of {name} have a free licence; there is {others}")
    if name in VARIANTS:
        raise UsageError(
            f"{name!r} is an architecture, and no weights of it are in the catalogue; `tinyresnext "
            "convert CHECKPOINT MODEL.h5` makes a model from a checkpoint that you have"
        )
    near = difflib.get_close_matches(name, [*known, *VARIANTS], 3) or list(known)[:3]
    raise UsageError(
        f"there is no model called {name!r}; did you mean {', '.join(near)}? `tinyresnext models` "
        "lists all"
    )


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
    return home() is not None and place(entry).is_file()


def model_file(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the file that a name means.

    A path means itself, the name of a published model the file that was pulled.

    Raises
    ------
    UsageError
        It is the name of a model, or of an architecture, that was not pulled.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else name
    if not isinstance(text, str) or os.path.exists(text):
        return name
    if text not in VARIANTS and text not in names():
        return name  # the reader says what is wrong with it
    entry = find(text)
    if not is_here(entry):
        raise UsageError(
            f"the model {entry.name} is not on this computer; `tinyresnext pull {text}` fetches it"
        )
    return place(entry)
