"""Reading ``weights/manifest.toml``, the list of the published models."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import FormatError, UsageError
from ..images.preprocess import Preprocess
from ..network.spec import variant
from .entry import Entry, Pipeline, Score

__all__ = ["parse"]

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
_FORMS = {
    "name": r"\w+\.\w+",
    "sha256": r"[0-9a-f]{8,64}",
    "md5": r"[0-9a-f]{32}",
    "page": r"https://\S+",
    "hub": r"\w+/[\w.]+",
}


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
                f"the manifest is of format {document['format']!r}, expected 1; install "
                "tinyresnext again"
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
            f"the manifest has two entries called {', '.join(sorted(twice))}; install tinyresnext "
            "again"
        )
    return found, pipelines


def _only(fields: Mapping[str, Any], allowed: Collection[str], what: str) -> None:
    """Raise `FormatError` for a field that nothing reads: it is probably misspelt."""
    if unknown := sorted(set(fields) - set(allowed)):
        raise FormatError(
            f"{what} has the unknown field {unknown[0]!r}; expected {', '.join(sorted(allowed))}"
        )


def _pipeline(name: str, fields: Mapping[str, Any]) -> Pipeline:
    """Return one of the manifest's pipelines."""
    numbers = {"resize", "crop", "interpolation", "mean", "std"}
    texts = {"picture", "measured"}
    _only(fields, numbers | texts, f"pipeline {name}")
    preprocess = Preprocess(**{key: fields[key] for key in numbers & fields.keys()})
    return Pipeline(preprocess, **{key: fields[key] for key in texts & fields.keys()})


def _entry(
    fields: Mapping[str, Any], pipelines: Mapping[str, Pipeline], labels: Mapping[str, list[str]]
) -> Entry:
    """Return one of the manifest's models."""
    values = dict(fields)
    what = f"model {values.get('name')!r}"
    _only(values, REQUIRED | OPTIONAL, what)
    if missing := sorted(REQUIRED - set(values)):
        raise FormatError(f"{what} has no field {missing[0]!r}")
    _check_texts(values, what)
    names_of_classes = values.pop("labels", "imagenet")
    own = None if names_of_classes == "imagenet" else tuple(labels[names_of_classes])
    spec = replace(
        variant(values["name"].partition(".")[0]),
        classes=1000 if own is None else len(own),
        eps=values.pop("eps", 1e-5),
    )
    urls = tuple(values.pop("urls"))
    last = unquote(urlsplit(urls[0]).path).rpartition("/")[2] if urls else ""
    file = values.pop("file", "") or last
    if not re.fullmatch(r"[\w.-]*\w", file, re.ASCII) or file.startswith("."):
        raise FormatError(f"{what} has the file {file!r}; expected a plain name")
    scores = tuple(_score(score, pipelines, what) for score in values.pop("scores", ()))
    preprocess = pipelines[values["pipeline"]].preprocess
    values |= {"spec": spec, "urls": urls, "file": file, "labels": own, "scores": scores}
    return Entry(preprocess=preprocess, **values)


def _check_texts(values: Mapping[str, Any], what: str) -> None:
    """Check the fields whose form matters to what is done with them."""
    for key, form in _FORMS.items():
        if key not in values:
            continue
        if not isinstance(values[key], str) or not re.fullmatch(form, values[key], re.ASCII):
            raise FormatError(f"{what} has the {key} {values[key]!r}; expected {form}")
    for url in values["urls"]:
        if not re.fullmatch(r"https://[\w.-]+/\S+", url, re.ASCII):
            raise FormatError(f"{what} has the url {url!r}; expected one that begins with https://")
    for key in ("bytes", "millions", "gmacs", "eps"):
        if key in values and not (isinstance(values[key], (int, float)) and 0 < values[key] < 1e11):
            raise FormatError(f"{what} has the {key} {values[key]!r}; expected a number above 0")


def _score(fields: Mapping[str, Any], pipelines: Mapping[str, Pipeline], what: str) -> Score:
    """Return one measurement."""
    _only(fields, {"pipeline", "top1", "top5", "by"}, f"a score of {what}")
    found = Score(fields["pipeline"], fields["top1"], fields.get("top5"), fields["by"])
    if found.pipeline not in pipelines or not 0 < found.top1 < (found.top5 or 100) <= 100:
        raise FormatError(
            f"{what} has the score {dict(fields)}; expected a known pipeline, and percents of "
            "which top-5 is higher"
        )
    return found._replace(measured=pipelines[found.pipeline].measured)
