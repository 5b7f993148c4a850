"""Writing the HDF5 of a model file.

The HDF5 library writes model files, and never reads them: a forged file can crash it, or make it
load programs. `places` reads them.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

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


class _Sink(io.FileIO):
    """The file that the library writes to.

    The library crashes some time after a write that fails, so it never sees the failure; `lay_out`
    raises it.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write everything, or note why not."""
        rest = memoryview(data).cast("B")
        try:
            while rest and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or note why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


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
    import h5py  # here, because reading a model file does without it

    def write() -> None:
        with h5py.File(
            sink,
            "w",
            libver="earliest",
            locking=False,
            alignment_threshold=1,
            alignment_interval=64,
        ) as file:
            for name, text in attributes.items():
                for key, piece in split(name, text).items():
                    file.attrs.create(key, np.bytes_(piece.encode("ascii")))
            for name, array, sha256 in tensors:
                if sink.failure is not None:
                    return
                dataset = file.create_dataset(path_of(name), data=array, track_times=False)
                dataset.attrs.create("sha256", np.bytes_(sha256.encode("ascii")))
                del array  # before the next is read
            file.attrs.modify(last, np.bytes_(seal().encode("ascii")))

    # Ctrl-C reaches the main thread alone, and so never the library in the middle of a write.
    with _Sink(path, "r+") as sink, ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(write).result()
        except (OSError, RuntimeError) as error:
            raise sink.failure or OSError(str(error)) from error
        except KeyboardInterrupt:
            sink.failure = InterruptedError()  # the next tensor is not begun
            raise
        if sink.failure is not None:
            raise sink.failure
