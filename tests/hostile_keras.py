"""H: broken and malicious HDF5 files of Keras."""

from __future__ import annotations

import struct

import foreign_files as ff
import numpy as np
from torch_files import numbers

from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

FOUR = numbers(4)


def keras(change=None, **options):
    """A file that h5py changes before it is closed."""
    return ff.keras_file(change=change, **options)


def swap(old, new, count=1, data=None):
    """A file in which some bytes are others."""
    good = ff.keras_file() if data is None else data
    assert len(old) == len(new)
    assert old in good
    return good.replace(old, new, count)


def at(offset, new):
    """A file with other bytes at a place."""
    good = bytearray(ff.keras_file())
    good[offset : offset + len(new)] = new
    return bytes(good)


def dataset(name="conv1_conv/conv1_conv/bias:0", **options):
    """A file in which one dataset is made in another way."""

    def change(file):
        del file[name]
        file.create_dataset(name, **options)

    return keras(change)


def attribute(where, name, value):
    """A file with another attribute."""
    return keras(lambda file: file[where].attrs.__setitem__(name, value))


def removed(where, name=None):
    def change(file):
        if name is None:
            del file[where]
        else:
            del file[where].attrs[name]

    return keras(change)


def linked(make):
    """A file with a link in the place of a dataset or group."""

    def change(file):
        import h5py

        name, link = make(h5py)
        del file[name]
        file[name] = link

    return keras(change)


def cases():
    """Names, and for each the file and the error."""
    import h5py

    good, name = ff.keras_file(), "conv1_conv/conv1_conv/bias:0"
    space = h5py.h5s.create_simple((4,))
    bias = ff.keras_state()["conv1_conv"]["conv1_conv/bias:0"].tobytes()
    where = good.index(bias)
    layout = b"\3\1" + struct.pack("<QQ", where, 16)
    first = good.index(b"SNOD")
    tree, heap = good.index(b"TREE"), good.index(b"HEAP")
    shared = ff.keras_file(fixed=False)
    store = shared.index(b"GCOL")
    float32 = bytes.fromhex("11201f00040000000000200017080017")

    def external(file):
        del file[name]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_external(b"/etc/passwd", 0, 16)
        h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist)

    def virtual(file):
        del file[name]
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
        file.create_virtual_dataset(name, layout)

    def cycle(file):
        del file["conv1_conv/conv1_conv"]
        file["conv1_conv/conv1_conv"] = file["conv1_conv"]

    names = lambda values: attribute("/", "layer_names", values)  # noqa: E731
    weights = lambda values: attribute("conv1_conv", "weight_names", values)  # noqa: E731
    text = lambda *values: np.array([v.encode() for v in values], "S")  # noqa: E731
    return {
        "H-only_signature": (good[:8], FormatError),
        "H-cut_in_superblock": (good[:90], FormatError),
        "H-cut_by_1": (good[:-1], FormatError),
        "H-cut_in_half": (good[: len(good) // 2], FormatError),
        "H-appended": (good + b"\0", FormatError),
        "H-superblock_version": (at(8, b"\1"), FormatError),
        "H-superblock_latest": (keras(libver="latest"), FormatError),
        "H-superblock_v110": (keras(libver="v110"), FormatError),
        "H-user_block": (keras(userblock_size=512), FormatError),
        "H-offsets_of_4_bytes": (at(13, b"\4"), FormatError),
        "H-leaf_size": (at(16, b"\xff\xff"), FormatError),
        "H-node_size": (at(18, b"\xff\xff"), FormatError),
        "H-flags": (at(20, b"\1"), FormatError),
        "H-base_address": (at(24, b"\1"), FormatError),
        "H-end_of_file": (at(40, struct.pack("<Q", 1 << 62)), FormatError),
        "H-driver": (at(48, bytes(8)), FormatError),
        "H-root_beyond": (at(64, struct.pack("<Q", 1 << 62)), UnsafeError),
        "H-root_undefined": (at(64, b"\xff" * 8), UnsafeError),
        "H-root_at_superblock": (at(64, bytes(8)), UnsafeError),
        "H-root_is_link": (at(72, b"\2"), FormatError),
        "H-external_storage": (keras(external), UnsafeError),
        "H-virtual": (keras(virtual), WeightsError),
        "H-soft_link": (linked(lambda h: (name, h.SoftLink("/probs/probs/bias:0"))), UnsafeError),
        "H-soft_link_to_itself": (linked(lambda h: (name, h.SoftLink("/" + name))), UnsafeError),
        "H-soft_link_group": (linked(lambda h: ("conv1_conv", h.SoftLink("/probs"))), UnsafeError),
        "H-external_link": (
            linked(lambda h: (name, h.ExternalLink("/etc/passwd", "/x"))),
            WeightsError,
        ),
        "H-external_link_group": (
            linked(lambda h: ("conv1_conv/conv1_conv", h.ExternalLink("x.h5", "/"))),
            WeightsError,
        ),
        "H-external_link_layer": (
            linked(lambda h: ("conv1_conv", h.ExternalLink("x.h5", "/"))),
            WeightsError,
        ),
        "H-hard_link": (
            keras(lambda f: (f.__delitem__(name), f.__setitem__(name, f["probs/probs/bias:0"]))),
            UnsafeError,
        ),
        "H-hard_link_cycle": (keras(cycle), UnsafeError),
        "H-gzip": (dataset(shape=(4,), dtype="f4", compression="gzip", chunks=(2,)), UnsafeError),
        "H-gzip_bomb": (
            dataset(shape=(1 << 24,), dtype="f4", compression="gzip", data=np.zeros(1 << 24, "f4")),
            UnsafeError,
        ),
        "H-chunked": (dataset(data=FOUR, chunks=(2,)), FormatError),
        "H-shuffle": (dataset(data=FOUR, chunks=(2,), shuffle=True), UnsafeError),
        "H-fletcher": (dataset(data=FOUR, chunks=(2,), fletcher32=True), UnsafeError),
        "H-scaleoffset": (dataset(data=np.arange(4), chunks=(2,), scaleoffset=4), UnsafeError),
        "H-growing": (dataset(data=FOUR, maxshape=(None,)), FormatError),
        "H-shape_bomb": (dataset(shape=(1 << 40,), dtype="f4"), UnsafeError),
        "H-never_written": (dataset(shape=(4,), dtype="f4"), UnsafeError),
        "H-compact": (
            keras(lambda f: (f.__delitem__(name), _compact(h5py, f, name, space))),
            FormatError,
        ),
        "H-integers": (dataset(data=np.arange(4)), FormatError),
        "H-big_endian": (dataset(data=FOUR.astype(">f4")), FormatError),
        "H-long_double": (dataset(data=FOUR.astype(np.longdouble)), FormatError),
        "H-complex": (dataset(data=FOUR.astype("c8")), FormatError),
        "H-compound": (dataset(data=np.zeros(4, [("a", "f4")])), FormatError),
        "H-text": (dataset(data=text("abcd")), FormatError),
        "H-varying_text": (dataset(data=["a", "b"], dtype=h5py.string_dtype()), FormatError),
        "H-references": (
            keras(
                lambda f: (
                    f.__delitem__(name),
                    f.create_dataset(name, data=f.ref, dtype=h5py.ref_dtype),
                )
            ),
            FormatError,
        ),
        "H-enumerated": (dataset(data=np.array([True, False])), FormatError),
        "H-opaque": (dataset(data=np.void(b"abcd")), FormatError),
        "H-array_type": (dataset(shape=(2,), dtype=np.dtype(("f4", (2,)))), FormatError),
        "H-null_space": (dataset(data=h5py.Empty("f4")), FormatError),
        "H-nine_sides": (dataset(data=FOUR.reshape((1,) * 8 + (4,))), FormatError),
        "H-group_for_dataset": (
            keras(lambda f: (f.__delitem__(name), f.create_group(name))),
            FormatError,
        ),
        "H-dataset_for_group": (
            keras(
                lambda f: (f.__delitem__("conv1_conv"), f.create_dataset("conv1_conv", data=1.0))
            ),
            FormatError,
        ),
        "H-dataset_for_inner_group": (
            keras(
                lambda f: (
                    f.__delitem__("conv1_conv/conv1_conv"),
                    f.create_dataset("conv1_conv/conv1_conv", data=1.0),
                )
            ),
            FormatError,
        ),
        "H-layer_missing": (removed("conv1_conv"), FormatError),
        "H-weight_missing": (removed(name), FormatError),
        "H-no_layer_names": (removed("/", "layer_names"), FormatError),
        "H-no_weight_names": (removed("conv1_conv", "weight_names"), FormatError),
        "H-layers_twice": (names(text("probs", "probs")), FormatError),
        "H-weights_twice": (weights(text("conv1_conv/bias:0", "conv1_conv/bias:0")), FormatError),
        "H-layers_none": (names(np.zeros(0, "f8")), FormatError),
        "H-layers_scalar": (names(np.bytes_(b"probs")), FormatError),
        "H-layers_square": (names(np.array([[b"probs"], [b"act"]])), FormatError),
        "H-layers_numbers": (names(np.arange(3)), FormatError),
        "H-layers_empty_text": (names(text("probs", "")), FormatError),
        "H-layer_of_path": (names(text("../probs")), FormatError),
        "H-layer_of_slash": (names(text("/")), FormatError),
        "H-layer_dot": (names(text(".")), FormatError),
        "H-layer_not_ascii": (names(np.array(["é".encode()], "S")), FormatError),
        "H-weight_of_path": (weights(text("../../probs/probs/bias:0")), FormatError),
        "H-weight_absolute": (weights(text("/probs/probs/bias:0")), FormatError),
        "H-weight_dunder": (weights(text("__class__")), FormatError),
        "H-weight_long": (weights(text("a" * 300)), FormatError),
        "H-weight_deep": (weights(text("/".join("abcdefghijkl"))), FormatError),
        "H-weight_newline": (weights(text("a\nb")), FormatError),
        "H-layout_beyond": (swap(layout, b"\3\1" + struct.pack("<QQ", 1 << 62, 16)), UnsafeError),
        "H-layout_undefined": (
            swap(layout, b"\3\1" + b"\xff" * 8 + struct.pack("<Q", 16)),
            UnsafeError,
        ),
        "H-layout_over_superblock": (
            swap(layout, b"\3\1" + struct.pack("<QQ", 0, 16)),
            UnsafeError,
        ),
        "H-layout_over_heap": (swap(layout, b"\3\1" + struct.pack("<QQ", heap, 16)), UnsafeError),
        "H-layout_over_another": (
            swap(layout, b"\3\1" + struct.pack("<QQ", where + 4, 16)),
            UnsafeError,
        ),
        "H-layout_too_small": (swap(layout, b"\3\1" + struct.pack("<QQ", where, 12)), FormatError),
        "H-layout_too_large": (swap(layout, b"\3\1" + struct.pack("<QQ", where, 20)), FormatError),
        "H-layout_version": (swap(layout, b"\4\1" + struct.pack("<QQ", where, 16)), FormatError),
        "H-layout_class": (swap(layout, b"\3\0" + struct.pack("<QQ", where, 16)), FormatError),
        "H-float_with_other_bias": (swap(float32 + b"\x7f", float32 + b"\x80", -1), FormatError),
        "H-tree_mark": (at(tree, b"TREF"), FormatError),
        "H-tree_level": (at(tree + 5, b"\7"), FormatError),
        "H-tree_count": (at(tree + 6, b"\xff\xff"), FormatError),
        "H-tree_of_itself": (at(tree + 32, struct.pack("<Q", tree)), UnsafeError),
        "H-node_mark": (at(first, b"SNOE"), FormatError),
        "H-node_count": (at(first + 6, b"\xff"), FormatError),
        "H-heap_mark": (at(heap, b"HEAQ"), FormatError),
        "H-heap_beyond": (at(heap + 24, struct.pack("<Q", 1 << 50)), UnsafeError),
        "H-heap_size": (at(heap + 8, struct.pack("<Q", 1 << 50)), FormatError),
        "H-texts_mark": (swap(b"GCOL", b"GCOM", data=shared), FormatError),
        "H-texts_version": (swap(b"GCOL\1", b"GCOL\2", data=shared), FormatError),
        "H-texts_size": (
            shared[: store + 8] + struct.pack("<Q", 1 << 50) + shared[store + 16 :],
            UnsafeError,
        ),
        "H-texts_size_0": (shared[: store + 8] + bytes(8) + shared[store + 16 :], FormatError),
        "H-texts_first_too_long": (
            shared[: store + 24] + struct.pack("<Q", 1 << 50) + shared[store + 32 :],
            FormatError,
        ),
        "H-keras_3": (
            keras(lambda f: (f.attrs.__delitem__("layer_names"), f.create_group("layers"))),
            FormatError,
        ),
        "H-double_beyond": (dataset(data=np.array([1, 1e300, 1, 1])), IntegrityError),
    }


def _compact(h5py, file, name, space):
    """A dataset whose values are in its header."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.COMPACT)
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, plist)
