"""The published models: what ``weights/manifest.toml`` says of each, and where those are that have been pulled.

A model is called ``architecture.tag``, with timm's tags where timm has one. The architecture alone
means the entry with the highest top-1 among those that can be pulled under a licence that allows
every use.
"""

from __future__ import annotations

import difflib
import fnmatch
import functools
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import FormatError, UsageError
from ..images.preprocess import Preprocess
from ..network.spec import VARIANTS, Spec, variant
from ..system.home import home
from .bundled import manifest

__all__ = [
    "Entry",
    "Pipeline",
    "Score",
    "entries",
    "find",
    "is_here",
    "model_file",
    "names",
    "parse",
    "place",
]

FREE = ("Apache-2.0", "BSD-3-Clause", "MIT")  # these allow every use
REQUIRED = {"name", "system", "urls", "licence", "pipeline", "page"}
OPTIONAL = {
    "file",
    "sha256",
    "md5",
    "bytes",
    "labels",
    "eps",
    "hub",
    "millions",
    "gmacs",
    "scores",
    "note",
    "unreadable",
}


class Pipeline(NamedTuple):
    """How a system prepares pictures.

    Parameters
    ----------
    preprocess : Preprocess
    picture : str
        Which reference photographs it has been compared with, to the pixel; empty for none.
    """

    preprocess: Preprocess
    picture: str = ""


class Score(NamedTuple):
    """Published accuracy in percent: of single pictures cut by that pipeline, on the data set that the labels are of."""

    pipeline: str
    top1: float
    top5: float | None
    by: str


@dataclass(frozen=True)
class Entry:
    """One published model.

    Parameters
    ----------
    name : str
        ``architecture.tag``.
    system : str
        Whose code it was published for.
    spec : Spec
    urls : tuple of str
        Where its file is; the same bytes everywhere. Empty where no program can fetch it.
    licence : str
        SPDX's name of it.
    pipeline : str
        Its name in the manifest.
    preprocess : Preprocess
        What the model carries: the pipeline's.
    page : str
        Where it is described.
    file : str
        The name of its file.
    sha256 : str
        All 64 digits or as many as are published; may be empty.
    md5 : str
    bytes : int, optional
        Of the file.
    labels : tuple of str, optional
        Nothing stands for ImageNet's.
    hub : str
        Its repository on the Hugging Face Hub.
    millions, gmacs : float, optional
        Parameters and multiply-adds, as published.
    scores : tuple of Score
        The first is the one that the model is known by.
    note : str
        What one should know.
    unreadable : str
        Why it cannot become one of our models.
    """

    name: str
    system: str
    spec: Spec
    urls: tuple[str, ...]
    licence: str
    pipeline: str
    preprocess: Preprocess
    page: str
    file: str
    sha256: str = ""
    md5: str = ""
    bytes: int | None = None
    labels: tuple[str, ...] | None = None
    hub: str = ""
    millions: float | None = None
    gmacs: float | None = None
    scores: tuple[Score, ...] = ()
    note: str = ""
    unreadable: str = ""

    @property
    def architecture(self) -> str:
        """The part of the name before the tag."""
        return self.name.partition(".")[0]

    @property
    def free(self) -> bool:
        """Whether its licence allows every use."""
        return self.licence in FREE

    @property
    def top1(self) -> float | None:
        """Of the pipeline that it carries."""
        return next((score.top1 for score in self.scores if score.pipeline == self.pipeline), None)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All of them, in the manifest's order.

    Raises
    ------
    FormatError
        When the manifest is not as it was published.
    """
    return parse(manifest().read_text("utf-8"))[0]


def parse(text: str) -> tuple[tuple[Entry, ...], dict[str, Pipeline]]:
    """Read a manifest, and refuse one in which anything is missing, unknown or impossible.

    Raises
    ------
    FormatError
        The message names the entry and the field.
    """
    try:
        document = tomllib.loads(text)
        _only(document, {"format", "pipelines", "labels", "model"}, "the manifest")
        if document["format"] != 1:
            raise FormatError(
                f"the manifest is of format {document['format']!r}, expected 1; install tinyresnext again"
            )
        pipelines = {
            name: _pipeline(name, fields) for name, fields in document["pipelines"].items()
        }
        found = tuple(_entry(fields, pipelines, document["labels"]) for fields in document["model"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise FormatError(
            f"the manifest cannot be used: {error}; install tinyresnext again"
        ) from error
    twice = {entry.name for entry in found if sum(other.name == entry.name for other in found) > 1}
    if twice:
        raise FormatError(
            f"the manifest has two entries called {', '.join(sorted(twice))}; install tinyresnext again"
        )
    return found, pipelines


def names(pattern: str = "*") -> list[str]:
    """Of the published models that match a pattern such as ``resnext50*``."""
    return [entry.name for entry in entries() if fnmatch.fnmatchcase(entry.name, pattern)]


def find(name: str) -> Entry:
    """The published model of that name; an architecture alone means its best one with a free licence.

    Raises
    ------
    UsageError
        When there is none; the message says what there is.
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
        raise UsageError(
            f"no weights of {name} have a free licence; there is {', '.join(entry.name for entry in tagged)}"
        )
    if name in VARIANTS:
        remedy = "`tinyresnext convert CHECKPOINT MODEL.h5` makes a model from a checkpoint that you have"
        raise UsageError(
            f"{name!r} is an architecture, and no weights of it are in the catalogue; {remedy}"
        )
    near = difflib.get_close_matches(name, [*known, *VARIANTS], 3) or list(known)[:3]
    raise UsageError(
        f"there is no model called {name!r}; did you mean {', '.join(near)}? `tinyresnext models` has all"
    )


def place(entry: Entry) -> Path:
    """Where the model file is, or would be.

    Raises
    ------
    UsageError
        When this system has no place for such files.
    """
    base = home()
    if base is None:
        raise UsageError(
            "there is no folder for models: this user has no home; TINYRESNEXT_HOME names one"
        )
    return base / "models" / f"{entry.name}.h5"


def is_here(entry: Entry) -> bool:
    """Whether there is a model file of that name. What is in it is checked when it is read."""
    return home() is not None and place(entry).is_file()


def model_file(name: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file that a name stands for: a path as it is, the name of a published model as the file that was pulled.

    Raises
    ------
    UsageError
        When it is the name of a model, or of an architecture, that is not here.
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else name
    if not isinstance(text, str) or os.path.exists(text):
        return name
    if text not in VARIANTS and text not in names():
        return name  # reading it says what is wrong
    entry = find(text)
    if not is_here(entry):
        raise UsageError(
            f"the model {entry.name} is not on this computer; `tinyresnext pull {text}` fetches it"
        )
    return place(entry)


def _only(fields: Mapping[str, Any], allowed: Collection[str], what: str) -> None:
    """Refuse what nobody reads: it is probably misspelt."""
    if unknown := sorted(set(fields) - set(allowed)):
        raise FormatError(
            f"{what} has the unknown field {unknown[0]!r}; expected {', '.join(sorted(allowed))}"
        )


def _pipeline(name: str, fields: Mapping[str, Any]) -> Pipeline:
    """One of the manifest's pipelines."""
    _only(fields, {"resize", "crop", "interpolation", "mean", "std", "picture"}, f"pipeline {name}")
    numbers = {key: value for key, value in fields.items() if key != "picture"}
    return Pipeline(Preprocess(**numbers), fields.get("picture", ""))


def _entry(
    fields: Mapping[str, Any], pipelines: Mapping[str, Pipeline], labels: Mapping[str, list[str]]
) -> Entry:
    """One of the manifest's models."""
    values = dict(fields)
    name = values.get("name")
    what = f"model {name!r}"
    _only(values, REQUIRED | OPTIONAL, what)
    if missing := sorted(REQUIRED - set(values)):
        raise FormatError(f"{what} has no field {missing[0]!r}")
    _check_texts(values, what)
    names_of_classes = values.pop("labels", "imagenet")
    own = None if names_of_classes == "imagenet" else tuple(labels[names_of_classes])
    spec = replace(
        variant(name.partition(".")[0]),
        classes=1000 if own is None else len(own),
        eps=values.pop("eps", 1e-5),
    )
    urls = tuple(values.pop("urls"))
    file = values.pop("file", "") or (
        unquote(urlsplit(urls[0]).path).rpartition("/")[2] if urls else ""
    )
    if not re.fullmatch(r"[\w.-]*\w", file, re.ASCII) or file.startswith("."):
        raise FormatError(f"{what} has the file {file!r}; expected a plain name")
    scores = tuple(_score(score, pipelines, what) for score in values.pop("scores", ()))
    preprocess = pipelines[values["pipeline"]].preprocess
    values |= {"spec": spec, "urls": urls, "file": file, "labels": own, "scores": scores}
    return Entry(preprocess=preprocess, **values)


def _check_texts(values: Mapping[str, Any], what: str) -> None:
    """The fields whose form matters to what is done with them."""
    forms = {
        "name": r"\w+\.\w+",
        "sha256": r"[0-9a-f]{8,64}",
        "md5": r"[0-9a-f]{32}",
        "page": r"https://\S+",
        "hub": r"\w+/[\w.]+",
    }
    for key, form in forms.items():
        if key in values and not (
            isinstance(values[key], str) and re.fullmatch(form, values[key], re.ASCII)
        ):
            raise FormatError(f"{what} has the {key} {values[key]!r}; expected {form}")
    for url in values["urls"]:
        if not re.fullmatch(r"https://[\w.-]+/\S+", url, re.ASCII):
            raise FormatError(f"{what} has the url {url!r}; expected one that begins with https://")
    for key in ("bytes", "millions", "gmacs", "eps"):
        if key in values and not (isinstance(values[key], (int, float)) and 0 < values[key] < 1e11):
            raise FormatError(f"{what} has the {key} {values[key]!r}; expected a number above 0")


def _score(fields: Mapping[str, Any], pipelines: Mapping[str, Pipeline], what: str) -> Score:
    """One measurement."""
    _only(fields, Score._fields, f"a score of {what}")
    found = Score(fields["pipeline"], fields["top1"], fields.get("top5"), fields["by"])
    if found.pipeline not in pipelines or not 0 < found.top1 < (found.top5 or 100) <= 100:
        raise FormatError(
            f"{what} has the score {dict(fields)}; expected a known pipeline, and percents of which top-5 is higher"
        )
    return found
