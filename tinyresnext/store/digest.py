"""The digests of a model, and the pass over its values that computes them.

``sha256`` of a model covers architecture, preprocessing, labels and every tensor's name, shape and
digest; that of a tensor covers its values as float32, however they are stored. So models that
predict the same have the same digests, wherever their weights came from. A digest finds damage; it
is no signature. Who forges a file can forge its digests too, so compare ``sha256`` with a
published one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..network.resnext import parameters
from ..network.spec import Spec
from . import integers
from .contents import DOCUMENTS, json_text

__all__ = [
    "FORMAT",
    "QUANTISED",
    "VERSION",
    "Digests",
    "Values",
    "model_digest",
    "text_digest",
    "value",
    "version_of",
    "widened",
]

FORMAT, VERSION = "tinyresnext", "1"
QUANTISED = "2"  # the version of a quantised model's file
PIECE = 1 << 19  # numbers of a tensor that are looked at together


class Digests(NamedTuple):
    """SHA-256 in hexadecimal: of everything that decides a prediction, and of each tensor."""

    model: str
    tensors: dict[str, str]


class Values(NamedTuple):
    """Summary of a tensor's values."""

    sha256: str
    nonfinite: int
    negative: int  # variances below zero, of which batch norm would take the root


def text_digest(text: str) -> str:
    """Return the digest of a text."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def model_digest(documents: Mapping[str, str], spec: Spec, sha256: Mapping[str, str]) -> str:
    """Return the digest of everything that decides a prediction; the provenance does not.

    Parameters
    ----------
    documents : mapping of str to str
        The JSON texts of `contents.DOCUMENTS`, and that of a quantisation if there is one.
    spec : Spec
    sha256 : mapping of str to str
        The digest of each tensor.
    """
    decides = {name: documents[name] for name in DOCUMENTS if name != "provenance"}
    decides |= {name: documents[name] for name in (integers.DOCUMENT,) if name in documents}
    tensors = [[name, "<f4", shape, sha256[name]] for name, shape in parameters(spec).items()]
    described = {"format": FORMAT, "format_version": version_of(documents), "tensors": tensors}
    return text_digest(json_text(decides | described))


def version_of(documents: Mapping[str, str]) -> str:
    """Return the version of the file that has these documents."""
    return QUANTISED if integers.DOCUMENT in documents else VERSION


def value(name: str, array: np.ndarray) -> Values:
    """Hash and check a tensor as float32, piece by piece."""
    digest, nonfinite, negative, row = hashlib.sha256(), 0, 0, array.reshape(-1)
    for at in range(0, len(row), PIECE):
        piece = widened(row[at : at + PIECE]).astype("<f4", copy=False)
        digest.update(piece.data)
        nonfinite += len(piece) - int(np.count_nonzero(np.isfinite(piece)))
        negative += int(np.count_nonzero(piece < 0)) if name.endswith("running_var") else 0
    return Values(digest.hexdigest(), nonfinite, negative)


def widened(array: np.ndarray) -> np.ndarray:
    """Return the array as float32, which has every number of half precision too."""
    # a signalling NaN becomes a quiet one, and is found like any other
    with np.errstate(invalid="ignore"):
        return array.astype(np.float32, copy=False)
