"""The model file: what is written is read again, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import tracemalloc
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hdf5_cases import SPEC, model, same

from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UnsafeError, UsageError
from tinyresnext.formats.hdf5.own import Hdf5
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec, variant
from tinyresnext.store import places as store_file
from tinyresnext.store import store

# What is written is read


def test_round_trip(tmp_path):
    stored = model()
    store.write(tmp_path / "m.h5", stored)
    found = store.read(tmp_path / "m.h5")
    assert same(found, stored)
    assert list(found.params) == list(parameters(SPEC))
    for array in found.params.values():
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        assert array.flags.aligned
        assert not array.flags.writeable
    assert isinstance(found.labels, tuple)


def test_any_order_and_any_strides_make_the_same_file(tmp_path):
    stored = model()
    turned = {name: np.asfortranarray(array) for name, array in reversed(stored.params.items())}
    store.write(tmp_path / "a.h5", stored)
    store.write(tmp_path / "b.h5", stored._replace(params=turned, labels=list(stored.labels)))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_time_leaves_no_trace(tmp_path, path, good):
    time.sleep(1.1 - time.time() % 1)
    store.write(tmp_path / "later.h5", model())
    assert (tmp_path / "later.h5").read_bytes() == good


def test_anyone_can_read_it_with_h5py(path):
    stored = model()
    with h5py.File(path) as file:
        assert {key: bytes(file.attrs[key]) for key in ("format", "format_version")} == {
            "format": b"tinyresnext",
            "format_version": b"1",
        }
        assert json.loads(file.attrs["labels"]) == list(stored.labels)
        assert json.loads(file.attrs["spec"]) == SPEC.to_json()
        for name, array in stored.params.items():
            dataset = file["params/" + name.replace(".", "/")]
            np.testing.assert_array_equal(dataset[()], array, strict=True)
            assert dataset.id.get_offset() % 64 == 0
            assert (dataset.chunks, dataset.compression, dataset.external, dataset.is_virtual) == (
                None,
                None,
                None,
                False,
            )
            assert (
                bytes(dataset.attrs["sha256"]).decode()
                == hashlib.sha256(array.tobytes()).hexdigest()
            )


def test_twenty_thousand_labels(tmp_path):
    spec = replace(SPEC, classes=20_000)
    params = {name: np.ones(shape, np.float32) for name, shape in parameters(spec).items()}
    labels = tuple(f"class {i}, also called ŗ{'x' * 20}" for i in range(20_000))
    store.write(tmp_path / "m.h5", store.Stored(spec, params, Preprocess(), labels, {}))
    assert store.read(tmp_path / "m.h5").labels == labels
    with h5py.File(
        tmp_path / "m.h5"
    ) as file:  # whoever reads it with h5py puts the pieces together
        pieces = [
            bytes(file.attrs["labels" if i == 0 else f"labels.{i}"])
            for i in range(len(file.attrs) - 7)
        ]
    assert [len(piece) for piece in pieces[:-1]] == [60_000] * (len(pieces) - 1)
    assert len(pieces) > 10
    assert json.loads(b"".join(pieces)) == list(labels)


def test_the_most_labels_take_no_more_than_the_file_and_64_MB(tmp_path):
    spec = Spec((1,), cardinality=1, width=1, classes=41_000, stem="cifar", expansion=1)
    params = {name: np.ones(shape, np.float32) for name, shape in parameters(spec).items()}
    labels = tuple(
        f"{i} \U0001f600 {'x' * 230}" for i in range(41_000)
    )  # four bytes for each letter, once it is understood
    store.write(tmp_path / "m.h5", store.Stored(spec, params, Preprocess(), labels, {}))
    tracemalloc.start()
    try:
        assert store.read(tmp_path / "m.h5").labels == labels
        assert tracemalloc.get_traced_memory()[1] < (tmp_path / "m.h5").stat().st_size + (64 << 20)
    finally:
        tracemalloc.stop()


def test_the_library_reads_nothing(path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the HDF5 library was asked to open a file")

    monkeypatch.setattr(h5py, "File", never)
    monkeypatch.setattr(h5py.h5f, "open", never)
    assert same(store.read(path), model())
    assert store.check(path).passed


def test_things_are_where_the_library_says(path):
    with path.open("rb", buffering=0) as file:
        places = store_file.places(store_file.structure(file), parameters(SPEC))
    with h5py.File(path) as file:
        for name, place in places.items():
            assert place.offset == file["params/" + name.replace(".", "/")].id.get_offset()


@pytest.mark.parametrize("count", [1, 8, 9, 64, 65, 300, 5000])
def test_a_group_of_many_members(tmp_path, count):
    """B-trees of one level, of two and of three."""
    names = {b"%x" % (i * 7919 % 100_003) for i in range(count)}
    with h5py.File(tmp_path / "many.h5", "w", libver="earliest") as file:
        for name in names:
            h5py.h5g.create(file.id, name)
    with (tmp_path / "many.h5").open("rb", buffering=0) as file:
        hdf5 = Hdf5(file, most=1000)
        found = dict(hdf5.members(hdf5.root, "/"))
        assert list(found) == sorted(names)
    with h5py.File(tmp_path / "many.h5") as file:
        assert found == {name: h5py.h5o.get_info(file.id, name).addr for name in names}


@pytest.mark.parametrize("stem", ["deep", "imagenet"])
def test_other_architectures(tmp_path, stem):
    spec = replace(
        SPEC, stem=stem, avg_down=True, shortcut="C", channels=1, blocks=(1,) * 3, eps=1e-3
    )
    params = {name: np.full(shape, 0.5, np.float32) for name, shape in parameters(spec).items()}
    stored = store.Stored(spec, params, Preprocess(mean=(0.1,), std=(0.3,)), model().labels, {})
    store.write(tmp_path / "m.h5", stored)
    assert same(store.read(tmp_path / "m.h5"), stored)


def test_numbers_at_the_edge(tmp_path):
    stored = model()
    edge = np.array([0.0, -0.0, 1e-45, 3.4e38, 1e-38], np.float32)
    stored.params["bn1.running_var"][:5] = edge
    stored.params["fc.bias"][:] = -edge[2:]
    store.write(tmp_path / "m.h5", stored)
    assert same(store.read(tmp_path / "m.h5"), stored)


def test_nonfinite_only_if_asked_for(tmp_path):
    stored = model()
    stored.params["conv1.weight"].flat[:2] = np.nan, -np.inf
    with pytest.raises(IntegrityError, match=r"conv1.weight has 2 values that are NaN or infinite"):
        store.write(tmp_path / "m.h5", stored)
    store.write(tmp_path / "m.h5", stored, allow_nonfinite=True)
    with pytest.raises(IntegrityError, match=r"conv1.weight has 2 values"):
        store.read(tmp_path / "m.h5")
    assert same(store.read(tmp_path / "m.h5", allow_nonfinite=True), stored)
    stored.params["bn1.running_var"][0] = -1
    with pytest.raises(IntegrityError, match="negative"):
        store.write(tmp_path / "m.h5", stored, allow_nonfinite=True)


def rounded(stored: store.Stored) -> store.Stored:
    """What half precision leaves of a model: IEEE's binary16 for all that is more than a vector."""
    with np.errstate(over="ignore"):
        halves = {
            name: array.astype(np.float16).astype(np.float32)
            for name, array in stored.params.items()
            if array.ndim > 1
        }
    return stored._replace(params=stored.params | halves)


def test_half_is_rounded_once_and_widened_exactly(tmp_path):
    stored = model()
    every = np.arange(1 << 16, dtype=np.uint16).view(
        np.float16
    )  # whatever can be stored, but for what is not finite
    every = every[np.isfinite(every)].astype(np.float32)
    spec = replace(SPEC, classes=1000)
    params = {name: np.ones(shape, np.float32) for name, shape in parameters(spec).items()}
    params["fc.weight"].flat[: every.size] = every
    assert params["fc.weight"].size > every.size
    wide = store.Stored(spec, params, Preprocess(), tuple(map(str, range(1000))), {})
    store.write(tmp_path / "every.h5", wide, half=True)
    assert same(store.read(tmp_path / "every.h5"), wide)
    store.write(tmp_path / "half.h5", stored, half=True)
    assert same(store.read(tmp_path / "half.h5"), rounded(stored))
    assert not same(rounded(stored), stored)


def test_half_takes_half_the_room_and_has_the_digests_of_its_values(tmp_path):
    stored = model()
    for name, contents, half in (
        ("wide", stored, False),
        ("half", stored, True),
        ("again", rounded(stored), False),
    ):
        store.write(tmp_path / name, contents, half=half)
    large = sum(array.nbytes for array in stored.params.values() if array.ndim > 1)
    saved = (tmp_path / "wide").stat().st_size - (tmp_path / "half").stat().st_size
    assert abs(saved - large / 2) < 64 * len(
        stored.params
    )  # the beginning of each tensor is aligned
    assert (
        store.digests(tmp_path / "half")
        == store.digests(tmp_path / "again")
        != store.digests(tmp_path / "wide")
    )
    count = sum(array.ndim > 1 for array in stored.params.values())
    assert f"{count} of the tensors in half precision" in str(store.check(tmp_path / "half"))
    assert "half precision" not in str(store.check(tmp_path / "again"))
    with h5py.File(tmp_path / "half") as file:
        for name, array in rounded(stored).params.items():
            dataset = file["params/" + name.replace(".", "/")]
            assert dataset.dtype == ("<f2" if array.ndim > 1 else "<f4")
            np.testing.assert_array_equal(dataset[()].astype(np.float32), array, strict=True)
            assert (
                bytes(dataset.attrs["sha256"]).decode()
                == hashlib.sha256(array.tobytes()).hexdigest()
            )


@pytest.mark.parametrize(
    ("value", "exact"),
    [(65504.0, False), (65505.0, True), (-1e30, True), (np.inf, True), (np.nan, True)],
)
def test_what_half_has_no_room_for_stays_as_it_is(tmp_path, value, exact):
    stored = model()
    stored.params["fc.weight"].flat[-1] = value
    store.write(tmp_path / "m.h5", stored, half=True, allow_nonfinite=True)
    found = store.read(tmp_path / "m.h5", allow_nonfinite=True)
    wanted = rounded(stored).params | ({"fc.weight": stored.params["fc.weight"]} if exact else {})
    assert same(found, stored._replace(params=wanted))


def test_a_signalling_nan_in_half_is_like_any_other(tmp_path, narrow):
    (tmp_path / "m.h5").write_bytes(narrow)
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        values = file["params/fc/weight"][()]
        values.view(np.uint16).flat[:2] = 0x7C01, 0xFC00
        file["params/fc/weight"][...] = values
    with pytest.raises(IntegrityError, match=r"fc.weight has the sha256"):
        store.read(tmp_path / "m.h5")
    assert "fc.weight has 2 values that are NaN" in str(store.check(tmp_path / "m.h5"))


@pytest.mark.parametrize("dtype", [">f2", "<f2", "<i2", "<f8"])
def test_other_numbers_of_the_narrow_file(tmp_path, narrow, dtype):
    """Put another type in the place of half precision; the last known type has the wrong length."""
    (tmp_path / "m.h5").write_bytes(narrow)
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        digest, values = file["params/fc/weight"].attrs["sha256"], file["params/fc/weight"][()]
        del file["params/fc/weight"]
        shape = (values.size + 1,) if dtype == "<f2" else values.shape
        file.create_dataset("params/fc/weight", shape, dtype).attrs["sha256"] = digest
    with pytest.raises(
        ShapeError, match="has the shape" if dtype == "<f2" else "float32 or float16"
    ):
        store.read(tmp_path / "m.h5")


def test_threads_read_at_once(path):
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(same(store.read(path), model())))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8


@pytest.mark.skipif(
    not os.path.isdir("/proc/self/fd"), reason="the system does not list open files"
)
def test_the_file_is_closed_again(path):
    def links() -> list[str]:
        return [
            os.readlink(f"/proc/self/fd/{fd}")
            for fd in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{fd}")
        ]

    kept = store.read(path)
    path.write_bytes(path.read_bytes()[:48] + bytes(1000))
    with pytest.raises(FormatError):
        store.read(path)
    assert str(path) not in links()
    assert kept.params


# Digests


def test_digests_are_those_of_the_weights_wherever_they_came_from(tmp_path):
    stored = model()
    store.write(tmp_path / "a.h5", stored)
    store.write(
        tmp_path / "b.h5", stored._replace(provenance={"source": "elsewhere", "sha256": "0" * 64})
    )
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "b.h5").read_bytes()
    found = store.digests(tmp_path / "a.h5")
    assert found == store.digests(tmp_path / "b.h5") == store.check(tmp_path / "a.h5").digests
    assert found.tensors == {
        name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in stored.params.items()
    }


@pytest.mark.parametrize(
    "other",
    [
        model()._replace(labels=("cat", "snow leopard", "dög")),
        model()._replace(preprocess=Preprocess(crop=200)),
        model()._replace(spec=replace(SPEC, eps=1e-4)),
        model()._replace(
            params=model().params | {"fc.bias": model().params["fc.bias"] * np.float32(1.0000001)}
        ),
        model(seed=1),
    ],
    ids=["labels", "preprocess", "eps", "one-weight", "all-weights"],
)
def test_digests_differ_when_a_prediction_could(tmp_path, path, other):
    store.write(tmp_path / "other.h5", other)
    assert store.digests(tmp_path / "other.h5").model != store.digests(path).model


# What is not written


def changed(**fields: object) -> store.Stored:
    """The good model with other fields."""
    return model()._replace(**fields)


def with_tensor(name: str, value: object) -> store.Stored:
    """The good model with another tensor."""
    return changed(params=model().params | {name: value})


REFUSED = {
    "tensor-missing": (changed(params={"fc.bias": model().params["fc.bias"]}), ShapeError),
    "tensor-more": (with_tensor("fc.more", np.ones(3, np.float32)), ShapeError),
    "tensor-name-no-text": (with_tensor(3, np.ones(3, np.float32)), ShapeError),
    "tensor-shape": (with_tensor("fc.bias", np.ones((3, 1), np.float32)), ShapeError),
    "tensor-f64": (with_tensor("fc.bias", np.ones(3)), ShapeError),
    "tensor-big-endian": (with_tensor("fc.bias", np.ones(3, ">f4")), ShapeError),
    "tensor-object": (with_tensor("fc.bias", np.array([object()] * 3)), ShapeError),
    "tensor-list": (with_tensor("fc.bias", [1.0, 2.0, 3.0]), ShapeError),
    "labels-too-few": (changed(labels=("a", "b")), ShapeError),
    "labels-numbers": (changed(labels=(1, 2, 3)), FormatError),
    "labels-none": (changed(labels=None), FormatError),
    "labels-bytes": (changed(labels=(b"a", b"b", b"c")), FormatError),
    "labels-control": (changed(labels=("a", "b", "c\x1b[2J")), FormatError),
    "labels-surrogate": (changed(labels=("a", "b", "\ud800")), FormatError),
    "labels-zero-width": (changed(labels=("a", "b", "c\u200b")), FormatError),
    "labels-70KB": (changed(labels=("a", "b", "c" * 70_000)), UnsafeError),
    "provenance-70KB": (changed(provenance={"source": "x" * 70_000}), UnsafeError),
    "provenance-number": (changed(provenance={"top1": 77.6}), FormatError),
    "provenance-key-number": (changed(provenance={1: "one"}), FormatError),
    "provenance-none": (changed(provenance=None), FormatError),
    "nan": (with_tensor("fc.bias", np.full(3, np.nan, np.float32)), IntegrityError),
    "negative-variance": (
        with_tensor("bn1.running_var", np.full(64, -1, np.float32)),
        IntegrityError,
    ),
    "endless": (
        changed(spec=replace(SPEC, blocks=(1000,) * 8, cardinality=4096, width=4096)),
        UnsafeError,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_not_written(name, path, good):
    stored, error = REFUSED[name]
    with pytest.raises(error):
        store.write(path, stored)
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for bad in (
        tmp_path / "no" / "m.h5",
        tmp_path,
        tmp_path / "file" / "m.h5",
        "no\0name",
        3,
        None,
        "",
    ):
        with pytest.raises(UsageError, match="cannot write"):
            store.write(bad, model())


# The report


def test_report_of_a_good_file(path, good):
    report = store.check(path)
    assert report.passed
    assert [check.name for check in report.checks] == [
        "file",
        "layout",
        "model",
        "provenance",
        "digests",
        "values",
    ]
    text = str(report)
    assert hashlib.sha256(good).hexdigest() in text
    assert report.digests.model in text
    assert "source (`tinyresnext info` prints it)" in text
    assert "FAILED" not in text


def test_report_says_everything_that_is_wrong(path):
    with h5py.File(path, "r+") as file:
        for name in (
            "params/conv1/weight",
            "params/fc/bias",
            "params/bn1/running_var",
            "params/bn1/weight",
            "params/bn1/bias",
        ):
            file[name][...] = -1 if "var" in name else np.nan if "conv" in name else 2
        file.attrs["provenance"] = np.bytes_(b"{}")
        file.attrs["labels"] = np.bytes_(b'["a","b","c"]')
    report = store.check(path)
    found = {check.name: check for check in report.checks}
    assert {name: check.passed for name, check in found.items()} == {
        "file": True,
        "layout": True,
        "model": False,
        "provenance": False,
        "digests": False,
        "values": False,
    }
    assert "conv1.weight has the sha256" in found["digests"].found
    assert "(and 2 more)" in found["digests"].found
    assert "64 negative variances" in found["values"].found
    assert str(report).count("FAILED") == 4


def test_report_of_what_is_no_model(tmp_path):
    (tmp_path / "m.h5").write_text("hello")
    report = store.check(tmp_path / "m.h5")
    assert [(check.name, check.passed) for check in report.checks] == [
        ("file", True),
        ("layout", False),
    ]
    assert report.digests is None


@pytest.mark.slow
def test_resnext50_is_read_in_its_own_size(tmp_path):
    spec = variant("resnext50_32x4d")
    params = {name: np.zeros(shape, np.float32) for name, shape in parameters(spec).items()}
    labels = tuple(f"class {i}" for i in range(1000))
    store.write(tmp_path / "m.h5", store.Stored(spec, params, Preprocess(), labels, {}))
    tracemalloc.start()
    try:
        store.read(tmp_path / "m.h5")
        assert tracemalloc.get_traced_memory()[1] < (tmp_path / "m.h5").stat().st_size + (16 << 20)
    finally:
        tracemalloc.stop()
