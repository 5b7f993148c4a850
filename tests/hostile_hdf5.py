"""Model files that must be refused, made one by one from a good one; and seeded damage to it.

Each case is a function that changes the good file at ``path``; ``CASES`` has them with the error that each must cause.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z

from tinyresnext import store, store_file
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, TinyResNeXtError, UnsafeError
from tinyresnext.image import Preprocess
from tinyresnext.resnext import parameters
from tinyresnext.spec import Spec

SPEC = Spec((1, 1), cardinality=2, width=8, classes=3, stem="cifar", expansion=1)
CONV, SCALE, SHIFT, VARIANCE = "params/conv1/weight", "params/bn1/weight", "params/bn1/bias", "bn1.running_var"
SECRET = b"the secret of another file " * 1000


class Case(NamedTuple):
    change: Callable[[Path], None]
    error: type[TinyResNeXtError]
    says: str


def model(seed: int = 0) -> store.Stored:
    """A small network with random weights."""
    rng = np.random.default_rng(seed)
    params = {name: rng.random(shape, dtype=np.float32) for name, shape in parameters(SPEC).items()}
    return store.Stored(SPEC, params, Preprocess(), ("cat", "dög", "snow leopard"), {"source": "a test", "licence": "none"})


CASES: dict[str, Case] = {}


def case(name: str, error: type[TinyResNeXtError], says: str = "") -> Callable:
    """Enter a function that changes the bytes at a path."""

    def enter(change: Callable[[Path], None]) -> Callable[[Path], None]:
        assert name not in CASES
        CASES[name] = Case(change, error, says)
        return change

    return enter


def edit(name: str, error: type[TinyResNeXtError], says: str = "") -> Callable:
    """Enter a function that changes the file through HDF5."""

    def enter(change: Callable[[h5py.File], None]) -> Callable:
        def in_place(path: Path) -> None:
            with h5py.File(path, "r+", libver=("v108", "latest")) as file:
                change(file)

        case(name, error, says)(in_place)
        return change

    return enter


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
    """Change an attribute, and the digests so that they fit: only understanding the text can find it."""
    texts = {key: bytes(value).decode() for key, value in file.attrs.items()} | {name: text}
    tensors = {key: bytes(file[f"params/{key.replace('.', '/')}"].attrs["sha256"]).decode() for key in parameters(SPEC)}
    texts["sha256"] = store._model_digest(texts, SPEC, tensors)
    texts["provenance_sha256"] = hashlib.sha256(texts["provenance"].encode()).hexdigest()
    for key, value in texts.items():
        file.attrs[key] = np.bytes_(value.encode())


# Other files


@edit("H-external-storage-secret", UnsafeError, "not stored plainly")
def _(file):
    put(file, CONV, shape=file[CONV].shape, dtype="<f4", external=[(secret(file), 0, file[CONV].nbytes)])


@edit("H-external-storage-passwd", UnsafeError, "not stored plainly")
def _(file):
    put(file, SCALE, shape=(64,), dtype="<f4", external=[("/etc/passwd", 0, 256)])


@edit("H-external-storage-relative", UnsafeError, "not stored plainly")
def _(file):
    put(file, SCALE, shape=(64,), dtype="<f4", external=[("../../secret", 0, h5py.h5f.UNLIMITED)])


for place, at in {"leaf": CONV, "intermediate": "params/layer1", "deep": "params/layer1/0", "top": "params"}.items():

    @edit(f"H-external-link-{place}", UnsafeError, "link to elsewhere")
    def _(file, at=at):
        with h5py.File(beside(file, "other.h5"), "w") as other:
            file.copy("params", other)
        del file[at]
        file[at] = h5py.ExternalLink("other.h5", at)


@edit("H-virtual-dataset", UnsafeError, "not stored plainly")
def _(file):
    with h5py.File(beside(file, "other.h5"), "w") as other:
        other["x"] = file[SCALE][()]
    layout = h5py.VirtualLayout((64,), "<f4")
    layout[:] = h5py.VirtualSource(beside(file, "other.h5"), "x", (64,))
    digest = file[SCALE].attrs["sha256"]
    del file[SCALE]
    file.create_virtual_dataset(SCALE, layout).attrs["sha256"] = np.bytes_(digest)


# Links within the file

for place, at, to in [
    ("leaf", SHIFT, "/" + SCALE),
    ("intermediate", "params/layer2", "/params/layer1"),
    ("dangling", SCALE, "/nothing"),
    ("top", "params", "/"),
]:

    @edit(f"H-soft-link-{place}", UnsafeError, "link to elsewhere")
    def _(file, at=at, to=to):
        del file[at]
        file[at] = h5py.SoftLink(to)


@edit("H-soft-link-loop", UnsafeError, "link to elsewhere")
def _(file):
    del file["params/layer1"]
    file["params/layer1"] = h5py.SoftLink("/params/layer1")


@edit("H-hard-link-cycle", ShapeError, "members")
def _(file):
    del file["params/layer1/0"]
    file["params/layer1/0"] = file["params"]


@edit("H-hard-link-to-root", FormatError, "8 attributes, expected none")
def _(file):
    del file["params/layer1"]
    file["params/layer1"] = file["/"]


@edit("H-hard-link-alias", UnsafeError, "lies across")
def _(file):
    del file[SHIFT]
    file[SHIFT] = file[SCALE]


@edit("H-hard-link-more", ShapeError, "'again'")
def _(file):
    file["again"] = file[SCALE]


# Storage: memory beyond the file's size, filters, pieces


@edit("H-shape-bomb-4TB", ShapeError, "has the shape")
def _(file):
    put(file, SCALE, shape=(2**40,), dtype="<f4")


@edit("H-shape-bomb-2^63", ShapeError, "has the shape")
def _(file):
    put(file, SCALE, shape=(2**61 - 1,), dtype="<f4")


@edit("H-spec-bomb", UnsafeError, "expected at most")
def _(file):
    set_text(file, "spec", store._json(replace(SPEC, blocks=(1000,) * 8, cardinality=4096, width=4096).to_json()))


@edit("H-spec-larger-than-the-file", UnsafeError, "of weights, but the file")
def _(file):
    set_text(file, "spec", store._json(replace(SPEC, blocks=(3, 4), width=64).to_json()))


@edit("H-nothing-stored", UnsafeError, "bytes stored")
def _(file):
    put(file, SCALE, shape=(64,), dtype="<f4")


@edit("H-gzip-bomb", UnsafeError, "not stored plainly")
def _(file):
    put(file, SCALE, np.zeros(10_000_000, "<f4"), compression="gzip", compression_opts=9)


for name, options in {
    "gzip": {"compression": "gzip"},
    "lzf": {"compression": "lzf"},
    "shuffle": {"shuffle": True},
    "fletcher32": {"fletcher32": True},
    "scaleoffset": {"scaleoffset": 3},
    "chunked": {"chunks": (16,)},
    "unlimited": {"maxshape": (None,)},
}.items():

    @edit(f"H-stored-{name}", UnsafeError, "not stored plainly")
    def _(file, options=options):
        put(file, SCALE, **options)


def low_level(file: h5py.File, name: str, plan: h5p.PropDCID, kind: h5t.TypeID = h5t.IEEE_F32LE) -> None:
    """Replace a dataset of 64 values by one of another making."""
    digest = file[name].attrs["sha256"]
    del file[name]
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple((64,)), plan)
    h5py.Dataset(dataset).attrs["sha256"] = np.bytes_(digest)


@edit("H-stored-compact", UnsafeError, "not stored plainly")
def _(file):
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_layout(h5d.COMPACT)
    low_level(file, SCALE, plan)


@edit("H-unknown-filter", UnsafeError, "not stored plainly")
def _(file):
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_chunk((64,))
    plan.set_filter(32768 + 1234, h5z.FLAG_OPTIONAL, (1, 2, 3))
    low_level(file, SCALE, plan)


# Types


def float_with(exponent_bias: int) -> h5t.TypeID:
    """A 4-byte float that is not IEEE's."""
    kind = h5t.IEEE_F32LE.copy()
    kind.set_ebias(exponent_bias)
    return kind


KINDS: dict[str, Any] = {
    "f64": "<f8",
    "f16": "<f2",
    "f32-big-endian": ">f4",
    "i32": "<i4",
    "u32": "<u4",
    "bool-enum": "?",
    "complex": "<c8",
    "compound": np.dtype([("a", "<f4")]),
    "array": np.dtype(("<f4", (1,))),
    "opaque": np.dtype("V4"),
    "string": "S4",
    "string-of-any-length": h5py.string_dtype(),
    "list-of-any-length": h5py.vlen_dtype(np.dtype("<f4")),
    "reference": h5py.ref_dtype,
    "region-reference": h5py.regionref_dtype,
    "enum": h5py.enum_dtype({"a": 0, "b": 1}, basetype="<i4"),
}
for name, kind in KINDS.items():

    @edit(f"H-dtype-{name}", ShapeError, "not of type float32")
    def _(file, kind=kind):
        low_level(file, SCALE, h5p.create(h5p.DATASET_CREATE), h5t.py_create(np.dtype(kind), logical=True))


@edit("H-dtype-f32-of-another-bias", ShapeError, "not of type float32")
def _(file):
    low_level(file, SCALE, h5p.create(h5p.DATASET_CREATE), float_with(126))


@edit("H-dtype-committed", ShapeError, "not of type float32")
def _(file):
    kind = h5t.IEEE_F32LE.copy()
    kind.commit(file.id, b"named")
    low_level(file, SCALE, h5p.create(h5p.DATASET_CREATE), kind)
    del file["named"]


# Shapes and names

for name, shape in {"flat": (1728,), "turned": (3, 3, 3, 64), "one-more": (64, 3, 3, 3, 1), "larger": (65, 3, 3, 3)}.items():

    @edit(f"H-shape-{name}", ShapeError, "has the shape")
    def _(file, shape=shape):
        put(file, CONV, np.ones(shape, "<f4"))


@edit("H-shape-scalar", ShapeError, "has the shape")
def _(file):
    put(file, SCALE, np.float32(1))


@edit("H-shape-null", ShapeError, "has the shape")
def _(file):
    put(file, SCALE, h5py.Empty("<f4"))


@edit("H-shape-of-no-values", ShapeError, "has the shape")
def _(file):
    put(file, SCALE, np.ones(0, "<f4"))


@edit("H-name-missing", ShapeError, "members")
def _(file):
    del file[SCALE]


@edit("H-name-more", ShapeError, "'extra'")
def _(file):
    file["params/bn1/extra"] = np.ones(3, "<f4")


@edit("H-name-in-another-case", ShapeError, "'Weight'")
def _(file):
    file.move(SCALE, "params/bn1/Weight")


@edit("H-name-not-utf8", ShapeError, "is missing")
def _(file):
    group = file["params/bn1"].id
    group.links.move(b"weight", group, b"\xff\xfe\n")


@edit("H-name-of-another-network", ShapeError)
def _(file):
    set_text(file, "spec", store._json(replace(SPEC, shortcut="C").to_json()))


@edit("H-group-for-dataset", ShapeError, "is a group, expected a dataset")
def _(file):
    del file[SCALE]
    file.create_group(SCALE)


@edit("H-dataset-for-group", ShapeError, "is a dataset, expected a group")
def _(file):
    del file["params/layer1"]
    file["params/layer1"] = np.ones(3, "<f4")


@edit("H-type-for-dataset", ShapeError, "is a named type, expected a dataset")
def _(file):
    del file[SCALE]
    file[SCALE] = np.dtype("<f4")


@edit("H-groups-10000", ShapeError, "members")
def _(file):
    for i in range(10_000):
        h5py.h5g.create(file["params"].id, b"%d" % i)


@edit("H-groups-1000-deep", ShapeError, "members")
def _(file):
    file.create_group("deep" + "/a" * 1000)


# Attributes


@edit("H-attribute-more", FormatError, "attributes, expected")
def _(file):
    file.attrs["more"] = np.bytes_(b"x")


@edit("H-attribute-missing", FormatError, "attributes, expected")
def _(file):
    del file.attrs["labels"]


@edit("H-attribute-64KB", FormatError, "attributes, expected")
def _(file):
    file[SCALE].attrs["more"] = np.bytes_(b"x" * 65536)


@edit("H-attribute-of-group", FormatError, "attributes, expected")
def _(file):
    file["params/bn1"].attrs["more"] = 1


@edit("H-attribute-33MB", UnsafeError, "expected at most")
def _(file):
    file.attrs["labels"] = np.bytes_(b"x" * (33 << 20))


for name, value in {
    "string-of-any-length": "[]",
    "integer": 1,
    "array": np.array([b"a", b"b"]),
    "empty": h5py.Empty("S3"),
    "bytes": np.void(b"[]"),
}.items():

    @edit(f"H-attribute-{name}", FormatError, "not text of fixed length")
    def _(file, value=value):
        file.attrs["labels"] = value


@edit("H-attribute-reference", FormatError, "not text of fixed length")
def _(file):
    file.attrs["labels"] = file[SCALE].ref


@edit("H-attribute-committed", FormatError, "not text of fixed length")
def _(file):
    file["named"] = np.dtype("S4")
    file.attrs.create("labels", np.bytes_(b"abcd"), dtype=file["named"])
    del file["named"]


@edit("H-attribute-utf8", FormatError)
def _(file):
    text = '["cat","d\u00f6g","snow leopard"]'.encode()
    file.attrs.create("labels", text, dtype=h5py.string_dtype("utf-8", len(text)))


@edit("H-attribute-latin1", FormatError, "not ASCII")
def _(file):
    file.attrs["labels"] = np.bytes_('["cat","d\u00f6g","snow leopard"]'.encode("latin-1"))


# The texts

good = {"spec": SPEC.to_json(), "preprocess": Preprocess().to_json(), "labels": ["cat", "dog", "owl"], "provenance": {}}
spec = store._json(good["spec"])
TEXTS: dict[str, tuple[str, str, type[TinyResNeXtError]]] = {
    "no-json": ("spec", "{", FormatError),
    "no-object": ("spec", "[]", FormatError),
    "null": ("spec", "null", FormatError),
    "key-twice": ("spec", spec[:-1] + ',"width":8}', FormatError),
    "key-unknown": ("spec", store._json({**good["spec"], "more": 1}), FormatError),
    "key-missing": ("spec", store._json({k: v for k, v in good["spec"].items() if k != "eps"}), FormatError),
    "spaces": ("spec", json.dumps(good["spec"], sort_keys=True), FormatError),
    "padding": ("spec", spec + " ", FormatError),
    "huge-number": ("spec", spec.replace('"classes":3', '"classes":1' + "0" * 5000), FormatError),
    "negative": ("spec", spec.replace('"classes":3', '"classes":-3'), FormatError),
    "true-for-one": ("spec", spec.replace('"expansion":1', '"expansion":true'), FormatError),
    "float-for-whole": ("spec", spec.replace('"classes":3', '"classes":3.0'), FormatError),
    "nan": ("spec", spec.replace('"eps":1e-05', '"eps":NaN'), FormatError),
    "infinite": ("spec", spec.replace('"eps":1e-05', '"eps":1e999'), FormatError),
    "deep": ("spec", "[" * 100_000 + "]" * 100_000, FormatError),
    "deep-in-labels": ("labels", '["cat","dog",' + "[" * 900 + "]" * 900 + "]", FormatError),
    "preprocess-no-object": ("preprocess", "3", FormatError),
    "preprocess-std-zero": ("preprocess", store._json({**good["preprocess"], "std": [0.0, 0.0, 0.0]}), FormatError),
    "preprocess-huge": ("preprocess", store._json({**good["preprocess"], "resize": 10**9}), FormatError),
    "labels-object": ("labels", "{}", FormatError),
    "labels-numbers": ("labels", "[1,2,3]", FormatError),
    "labels-too-few": ("labels", '["cat","dog"]', ShapeError),
    "labels-escape-sequence": ("labels", '["cat","dog","\\u001b[2J"]', FormatError),
    "labels-lone-surrogate": ("labels", '["cat","dog","\\ud800"]', FormatError),
    "labels-right-to-left": ("labels", '["cat","dog","\\u202e"]', FormatError),
    "provenance-list": ("provenance", "[]", FormatError),
    "provenance-nested": ("provenance", '{"source":{"a":"b"}}', FormatError),
    "provenance-newline": ("provenance", '{"source":"a\\nb"}', FormatError),
    "format-of-others": ("format", "keras", FormatError),
    "format-version-2": ("format_version", "2", FormatError),
}
for name, (attribute, text, error) in TEXTS.items():

    @edit(f"H-text-{name}", error)
    def _(file, attribute=attribute, text=text):
        set_text(file, attribute, text)


# Digests

for attribute, old, new, kind in [
    ("spec", b'"eps":1e-05', b'"eps":0.001', "model"),
    ("spec", b'"stride_on":2', b'"stride_on":1', "model"),
    ("preprocess", b'"crop":224', b'"crop":223', "model"),
    ("preprocess", b"0.485", b"0.486", "model"),
    ("preprocess", b"bilinear", b"bicubic", "model"),
    ("labels", b'"cat","d\\u00f6g"', b'"d\\u00f6g","cat"', "model"),
    ("provenance", b'"licence":"none"', b'"licence":"free"', "provenance"),
    ("sha256", b"", None, "model"),
    ("provenance_sha256", b"", None, "provenance"),
]:

    @edit(f"H-tampered-{attribute}-{(new or b'itself').decode()}", IntegrityError, f"the {kind} has the sha256")
    def _(file, attribute=attribute, old=old, new=new):
        text = bytes(file.attrs[attribute])
        changed = text[::-1] if new is None else text.replace(old, new)
        assert changed != text
        file.attrs[attribute] = np.bytes_(changed)


@edit("H-digest-missing", FormatError, "attributes, expected sha256")
def _(file):
    del file[SCALE].attrs["sha256"]


@edit("H-digest-wrong", IntegrityError, "the model has the sha256")
def _(file):
    file[SCALE].attrs["sha256"] = np.bytes_(b"0" * 64)


@edit("H-digest-in-capitals", IntegrityError, "the model has the sha256")
def _(file):
    file[SCALE].attrs["sha256"] = np.bytes_(bytes(file[SCALE].attrs["sha256"]).upper())


@edit("H-digests-swapped", IntegrityError, "the model has the sha256")
def _(file):
    a, b = file[SCALE].attrs, file[SHIFT].attrs
    a["sha256"], b["sha256"] = np.bytes_(b["sha256"]), np.bytes_(a["sha256"])


@edit("H-tensors-swapped", IntegrityError, "the model has the sha256")
def _(file):
    file.move(SCALE, "params/bn1/other")
    file.move(SHIFT, SCALE)
    file.move("params/bn1/other", SHIFT)


@edit("H-data-swapped", IntegrityError, "bn1.weight has the sha256")
def _(file):
    a, b = file[SCALE][()], file[SHIFT][()]
    file[SCALE][...], file[SHIFT][...] = b, a


@edit("H-one-bit-of-data", IntegrityError, "conv1.weight has the sha256")
def _(file):
    data = file[CONV][()]
    data.view(np.uint32)[0, 0, 0, 0] ^= 1
    file[CONV][...] = data


# Numbers, with digests that are right


def numbers(name: str, value: float, says: str) -> None:
    """Enter a file whose tensor ``name`` has a bad value."""

    @case(f"H-value-{value}-in-{name}", IntegrityError, says)
    def _(path: Path) -> None:
        stored = model()
        stored.params[name].flat[-1] = value
        documents = store._documents(stored)
        sha256 = {key: hashlib.sha256(array).hexdigest() for key, array in stored.params.items()}
        attributes = {"format": "tinyresnext", "format_version": "1", **documents}
        attributes["sha256"] = store._model_digest(documents, SPEC, sha256)
        attributes["provenance_sha256"] = hashlib.sha256(documents["provenance"].encode()).hexdigest()
        path.write_bytes(b"")
        store_file.lay_out(path, attributes, stored.params, sha256)


numbers("conv1.weight", np.nan, "1 values that are NaN")
numbers("fc.bias", np.inf, "1 values that are NaN")
numbers(VARIANCE, -np.inf, "1 values that are NaN")
numbers(VARIANCE, -1e-30, "1 negative variances")


# The bytes of the file


def patch(name: str, error: type[TinyResNeXtError], says: str, change: Callable[[bytes], bytes]) -> None:
    """Enter a change of the file's bytes."""
    case(name, error, says)(lambda path: path.write_bytes(change(path.read_bytes())))


patch("H-file-empty", FormatError, "not an HDF5 file", lambda data: b"")
patch("H-file-of-8-bytes", FormatError, "not as tinyresnext writes it", lambda data: data[:8])
patch("H-file-of-47-bytes", FormatError, "not as tinyresnext writes it", lambda data: data[:47])
patch("H-file-of-text", FormatError, "not an HDF5 file", lambda data: b"<html>404</html>")
patch("H-file-zip", FormatError, "not an HDF5 file", lambda data: b"PK\x03\x04" + data)
patch("H-file-short-of-1", FormatError, "its beginning says", lambda data: data[:-1])
patch("H-file-half", FormatError, "its beginning says", lambda data: data[: len(data) // 2])
patch("H-file-appended", FormatError, "its beginning says", lambda data: data + b"\0")
patch("H-file-twice", FormatError, "its beginning says", lambda data: data + data)
patch("H-file-zeroed-after-the-beginning", FormatError, "HDF5 says", lambda data: data[:48] + bytes(len(data) - 48))
patch("H-file-beginning-zeroed", FormatError, "not an HDF5 file", lambda data: bytes(512) + data[512:])
patch("H-user-block", FormatError, "not an HDF5 file", lambda data: bytes(512) + data)
patch("H-flag-open-for-writing", FormatError, "not as tinyresnext", lambda data: data[:11] + b"\x01" + data[12:])
patch("H-flag-swmr", FormatError, "not as tinyresnext", lambda data: data[:11] + b"\x05" + data[12:])
patch("H-short-but-says-so", FormatError, "HDF5 says", lambda data: data[:28] + b"\0\x10" + bytes(6) + data[36:4096])

for version in ("earliest", "latest"):

    @case(f"H-hdf5-{version}", FormatError, "not as tinyresnext")
    def _(path, version=version):
        with h5py.File(path, "w", libver=(version, "latest")) as file:
            file["x"] = 1


@case("H-hdf5-of-others", FormatError, "no model of tinyresnext")
def _(path):
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file["model_weights/conv1/kernel"] = np.ones(3, "<f4")


# Seeded damage


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change the bytes of a file in one of eight ways."""
    out, size = bytearray(data), len(data)
    kind, at = rng.randrange(8), rng.randrange(size)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.randrange(256)
    elif kind == 2:
        out[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), rng.randbytes(8), b"\xff" * 7 + b"\x7f"])[: size - at]
    elif kind == 3:
        at -= at % 512
        out[at : at + 512] = bytes(len(out[at : at + 512]))
    elif kind == 4:
        del out[at:]
    elif kind == 5:
        out += rng.randbytes(rng.randrange(1, 100))
    elif kind == 6:
        other, length = rng.randrange(size), rng.choice([8, 64, 512])
        out[at : at + length] = out[other : other + length]
    else:
        del out[at : at + rng.choice([1, 8, 64])]
    return bytes(out)


def checksum(data: bytes) -> int:
    """HDF5's own checksum of its structure: Jenkins's lookup3, over words of 32 bits."""
    mask, size = 0xFFFFFFFF, len(data)
    a = b = c = (0xDEADBEEF + size) & mask

    def turn(x: int, bits: int) -> int:
        return ((x << bits) | (x >> (32 - bits))) & mask

    words = struct.unpack(f"<{-(-size // 12) * 3}I", data + bytes(-size % 12))
    for at in range(0, len(words) - 3, 3):
        a, b, c = (a + words[at]) & mask, (b + words[at + 1]) & mask, (c + words[at + 2]) & mask
        for bits in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & mask) ^ turn(c, bits)
            c = (c + b) & mask
            a, b, c = b, c, a
    a, b, c = (a + words[-3]) & mask, (b + words[-2]) & mask, (c + words[-1]) & mask
    for bits in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turn(b, bits)) & mask
        a, b, c = b, c, a
    return b


def headers(data: bytes) -> list[tuple[int, int]]:
    """Begin and end of every object's header, and of the file's; behind each is its checksum."""
    found, at = [(0, 44)], data.find(b"OHDR")
    while at >= 0:
        flags = data[at + 5]
        begin = at + 6 + 16 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
        width = 1 << (flags & 3)
        found.append((at, begin + width + int.from_bytes(data[begin : begin + width], "little")))
        at = data.find(b"OHDR", at + 4)
    return found


def forged(data: bytes, places: list[tuple[int, int]], rng: random.Random) -> bytes:
    """Change a header and make its checksum right again, so that the library goes by it."""
    out = bytearray(data)
    begin, end = rng.choice(places)
    for _ in range(rng.randrange(1, 3)):
        at, length = rng.randrange(begin + 4, end), rng.choice([1, 1, 2, 4, 8])
        new = rng.choice(
            [b"\xff" * 8, bytes(8), b"\x01" + bytes(7), rng.randbytes(8), bytes([out[at] ^ 1 << rng.randrange(8)])]
        )
        out[at : min(at + length, end)] = new[: min(length, end - at)].ljust(min(length, end - at), b"\0")
    out[end : end + 4] = checksum(bytes(out[begin:end])).to_bytes(4, "little")
    return bytes(out)


def same(a: store.Stored, b: store.Stored) -> bool:
    """Whether two models are equal to the last bit, and in order."""
    if a._replace(params={}) != b._replace(params={}) or list(a.params) != list(b.params):
        return False
    pairs = [(a.params[name], b.params[name]) for name in a.params]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def mutate(path: Path, seed: int, count: int) -> dict[str, int]:
    """Damage the good file at ``path`` many times and count what `store.read` makes of it."""
    rng, data, good = random.Random(seed), path.read_bytes(), store.read(path)
    places = headers(data)
    assert all(checksum(data[begin:end]) == int.from_bytes(data[end : end + 4], "little") for begin, end in places)
    bad, found = path.with_suffix(".bad"), {"same": 0, "different": 0, "untyped": 0}
    for i in range(count):
        bad.write_bytes(damaged(data, rng) if i % 2 else forged(data, places, rng))
        try:
            found["same" if same(store.read(bad), good) else "different"] += 1
        except TinyResNeXtError as error:
            found[type(error).__name__] = found.get(type(error).__name__, 0) + 1
        except Exception as error:
            found["untyped"] += 1
            print(repr(error), file=sys.stderr)
    return found


if __name__ == "__main__":  # in a process of its own: the HDF5 library is C, and could take the tests down with it
    print(json.dumps(mutate(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
