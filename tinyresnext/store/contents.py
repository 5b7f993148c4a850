"""What a model is, and how everything but its weights becomes JSON and is understood again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import FormatError, ShapeError, UnsafeError
from ..images.preprocess import Preprocess
from ..network.plan.quantised import Quantisation
from ..network.resnext import parameters
from ..network.spec import Spec
from . import integers

__all__ = [
    "DOCUMENTS",
    "Stored",
    "documents_of",
    "json_text",
    "json_value",
    "meanings",
    "quantisation_of",
    "shapes_of",
]

DOCUMENTS = ("spec", "preprocess", "labels", "provenance")  # the attributes that are JSON
# Bytes of all tensors, a part of the rule at `places._place`. The largest published ResNeXt,
# 32x48d, has 3.3 GB.
MOST_WEIGHTS = 16 << 30
MOST_JSON = 1 << 16  # bytes of a document
MOST_LABELS, MOST_LABEL = 10 << 20, 256  # bytes of all labels, and for each class
MOST_SCALE = 128  # bytes of a scale, beside `MOST_JSON`: an architecture can have 24,000
LABEL = re.compile(r'"(?:[^"\\]|\\.)*+"(?:,(?=")|\]\Z)')  # a label and what follows it
# Labels and provenance are shown on terminals: no control characters, lone surrogates,
# invisible characters, or reversed direction of text.
UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ud800-\udfff"
    "\ufeff\U000e0000-\U000e007f]"
)


class Stored(NamedTuple):
    """What a model file holds.

    Parameters
    ----------
    spec : Spec
    params : mapping of str to array
        Float32, named and shaped as `tinyresnext.network.resnext.parameters` says. `store.write`
        accepts any order and any strides; `store.read` returns C-contiguous arrays in that order.
    preprocess : Preprocess
    labels : tuple of str
        One for each class; two for a single output under a sigmoid.
    provenance : dict of str to str
        Where the weights come from, for people; `source`, `url`, `sha256` (of the file they were
        converted from), `licence` and `converter` are the usual entries. None decides a prediction.
    """

    spec: Spec
    params: Mapping[str, np.ndarray]
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]


def documents_of(stored: Stored, quantisation: Quantisation | None = None) -> dict[str, str]:
    """Return the four JSON texts, after checking that reading them yields the same again.

    Those of a quantised model are five.
    """
    try:
        labels, provenance = tuple(stored.labels), dict(stored.provenance)
        values = (stored.spec.to_json(), stored.preprocess.to_json(), list(labels), provenance)
        documents = {name: json_text(value) for name, value in zip(DOCUMENTS, values, strict=True)}
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"labels and provenance must be plain text: {error}") from error
    if meanings(documents) != (stored.spec, stored.preprocess, labels, provenance):
        raise FormatError(
            "labels or provenance would be read as something else; use str for every key and value"
        )
    if quantisation is not None:
        documents[integers.DOCUMENT] = json_text(integers.value_of(quantisation))
        quantisation_of(documents, stored.spec)
    return documents


def quantisation_of(documents: Mapping[str, str], spec: Spec) -> Quantisation | None:
    """Return how a model is quantised; None if it is not.

    Raises
    ------
    FormatError, UnsafeError
        The text is not JSON as tinyresnext writes it, is too long, or has a value that is wrong.
    """
    if integers.DOCUMENT not in documents:
        return None
    most = MOST_JSON + MOST_SCALE * len(integers.parts_of(spec).values)
    text = documents[integers.DOCUMENT]
    return integers.meaning(json_value(integers.DOCUMENT, text, most), spec)


def meanings(
    documents: Mapping[str, str],
) -> tuple[Spec, Preprocess, tuple[str, ...], dict[str, str]]:
    """Return the meaning of the four JSON texts: architecture, preprocessing, labels, provenance.

    Raises
    ------
    FormatError, ShapeError, UnsafeError
        A text is not JSON as tinyresnext writes it, is too long, or has a value that is wrong.
    """
    spec = Spec.from_json(json_value("spec", documents["spec"]))
    preprocess = Preprocess.from_json(json_value("preprocess", documents["preprocess"]))
    labels = json_labels(documents["labels"], spec.labels)
    provenance = json_value("provenance", documents["provenance"])
    if not isinstance(provenance, dict):
        raise FormatError(
            f"provenance is a {type(provenance).__name__}, expected a JSON object; save the model "
            "again"
        )
    for text in (*labels, *provenance, *provenance.values()):
        if not isinstance(text, str) or UNSHOWABLE.search(text):
            raise FormatError(
                f"{text!r:.80} is in labels or provenance: expected text without control characters"
            )
    return spec, preprocess, tuple(labels), provenance


def shapes_of(spec: Spec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the parameters.

    Raises
    ------
    UnsafeError
        They would have more bytes than any model.
    """
    shapes = parameters(spec)
    size = 4 * sum(map(math.prod, shapes.values()))
    if size > MOST_WEIGHTS:
        raise UnsafeError(
            f"{spec.name} has {size:,} bytes of weights; expected at most {MOST_WEIGHTS:,}"
        )
    return shapes


def json_text(value: Any) -> str:
    """Return a value as JSON, always in the same form."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def json_value(name: str, text: str, most: int = MOST_JSON) -> Any:
    """Understand the JSON text of an attribute.

    A text must be short, because its meaning can take thirty times its memory.
    """
    if len(text) > most:
        raise UnsafeError(
            f"the attribute {name} has {len(text):,} bytes, expected at most {most:,}; write less "
            "into it"
        )
    try:
        value = json.loads(text)
        as_written = json_text(value) == text
    except (ValueError, RecursionError) as error:
        raise FormatError(f"the attribute {name} is not JSON that we write: {error}") from None
    # So no key stands twice, and what was compared by digest is what is understood.
    if not as_written:
        raise FormatError(
            f"the attribute {name} has JSON in another form than tinyresnext writes; save the "
            "model again"
        )
    return value


def json_labels(text: str, classes: int) -> list[str]:
    """Return the labels, which are counted before they are understood."""
    if not classes and text == "[]":
        return []
    count, at = 0, 1
    while count <= classes and (label := LABEL.match(text, at)):
        count, at = count + 1, label.end()
    if text[0] != "[" or (at != len(text) and count <= classes):
        raise FormatError(
            "labels is not a JSON array of texts as tinyresnext writes it; save the model again"
        )
    if count != classes:
        raise ShapeError(
            f"there are {count}{' or more' * (count > classes)} labels for {classes} classes; "
            "write one label for each class"
        )
    return json_value("labels", text, min(MOST_JSON + MOST_LABEL * classes, MOST_LABELS))
