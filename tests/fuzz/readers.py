"""The readers of files from elsewhere, each as a function of bytes, with small seeds."""

from __future__ import annotations

import atexit
import functools
import io
import json
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
import onnx_files
import tar_checkpoints
import training_cases as small

from tinyresnext import Preprocess, Spec
from tinyresnext.checkpoints.beside import config, processor
from tinyresnext.checkpoints.onnx.steps import graph_of
from tinyresnext.checkpoints.readers import container
from tinyresnext.data.pixels.mnist import open_idx
from tinyresnext.formats.image.orientation import orientation
from tinyresnext.formats.npy import read_array
from tinyresnext.formats.onnx.model import read_model
from tinyresnext.formats.onnx.wire import Source
from tinyresnext.formats.pickle.arrays import uint8_arrays
from tinyresnext.formats.pickle.machine import load
from tinyresnext.formats.pickle.names import CHECKPOINT
from tinyresnext.formats.stored_zip.archive import open_archive, read_whole
from tinyresnext.formats.stored_zip.reader import read_members
from tinyresnext.formats.tar import read_tar
from tinyresnext.images import files
from tinyresnext.images.decode import decode
from tinyresnext.network.resnext import parameters
from tinyresnext.store import store
from tinyresnext.system.files import regular
from tinyresnext.training.record import state as training_state
from tinyresnext.training.weights import size

SPEC = Spec((1,), 1, 4, 2)


FEW_PIXELS = 1 << 18  # so many are decoded in a millisecond


class Reader(NamedTuple):
    """What reads bytes, and the function that makes its seeds, each of which it can read."""

    read: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


@functools.cache
def _folder() -> Path:
    """Return a folder in memory, where the system has such folders."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="tinyresnext-fuzz-", dir=base)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def from_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """Return a reader of bytes that writes them to a file first, which stays open."""

    @functools.cache
    def opened() -> tuple[Path, int]:
        path = Path(tempfile.mkdtemp(dir=_folder())) / name
        return path, os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)

    def of_bytes(data: bytes) -> object:
        path, file = opened()
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        return read(path)

    return of_bytes


def _decoded(data: bytes) -> object:
    """Decode an image of few pixels, so that memory and time are those of the rest."""
    usual, files.MAX_PIXELS = files.MAX_PIXELS, FEW_PIXELS
    try:
        return decode(data)
    finally:
        files.MAX_PIXELS = usual


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
    path = _folder() / "seed.h5"
    store.write(path, store.Stored(SPEC, params, Preprocess(), ("a", "b"), {"source": "here"}))
    return [path.read_bytes()]


def _checked(path: Path) -> object:
    """Read a model; what is not right is a report and not an error."""
    return store.check(path).passed


def _state_seeds() -> list[bytes]:
    spec = Spec((1,), 1, 2, 2, stem="cifar", expansion=1)
    state = training_state.new(spec, small.RECIPE, np.ones(size(spec), np.float32))
    path = _folder() / "seed.npz"
    training_state.write(path, state)
    return [path.read_bytes()]


def _idx(path: Path) -> object:
    labels = path.with_name("train-labels-idx1-ubyte")
    labels.write_bytes(data_files.idx(np.zeros(2, np.uint8)))
    return open_idx(path.parent, "train")


def _image(*seeds: bytes) -> Reader:
    return Reader(_decoded, lambda: list(seeds))


def _checkpoint_seeds() -> list[bytes]:
    arrays = {"a.weight": np.ones((2, 3), np.float32), "b": np.arange(3)}
    found = [cases.checkpoint(arrays, legacy=legacy) for legacy in (True, False)]
    return [*found, tar_checkpoints.Tar().build()]


def _index(path: Path) -> object:
    part = path.with_name("model-00001-of-00001.safetensors")
    part.write_bytes(foreign_files.safe_file(ARRAYS))
    return container.read(path)


def _index_seed() -> bytes:
    part = "model-00001-of-00001.safetensors"
    return json.dumps(
        {"metadata": {"total_size": 32}, "weight_map": dict.fromkeys(ARRAYS, part)}
    ).encode()


def _config_seed() -> bytes:
    """Return a config.json with everything that is looked at."""
    inner = {"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bilinear"}
    inner |= {"mean": [0.5, 0.5, 0.5], "std": [1, 1, 1], "license": "mit", "crop_mode": "center"}
    labels = {"label_names": ["n01440764", "b"], "label_descriptions": {"n01440764": "a"}}
    outer = {"architecture": "resnext50_32x4d", "num_classes": 2, "model_args": {"in_chans": 3}}
    return json.dumps(outer | labels | {"pretrained_cfg": inner}).encode()


def _processor_seed() -> bytes:
    """Return a preprocessor_config.json with everything that is looked at."""
    sides = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
    flags = {"do_center_crop": True, "do_normalize": True, "resample": 3, "rescale_factor": 1 / 255}
    colours = {"image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1]}
    return json.dumps(sides | flags | colours | {"image_processor_type": "Bit"}).encode()


def _quantised() -> object:
    files = cases.torch_files
    rows = files.tensor(np.ones(2)), files.tensor(np.zeros(2, np.int64))
    store = files.Storage(np.arange(6, dtype=np.int8), "QInt8")
    return files.View(store, 0, (2, 3), (3, 1), quantiser=("per_channel_affine", *rows, 0))


def _onnx(path: Path) -> object:
    """Read the messages of a graph and make steps of them; the weights are read in the tests."""
    with regular(path) as file:
        source = Source(file)
        return graph_of(source, read_model(source), lambda tensor: iter(()))


def _onnx_seeds() -> list[bytes]:
    of = onnx_files
    weights = [
        of.field(5, of.field(1, shape) + of.field(2, 1) + of.field(8, name) + of.field(9, b"1234"))
        for name, shape in ((b"w", b"\1\1\1\1"), (b"b", b"\1"), (b"m", b"\1\1"))
    ]
    nodes = [
        of.node("Conv", ["x", "w", "b"], "y", strides=[1, 1], group=1),
        of.node("Relu", ["y"], "z"),
        of.node("GlobalAveragePool", ["z"], "p"),
        of.node("Flatten", ["p"], "r", axis=1),
        of.node("Gemm", ["r", "m", "b"], "o", alpha=1.0, transB=1),
    ]
    floats = of.field(2, of.field(1, of.field(1, 1)))  # the type: a tensor of float32
    ends = [of.field(11, of.field(1, b"x") + floats), of.field(12, of.field(1, b"o"))]
    graph = of.field(7, b"".join(nodes + weights + ends))
    return [of.field(1, 8) + graph + of.field(8, of.field(2, 17))]


ARRAYS = {"a.weight": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}
READERS = {
    "zip": Reader(
        _images_zip,
        lambda: [
            _zipped({"a/1.png": b"x" * 50, "b/é.png": b"y"}),
            _zipped({"a/1.png": b"x" * 50, "c/": b""}, zipfile.ZIP_STORED),
        ],
    ),
    "npz": Reader(_npz, _npz_seeds),
    "tar": Reader(lambda data: read_tar(io.BytesIO(data), {"a", "b"}), _tar_seeds),
    "pickle": Reader(
        lambda data: load(io.BytesIO(data), CHECKPOINT, persistent_load=lambda pid: pid),
        lambda: [pickle.dumps({"a": [1, 2.5, "x", (True, None)], "b": {}}, 2)],
    ),
    "arrays in a pickle": Reader(
        lambda data: load(io.BytesIO(data), uint8_arrays(1 << 20)),
        lambda: [pickle.dumps({"data": np.ones((2, 3), np.uint8), "labels": [0, 1]}, 2)],
    ),
    "orientation": Reader(lambda data: orientation(data, data), lambda: [odd.exif(6), odd.xmp(6)]),
    "checkpoint": Reader(from_file(container.read, "weights"), _checkpoint_seeds),
    "paddle": Reader(
        from_file(container.read, "weights"),
        lambda: [pickle.dumps({**ARRAYS, "x@@": {"a.weight": "p"}}, p) for p in (2, 4)],
    ),
    "quantised": Reader(
        from_file(container.read, "weights"),
        lambda: [cases.torch_files.legacy_file({"a.b": _quantised()})],
    ),
    "index": Reader(from_file(_index, "model.safetensors.index.json"), lambda: [_index_seed()]),
    "config": Reader(
        from_file(lambda path: config.read(path.with_name("weights")), "config.json"),
        lambda: [_config_seed()],
    ),
    "processor": Reader(
        from_file(lambda path: processor.preprocessing(path.parent), processor.FILE),
        lambda: [_processor_seed()],
    ),
    "safetensors": Reader(
        from_file(container.read, "weights"), lambda: [foreign_files.safe_file(ARRAYS)]
    ),
    "torch7": Reader(from_file(container.read, "weights"), lambda: [foreign_files.torch7_file()]),
    "keras": Reader(from_file(container.read, "weights"), lambda: [foreign_files.keras_file()]),
    "onnx": Reader(from_file(_onnx, "weights"), _onnx_seeds),
    "model": Reader(from_file(_checked, "model.h5"), _model_seeds),
    "state": Reader(from_file(training_state.read, "state.npz"), _state_seeds),
    "idx": Reader(
        from_file(_idx, "train-images-idx3-ubyte"),
        lambda: [data_files.idx(np.ones((2, 3, 3), np.uint8))],
    ),
    "jpeg": _image(heavy_images.PLAIN, heavy_images.SCANS, heavy_images.RESTARTS),
    "png": _image(heavy_images.PNG),
    "gif": _image(heavy_images.GIF),
    "webp": _image(
        heavy_images.WEBP,
        heavy_images.riff(
            heavy_images.MOVING, heavy_images.piece(b"ANIM", bytes(6)), heavy_images.FRAME
        ),
    ),
    "tiff and bmp": _image(odd.saved(odd.smooth(8, 8), "TIFF"), odd.saved(odd.smooth(8, 8), "BMP")),
}
