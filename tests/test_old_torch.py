"""Checkpoints of PyTorch's first years: files of the time, and formats that are no longer written.

Which PyTorch wrote which file is said in ``tests/data/README.md``.
"""

from __future__ import annotations

import struct
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audit import watching
from tar_checkpoints import Tar, stop
from torch_files import (
    MAGIC,
    SYSTEM,
    Entry,
    Raw,
    Zip,
    call,
    glob,
    integer,
    marked,
    pickled,
    small_state,
    text,
    zip_entries,
)

from tinyresnext.checkpoints.readers.container import read as read_file
from tinyresnext.errors import FormatError, UnsafeError, WeightsError

FILES = sorted((Path(__file__).parent / "data" / "old-torch").glob("*.saved"))
SHAPES = {"conv1.weight": (4, 3, 3, 3), "bn1.running_var": (4,), "fc.weight": (3, 5)}


def values(shape, start):
    """The numbers of ``tests/data/old-torch/write.py``."""
    return (((np.arange(np.prod(shape)) * 7 + start) % 61).reshape(shape) / 8).astype(np.float32)


def test_all_files_of_the_time_are_there():
    assert len(FILES) == 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_of_the_time(path):
    with watching() as events:
        found = read_file(path)
    assert {event[0] for event in events} <= {"open"}
    assert [*found.tensors] == [*SHAPES]
    for i, (name, shape) in enumerate(SHAPES.items()):
        np.testing.assert_array_equal(found.tensors[name], values(shape, i), strict=True)
    form = "zip" if "zip" in path.name else "tar" if "tar" in path.name else "legacy"
    assert found.container == form
    beside = path.stem.endswith(("imagenet", "zip", "tar"))
    wrapped = beside or path.name.startswith("torch03")
    assert (found.wrapper, found.prefix) == ("state_dict" * wrapped, "module." * beside)


def test_a_zip_has_one_folder_of_storages(tmp_path):
    """The storages of PyTorch 1.4 lie in ``tensors``; those of other versions in ``data``."""
    path = tmp_path / "model.pth"
    entries = zip_entries(small_state())
    moved = [replace(one, name=one.name.replace("/data/", "/tensors/")) for one in entries]
    path.write_bytes(Zip(moved).build())
    assert [*read_file(path).tensors] == [*small_state()]
    for wrong in (
        [*moved, Entry("model/data/0", b"1234")],
        [*entries, Entry("model/tensors/0", b"1234")],
        [one for one in moved if not one.name.endswith("tensors/1")],
    ):
        path.write_bytes(Zip(wrong).build())
        with pytest.raises(FormatError, match="bytes, the pickle says"):
            read_file(path)


# -- storages that are parts of others


def part_of(numel, part, size=(2, 3), key="7", offset=0):
    """The opcodes for a tensor of a storage that is a part of another one."""
    pid = marked(
        text("storage"), glob("torch", "FloatStorage"), text(key), text("cpu"), integer(numel), part
    )
    stride = marked(integer(size[1]), integer(1))
    shape = marked(*map(integer, size))
    return Raw(call("torch._utils", "_rebuild_tensor", pid + b"Q", integer(offset), shape, stride))


def view(key, offset, numel):
    return marked(text(key), integer(offset), integer(numel))


def legacy(state, keys=("7",), numel=20):
    head = [MAGIC, 1001, SYSTEM, state, list(keys)]
    data = struct.pack("<q", numel) + np.arange(numel, dtype=np.float32).tobytes()
    return b"".join(map(pickled, head)) + data * len(keys)


def test_a_part_of_a_storage_begins_where_it_says(tmp_path):
    path = tmp_path / "model.pth"
    state = {
        "a.w": part_of(20, view("8", 5, 8)),
        "b.w": part_of(20, view("8", 5, 8), offset=2),
        "c.w": part_of(20, b"N"),
        "d.w": part_of(20, view("9", 20, 0), size=(0, 3)),
    }
    path.write_bytes(legacy(state))
    found = read_file(path).tensors
    six = np.arange(6, dtype=np.float32).reshape(2, 3)
    for name, expected in {"a.w": six + 5, "b.w": six + 7, "c.w": six, "d.w": six[:0]}.items():
        np.testing.assert_array_equal(found[name], expected, strict=True)


@pytest.mark.parametrize(
    "state",
    {
        "ends behind its storage": {"a.w": part_of(20, view("8", 15, 6))},
        "a tensor ends behind it": {"a.w": part_of(20, view("8", 0, 5))},
        "begins before its storage": {"a.w": part_of(20, view("8", -1, 6))},
        "is larger than any file": {"a.w": part_of(20, view("8", 1 << 60, 6))},
        "has the name of a storage": {"a.w": part_of(20, view("7", 0, 6))},
        "is described in two ways": {
            "a.w": part_of(20, view("8", 0, 6)),
            "b.w": part_of(20, view("8", 1, 6)),
        },
        "is a part of two": {
            "a.w": part_of(20, view("8", 0, 6)),
            "b.w": part_of(20, view("8", 0, 6), key="6"),
        },
        "has no number for a name": {"a.w": part_of(20, view("../8", 0, 6))},
        "has two numbers": {"a.w": part_of(20, marked(text("8"), integer(0)))},
        "has texts for numbers": {"a.w": part_of(20, marked(text("8"), text("0"), text("6")))},
        "is no tuple": {"a.w": part_of(20, integer(1))},
    }.items(),
    ids=lambda item: item[0],
)
def test_a_part_that_is_none_is_refused(tmp_path, state):
    path = tmp_path / "model.pth"
    both = ("6", "7") if state[0] == "is a part of two" else ("7",)
    path.write_bytes(legacy(state[1], both))
    with pytest.raises(UnsafeError):
        read_file(path)


# -- the tar archive


def read_tar(tmp_path, archive):
    path = tmp_path / "model.pth.tar"
    path.write_bytes(archive if isinstance(archive, bytes) else archive.build())
    return read_file(path)


def test_a_tar_archive_is_read(tmp_path):
    found = read_tar(tmp_path, Tar())
    assert found.container == "tar"
    expected = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(found.tensors["a.w"], expected, strict=True)
    np.testing.assert_array_equal(found.tensors["b.w"], (expected + 5).T, strict=True)


def test_what_lies_beside_the_weights_in_a_tar_archive(tmp_path):
    """A class of a module with its source code, a storage, an empty tensor: nothing is imported."""
    beside = {
        "class": marked(glob("my_nets", "Net"), text("net.py"), text("import os")) + b"Q",
        "storage": text("100") + b"Q",
        "empty": text("202") + b"Q",
    }
    top = b"}(" + text("state_dict") + Tar().top
    top += b"".join(text(name) + code for name, code in beside.items()) + b"u"
    tar = Tar()
    tar.tensors.append((202, 100, 0, (), ()))
    with watching() as events:
        assert [*read_tar(tmp_path, replace(tar, top=top)).tensors] == ["a.w", "b.w"]
    assert {event[0] for event in events} <= {"open"}
    assert "my_nets" not in sys.modules
    no_system = replace(Tar(), extra={"sys_info": None})  # the first versions
    assert [*read_tar(tmp_path, no_system).tensors] == ["a.w", "b.w"]


def changed(**fields):
    return replace(Tar(), **fields)


def member(name, change):
    """An archive with one of its files changed."""
    return replace(Tar(), extra={name: change(Tar().members()[name])})


HOSTILE = {
    "a tensor ends behind its storage": changed(tensors=[(200, 100, 15, (2, 3), (3, 1))]),
    "a tensor ends behind a part": changed(tensors=[(200, 101, 5, (2, 3), (3, 1))]),
    "a negative shape": changed(tensors=[(200, 100, 0, (-2, 3), (3, 1))]),
    "a negative offset": changed(tensors=[(200, 100, -4, (2, 3), (3, 1))]),
    "many axes": changed(tensors=[(200, 100, 0, (1,) * 2000, (1,) * 2000)]),
    "a tensor without a storage": changed(tensors=[(200, 999, 0, (2, 3), (3, 1))]),
    "a tensor of a tensor": changed(tensors=[(200, 100, 0, (2,), (1,)), (201, 200, 0, (2,), (1,))]),
    "two tensors of one number": changed(tensors=[(200, 100, 0, (2,), (1,))] * 2),
    "a tensor with a storage's number": changed(tensors=[(100, 100, 0, (2,), (1,))]),
    "two storages of one number": changed(storages=Tar().storages * 2),
    "a part behind its storage": changed(views=[(101, 100, 15, 10)]),
    "a part of nothing": changed(views=[(101, 99, 0, 1)]),
    "a part of itself": changed(views=[(101, 101, 0, 1)]),
    "a part with a storage's number": changed(views=[(100, 100, 0, 1)]),
    "a negative part": changed(views=[(101, 100, -1, 5)]),
    "big-endian": changed(system={**SYSTEM, "protocol_version": 1000, "little_endian": False}),
    "another version": changed(system=SYSTEM),
    "more storages than there are": changed(count=2),
    "fewer storages than there are": changed(count=0),
    "a negative count": changed(count=-1),
    "a count beyond any file": changed(count=1 << 60),
    "a storage of unknown type": changed(storages=[(100, "Odd", np.arange(20, dtype="<f4"))]),
    "something unknown": changed(top=text("999") + b"Q"),
    "a number for a name": changed(top=integer(200) + b"Q"),
    "code": changed(top=call("os", "system", text("true"))),
    "a class that runs commands": changed(top=marked(glob("os", "system"), b"N", b"N") + b"Q"),
    "no pickle": changed(extra={"pickle": None}),
    "no storages": changed(extra={"storages": None}),
    "a longer pickle": member("pickle", lambda data: data + b"x"),
    "longer storages": member("storages", lambda data: data + b"x"),
    "longer tensors": member("tensors", lambda data: data + b"x"),
    "code in tensors": member("tensors", lambda data: stop(call("os", "system", text("true")))),
    "code in storages": member("storages", lambda data: stop(call("os", "system", text("true")))),
    "code in sys_info": member("sys_info", lambda data: stop(call("os", "system", text("true")))),
    "an impossible storage": member(
        "storages", lambda data: data.replace(struct.pack("<q", 20), struct.pack("<q", -20), 1)
    ),
    "a storage beyond the file": member(
        "storages", lambda data: data.replace(struct.pack("<q", 20), struct.pack("<q", 1 << 40), 1)
    ),
}


@pytest.mark.parametrize("archive", HOSTILE.values(), ids=HOSTILE)
def test_hostile_tar_archives_are_refused(tmp_path, archive):
    tracemalloc.start()
    try:
        with watching() as events, pytest.raises(WeightsError):
            read_tar(tmp_path, archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 21
    finally:
        tracemalloc.stop()
    assert {event[0] for event in events} <= {"open"}


@pytest.mark.parametrize("name", ["pickle", "tensors", "storages", "sys_info"])
def test_every_shortened_part_is_refused(tmp_path, name):
    whole = Tar().members()[name]
    for length in range(0, len(whole), 3):
        with pytest.raises(WeightsError):
            read_tar(tmp_path, changed(extra={name: whole[:length]}))


def test_a_shortened_archive_is_refused(tmp_path):
    whole = Tar().build()
    end = whole.rindex(stop(b"](" + marked(*map(integer, (101, 100, 4, 10))) + b"e"))
    for length in range(300, end, 97):
        with pytest.raises(WeightsError):
            read_tar(tmp_path, whole[:length])


def test_another_tar_archive_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"it has 'model\.pth'; unpack it first"):
        read_tar(tmp_path, changed(extra=dict.fromkeys(Tar().members()) | {"model.pth": b"x"}))
