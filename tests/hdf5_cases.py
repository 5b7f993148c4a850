"""A good model file, and what `hostile_hdf5`, `hostile_texts` and `forged_hdf5` share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from tinyresnext.errors import TinyResNeXtError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.store import digest, layout, store

SPEC = Spec((1, 1), cardinality=2, width=8, classes=3, stem="cifar", expansion=1)
CONV, SCALE, SHIFT, VARIANCE = (
    "params/conv1/weight",
    "params/bn1/weight",
    "params/bn1/bias",
    "bn1.running_var",
)
SECRET = b"the secret of another file " * 1000


class Case(NamedTuple):
    change: Callable[[Path], None]
    error: type[TinyResNeXtError]
    says: str


def model(seed: int = 0) -> store.Stored:
    """A small network with random weights."""
    rng = np.random.default_rng(seed)
    params = {name: rng.random(shape, dtype=np.float32) for name, shape in parameters(SPEC).items()}
    return store.Stored(
        SPEC,
        params,
        Preprocess(),
        ("cat", "dög", "snow leopard"),
        {"source": "a test", "licence": "none"},
    )


def file_bytes(path: Path, *, half: bool = False) -> bytes:
    """The bytes of that network's file, which is written at ``path``."""
    store.write(path, model(), half=half)
    return path.read_bytes()


def same(a: store.Stored, b: store.Stored) -> bool:
    """Whether two models are equal to the last bit, and in order."""
    if a._replace(params={}) != b._replace(params={}) or list(a.params) != list(b.params):
        return False
    pairs = [(a.params[name], b.params[name]) for name in a.params]
    return all(
        x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs
    )


def case(
    cases: dict[str, Case], name: str, error: type[TinyResNeXtError], says: str = ""
) -> Callable:
    """Enter a function that changes the bytes at a path."""

    def enter(change: Callable[[Path], None]) -> Callable[[Path], None]:
        assert name not in cases
        cases[name] = Case(change, error, says)
        return change

    return enter


def edit(
    cases: dict[str, Case],
    name: str,
    error: type[TinyResNeXtError],
    says: str = "",
    libver: Any = "earliest",
) -> Callable:
    """Enter a function that changes the file through HDF5."""

    def enter(change: Callable[[h5py.File], None]) -> Callable:
        def in_place(path: Path) -> None:
            with h5py.File(path, "r+", libver=libver) as file:
                change(file)

        case(cases, name, error, says)(in_place)
        return change

    return enter


def number(value: int) -> bytes:
    """An address or a length."""
    return (value % (1 << 64)).to_bytes(8, "little")


def beside(file: h5py.File, name: str) -> str:
    """The path of another file in the same directory."""
    return str(Path(file.filename).with_name(name))


def secret(file: h5py.File) -> str:
    """A file that must not be read."""
    path = Path(beside(file, "secret"))
    path.write_bytes(SECRET)
    return str(path)


def put(file: h5py.File, name: str, data: Any = None, **options: Any) -> h5py.Dataset:
    """Put a dataset in the place of another, with the digest of the one that was there."""
    digest, old = file[name].attrs["sha256"], file[name][()]
    del file[name]
    if data is None and "shape" not in options:
        data = old
    dataset = file.create_dataset(name, data=data, **options)
    dataset.attrs["sha256"] = np.bytes_(digest)
    return dataset


def set_text(file: h5py.File, name: str, text: str) -> None:
    """Change an attribute and the digests to fit, so that only understanding the text finds it."""
    texts = {key: bytes(value).decode() for key, value in file.attrs.items()} | {name: text}
    tensors = {
        key: bytes(file[f"params/{key.replace('.', '/')}"].attrs["sha256"]).decode()
        for key in parameters(SPEC)
    }
    texts["sha256"] = digest.model_digest(texts, SPEC, tensors)
    texts["provenance_sha256"] = hashlib.sha256(texts["provenance"].encode()).hexdigest()
    for key, value in texts.items():
        for piece, part in layout.split(key, value).items():
            file.attrs[piece] = np.bytes_(part.encode())


def low_level(
    file: h5py.File, name: str, plan: h5p.PropDCID, kind: h5t.TypeID = h5t.IEEE_F32LE
) -> None:
    """Replace a dataset of 64 values by one of another making."""
    plan.set_obj_track_times(False)
    digest = file[name].attrs["sha256"]
    del file[name]
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple((64,)), plan)
    h5py.Dataset(dataset).attrs["sha256"] = np.bytes_(digest)
