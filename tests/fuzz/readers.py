"""The readers of files from elsewhere, each as a function of bytes, with small seeds."""

from __future__ import annotations

import atexit
import functools
import io
import os
import pickle
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parents[1])]  # the tests make the seeds
import cases
import data_files
import foreign_files
import heavy_images
import numpy as np
import odd_images as odd
import training_cases as small

from tinyresnext import Preprocess, Spec
from tinyresnext.checkpoints.readers import container
from tinyresnext.data.mnist import open_idx
from tinyresnext.formats.image.orientation import orientation
from tinyresnext.formats.npy import read_array
from tinyresnext.formats.pickle.arrays import uint8_arrays
from tinyresnext.formats.pickle.machine import load
from tinyresnext.formats.pickle.names import CHECKPOINT
from tinyresnext.formats.stored_zip.archive import open_archive, read_whole
from tinyresnext.formats.stored_zip.reader import read_members
from tinyresnext.formats.tar import read_tar
from tinyresnext.images.decode import decode
from tinyresnext.images.files import MAX_PIXELS
from tinyresnext.network.resnext import parameters
from tinyresnext.store import store
from tinyresnext.training.record import state as training_state
from tinyresnext.training.weights import size

SPEC = Spec((1,), 1, 4, 2)


class Reader(NamedTuple):
    """What reads, the function that makes its seeds, and how many inputs the slow stage gives it.

    The numbers are those of at most ten seconds of processor time. ``memory`` and
    ``seconds`` are what an input may take beyond its bytes.
    """

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    count: int
    memory: int = 64 << 20
    seconds: float = 1.0


@functools.cache
def _place(name: str) -> Path:
    """Return a file in memory, where the system has such files."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="tinyresnext-fuzz-", dir=base)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder) / name


def from_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """Return a reader of bytes that writes them to a file first."""

    def of_bytes(data: bytes) -> object:
        path = _place(name)
        path.write_bytes(data)
        return read(path)

    return of_bytes


def _images_zip(data: bytes) -> object:
    file = io.BytesIO(data)
    archive = open_archive(file)
    places = [at for folder in archive.folders.values() for at in folder.files.values()]
    return [read_whole(file, archive, at, 1 << 20) for at in places[:20]]


def _npz(data: bytes) -> object:
    file = io.BytesIO(data)
    return [
        read_array(file, member, name)
        for name, member in read_members(file, deflated=True).items()
        if member.size < 1 << 20
    ]


def _zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def _npz_seeds() -> list[bytes]:
    found = []
    for write in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        write(file, a=np.arange(12.0).reshape(3, 4), b=np.float32(2), c=np.arange(5) > 2)
        found.append(file.getvalue())
    return found


def _tar_seeds() -> list[bytes]:
    import tarfile

    found = []
    for mode in ("w", "w:gz"):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for name in ("x/a", "x/b"):
                info = tarfile.TarInfo(name)
                info.size = 20
                archive.addfile(info, io.BytesIO(bytes(range(20))))
        found.append(file.getvalue())
    return found


def _model_seeds() -> list[bytes]:
    params = {name: np.ones(shape, np.float32) for name, shape in parameters(SPEC).items()}
    path = _place("seed.h5")
    store.write(path, store.Stored(SPEC, params, Preprocess(), ("a", "b"), {"source": "here"}))
    return [path.read_bytes()]


def _checked(path: Path) -> object:
    """Read a model; what is not right is a report and not an error."""
    return store.check(path).passed


def _state_seeds() -> list[bytes]:
    spec = Spec((1,), 1, 2, 2, stem="cifar", expansion=1)
    state = training_state.new(spec, small.RECIPE, np.ones(size(spec), np.float32))
    path = _place("seed.npz")
    training_state.write(path, state)
    return [path.read_bytes()]


def _idx(path: Path) -> object:
    labels = path.with_name("train-labels-idx1-ubyte")
    labels.write_bytes(data_files.idx(np.zeros(2, np.uint8)))
    return open_idx(path.parent, "train")


def _image(count: int, *seeds: bytes) -> Reader:
    """Return the reader of an image, which may take memory for the pixels that a header states."""
    return Reader(decode, lambda: list(seeds), count, 16 * MAX_PIXELS, 20.0)


def _checkpoint_seeds() -> list[bytes]:
    arrays = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(3)}
    return [cases.checkpoint(arrays, legacy=legacy) for legacy in (True, False)]


ARRAYS = {"a.weight": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}
READERS = {
    "zip": Reader(
        _images_zip,
        lambda: [
            _zipped({"a/1.png": b"x" * 50, "b/é.png": b"y"}),
            _zipped({"a/1.png": b"x" * 50, "c/": b""}, zipfile.ZIP_STORED),
        ],
        100_000,
    ),
    "npz": Reader(_npz, _npz_seeds, 100_000),
    "tar": Reader(lambda data: read_tar(io.BytesIO(data), {"a", "b"}), _tar_seeds, 80_000),
    "pickle": Reader(
        lambda data: load(io.BytesIO(data), CHECKPOINT, persistent_load=lambda pid: pid),
        lambda: [pickle.dumps({"a": [1, 2.5, "x", (True, None)], "b": {}}, 2)],
        100_000,
    ),
    "arrays in a pickle": Reader(
        lambda data: load(io.BytesIO(data), uint8_arrays(1 << 20)),
        lambda: [pickle.dumps({"data": np.ones((2, 3), np.uint8), "labels": [0, 1]}, 2)],
        100_000,
    ),
    "orientation": Reader(
        lambda data: orientation(data, data), lambda: [odd.exif(6), odd.xmp(6)], 100_000
    ),
    "checkpoint": Reader(from_file(container.read, "weights"), _checkpoint_seeds, 45_000),
    "safetensors": Reader(
        from_file(container.read, "weights"), lambda: [foreign_files.safe_file(ARRAYS)], 70_000
    ),
    "torch7": Reader(
        from_file(container.read, "weights"), lambda: [foreign_files.torch7_file()], 40_000
    ),
    "keras": Reader(
        from_file(container.read, "weights"), lambda: [foreign_files.keras_file()], 35_000
    ),
    "model": Reader(from_file(_checked, "model.h5"), _model_seeds, 35_000),
    "state": Reader(from_file(training_state.read, "state.npz"), _state_seeds, 45_000),
    "idx": Reader(
        from_file(_idx, "train-images-idx3-ubyte"),
        lambda: [data_files.idx(np.ones((2, 3, 3), np.uint8))],
        25_000,
    ),
    "jpeg": _image(20_000, heavy_images.PLAIN, heavy_images.SCANS, heavy_images.RESTARTS),
    "png": _image(100_000, heavy_images.PNG),
    "gif": _image(50_000, heavy_images.GIF),
    "webp": _image(
        12_000,
        heavy_images.WEBP,
        heavy_images.riff(
            heavy_images.MOVING, heavy_images.piece(b"ANIM", bytes(6)), heavy_images.FRAME
        ),
    ),
    "tiff and bmp": _image(
        80_000, odd.saved(odd.smooth(8, 8), "TIFF"), odd.saved(odd.smooth(8, 8), "BMP")
    ),
}
