"""Model files that must be refused, made from a good one through HDF5: links, types, shapes.

Each case is a function that changes the good file at ``path``; ``CASES`` has them with the error
that each must cause.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import h5py
import hdf5_cases
import numpy as np
from h5py import h5d, h5p, h5s, h5t, h5z
from hdf5_cases import CONV, SCALE, SHIFT, SPEC, Case, beside, low_level, put, secret, set_text

from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UnsafeError
from tinyresnext.store.contents import json_text

CASES: dict[str, Case] = {}
edit = partial(hdf5_cases.edit, CASES)

# Other files


@edit("H-external-storage-secret", UnsafeError, "not stored plainly")
def _(file):
    put(
        file,
        CONV,
        shape=file[CONV].shape,
        dtype="<f4",
        external=[(secret(file), 0, file[CONV].nbytes)],
    )


@edit("H-external-storage-passwd", UnsafeError, "not stored plainly")
def _(file):
    put(file, SCALE, shape=(64,), dtype="<f4", external=[("/etc/passwd", 0, 256)])


@edit("H-external-storage-relative", UnsafeError, "not stored plainly")
def _(file):
    put(file, SCALE, shape=(64,), dtype="<f4", external=[("../../secret", 0, h5py.h5f.UNLIMITED)])


for place, at in {
    "leaf": CONV,
    "intermediate": "params/layer1",
    "deep": "params/layer1/0",
    "top": "params",
}.items():

    @edit(f"H-external-link-{place}", UnsafeError, "may have links, which tinyresnext never writes")
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

    @edit(f"H-soft-link-{place}", UnsafeError, "member that is a link")
    def _(file, at=at, to=to):
        del file[at]
        file[at] = h5py.SoftLink(to)


@edit("H-soft-link-loop", UnsafeError, "member that is a link")
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
    set_text(
        file,
        "spec",
        json_text(replace(SPEC, blocks=(1000,) * 8, cardinality=4096, width=4096).to_json()),
    )


@edit("H-spec-larger-than-the-file", UnsafeError, "of weights or more, but the file")
def _(file):
    set_text(file, "spec", json_text(replace(SPEC, blocks=(3, 4), width=64).to_json()))


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

    @edit(
        f"H-dtype-{name}",
        *(ANY_LENGTH if "any-length" in name else (ShapeError, "not of type float32")),
    )
    def _(file, kind=kind):
        low_level(
            file, SCALE, h5p.create(h5p.DATASET_CREATE), h5t.py_create(np.dtype(kind), logical=True)
        )


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

for name, shape in {
    "flat": (1728,),
    "turned": (3, 3, 3, 64),
    "one-more": (64, 3, 3, 3, 1),
    "larger": (65, 3, 3, 3),
}.items():

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
    set_text(file, "spec", json_text(replace(SPEC, shortcut="C").to_json()))


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


@edit("H-groups-10000", ShapeError, "has a member '0'")
def _(file):
    for i in range(10_000):
        h5py.h5g.create(file["params"].id, b"%d" % i)


@edit("H-groups-1000-deep", ShapeError, "has a member 'deep'")
def _(file):
    file.create_group("deep" + "/a" * 1000)
