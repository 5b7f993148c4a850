"""The model file: one HDF5 file with everything that decides a prediction, and digests of all of it.

::

    /                      attributes: format, format_version, spec, preprocess, labels, provenance,
                                       sha256, provenance_sha256
    /params/conv1/weight   attribute: sha256; data: float32 or float16, little-endian, in one piece, aligned to 64 bytes
    /params/bn1/weight ... one for each of ``parameters(spec)``, the dots of its name made into groups

All attributes are ASCII text; spec, preprocess, labels and provenance are JSON, written in one way
only, and cut after each 60,000 bytes: what follows is in labels.1, labels.2 and so on. ``sha256``
covers the first five attributes and every tensor's name, shape and digest; that of a tensor covers
its values as float32, however they are stored. So models that predict the same have the same
digests, wherever their weights came from. A digest finds damage; it is no signature. Whoever forges
a file can forge its digests too, so compare ``sha256`` with a published one.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from ..errors import FormatError, IntegrityError, ShapeError, UnsafeError, WeightsError
from ..images.preprocess import Preprocess
from ..network.resnext import parameters
from ..network.spec import Spec
from ..system.files import replacing
from . import layout as store_file
from .layout import json_labels, json_text, json_value

__all__ = ["Check", "Digests", "Report", "Stored", "check", "digests", "read", "write"]

FORMAT, VERSION = "tinyresnext", "1"
DOCUMENTS = ("spec", "preprocess", "labels", "provenance")  # the attributes that are JSON
ATTRIBUTES = ("format", "format_version", *DOCUMENTS, "sha256", "provenance_sha256")
PIECE = 1 << 19  # numbers of a tensor that are looked at together
MOST_WEIGHTS = 16 << 30  # bytes of all tensors; the largest published ResNeXt, 32x48d, has 3.3 GB
# Labels and provenance are shown on terminals: no control characters, lone surrogates, marks that
# nobody sees, or reversed direction of text.
UNSHOWABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ud800-\udfff\ufeff\U000e0000-\U000e007f]"
)


class Stored(NamedTuple):
    """What a model file has.

    Parameters
    ----------
    spec : Spec
    params : mapping of str to array
        Float32, C-contiguous, named, shaped and ordered as `tinyresnext.network.resnext.parameters`
        says.
    preprocess : Preprocess
    labels : tuple of str
        One for each class.
    provenance : dict of str to str
        Where the weights come from, for people; `source`, `url`, `sha256` (of the file they were
        converted from), `licence` and `converter` are the usual entries. None decides a prediction.
    """

    spec: Spec
    params: Mapping[str, np.ndarray]
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]


class Digests(NamedTuple):
    """SHA-256 in hexadecimal: of everything that decides a prediction, and of each tensor's bytes."""

    model: str
    tensors: dict[str, str]


class Check(NamedTuple):
    """One thing that was checked: its name, the outcome, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Report:
    """The outcome of `check`; printed, it is a table. ``digests`` are the file's own, or None where it has none."""

    path: str
    checks: tuple[Check, ...]
    digests: Digests | None

    @property
    def passed(self) -> bool:
        """Whether `read` accepts the file."""
        return all(one.passed for one in self.checks)

    def __str__(self) -> str:
        lines = [
            f"{'ok' if one.passed else 'FAILED':8}{one.name:14}{one.found}" for one in self.checks
        ]
        return "\n".join([self.path, *lines])


class _Contents(NamedTuple):
    """What a file says of itself, and where its tensors are."""

    spec: Spec
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]
    texts: dict[str, str]  # the attributes
    places: dict[str, store_file.Place]


class _Values(NamedTuple):
    """What there is to say about the bytes of a tensor."""

    sha256: str
    nonfinite: int
    negative: int  # variances below zero, of which batch norm would take the root


def write(
    path: str | os.PathLike[str],
    stored: Stored,
    *,
    half: bool = False,
    allow_nonfinite: bool = False,
) -> None:
    """Write a model file in one step: on any failure the old file, if there was one, is still there.

    What `read` would refuse is not written. The same HDF5 library writes equal models as equal
    bytes. Each tensor is asked for once, looked at and written before the next; so a mapping that
    reads them from a file needs room for one.

    Parameters
    ----------
    path : path
        Its directory must exist.
    stored : Stored
        The order of ``params`` does not matter.
    half : bool
        Round the weights of convolutions and of the classifier to half precision, which halves the
        file; what there is one of for each channel stays as it is, and so does a tensor with values
        that half precision has no room for.
    allow_nonfinite : bool
        Write weights that are NaN or infinite; reading them takes the same word.

    Raises
    ------
    ShapeError
        Names, shapes or types of the tensors, or the number of labels, do not belong to ``spec``.
    IntegrityError
        A weight is NaN or infinite, or a variance negative.
    FormatError
        A label or an entry of the provenance cannot be stored.
    UsageError
        The file cannot be written: no such directory, no permission, no space.
    """
    documents, shapes = _documents(stored), _shapes(stored.spec)
    if differing := sorted(shapes.keys() ^ stored.params.keys(), key=repr):
        what = f"{differing[0]!r} is {'missing' if differing[0] in shapes else 'not expected'}"
        raise ShapeError(
            f"{len(differing)} tensors are missing or too much for {stored.spec.name}; {what}"
        )
    sha256: dict[str, str] = {}

    def tensors() -> Iterator[tuple[str, np.ndarray, str]]:
        for name, shape in shapes.items():
            array = _tensor(stored, name, shape)
            kept = store_file.narrowed(array) if half else array
            value = _value(name, kept)
            for problem in _wrong_values({name: value}, allow_nonfinite):
                raise IntegrityError(problem.found)
            sha256[name] = value.sha256
            yield name, kept, value.sha256
            del array, kept  # before the next is read

    attributes = {
        "format": FORMAT,
        "format_version": VERSION,
        **documents,
        "sha256": "0" * 64,
    }  # until all were looked at
    attributes["provenance_sha256"] = _sha256(documents["provenance"])
    with replacing(path) as temporary:
        seal = partial(_model_digest, documents, stored.spec, sha256)
        store_file.lay_out(temporary, attributes, tensors(), "sha256", seal)


def read(path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> Stored:
    """Read a model file, every digest checked.

    Parameters
    ----------
    path : path
    allow_nonfinite : bool
        Accept weights that are NaN or infinite.

    Returns
    -------
    Stored
        The arrays are the caller's own.

    Raises
    ------
    FormatError
        No such file, not a model file, not of this version, or cut short.
    ShapeError
        Names, shapes or types of the tensors, or the number of labels, do not belong to the
        architecture.
    UnsafeError
        The file has links, other files' data or filters, or asks for much more memory than its
        size.
    IntegrityError
        A digest differs; a weight is NaN or infinite, or a variance negative.
    """
    with store_file.opened(path) as file:
        contents = _contents(file)
        kept, values = _tensors(file, contents)
        for problem in _problems(contents, values, allow_nonfinite):
            raise IntegrityError(problem.found)
    params = {name: store_file.widened(kept.pop(name)) for name in values}
    return Stored(contents.spec, params, contents.preprocess, contents.labels, contents.provenance)


def check(path: str | os.PathLike[str]) -> Report:
    """Check all that `read` checks; what is wrong is reported, all of it, rather than raised."""
    done: list[Check] = []
    try:
        with store_file.opened(path) as file:
            size, whole = store_file.size_of(file), hashlib.file_digest(file, "sha256").hexdigest()
            done.append(Check("file", True, f"{size:,} bytes, sha256 {whole}"))
            contents = _contents(file)
            count = sum(map(math.prod, parameters(contents.spec).values()))
            halves = sum(place.dtype == "<f2" for place in contents.places.values())
            kept = f", {halves} of the tensors in half precision" if halves else ""
            done.append(
                Check(
                    "layout",
                    True,
                    f"{contents.spec.name}: {len(contents.places)} tensors, {count:,} values{kept}",
                )
            )
            _, values = _tensors(file, contents)
    except WeightsError as error:
        return Report(
            os.fspath(path), (*done, Check("layout" if done else "file", False, str(error))), None
        )
    side, classes = contents.preprocess.crop, len(contents.labels)
    fine = {
        "model": f"sha256 {contents.texts['sha256']}; {classes} labels, pictures of {side} x {side}",
        "provenance": ", ".join(f"{key}: {text}" for key, text in contents.provenance.items())
        or "none is stated",
        "digests": "each tensor is what was written",
        "values": "all are finite, and no variance is negative",
    }
    wrong = list(_problems(contents, values, False))
    for name, found in fine.items():
        texts = [problem.found for problem in wrong if problem.name == name]
        more = f" (and {len(texts) - 3} more)" if len(texts) > 3 else ""
        done.append(Check(name, not texts, "; ".join(texts[:3]) + more or found))
    return Report(os.fspath(path), tuple(done), _digests(contents, values))


def digests(path: str | os.PathLike[str]) -> Digests:
    """Compute the digests of a model file from what is in it, whatever it states; equal models have equal ones.

    Raises
    ------
    WeightsError
        As `read` does, but for digests and numbers that are wrong.
    """
    with store_file.opened(path) as file:
        contents = _contents(file)
        return _digests(contents, _tensors(file, contents)[1])


def _documents(stored: Stored) -> dict[str, str]:
    """The four JSON texts, after making sure that reading them gives the same again."""
    try:
        labels, provenance = tuple(stored.labels), dict(stored.provenance)
        values = (stored.spec.to_json(), stored.preprocess.to_json(), list(labels), provenance)
        documents = {name: json_text(value) for name, value in zip(DOCUMENTS, values, strict=True)}
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"labels and provenance must be plain text: {error}") from error
    if _meanings(documents) != (stored.spec, stored.preprocess, labels, provenance):
        raise FormatError(
            "labels or provenance would be read as something else; use str for every key and value"
        )
    return documents


def _meanings(
    documents: Mapping[str, str],
) -> tuple[Spec, Preprocess, tuple[str, ...], dict[str, str]]:
    """Understand the four JSON texts."""
    spec, preprocess = (
        kind.from_json(json_value(name, documents[name]))
        for name, kind in (("spec", Spec), ("preprocess", Preprocess))
    )
    labels, provenance = (
        json_labels(documents["labels"], spec.classes),
        json_value("provenance", documents["provenance"]),
    )
    if not isinstance(provenance, dict):
        raise FormatError(
            f"provenance is a {type(provenance).__name__}, expected a JSON object; save the model again"
        )
    for text in (*labels, *provenance, *provenance.values()):
        if not isinstance(text, str) or UNSHOWABLE.search(text):
            raise FormatError(
                f"{text!r:.80} is in labels or provenance: expected text without control characters"
            )
    return spec, preprocess, tuple(labels), provenance


def _shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The shapes of the parameters, if that many can be."""
    shapes = parameters(spec)
    size = 4 * sum(map(math.prod, shapes.values()))
    if size > MOST_WEIGHTS:
        raise UnsafeError(
            f"{spec.name} has {size:,} bytes of weights; expected at most {MOST_WEIGHTS:,}"
        )
    return shapes


def _tensor(stored: Stored, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor as it lies in the file."""
    array = stored.params[name]
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
        found = (
            f"{array.dtype} {array.shape}"
            if isinstance(array, np.ndarray)
            else type(array).__name__
        )
        raise ShapeError(f"{name} is {found}: {stored.spec.name} has float32 {shape}")
    return np.ascontiguousarray(array, "<f4")


def _sha256(text: str) -> str:
    """The digest of a text."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _model_digest(documents: Mapping[str, str], spec: Spec, sha256: Mapping[str, str]) -> str:
    """The digest over everything that decides a prediction; the provenance does not."""
    decides = {name: documents[name] for name in DOCUMENTS if name != "provenance"}
    tensors = [[name, "<f4", shape, sha256[name]] for name, shape in parameters(spec).items()]
    return _sha256(
        json_text(decides | {"format": FORMAT, "format_version": VERSION, "tensors": tensors})
    )


def _digests(contents: _Contents, values: Mapping[str, _Values]) -> Digests:
    """What the digests are, as opposed to what is stated."""
    sha256 = {name: value.sha256 for name, value in values.items()}
    return Digests(_model_digest(contents.texts, contents.spec, sha256), sha256)


def _value(name: str, array: np.ndarray) -> _Values:
    """Hash and look through a tensor as float32, piece by piece."""
    digest, nonfinite, negative, row = hashlib.sha256(), 0, 0, array.reshape(-1)
    for at in range(0, len(row), PIECE):
        piece = store_file.widened(row[at : at + PIECE]).astype("<f4", copy=False)
        digest.update(piece)
        nonfinite += len(piece) - int(np.count_nonzero(np.isfinite(piece)))
        negative += int(np.count_nonzero(piece < 0)) if name.endswith("running_var") else 0
    return _Values(digest.hexdigest(), nonfinite, negative)


def _wrong_values(values: Mapping[str, _Values], allow_nonfinite: bool) -> Iterator[Check]:
    """What no weights should be."""
    for name, value in values.items():
        if value.nonfinite and not allow_nonfinite:
            yield Check(
                "values",
                False,
                f"{name} has {value.nonfinite} values that are NaN or infinite; use other weights",
            )
        if value.negative:
            yield Check(
                "values",
                False,
                f"{name} has {value.negative} negative variances; use other weights",
            )


def _problems(
    contents: _Contents, values: Mapping[str, _Values], allow_nonfinite: bool
) -> Iterator[Check]:
    """Everything that is wrong in a file that is laid out well."""
    texts, stated = contents.texts, {name: place.sha256 for name, place in contents.places.items()}
    pairs = [("model", "the model", _model_digest(texts, contents.spec, stated), texts["sha256"])]
    pairs.append(
        ("provenance", "the provenance", _sha256(texts["provenance"]), texts["provenance_sha256"])
    )
    pairs += [("digests", name, value.sha256, stated[name]) for name, value in values.items()]
    for check_name, what, found, expected in pairs:
        if found != expected:
            again = f"the file was changed or damaged, {store_file.AGAIN}"
            yield Check(
                check_name,
                False,
                f"{what} has the sha256 {found}, but {expected!r:.80} is stated; {again}",
            )
    yield from _wrong_values(values, allow_nonfinite)


def _contents(file: io.FileIO) -> _Contents:
    """Everything but the weights."""
    hdf5 = store_file.structure(file)
    for name, expected in {"format": FORMAT, "format_version": VERSION}.items():
        if (found := bytes(hdf5.root.attributes.get(name, b""))) != expected.encode():
            other = (
                "no model of tinyresnext"
                if name == "format"
                else "not of a version that this tinyresnext knows"
            )
            raise FormatError(
                f"an HDF5 file, but {other}: {name} is {found!r:.80}, expected {expected!r}; convert it again"
            )
    texts = store_file.texts(hdf5.root.attributes, ATTRIBUTES, "the file")
    spec, size = Spec.from_json(json_value("spec", texts["spec"])), store_file.size_of(file)
    shapes = _shapes(spec)
    if (needed := 2 * sum(map(math.prod, shapes.values()))) > size:
        raise UnsafeError(
            f"{spec.name} has {needed:,} bytes of weights or more, but the file {size:,}; {store_file.AGAIN}"
        )
    places = store_file.places(hdf5, shapes)
    del hdf5  # and with it the bytes that the texts were made of
    return _Contents(*_meanings(texts), texts, places)


def _tensors(
    file: io.FileIO, contents: _Contents
) -> tuple[dict[str, np.ndarray], dict[str, _Values]]:
    """Read every tensor, once and in the precision that the file has, and examine what was read."""
    kept = {
        name: np.empty(shape, contents.places[name].dtype)
        for name, shape in parameters(contents.spec).items()
    }
    with ThreadPoolExecutor(
        2
    ) as pool:  # while this thread reads the next: hashing does not hold the interpreter
        found = {}
        for name, array in kept.items():
            store_file.read_into(file, contents.places[name], array)
            found[name] = pool.submit(_value, name, array)
        return kept, {name: future.result() for name, future in found.items()}
