"""The model file: one HDF5 file with all that decides a prediction, and digests of all of it.

::

    /                      attributes: format, format_version, spec, preprocess, labels, provenance,
                                       sha256, provenance_sha256
    /params/conv1/weight   attribute: sha256; data: float32 or float16, little-endian, in one piece,
                                       aligned to 64 bytes
    /params/bn1/weight ... one for each of ``parameters(spec)``; each dot of its name begins a group

All attributes are ASCII text; spec, preprocess, labels and provenance are JSON, written in one way
only, and divided after each 60,000 bytes: the rest is in labels.1, labels.2 and so on. `digest`
says what the digests cover, and `integers` what the file of a quantised model has besides.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..errors import FormatError, IntegrityError, ShapeError, UsageError, WeightsError
from ..network.plan.quantised import Quantisation, integer_parts
from ..network.resnext import parameters
from ..system.console import plain
from ..system.files import sha256_of, shown
from ..system.writing import replacing
from . import integers, places, reading
from .contents import Stored, documents_of, shapes_of
from .digest import FORMAT, Digests, model_digest, text_digest, value, version_of, widened
from .layout import lay_out, narrowed
from .reading import Check
from .weights import Weights

__all__ = ["Check", "Digests", "Report", "Stored", "check", "check_name", "check_tensors"]
__all__ += ["digests", "read", "read_any", "said_of", "write"]


@dataclass(frozen=True)
class Report:
    """The outcome of `check`; printed, it is a table.

    ``digests`` are the file's own, or None if it has none.
    """

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
        return "\n".join([shown(self.path), *map(plain, lines)])


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise `UsageError` unless a name has the ending of a model file."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise UsageError(f"the file to write is {path!r:.80}; give its name") from None
    suffix = os.path.splitext(name)[1]
    if suffix.lower() not in (".h5", ".hdf5"):
        raise UsageError(
            f"{name!r} ends in {suffix!r}; a model file ends in .h5 (tinyresnext export, and "
            "tinyresnext.export in Python, write .pth, .safetensors, .npz and .onnx)"
        )


def write(
    path: str | os.PathLike[str],
    stored: Stored,
    *,
    half: bool = False,
    allow_nonfinite: bool = False,
    quantisation: Quantisation | None = None,
) -> None:
    """Write a model file in one step: any failure leaves the old file, if there was one.

    What `read` would refuse is not written. The same HDF5 library writes equal models as equal
    bytes. Each tensor is asked for once, looked at and written before the next; so a mapping that
    reads them from a file needs memory for one.

    Parameters
    ----------
    path : path
        Its directory must exist.
    stored : Stored
        The order of ``params`` does not matter.
    half : bool
        Round the weights of convolutions and of the classifier to half precision, which halves the
        file. Tensors with one number for each channel stay as they are, and so does a tensor with
        values that are too large for half precision.
    allow_nonfinite : bool
        Write weights that are NaN or infinite; reading them takes the same argument.
    quantisation : Quantisation, optional
        Of a quantised model, whose weights are stored in 8 bits.

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
    documents, shapes = documents_of(stored, quantisation), _shapes(stored)
    in_bytes = () if quantisation is None else integer_parts(stored.spec).weights
    sha256: dict[str, str] = {}

    def tensors() -> Iterator[tuple[str, np.ndarray, str]]:
        for name, shape in shapes.items():
            array = _tensor(stored, name, shape)
            kept = narrowed(array) if half and name not in in_bytes else array
            values = value(name, kept)
            for problem in reading.wrong_values({name: values}, allow_nonfinite):
                raise IntegrityError(problem.found)
            sha256[name] = values.sha256
            if name in in_bytes:
                kept, scale = integers.integers_of(name, kept)
                beside = integers.scale_name(name)
                yield beside, scale, value(beside, scale).sha256
            yield name, kept, values.sha256
            del array, kept  # before the next is read

    attributes = {
        "format": FORMAT,
        "format_version": version_of(documents),
        **documents,
        "sha256": "0" * 64,  # until all tensors were looked at
        "provenance_sha256": text_digest(documents["provenance"]),
    }
    with replacing(path) as temporary:
        seal = partial(model_digest, documents, stored.spec, sha256)
        lay_out(temporary, attributes, tensors(), "sha256", seal)


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
        ``params`` are `Weights`, which refuse changes, and can free arrays and read them again.

    Raises
    ------
    FormatError
        No such file, not a model file, not of this version, or cut short; or a quantised model,
        which `read_any` reads.
    ShapeError
        Names, shapes or types of the tensors, or the number of labels, do not belong to the
        architecture.
    UnsafeError
        The file has links, other files' data or filters, or asks for much more memory than its
        size.
    IntegrityError
        A digest differs; a weight is NaN or infinite, or a variance negative.
    """
    stored, quantisation = read_any(path, allow_nonfinite=allow_nonfinite)
    if quantisation is not None:
        raise FormatError(
            f"{shown(path)}: a quantised model, whose weights are rounded to 8 bits, and float32 "
            "ones are needed here; use the model that it was made of"
        )
    return stored


def read_any(
    path: str | os.PathLike[str], *, allow_nonfinite: bool = False
) -> tuple[Stored, Quantisation | None]:
    """Read a model file as `read` does, also that of a quantised model, and how it is quantised."""
    with places.opened(path) as file:
        contents = reading.contents_of(file)
        kept, values = reading.tensors(file, contents)
        for problem in reading.problems(contents, values, allow_nonfinite):
            raise IntegrityError(problem.found)
    arrays = {name: widened(kept.pop(name)) for name in parameters(contents.spec)}
    params = Weights(arrays, path, contents.places)
    stored = Stored(
        contents.spec, params, contents.preprocess, contents.labels, contents.provenance
    )
    return stored, contents.quantisation


def said_of(path: str | os.PathLike[str]) -> tuple[dict[str, str], bool]:
    """Return the provenance in a model file, and whether weights of it are in half precision.

    The weights are not read.

    Raises
    ------
    WeightsError
        As `read` does, except for what is wrong with the weights.
    """
    with places.opened(path) as file:
        contents = reading.contents_of(file)
    return contents.provenance, any(one.dtype == "<f2" for one in contents.places.values())


def check(path: str | os.PathLike[str]) -> Report:
    """Check all that `read` checks; every fault is reported, and none raised."""
    done: list[Check] = []
    name = os.fspath(path)
    try:
        with places.opened(path) as file:
            found = f"{places.size_of(file):,} bytes, sha256 {sha256_of(file)}"
            done.append(Check("file", True, found))
            contents = reading.contents_of(file)
            done.append(Check("layout", True, reading.summary(contents)))
            _, values = reading.tensors(file, contents)
    except WeightsError as error:
        failed = Check("layout" if done else "file", False, str(error))
        return Report(name, (*done, failed), None)
    return Report(
        name, (*done, *reading.judged(contents, values)), reading.digests_of(contents, values)
    )


def digests(path: str | os.PathLike[str]) -> Digests:
    """Compute the digests of a model file from its content, whatever it states.

    Equal models have equal ones.

    Raises
    ------
    WeightsError
        As `read` does, except for digests and numbers that are wrong.
    """
    with places.opened(path) as file:
        contents = reading.contents_of(file)
        return reading.digests_of(contents, reading.tensors(file, contents)[1])


# -- writing


def check_tensors(stored: Stored) -> None:
    """Raise what `write` raises for tensors that `read` would refuse."""
    for name, shape in _shapes(stored).items():
        values = value(name, _tensor(stored, name, shape))
        for problem in reading.wrong_values({name: values}, False):
            raise IntegrityError(problem.found)


def _shapes(stored: Stored) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the architecture, if the tensors have its names."""
    shapes = shapes_of(stored.spec)
    if differing := sorted(shapes.keys() ^ stored.params.keys(), key=repr):
        what = f"{differing[0]!r} is {'missing' if differing[0] in shapes else 'not expected'}"
        raise ShapeError(
            f"{len(differing)} tensors are missing or unexpected for {stored.spec.name}; {what}"
        )
    return shapes


def _tensor(stored: Stored, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor as it lies in the file."""
    array = stored.params[name]
    if not isinstance(array, np.ndarray):
        found = type(array).__name__
    elif array.dtype != np.float32 or array.shape != shape:
        found = f"{array.dtype} {array.shape}"
    else:
        return np.ascontiguousarray(array, "<f4")
    raise ShapeError(f"{name} is {found}: {stored.spec.name} has float32 {shape}")
