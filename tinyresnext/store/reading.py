"""Reading a model file step by step: what it says of itself, then its numbers, then every fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import prod
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import FormatError, UnsafeError
from ..formats.hdf5.form import AGAIN
from ..images.preprocess import Preprocess
from ..network.plan.quantised import Quantisation
from ..network.resnext import parameters
from ..network.spec import Spec
from . import integers, places
from .contents import DOCUMENTS, json_value, meanings, quantisation_of, shapes_of
from .digest import FORMAT, QUANTISED, VERSION, Digests, Values, model_digest, text_digest, value
from .places import Place

__all__ = [
    "Check",
    "Contents",
    "contents_of",
    "digests_of",
    "judged",
    "problems",
    "summary",
    "tensors",
    "wrong_values",
]

ATTRIBUTES = ("format", "format_version", *DOCUMENTS, "sha256", "provenance_sha256")


class Check(NamedTuple):
    """One thing that was checked: its name, the outcome, and what was found."""

    name: str
    passed: bool
    found: str


class Contents(NamedTuple):
    """What a file says of itself, its attributes (``texts``), and where its tensors are."""

    spec: Spec
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]
    texts: dict[str, str]
    places: dict[str, Place]
    quantisation: Quantisation | None


def contents_of(file: BinaryIO) -> Contents:
    """Read everything but the weights.

    Raises
    ------
    FormatError, ShapeError, UnsafeError
        As for `store.read`.
    """
    hdf5 = places.structure(file)
    for name, known in {"format": (FORMAT,), "format_version": (VERSION, QUANTISED)}.items():
        expected = " or ".join(map(repr, known))
        if (found := bytes(hdf5.root.attributes.get(name, b""))).decode("latin-1") not in known:
            other = (
                "no model of tinyresnext"
                if name == "format"
                else "not of a version that this tinyresnext knows"
            )
            raise FormatError(
                f"an HDF5 file, but {other}: {name} is {found!r:.80}, expected {expected}; "
                "convert it again"
            )
    quantised = (integers.DOCUMENT,) if found == QUANTISED.encode() else ()
    texts = places.texts(hdf5.root.attributes, (*ATTRIBUTES, *quantised), "the file")
    spec, size = Spec.from_json(json_value("spec", texts["spec"])), places.size_of(file)
    shapes = shapes_of(spec)
    # A part of the rule at `places._place`; half precision has two bytes a value, int8 one.
    if (needed := (1 if quantised else 2) * sum(map(prod, shapes.values()))) > size:
        raise UnsafeError(
            f"{spec.name} has {needed:,} bytes of weights or more, but the file {size:,}; {AGAIN}"
        )
    scales = {}
    if quantised:
        shapes |= integers.shapes_of_scales(spec)
        scales = {name: integers.scale_name(name) for name in integers.parts_of(spec).weights}
    found_places = places.places(hdf5, shapes, scales)
    del hdf5  # and with it the bytes that the texts were made of
    return Contents(*meanings(texts), texts, found_places, quantisation_of(texts, spec))


def tensors(file: BinaryIO, contents: Contents) -> tuple[dict[str, np.ndarray], dict[str, Values]]:
    """Read every tensor once, in the file's precision, and examine what was read."""
    shapes = parameters(contents.spec)
    if contents.quantisation is not None:
        shapes = shapes | integers.shapes_of_scales(contents.spec)
    # While this thread reads the next tensor: hashing does not hold the interpreter.
    with ThreadPoolExecutor(2) as pool:
        kept, found = {}, {}
        for name, shape in shapes.items():
            kept[name] = places.read(file, contents.places[name], shape, name)
            found[name] = pool.submit(value, name, kept[name])
        return kept, {name: future.result() for name, future in found.items()}


def digests_of(contents: Contents, values: Mapping[str, Values]) -> Digests:
    """Return the digests of what was read, as opposed to those that the file states."""
    sha256 = {name: one.sha256 for name, one in values.items()}
    return Digests(model_digest(contents.texts, contents.spec, sha256), sha256)


def wrong_values(values: Mapping[str, Values], allow_nonfinite: bool) -> Iterator[Check]:
    """Yield a failed check for each tensor with numbers that no weights should have."""
    for name, one in values.items():
        if one.nonfinite and not allow_nonfinite:
            found = f"{name} has {one.nonfinite} values that are NaN or infinite; use other weights"
            yield Check("values", False, found)
        if one.negative:
            found = f"{name} has {one.negative} negative variances; use other weights"
            yield Check("values", False, found)


def problems(
    contents: Contents, values: Mapping[str, Values], allow_nonfinite: bool
) -> Iterator[Check]:
    """Yield a failed check for everything that is wrong in a file that is laid out well."""
    texts, stated = contents.texts, {name: place.sha256 for name, place in contents.places.items()}
    model, provenance = model_digest(texts, contents.spec, stated), text_digest(texts["provenance"])
    pairs = [
        ("model", "the model", model, texts["sha256"]),
        ("provenance", "the provenance", provenance, texts["provenance_sha256"]),
    ]
    pairs += [("digests", name, one.sha256, stated[name]) for name, one in values.items()]
    for name, what, found, expected in pairs:
        if found != expected:
            text = (
                f"{what} has the sha256 {found}, but {expected!r:.80} is stated; the file was "
                f"changed or damaged, {AGAIN}"
            )
            yield Check(name, False, text)
    yield from wrong_values(values, allow_nonfinite)


def summary(contents: Contents) -> str:
    """Return what the file has, in a line."""
    count = sum(map(prod, parameters(contents.spec).values()))
    halves = sum(place.dtype == "<f2" for place in contents.places.values())
    bytes = sum(place.dtype == "|i1" for place in contents.places.values())
    kept = f", {halves} of the tensors in half precision" if halves else ""
    kept += f", {bytes} of the tensors in int8" if bytes else ""
    return f"{contents.spec.name}: {len(contents.places)} tensors, {count:,} values{kept}"


def judged(contents: Contents, values: Mapping[str, Values]) -> list[Check]:
    """Return the checks of what is in a file that is laid out well."""
    side, classes = contents.preprocess.crop, len(contents.labels)
    stated = ", ".join(contents.provenance)
    fine = {
        "model": f"sha256 {contents.texts['sha256']}; {classes} labels, images of {side} x {side}",
        "provenance": f"{stated} (`tinyresnext info` prints it)" if stated else "none is stated",
        "digests": "each tensor is what was written",
        "values": "all are finite, and no variance is negative",
    }
    wrong = list(problems(contents, values, False))
    checks = []
    for name, found in fine.items():
        texts = [problem.found for problem in wrong if problem.name == name]
        more = f" (and {len(texts) - 3} more)" if len(texts) > 3 else ""
        checks.append(Check(name, not texts, "; ".join(texts[:3]) + more or found))
    return checks
