"""The HDF5 file of features: made of the rows of a run, and compared with another run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ....data.trees.sources import Source
from ....errors import FormatError, UsageError
from ....store.sink import written
from ....system.files import as_utf8, regular, shown
from ....system.writing import replacing
from .journal import Journal
from .settings import as_json

if TYPE_CHECKING:
    from h5py import File

__all__ = ["assemble", "check_whole"]

CHUNK = 256 * 2**10  # bytes of a file of features that are read together
_NAMES = "images_sha256"  # of the names of all images, also of those that cannot be used


def assemble(
    path: str,
    kept: Journal,
    values: BinaryIO,
    shape: tuple[int, ...],
    attributes: Mapping[str, Any],
) -> None:
    """Write the HDF5 file from the rows of a run.

    Parameters
    ----------
    path : str
    kept : Journal
        The rows.
    values : binary file
        The features, one image after the other.
    shape : tuple of int
        Of the features of an image.
    attributes : mapping

    Raises
    ------
    UsageError
        It cannot be written, or another process has made it.
    """
    import h5py

    size = 4 * int(np.prod(shape))
    chunk = max(1, CHUNK // size)
    count = sum("error" not in json.loads(record) for record in kept.rows())

    def steps(out: File) -> Iterator[None]:
        names = out.create_dataset("paths", (count,), h5py.string_dtype("utf-8"))
        rows = out.create_dataset(
            "features", (count, *shape), "f4", maxshape=(None, *shape), chunks=(chunk, *shape)
        )
        yield
        values.seek(0)
        digest, block, first = hashlib.sha256(), list[bytes](), 0
        for record in kept.rows():
            row = json.loads(record)
            digest.update(json.dumps(row["path"]).encode() + b"\n")
            if "error" not in row:
                block.append(as_utf8(row["path"]).encode())
            if len(block) == chunk or (block and first + len(block) == count):
                data = np.frombuffer(values.read(len(block) * size), "<f4")
                names[first : first + len(block)] = block
                rows[first : first + len(block)] = data.reshape(len(block), *shape)
                first, block = first + len(block), []
                yield
        out.attrs.update({**attributes, _NAMES: digest.hexdigest()})

    with replacing(path) as temporary:
        written(temporary, steps)
        kept.check_free()  # last: until then it may have been made


def check_whole(path: str, asked: Mapping[str, Any], sources: Iterable[Source]) -> dict[str, int]:
    """Return the counts of a file, if it is what this run would make.

    Raises
    ------
    UsageError
        It is not.
    """
    import h5py

    try:
        with regular(path) as file, h5py.File(file, "r") as found:
            settings = json.loads(found.attrs["settings"])
            names = found.attrs[_NAMES]
            images, failed = int(found.attrs["images"]), int(found.attrs["failed"])
    except (FormatError, OSError, KeyError, ValueError, TypeError):
        settings, names, images, failed = None, None, 0, 0
    digest = hashlib.sha256()
    for source in sources:
        digest.update(json.dumps(source.name).encode() + b"\n")
    if settings != as_json(asked) or names != digest.hexdigest():
        raise UsageError(
            f"{shown(path)} is whole, and was made of other images or with other settings; give "
            "another name, or --force to write over it"
        )
    return {"before": images, "done": images, "failed": failed}
