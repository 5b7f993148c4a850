"""Model files that we would not write raise one error that says why; no other file is opened."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import audit
import forged_hdf5
import hostile_hdf5
import hostile_texts
import pytest
from child import child
from damaged_hdf5 import blocks, mutate
from hdf5_cases import model, same

from tinyresnext.errors import (
    FormatError,
    IntegrityError,
    TinyResNeXtError,
    UsageError,
    WeightsError,
)
from tinyresnext.store import places as store_file
from tinyresnext.store import reading, store

CASES = hostile_hdf5.CASES | hostile_texts.CASES | forged_hdf5.CASES


# What is refused


@pytest.mark.parametrize("name", CASES)
def test_hostile(name, path):
    change, error, says = CASES[name]
    change(path)
    with audit.watching() as events, pytest.raises(TinyResNeXtError) as caught:
        store.read(path)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 500
    assert {argument for event, argument in events if event == "open"} == {str(path)}
    assert not {
        event
        for event, _ in events
        if event.split(".")[0] in ("exec", "import", "os", "socket", "subprocess", "ctypes")
    }
    report = store.check(path)
    assert not report.passed
    assert "FAILED" in str(report)


def test_there_are_enough_hostile_files():
    assert len(CASES) >= 300


@pytest.mark.parametrize(
    "name", [name for name in CASES if "bomb" in name or "larger" in name or "groups" in name]
)
def test_bombs_take_no_memory(name, path):
    CASES[name].change(path)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            store.read(path)
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size + (32 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_no_other_file_is_opened_even_by_the_library(tmp_path, good):
    """Opening a named pipe waits for its writer, so a child that ends has opened none."""
    names = [name for name in CASES if "external" in name or "virtual" in name or "filter" in name]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.h5").write_bytes(good)
        CASES[name].change(tmp_path / name / "model.h5")
        for other in ("secret", "other.h5"):
            (tmp_path / name / other).unlink(missing_ok=True)
            os.mkfifo(tmp_path / name / other)
    (tmp_path / "plugins").mkdir()
    os.mkfifo(tmp_path / "plugins" / "libfilter.so")
    code = """if True:
        import pathlib, sys
        from tinyresnext import errors
        from tinyresnext.store import store
        for path in sorted(pathlib.Path(sys.argv[1]).glob("H-*/model.h5")):
            try:
                store.read(path)
            except errors.UnsafeError:
                print(path.parent.name)"""
    done = child(code, tmp_path, HDF5_PLUGIN_PATH=str(tmp_path / "plugins"))
    assert done.stdout.split() == sorted(names), done.stderr


def test_not_a_regular_file(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for bad in (tmp_path, tmp_path / "missing.h5", tmp_path / "loop", "no\0name", "", b"missing"):
        with pytest.raises(FormatError, match=r"is a folder|cannot be read"):
            store.read(bad)
        assert not store.check(bad).passed
    for bad in (3, None, 1.5):
        with pytest.raises(UsageError, match="a path was expected"):
            store.read(bad)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(FormatError, match="is a pipe, a device or a socket"):
            store.read(bad)


def test_a_link_to_a_model_is_followed(tmp_path, path):
    (tmp_path / "link.h5").symlink_to(path)
    assert same(store.read(tmp_path / "link.h5"), model())


# The file changes while it is read


def test_replaced_after_opening(tmp_path, path, monkeypatch):
    store.write(tmp_path / "other.h5", model(seed=1))
    before = store_file.structure

    def then_replace(file):
        os.replace(tmp_path / "other.h5", path)
        return before(file)

    monkeypatch.setattr(store_file, "structure", then_replace)
    assert same(store.read(path), model())  # the file that was opened is the one that is read


def test_changed_in_place_after_the_structure_was_read(tmp_path, path, monkeypatch):
    store.write(tmp_path / "other.h5", model(seed=1))
    before = reading.tensors

    def first_change(file, contents):
        path.write_bytes((tmp_path / "other.h5").read_bytes())
        return before(file, contents)

    monkeypatch.setattr(reading, "tensors", first_change)
    with pytest.raises(IntegrityError, match="has the sha256"):
        store.read(path)


def test_cut_short_after_the_structure_was_read(path, monkeypatch):
    before = reading.tensors

    def first_cut(file, contents):
        os.truncate(path, 5000)
        return before(file, contents)

    monkeypatch.setattr(reading, "tensors", first_cut)
    with pytest.raises(FormatError, match=r"cut short in .* bytes are missing"):
        store.read(path)


# Damage


def damage(tmp_path: Path, good: bytes, seed: int, count: int) -> dict[str, int]:
    """Read seeded damages of a good file."""
    (tmp_path / "model.h5").write_bytes(good)
    found = mutate(tmp_path / "model.h5", seed, count)
    assert sum(found.values()) == count
    assert found["untyped"] == 0
    assert found["different"] == 0
    return found


@pytest.mark.slow
def test_600_damages(tmp_path, good):
    found = damage(tmp_path, good, seed=0, count=600)
    # damage to bytes that mean nothing: gaps before aligned data, hints to writers
    assert found["same"] < 150
    assert min(found[name] for name in ("IntegrityError", "FormatError", "ShapeError")) > 15
    assert found["UnsafeError"] > 0


def test_300_damages_in_half_precision(tmp_path, narrow):
    found = damage(tmp_path, narrow, seed=2, count=300)
    assert min(found[name] for name in ("IntegrityError", "FormatError", "ShapeError")) > 3


@pytest.mark.slow
def test_10000_damages(tmp_path, good, narrow):
    damage(tmp_path, good, seed=1, count=7_000)
    damage(tmp_path, narrow, seed=3, count=3_000)


def test_every_byte_of_the_headers_matters(path, good):
    """Flip a bit in bytes of the superblock and the object headers, of which few are padding."""
    headers = [
        (begin, end)
        for begin, end, what in blocks(path)
        if "header" in what or "superblock" in what
    ]
    places = [at for begin, end in headers for at in range(begin, end)][::29]
    accepted = 0
    for at in places:
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            assert same(store.read(path), model())
            accepted += 1
        except WeightsError:
            pass
    assert len(places) > 300
    assert accepted < len(places) / 7
