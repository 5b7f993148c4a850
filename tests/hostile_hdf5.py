"""Model files that must be refused, made one by one from a good one; and seeded damage to it.

Each case is a function that changes the good file at ``path``; ``CASES`` has them with the error that each must cause.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
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
from tinyresnext.hdf5 import FLOAT16
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


def edit(name: str, error: type[TinyResNeXtError], says: str = "", libver: Any = "earliest") -> Callable:
    """Enter a function that changes the file through HDF5."""

    def enter(change: Callable[[h5py.File], None]) -> Callable:
        def in_place(path: Path) -> None:
            with h5py.File(path, "r+", libver=libver) as file:
                change(file)

        case(name, error, says)(in_place)
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
    """Change an attribute, and the digests so that they fit: only understanding the text can find it."""
    texts = {key: bytes(value).decode() for key, value in file.attrs.items()} | {name: text}
    tensors = {key: bytes(file[f"params/{key.replace('.', '/')}"].attrs["sha256"]).decode() for key in parameters(SPEC)}
    texts["sha256"] = store._model_digest(texts, SPEC, tensors)
    texts["provenance_sha256"] = hashlib.sha256(texts["provenance"].encode()).hexdigest()
    for key, value in texts.items():
        for piece, part in store_file._pieces(key, value).items():
            file.attrs[piece] = np.bytes_(part.encode())


def low_level(file: h5py.File, name: str, plan: h5p.PropDCID, kind: h5t.TypeID = h5t.IEEE_F32LE) -> None:
    """Replace a dataset of 64 values by one of another making."""
    plan.set_obj_track_times(False)
    digest = file[name].attrs["sha256"]
    del file[name]
    dataset = h5d.create(file.id, name.encode(), kind, h5s.create_simple((64,)), plan)
    h5py.Dataset(dataset).attrs["sha256"] = np.bytes_(digest)


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

    @edit(f"H-external-link-{place}", UnsafeError, "may have links to elsewhere")
    def _(file, at=at):
        with h5py.File(beside(file, "other.h5"), "w") as other:
            file.copy("params", other)
        del file[at]
        file[at] = h5py.ExternalLink("other.h5", at)


@edit("H-virtual-dataset", UnsafeError, "not stored plainly")
def _(file):
    with h5py.File(beside(file, "other.h5"), "w") as other:
        other["x"] = file[SCALE][()]
    plan, space = h5p.create(h5p.DATASET_CREATE), h5s.create_simple((64,))
    plan.set_virtual(space, b"other.h5", b"x", space)
    low_level(file, SCALE, plan)


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


@edit("H-hard-link-cycle", UnsafeError, "2 names lead to it")
def _(file):
    del file["params/layer1/0"]
    file["params/layer1/0"] = file["params"]


@edit("H-hard-link-to-root", UnsafeError, "2 names lead to it")
def _(file):
    del file["params/layer1"]
    file["params/layer1"] = file["/"]


@edit("H-hard-link-alias", UnsafeError, "2 names lead to it")
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
    set_text(file, "spec", store_file.json_text(replace(SPEC, blocks=(1000,) * 8, cardinality=4096, width=4096).to_json()))


@edit("H-spec-larger-than-the-file", UnsafeError, "of weights or more, but the file")
def _(file):
    set_text(file, "spec", store_file.json_text(replace(SPEC, blocks=(3, 4), width=64).to_json()))


@edit("H-nothing-stored", UnsafeError, "but the file has")
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
    "f16-big-endian": ">f2",
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
ANY_LENGTH = (UnsafeError, "not stored plainly")  # such data are in a heap, which is seen first
for name, kind in KINDS.items():

    @edit(f"H-dtype-{name}", *(ANY_LENGTH if "any-length" in name else (ShapeError, "not of type float32")))
    def _(file, kind=kind):
        low_level(file, SCALE, h5p.create(h5p.DATASET_CREATE), h5t.py_create(np.dtype(kind), logical=True))


@edit("H-dtype-f16-of-rounded-values", IntegrityError, "bn1.weight has the sha256")
def _(file):
    put(file, SCALE, data=file[SCALE][()].astype("<f2"))


@edit("H-dtype-f32-of-another-bias", ShapeError, "not of type float32")
def _(file):
    low_level(file, SCALE, h5p.create(h5p.DATASET_CREATE), float_with(126))


@edit("H-dtype-committed", FormatError, "message of type 3 with flags 3")
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


@edit("H-name-missing", ShapeError, "/params/bn1/weight is missing")
def _(file):
    del file[SCALE]


@edit("H-name-more", ShapeError, "'extra'")
def _(file):
    file["params/bn1/extra"] = np.ones(3, "<f4")


@edit("H-name-in-another-case", ShapeError, "'Weight'")
def _(file):
    file.move(SCALE, "params/bn1/Weight")


@edit("H-name-not-utf8", ShapeError, "has a member")
def _(file):
    group = file["params/bn1"].id
    group.links.move(b"weight", group, b"\xff\xfe\n")


@edit("H-name-of-another-network", ShapeError)
def _(file):
    set_text(file, "spec", store_file.json_text(replace(SPEC, shortcut="C").to_json()))


@edit("H-group-for-dataset", ShapeError, "is a group, expected a dataset")
def _(file):
    del file[SCALE]
    file.create_group(SCALE)


@edit("H-dataset-for-group", ShapeError, "is a dataset, expected a group")
def _(file):
    del file["params/layer1"]
    file["params/layer1"] = np.ones(3, "<f4")


@edit("H-type-for-dataset", FormatError, "message of type 3 with flags 5")
def _(file):
    del file[SCALE]
    file[SCALE] = np.dtype("<f4")


@edit("H-groups-10000", FormatError, "the names in /params are not")
def _(file):
    for i in range(10_000):
        h5py.h5g.create(file["params"].id, b"%d" % i)


@edit("H-groups-1000-deep", ShapeError, "has a member 'deep'")
def _(file):
    file.create_group("deep" + "/a" * 1000)


# Attributes


@edit("H-attribute-more", FormatError, "9 attributes, among them 'more'")
def _(file):
    file.attrs["more"] = np.bytes_(b"x")


@edit("H-attribute-missing", FormatError, "no attribute labels")
def _(file):
    del file.attrs["labels"]


@edit("H-attribute-60KB-of-dataset", UnsafeError, "longer than tinyresnext writes")
def _(file):
    for i in range(2):
        file[SCALE].attrs[f"more{i}"] = np.bytes_(b"x" * 60_000)


@edit("H-attribute-of-group", FormatError, "1 attributes, among them 'more', expected none")
def _(file):
    file["params/bn1"].attrs["more"] = np.bytes_(b"x")


@edit("H-attribute-of-number", FormatError, "not text of fixed length")
def _(file):
    file["params/bn1"].attrs["more"] = 1


@edit("H-attributes-500", FormatError, "attributes, among them")
def _(file):
    for i in range(500):
        file.attrs[f"labels.{2 * i + 2}"] = np.bytes_(b"x")


@edit("H-attributes-dense", FormatError, "not text of fixed length", ("v108", "latest"))
def _(file):
    for i in range(20):
        file[SCALE].attrs[f"more{i}"] = np.bytes_(b"x")


@edit("H-attribute-order-tracked", FormatError, "not as tinyresnext")
def _(file):
    plan = h5p.create(h5p.DATASET_CREATE)
    plan.set_attr_creation_order(h5p.CRT_ORDER_TRACKED)
    low_level(file, SCALE, plan)


for name, (first, second) in {
    "early": ('["cat","dog",', '"owl"]'),
    "with-nothing-more": ('["cat","dog","owl"]', ""),
    "late": ('["' + "x" * 60_001, '"]'),
}.items():

    @edit(f"H-attribute-cut-{name}", FormatError, "not cut as tinyresnext does")
    def _(file, first=first, second=second):
        file.attrs["labels"], file.attrs["labels.1"] = np.bytes_(first.encode()), np.bytes_(second.encode() or b"\0")


@edit("H-attribute-gap-in-pieces", FormatError, "among them 'labels.2'")
def _(file):
    file.attrs["labels"], file.attrs["labels.2"] = np.bytes_(b"x" * 60_000), np.bytes_(b"x")


@edit("H-group-of-newer-form", UnsafeError, "may have links")
def _(file):
    plan = h5p.create(h5p.GROUP_CREATE)
    plan.set_link_creation_order(h5p.CRT_ORDER_TRACKED)
    del file["params/fc"]
    h5py.h5g.create(file.id, b"params/fc", gcpl=plan)


@edit("H-group-of-2000-links", UnsafeError, "link to elsewhere")
def _(file):
    for i in range(2000):
        file[f"params/fc/{i}"] = h5py.SoftLink("/params")


@edit("H-group-of-links-in-a-heap", UnsafeError, "may have links")
def _(file):
    plan = h5p.create(h5p.GROUP_CREATE)
    plan.set_link_creation_order(h5p.CRT_ORDER_TRACKED)
    del file["params/fc"]
    group = h5py.Group(h5py.h5g.create(file.id, b"params/fc", gcpl=plan))
    for i in range(100):
        group[f"{i}"] = h5py.SoftLink("/params")


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
spec = store_file.json_text(good["spec"])
TEXTS: dict[str, tuple[str, str, type[TinyResNeXtError]]] = {
    "no-json": ("spec", "{", FormatError),
    "no-object": ("spec", "[]", FormatError),
    "null": ("spec", "null", FormatError),
    "key-twice": ("spec", spec[:-1] + ',"width":8}', FormatError),
    "key-unknown": ("spec", store_file.json_text({**good["spec"], "more": 1}), FormatError),
    "key-missing": ("spec", store_file.json_text({k: v for k, v in good["spec"].items() if k != "eps"}), FormatError),
    "spaces": ("spec", json.dumps(good["spec"], sort_keys=True), FormatError),
    "padding": ("spec", spec + " ", FormatError),
    "huge-number": ("spec", spec.replace('"classes":3', '"classes":1' + "0" * 5000), FormatError),
    "negative": ("spec", spec.replace('"classes":3', '"classes":-3'), FormatError),
    "true-for-one": ("spec", spec.replace('"expansion":1', '"expansion":true'), FormatError),
    "float-for-whole": ("spec", spec.replace('"classes":3', '"classes":3.0'), FormatError),
    "nan": ("spec", spec.replace('"eps":1e-05', '"eps":NaN'), FormatError),
    "infinite": ("spec", spec.replace('"eps":1e-05', '"eps":1e999'), FormatError),
    "deep": ("spec", "[" * 30_000 + "]" * 30_000, FormatError),
    "deep-in-labels": ("labels", '["cat","dog",' + "[" * 900 + "]" * 900 + "]", FormatError),
    "preprocess-no-object": ("preprocess", "3", FormatError),
    "preprocess-std-zero": ("preprocess", store_file.json_text({**good["preprocess"], "std": [0.0, 0.0, 0.0]}), FormatError),
    "preprocess-huge": ("preprocess", store_file.json_text({**good["preprocess"], "resize": 10**9}), FormatError),
    "labels-object": ("labels", "{}", FormatError),
    "labels-numbers": ("labels", "[1,2,3]", FormatError),
    "labels-too-few": ("labels", '["cat","dog"]', ShapeError),
    "labels-escape-sequence": ("labels", '["cat","dog","\\u001b[2J"]', FormatError),
    "labels-lone-surrogate": ("labels", '["cat","dog","\\ud800"]', FormatError),
    "labels-zero-width": ("labels", '["cat","dog","\\u200b"]', FormatError),
    "labels-byte-order-mark": ("labels", '["cat","dog","\\ufeff"]', FormatError),
    "labels-arabic-mark": ("labels", '["cat","dog","\\u061c"]', FormatError),
    "labels-word-joiner": ("labels", '["cat","dog","\\u2060"]', FormatError),
    "labels-tag-characters": ("labels", '["cat","dog","\\udb40\\udc41"]', FormatError),
    "labels-comma-at-the-end": ("labels", '["cat","dog","owl",]', FormatError),
    "labels-open": ("labels", '["cat","dog","owl"', FormatError),
    "labels-closed-twice": ("labels", '["cat","dog","owl"]]', FormatError),
    "labels-of-labels": ("labels", '["cat","dog",["owl"]]', FormatError),
    "labels-newline": ("labels", '["cat","dog","a\\nb"]', FormatError),
    "labels-bad-escape": ("labels", '["cat","dog","\\x"]', FormatError),
    "labels-escape-to-no-purpose": ("labels", '["cat","dog","\\u0041"]', FormatError),
    "labels-none": ("labels", "[]", FormatError),
    "labels-70KB": ("labels", store_file.json_text(["cat", "dog", "x" * 70_000]), UnsafeError),
    "labels-bomb-of-objects": ("labels", "[" + "{}," * 3_000_000 + "{}]", FormatError),
    "labels-bomb-of-lists": ("labels", "[" + "[]," * 3_000_000 + "[]]", FormatError),
    "labels-bomb-of-numbers": ("labels", "[" + "0.5," * 2_000_000 + "0.5]", FormatError),
    "labels-bomb-of-nothing": ("labels", "[" + '"",' * 3_000_000 + '""]', ShapeError),
    "labels-bomb-beyond-the-root": ("labels", "[" + "{}," * 5_000_000 + "{}]", UnsafeError),
    "labels-bomb-of-escapes": ("labels", '["cat","dog","' + "\\\\" * 1_000_000 + '"]', UnsafeError),
    "labels-bomb-of-open-text": ("labels", '["' + "x" * 9_000_000, FormatError),
    "spec-bomb-of-blocks": ("spec", store_file.json_text({**good["spec"], "blocks": [3] * 3_000_000}), UnsafeError),
    "spec-many-blocks": ("spec", store_file.json_text({**good["spec"], "blocks": [3] * 30_000}), FormatError),
    "spec-long-key": ("spec", store_file.json_text({**good["spec"], "x" * 60_000: 3}), FormatError),
    "spec-long-stem": ("spec", store_file.json_text({**good["spec"], "stem": "x" * 60_000}), FormatError),
    "spec-long-number": ("spec", spec.replace('"classes":3', '"classes":1' + "0" * 4000), FormatError),
    "preprocess-long": ("preprocess", store_file.json_text({**good["preprocess"], "mean": [0.5] * 15_000}), FormatError),
    "preprocess-bomb": ("preprocess", "[" + "{}," * 1_000_000 + "{}]", UnsafeError),
    "provenance-bomb": ("provenance", store_file.json_text({f"{i:06x}": {} for i in range(300_000)}), UnsafeError),
    "provenance-long-value": ("provenance", store_file.json_text({"source": ["x" * 60_000]}), FormatError),
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


@edit("H-digest-missing", FormatError, "no attribute sha256")
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
        tensors = ((key, array, sha256[key]) for key, array in stored.params.items())
        store_file.lay_out(path, attributes, tensors, "sha256", lambda: attributes["sha256"])


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
patch("H-file-of-95-bytes", FormatError, "not as tinyresnext writes it", lambda data: data[:95])
patch("H-file-of-text", FormatError, "not an HDF5 file", lambda data: b"<html>404</html>")
patch("H-file-zip", FormatError, "not an HDF5 file", lambda data: b"PK\x03\x04" + data)
patch("H-file-short-of-1", FormatError, "its beginning says", lambda data: data[:-1])
patch("H-file-half", FormatError, "its beginning says", lambda data: data[: len(data) // 2])
patch("H-file-appended", FormatError, "its beginning says", lambda data: data + b"\0")
patch("H-file-twice", FormatError, "its beginning says", lambda data: data + data)
patch("H-file-zeroed-after-the-beginning", FormatError, "its root", lambda data: data[:48] + bytes(len(data) - 48))
patch("H-file-zeroed-after-the-superblock", FormatError, "object header", lambda data: data[:96] + bytes(len(data) - 96))
patch("H-file-beginning-zeroed", FormatError, "not an HDF5 file", lambda data: bytes(512) + data[512:])
patch("H-user-block", FormatError, "not an HDF5 file", lambda data: bytes(512) + data)
# The structures of the file, one by one


def structures(data: bytes) -> dict[str, int]:
    """Where the structures are: of the file, of the group /params/bn1, and of the dataset bn1.weight in it."""

    def at(address: int) -> int:
        return int.from_bytes(data[address : address + 8], "little")

    with h5py.File(io.BytesIO(data)) as file:
        found = {"superblock": 0, "root": h5py.h5o.get_info(file.id).addr, "weights": file[SCALE].id.get_offset()}
        found |= {"group": h5py.h5o.get_info(file["params/bn1"].id).addr, "dataset": h5py.h5o.get_info(file[SCALE].id).addr}
    found |= {"tree": at(found["group"] + 24), "heap": at(found["group"] + 32), "attributes": at(found["root"] + 24)}
    found |= {"symbols": at(found["tree"] + 32), "names": at(found["heap"] + 24)}
    message = found["dataset"] + 16
    for name in ("dataspace", "datatype", "fill", "layout", "attribute"):
        found[name] = message + 8
        message += 8 + int.from_bytes(data[message + 2 : message + 4], "little")
    return found


def forge(name: str, where: str, offset: int, new: bytes | str, error: type[TinyResNeXtError], says: str) -> None:
    """Enter a file with other bytes somewhere in a structure; a text stands for the address of that structure."""

    def change(data: bytes) -> bytes:
        places = structures(data)
        at, fresh = places[where] + offset, number(places[new]) if isinstance(new, str) else new
        assert data[at : at + len(fresh)] != fresh
        return data[:at] + fresh + data[at + len(fresh) :]

    patch(f"H-forged-{where}-{name}", error, says, change)


BEYOND, MOST = number(1 << 40), number(-1)
NOT_OURS, DAMAGED = "not as tinyresnext writes", "fetch or convert it again"
for name, offset, new in [
    ("version-1", 8, b"\1"),
    ("version-2", 8, b"\2"),
    ("version-3", 8, b"\3"),
    ("version-255", 8, b"\xff"),
    ("addresses-of-4-bytes", 13, b"\4"),
    ("lengths-of-4-bytes", 14, b"\4"),
    ("leaves-of-65535", 16, b"\xff\xff"),
    ("nodes-of-0", 18, b"\0\0"),
    ("open-for-writing", 20, b"\1"),
    ("base-address", 24, number(512)),
    ("free-space", 32, number(96)),
    ("driver", 48, number(96)),
    ("name-of-root", 56, number(8)),
    ("root-not-cached", 72, b"\0"),
    ("root-as-link", 72, b"\2"),
]:
    forge(name, "superblock", offset, new, FormatError, NOT_OURS)
for name, offset, new, error, says in [
    ("root-beyond", 64, BEYOND, UnsafeError, "but the file has"),
    ("root-at-the-end-of-numbers", 64, MOST, UnsafeError, "but the file has"),
    ("root-in-the-superblock", 64, number(8), UnsafeError, "lies across the superblock"),
    ("root-is-a-group", 64, "group", FormatError, "is not the group"),
    ("root-is-a-dataset", 64, "dataset", FormatError, "is not the group"),
    ("root-is-a-tree", 64, "tree", FormatError, NOT_OURS),
    ("root-is-data", 64, "weights", FormatError, NOT_OURS),
    ("tree-of-another", 80, "tree", FormatError, "is not the group"),
    ("heap-of-another", 88, "heap", FormatError, "is not the group"),
]:
    forge(name, "superblock", offset, new, error, says)
for name, offset, new, error, says in [
    ("version-0", 0, b"\0", FormatError, NOT_OURS),
    ("version-2", 0, b"OHDR\2", FormatError, NOT_OURS),
    ("one-message-more", 2, b"\7", FormatError, "has 6 messages, and says 7"),
    ("one-message", 2, b"\1", FormatError, "do not fit"),
    ("65535-messages", 2, b"\xff\xff", FormatError, "says 65535"),
    ("no-names", 4, b"\0", UnsafeError, "0 names lead to it"),
    ("4-billion-names", 4, b"\xff" * 4, UnsafeError, "names lead to it"),
    ("empty", 8, b"\0\0", FormatError, "has 0 messages"),
    ("4-GB", 8, b"\xff" * 4, UnsafeError, "longer than tinyresnext writes"),
    ("one-byte-less", 8, b"\xff\0", FormatError, "do not fit"),
    ("in-a-message", 8, b"\x0c\0", FormatError, "do not fit"),
    ("first-size-too-large", 18, b"\xf8\xff", FormatError, "do not fit"),
    ("first-size-odd", 18, b"\7\0", FormatError, "do not fit"),
    ("first-size-0", 18, b"\0\0", FormatError, ""),
    ("flag-shared", 20, b"\2", FormatError, "with flags 2"),
    ("flag-unknown", 20, b"\x80", FormatError, "with flags 128"),
    ("reserved", 21, b"\1", FormatError, "do not fit"),
    ("two-dataspaces", 48, b"\1\0", FormatError, "message of type 1"),
]:
    forge(name, "dataset", offset, new, error, says)
for kind in (0x02, 0x06, 0x0A):  # links of newer formats
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), UnsafeError, "may have links")
for kind in (0x07, 0x0B):  # external files, filters
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), UnsafeError, "not stored plainly")
for kind in (0x04, 0x09, 0x0D, 0x0E, 0x0F, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x18, 0xFF):
    forge(f"{kind:#x}", "fill", -8, bytes([kind, 0]), FormatError, "")
for name, where, offset, new, error, says in [
    ("missing", "fill", -8, b"\0\0\x08\0\0", FormatError, "its messages are 1, 3, 8"),
    ("of-another-value", "fill", 4, b"\4", UnsafeError, "not stored plainly"),
    ("version-2", "dataspace", 0, b"\2", ShapeError, "has the shape None"),
    ("rank-0", "dataspace", 1, b"\0", ShapeError, "has the shape None"),
    ("rank-255", "dataspace", 1, b"\xff", ShapeError, "has the shape None"),
    ("no-limit-stated", "dataspace", 2, b"\0", ShapeError, "has the shape None"),
    ("permuted", "dataspace", 2, b"\3", ShapeError, "has the shape None"),
    ("endless", "dataspace", 8, MOST, ShapeError, "has the shape None"),
    ("endless-both", "dataspace", 8, MOST * 2, ShapeError, "has the shape (18446744073709551615,)"),
    ("unlimited", "dataspace", 16, MOST, ShapeError, "has the shape None"),
    ("no-values", "dataspace", 8, bytes(16), ShapeError, "has the shape (0,)"),
    ("other-class", "datatype", 0, b"\x10", ShapeError, "not of type float32"),
    ("version-3", "datatype", 0, b"\x31", ShapeError, "not of type float32"),
    ("big-endian", "datatype", 1, b"\x21", ShapeError, "not of type float32"),
    ("sign-elsewhere", "datatype", 2, b"\x1e", ShapeError, "not of type float32"),
    ("8-bytes", "datatype", 4, b"\x08", ShapeError, "not of type float32"),
    ("other-bias", "datatype", 20, b"\x7e", ShapeError, "not of type float32"),
    ("version-1", "layout", 0, b"\1", UnsafeError, "not stored plainly"),
    ("version-4", "layout", 0, b"\4", UnsafeError, "not stored plainly"),
    ("compact", "layout", 1, b"\0", UnsafeError, "not stored plainly"),
    ("chunked", "layout", 1, b"\2", UnsafeError, "not stored plainly"),
    ("virtual", "layout", 1, b"\3", UnsafeError, "not stored plainly"),
    ("address-none", "layout", 2, MOST, UnsafeError, "but the file has"),
    ("address-beyond", "layout", 2, BEYOND, UnsafeError, "but the file has"),
    ("address-of-the-superblock", "layout", 2, number(0), UnsafeError, "lies across the superblock"),
    ("address-of-its-header", "layout", 2, "dataset", UnsafeError, "lies across /params/bn1/weight"),
    ("address-of-its-group", "layout", 2, "names", UnsafeError, "lies across the names of /params/bn1"),
    ("address-of-the-texts", "layout", 2, "attributes", UnsafeError, "lies across the header of /"),
    ("size-0", "layout", 10, number(0), UnsafeError, "0 bytes stored"),
    ("size-less", "layout", 10, number(255), UnsafeError, "255 bytes stored"),
    ("size-endless", "layout", 10, MOST, UnsafeError, "bytes stored"),
    ("version-3", "attribute", 0, b"\3", FormatError, "not text of fixed length"),
    ("name-of-0", "attribute", 2, b"\0", FormatError, ""),
    ("name-of-64-KB", "attribute", 2, b"\xff\xff", FormatError, "not text of fixed length"),
    ("name-without-end", "attribute", 14, b"s", FormatError, "is not as tinyresnext writes it"),
    ("name-ends-early", "attribute", 10, b"\0", FormatError, "is not as tinyresnext writes it"),
    ("name-not-ascii", "attribute", 10, b"\xff", FormatError, "is not as tinyresnext writes it"),
    ("name-in-capitals", "attribute", 8, b"SHA", FormatError, "no attribute sha256"),
    ("type-of-64-KB", "attribute", 4, b"\xff\xff", FormatError, "not text of fixed length"),
    ("space-of-64-KB", "attribute", 6, b"\xff\xff", FormatError, "not text of fixed length"),
    ("of-any-length", "attribute", 16, b"\x19", FormatError, "not text of fixed length"),
    ("utf8", "attribute", 17, b"\x11", FormatError, "not text of fixed length"),
    ("size-0", "attribute", 20, b"\0", FormatError, "has 0 bytes in a message"),
    ("size-4-GB", "attribute", 20, b"\xff" * 4, FormatError, "in a message of 96"),
    ("an-array", "attribute", 25, b"\1", FormatError, "not text of fixed length"),
    ("value-not-ascii", "attribute", 32, b"\xff", FormatError, "not ASCII"),
    ("value-with-nul", "attribute", 32, b"\0", IntegrityError, "the model has the sha256"),
    ("signature", "heap", 0, b"FRHP", FormatError, NOT_OURS),
    ("version-1", "heap", 4, b"\1", FormatError, NOT_OURS),
    ("size-0", "heap", 8, number(0), FormatError, "members not as"),
    ("size-endless", "heap", 8, MOST, FormatError, NOT_OURS),
    ("size-over-others", "heap", 8, number(60_000), UnsafeError, "lies across"),
    ("names-beyond", "heap", 24, BEYOND, UnsafeError, "but the file has"),
    ("names-are-the-heap", "heap", 24, "heap", UnsafeError, "lies across the heap of /params/bn1"),
    ("names-are-the-tree", "heap", 24, "root", UnsafeError, "lies across /"),
    ("other-name", "names", 16, b"Bias", ShapeError, "has a member 'Bias'"),
    ("slash", "names", 16, b"b/as", FormatError, "members not as"),
    ("no-letters", "names", 16, b"\0", FormatError, "members not as"),
    ("nul-within", "names", 18, b"\0", ShapeError, "has a member 'bi'"),
    ("escape-sequence", "names", 16, b"\x1b[2J", ShapeError, r"has a member '\x1b[2J'"),
    ("signature", "tree", 0, b"BTHD", FormatError, NOT_OURS),
    ("of-chunks", "tree", 4, b"\1", FormatError, NOT_OURS),
    ("level-1", "tree", 5, b"\1", FormatError, NOT_OURS),
    ("level-255", "tree", 5, b"\xff", FormatError, NOT_OURS),
    ("empty", "tree", 6, b"\0", FormatError, NOT_OURS),
    ("33-children", "tree", 6, b"\x21", FormatError, NOT_OURS),
    ("32-children", "tree", 6, b"\x20", UnsafeError, "lies across the superblock"),
    ("child-is-itself", "tree", 32, "tree", UnsafeError, "lies across the B-tree of /params/bn1"),
    ("child-is-a-group", "tree", 32, "group", UnsafeError, "lies across /params/bn1"),
    ("child-beyond", "tree", 32, BEYOND, UnsafeError, "but the file has"),
    ("child-is-data", "tree", 32, "weights", FormatError, NOT_OURS),
    ("signature", "symbols", 0, b"TREE", FormatError, NOT_OURS),
    ("version-2", "symbols", 4, b"\2", FormatError, NOT_OURS),
    ("empty", "symbols", 6, b"\0", FormatError, NOT_OURS),
    ("one-less", "symbols", 6, b"\3", ShapeError, "is missing"),
    ("one-more", "symbols", 6, b"\5", FormatError, "members not as"),
    ("9-members", "symbols", 6, b"\x09", FormatError, NOT_OURS),
    ("65535-members", "symbols", 6, b"\xff\xff", FormatError, NOT_OURS),
    ("name-outside", "symbols", 8, number(10_000), FormatError, "members not as"),
    ("name-at-the-end-of-numbers", "symbols", 8, MOST, FormatError, "members not as"),
    ("name-twice", "symbols", 48, number(16), FormatError, "members not as"),
    ("object-beyond", "symbols", 16, BEYOND, UnsafeError, "but the file has"),
    ("object-is-its-group", "symbols", 16, "group", UnsafeError, "lies across /params/bn1"),
    ("object-is-the-root", "symbols", 16, "root", UnsafeError, "lies across /"),
    ("object-twice", "symbols", 16, "dataset", UnsafeError, "lies across /params/bn1/bias"),
    ("object-is-data", "symbols", 16, "weights", FormatError, NOT_OURS),
    ("link", "symbols", 24, b"\2", UnsafeError, "link to elsewhere"),
    ("kind-3", "symbols", 24, b"\3", FormatError, "members not as"),
    ("reserved", "symbols", 28, b"\1", FormatError, "members not as"),
    ("tree-beyond", "group", 24, BEYOND, UnsafeError, "but the file has"),
    ("tree-is-itself", "group", 24, "group", UnsafeError, "lies across /params/bn1"),
    ("heap-is-its-tree", "group", 32, "tree", FormatError, NOT_OURS),
    ("continued-in-itself", "root", 24, "root", UnsafeError, "lies across /"),
    ("continued-beyond", "root", 24, BEYOND, UnsafeError, "but the file has"),
    ("continued-endlessly", "root", 32, MOST, UnsafeError, "longer than tinyresnext writes"),
    ("continued-by-nothing", "root", 32, number(0), FormatError, "has 1 messages, and says 10"),
    ("continued-in-data", "root", 24, "weights", FormatError, ""),
    ("continued-in-a-text", "attributes", 0, b"\x10\0\x10\0" + bytes(4), UnsafeError, "lies across"),
]:
    forge(name, where, offset, new, error, says)


forge("called-half", "datatype", 0, FLOAT16, UnsafeError, "256 bytes stored, its shape needs 128")


@case("H-forged-tensors-share-data", UnsafeError, "lies across")
def _(path):
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at, other = h5py.h5o.get_info(file[SHIFT].id).addr, file[SCALE].id.get_offset()
    at = data.find(b"\3\1", at + 100)
    data[at + 2 : at + 10] = number(other)
    path.write_bytes(data)


@case("H-forged-tensors-share-a-few-bytes", UnsafeError, "lies across")
def _(path):
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        at, other = h5py.h5o.get_info(file[SHIFT].id).addr, file[SCALE].id.get_offset()
    at = data.find(b"\3\1", at + 100)
    data[at + 2 : at + 10] = number(other + 252)
    path.write_bytes(data)


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


def blocks(path: Path) -> list[tuple[int, int, str]]:
    """Begin, end and name of everything in a good file that is no tensor."""
    with path.open("rb", buffering=0) as file:
        hdf5 = store_file.structure(file)
        store_file.places(hdf5, parameters(SPEC))
    return [tuple(block) for block in hdf5._blocks if block.what not in parameters(SPEC)]


def forged(data: bytes, places: list[tuple[int, int, str]], rng: random.Random) -> bytes:
    """Change numbers of the structure, some to the addresses of other structures."""
    out = bytearray(data)
    begin, end, _ = rng.choice(places)
    for _ in range(rng.randrange(1, 3)):
        at, length = rng.randrange(begin, end), rng.choice([1, 1, 2, 4, 8])
        at -= at % length
        new = rng.choice(
            [
                b"\xff" * 8,
                bytes(8),
                b"\x01" + bytes(7),
                rng.randbytes(8),
                number(rng.choice(places)[0]),
                bytes([out[at] ^ 1 << rng.randrange(8), *out[at + 1 : at + 8]]),
            ]
        )
        out[at : at + length] = new[:length]
    return bytes(out)


def same(a: store.Stored, b: store.Stored) -> bool:
    """Whether two models are equal to the last bit, and in order."""
    if a._replace(params={}) != b._replace(params={}) or list(a.params) != list(b.params):
        return False
    pairs = [(a.params[name], b.params[name]) for name in a.params]
    return all(x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def mutate(path: Path, seed: int, count: int) -> dict[str, int]:
    """Damage the good file at ``path`` many times and count what `store.read` makes of it."""
    rng, data, good, places = random.Random(seed), path.read_bytes(), store.read(path), blocks(path)
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
