"""Writing the HDF5 of a model file.

The HDF5 library writes model files, and never reads them: a forged file can crash it, or make it
load programs. `places` reads them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .sink import written

if TYPE_CHECKING:
    import h5py

__all__ = ["lay_out", "narrowed", "path_of", "split"]

PIECE = 60_000  # bytes of one attribute; the format has room for 64 KB of name, type and value
LARGEST_HALF = 65504  # the largest number of half precision


def path_of(name: str) -> str:
    """Return where in the file a parameter is."""
    return "params/" + name.replace(".", "/")


def split(name: str, text: str) -> dict[str, str]:
    """Divide a text among attributes: ``labels``, ``labels.1``, ``labels.2`` ..."""
    return {
        f"{name}.{at // PIECE}" if at else name: text[at : at + PIECE]
        for at in range(0, len(text), PIECE)
    }


def narrowed(array: np.ndarray) -> np.ndarray:
    """Return a kernel or matrix in half precision, unless a value is too large or not finite."""
    largest, least = array.max(initial=0), array.min(initial=0)
    fits = largest <= LARGEST_HALF and least >= -LARGEST_HALF  # neither is true of a NaN
    return array.astype("<f2") if array.ndim > 1 and fits else array


def lay_out(
    path: str | os.PathLike[str],
    attributes: Mapping[str, str],
    tensors: Iterable[tuple[str, np.ndarray, str]],
    last: str,
    seal: Callable[[], str],
) -> None:
    """Write into the file at ``path`` in the oldest and simplest form of HDF5.

    Parameters
    ----------
    path : path
        An empty file.
    attributes : mapping of str to str
        A text longer than `PIECE` becomes several: ``labels``, ``labels.1``, ``labels.2`` ...
    tensors : iterable of (name, array, sha256)
        Arrays of float32 or float16; each is written before the next is asked for.
    last : str
        The attribute whose text is known only behind the last tensor; the text that it has in
        ``attributes`` must be as long.
    seal : callable
        Returns that text.

    Raises
    ------
    OSError
        The file cannot be written.
    """

    def steps(file: h5py.File) -> Iterator[None]:
        for name, text in attributes.items():
            for key, piece in split(name, text).items():
                file.attrs.create(key, np.bytes_(piece.encode("ascii")))
        yield
        for name, array, sha256 in tensors:
            dataset = file.create_dataset(path_of(name), data=array, track_times=False)
            dataset.attrs.create("sha256", np.bytes_(sha256.encode("ascii")))
            del array  # before the next is read
            yield
        file.attrs.modify(last, np.bytes_(seal().encode("ascii")))

    written(path, steps, libver="earliest", alignment_threshold=1, alignment_interval=64)
