"""Model files that must be refused for attributes, digests or numbers, made from a good one."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path

import h5py
import hdf5_cases
import numpy as np
from h5py import h5p
from hdf5_cases import CONV, SCALE, SHIFT, SPEC, VARIANCE, Case, low_level, model, set_text

from tinyresnext.errors import (
    FormatError,
    IntegrityError,
    ShapeError,
    TinyResNeXtError,
    UnsafeError,
)
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.store import contents, digest, layout
from tinyresnext.store.contents import json_text

CASES: dict[str, Case] = {}
case, edit = partial(hdf5_cases.case, CASES), partial(hdf5_cases.edit, CASES)

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

    @edit(f"H-attribute-cut-{name}", FormatError, "not divided as tinyresnext does it")
    def _(file, first=first, second=second):
        file.attrs["labels"], file.attrs["labels.1"] = (
            np.bytes_(first.encode()),
            np.bytes_(second.encode() or b"\0"),
        )


@edit("H-attribute-gap-in-pieces", FormatError, "among them 'labels.2'")
def _(file):
    file.attrs["labels"], file.attrs["labels.2"] = np.bytes_(b"x" * 60_000), np.bytes_(b"x")


@edit("H-group-of-newer-form", UnsafeError, "may have links")
def _(file):
    plan = h5p.create(h5p.GROUP_CREATE)
    plan.set_link_creation_order(h5p.CRT_ORDER_TRACKED)
    del file["params/fc"]
    h5py.h5g.create(file.id, b"params/fc", gcpl=plan)


@edit("H-group-of-2000-links", UnsafeError, "member that is a link")
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

good = {
    "spec": SPEC.to_json(),
    "preprocess": Preprocess().to_json(),
    "labels": ["cat", "dog", "owl"],
    "provenance": {},
}
spec = json_text(good["spec"])
TEXTS: dict[str, tuple[str, str, type[TinyResNeXtError]]] = {
    "no-json": ("spec", "{", FormatError),
    "no-object": ("spec", "[]", FormatError),
    "null": ("spec", "null", FormatError),
    "key-twice": ("spec", spec[:-1] + ',"width":8}', FormatError),
    "key-unknown": ("spec", json_text({**good["spec"], "more": 1}), FormatError),
    "key-missing": (
        "spec",
        json_text({k: v for k, v in good["spec"].items() if k != "eps"}),
        FormatError,
    ),
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
    "preprocess-std-zero": (
        "preprocess",
        json_text({**good["preprocess"], "std": [0.0, 0.0, 0.0]}),
        FormatError,
    ),
    "preprocess-huge": (
        "preprocess",
        json_text({**good["preprocess"], "resize": 10**9}),
        FormatError,
    ),
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
    "labels-70KB": ("labels", json_text(["cat", "dog", "x" * 70_000]), UnsafeError),
    "labels-bomb-of-objects": ("labels", "[" + "{}," * 3_000_000 + "{}]", FormatError),
    "labels-bomb-of-lists": ("labels", "[" + "[]," * 3_000_000 + "[]]", FormatError),
    "labels-bomb-of-numbers": ("labels", "[" + "0.5," * 2_000_000 + "0.5]", FormatError),
    "labels-bomb-of-nothing": ("labels", "[" + '"",' * 3_000_000 + '""]', ShapeError),
    "labels-bomb-beyond-the-root": ("labels", "[" + "{}," * 5_000_000 + "{}]", UnsafeError),
    "labels-bomb-of-escapes": ("labels", '["cat","dog","' + "\\\\" * 1_000_000 + '"]', UnsafeError),
    "labels-bomb-of-open-text": ("labels", '["' + "x" * 9_000_000, FormatError),
    "spec-bomb-of-blocks": (
        "spec",
        json_text({**good["spec"], "blocks": [3] * 3_000_000}),
        UnsafeError,
    ),
    "spec-many-blocks": (
        "spec",
        json_text({**good["spec"], "blocks": [3] * 30_000}),
        FormatError,
    ),
    "spec-long-key": ("spec", json_text({**good["spec"], "x" * 60_000: 3}), FormatError),
    "spec-long-stem": (
        "spec",
        json_text({**good["spec"], "stem": "x" * 60_000}),
        FormatError,
    ),
    "spec-long-number": (
        "spec",
        spec.replace('"classes":3', '"classes":1' + "0" * 4000),
        FormatError,
    ),
    "preprocess-long": (
        "preprocess",
        json_text({**good["preprocess"], "mean": [0.5] * 15_000}),
        FormatError,
    ),
    "preprocess-bomb": ("preprocess", "[" + "{}," * 1_000_000 + "{}]", UnsafeError),
    "provenance-bomb": (
        "provenance",
        json_text({f"{i:06x}": {} for i in range(300_000)}),
        UnsafeError,
    ),
    "provenance-long-value": (
        "provenance",
        json_text({"source": ["x" * 60_000]}),
        FormatError,
    ),
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

    @edit(
        f"H-tampered-{attribute}-{(new or b'itself').decode()}",
        IntegrityError,
        f"the {kind} has the sha256",
    )
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
        documents = contents.documents_of(stored)
        sha256 = {key: hashlib.sha256(array).hexdigest() for key, array in stored.params.items()}
        attributes = {"format": "tinyresnext", "format_version": "1", **documents}
        attributes["sha256"] = digest.model_digest(documents, SPEC, sha256)
        attributes["provenance_sha256"] = hashlib.sha256(
            documents["provenance"].encode()
        ).hexdigest()
        path.write_bytes(b"")
        tensors = ((key, array, sha256[key]) for key, array in stored.params.items())
        layout.lay_out(path, attributes, tensors, "sha256", lambda: attributes["sha256"])


numbers("conv1.weight", np.nan, "1 values that are NaN")
numbers("fc.bias", np.inf, "1 values that are NaN")
numbers(VARIANCE, -np.inf, "1 values that are NaN")
numbers(VARIANCE, -1e-30, "1 negative variances")
