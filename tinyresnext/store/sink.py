"""Have the HDF5 library write a file, so that a full disk is an error and not a crash."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py

__all__ = ["written"]


class _Sink(io.FileIO):
    """The file that the library writes to.

    The library crashes some time after a write that fails, so it never sees the failure; `written`
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


def written(
    path: str | os.PathLike[str], steps: Callable[[h5py.File], Iterator[None]], **options: Any
) -> None:
    """Have the library write the file at ``path``.

    Parameters
    ----------
    path : path
        An empty file.
    steps : callable
        Is given the open file, in another thread, and returns an iterator: each item stands for
        something that was written. It is not asked for more after a write that failed.
    options
        As for `h5py.File`.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import h5py  # here, because reading a model file does without it

    def write() -> None:
        with h5py.File(sink, "w", locking=False, **options) as file:
            for _ in steps(file):
                if sink.failure is not None:
                    return

    # Ctrl-C reaches the main thread alone, and so never the library in the middle of a write.
    with _Sink(path, "r+") as sink, ThreadPoolExecutor(1) as pool:
        try:
            pool.submit(write).result()
        except (OSError, RuntimeError) as error:
            raise sink.failure or OSError(str(error)) from error
        except KeyboardInterrupt:
            sink.failure = InterruptedError()  # the next step is not begun
            raise
        if sink.failure is not None:
            raise sink.failure
