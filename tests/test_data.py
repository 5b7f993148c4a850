"""Images in folders and zip archives: which are found, kept in memory, skipped and refused."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from data_files import picture, write_files, write_zip

from tinyresnext.data import open_dataset
from tinyresnext.data.trees import folders, zips
from tinyresnext.errors import FormatError, ImageError, TinyResNeXtError, UnsafeError, UsageError
from tinyresnext.formats.stored_zip import archive
from tinyresnext.images.decode import decode

FORMS = ["folder", "zip"]


@pytest.fixture(params=FORMS)
def put(request, tmp_path):
    """Write files as a folder or as a zip archive."""

    def write(files):
        if request.param == "folder":
            return write_files(tmp_path / "data", files)
        return write_zip(tmp_path / "data.zip", files)

    return write


SPLIT = {
    "train/dog/b.png": picture(1),
    "train/dog/a.PNG": picture(2),
    "train/cat/deep/er/1.jpeg": picture(3, kind="JPEG"),
    "train/cat/0.webp": picture(4, kind="WebP"),
    "train/cat/.hidden.png": b"",
    "train/cat/notes.txt": b"no picture",
    "valid/dog/x.bmp": picture(5, kind="BMP"),
    "valid/ant/y.gif": picture(6, kind="GIF"),
    "README.md": b"hello",
}


@pytest.mark.parametrize("around", ["", "one/", "one/two/"])
def test_splits(put, around):
    path = put({around + name: data for name, data in SPLIT.items()})
    train, val = open_dataset(path), open_dataset(path, "val")
    assert train.classes == val.classes == ("ant", "cat", "dog"), (
        "a label means the same in every split"
    )
    assert list(train.names) == [
        "train/cat/0.webp",
        "train/cat/deep/er/1.jpeg",
        "train/dog/a.PNG",
        "train/dog/b.png",
    ]
    assert train.labels.tolist() == [1, 1, 2, 2]
    assert train.labels.dtype == np.int64
    assert list(val.names) == ["valid/ant/y.gif", "valid/dog/x.bmp"]
    assert train.pixels.shape == (4, 8, 8, 3)
    rng = np.random.default_rng(2)
    assert (train.picture(2) == rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).all()
    assert len(open_dataset(path, "valid")) == 2
    with pytest.raises(UsageError, match=r"no split 'test'; it has .train., .valid"):
        open_dataset(path, "test")


def test_which_part_comes_first(put):
    """None is the test images, or those for validation for who asks for them."""
    both = put(SPLIT | {"test/dog/z.png": picture(7), "test/ant/z.png": picture(8)})
    found = {first: open_dataset(both, None, first=first) for first in ("test", "val")}
    assert {first: one.part for first, one in found.items()} == {"test": "test", "val": "val"}
    assert list(found["val"].names) == ["valid/ant/y.gif", "valid/dog/x.bmp"]


def test_a_part_that_is_not_sorted_into_classes_is_not_offered(put):
    images = {"train/a/1.png": picture(1), "train/b/1.png": picture(2), "val/x/1.png": picture(3)}
    said = []
    assert open_dataset(put(images), first="val", warn=said.append).part != "val"
    assert len(said) == 1


@pytest.mark.parametrize("around", ["", "pets/"])
def test_no_splits(put, around):
    files = {
        f"{around}dog/1.png": picture(1),
        f"{around}Cat/1.png": picture(2),
        f"{around}cat/1.png": picture(3),
    }
    path = put(files | {"__MACOSX/dog/._1.png": b"x"})
    data = open_dataset(path)
    assert data.classes == ("Cat", "cat", "dog")
    assert data.labels.tolist() == [0, 1, 2]
    assert list(data.names) == ["Cat/1.png", "cat/1.png", "dog/1.png"]
    with pytest.raises(UsageError, match="no splits"):
        open_dataset(path, "test")


def test_pictures_of_many_sizes(put):
    path = put({f"a/{i}.png": picture(i, 5 + i // 3) for i in range(9)})
    data = open_dataset(path)
    assert data.pixels is None
    assert [data.picture(i).shape[0] for i in range(9)] == [5, 5, 5, 6, 6, 6, 7, 7, 7]
    for i in range(9):
        assert (
            data.picture(i)
            == np.random.default_rng(i).integers(0, 256, data.picture(i).shape, dtype=np.uint8)
        ).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fits_is_decoded_once_and_the_rest_when_it_is_needed(put, monkeypatch, threads):
    calls = []

    def counted(*arguments, **named):
        calls.append(arguments)
        return decode(*arguments, **named)

    monkeypatch.setattr(folders, "decode", counted)
    path = put({f"a/{i:03}.png": picture(i) for i in range(200)})
    kept = open_dataset(path, memory=200 * 8 * 8 * 3, threads=threads)
    calls.clear()
    later = open_dataset(path, memory=200 * 8 * 8 * 3 - 1, threads=threads)
    assert len(calls) <= 16
    calls.clear()
    assert later.pixels is None
    assert all((kept.picture(i) == later.picture(i)).all() for i in range(200))
    assert len(calls) == 200


def test_a_sample_that_misleads(put):
    """The images of the sample, every 4th of 64, are small, but all images do not fit into memory.

    Then each image is decoded when it is read.
    """
    files = {f"a/{i:03}.png": picture(i, 4 if i % 4 == 0 else 16) for i in range(64)}
    data = open_dataset(put(files), memory=64 * 10 * 10 * 3)
    assert data.picture(1).shape == (16, 16, 3)
    assert data.picture(1) is not data.picture(1), "it was not kept"


def test_one_odd_picture_among_many(put):
    data = open_dataset(put({f"a/{i}.png": picture(i, 9 if i == 5 else 8) for i in range(9)}))
    assert data.pixels is None
    for i in range(9):
        assert (
            data.picture(i)
            == np.random.default_rng(i).integers(0, 256, data.picture(i).shape, dtype=np.uint8)
        ).all()


BROKEN = {
    "empty": (b"", "is empty"),
    "a page": (b"<!DOCTYPE html><html>", "text with tags"),
    "cut short": (picture(1, 40, "JPEG")[:-300], "no usable JPEG"),
    "a TIFF under a false name": (b"II*\0" + bytes(40), "TIFF image"),
}


@pytest.mark.parametrize("memory", [2**30, 0])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_pictures(put, name, memory, capsys):
    data, message = BROKEN[name]
    path = put({"a/1.png": picture(1), "a/2.png": data, "b/3.png": picture(3)})
    if memory:
        with pytest.raises(ImageError, match=message) as caught:
            open_dataset(path, memory=memory)
        assert "a/2.png" in str(caught.value)
        lines = []
        found = open_dataset(path, on_broken="skip", warn=lines.append)
        assert found.labels.tolist() == [0, 1]
        assert list(found.names) == ["a/1.png", "b/3.png"]
        assert found.pixels.shape == (2, 8, 8, 3)
        assert len(lines) == 1
        assert "a/2.png" in lines[0]
        open_dataset(path, on_broken="skip")
        assert capsys.readouterr().err.count("warning: skipped: ") == 1
    else:
        late = open_dataset(path, memory=memory)
        with pytest.raises(ImageError, match=message):
            late.picture(1)


def test_nothing_but_broken_pictures(put):
    path = put({"a/1.png": b"", "b/2.png": b"x"})
    with pytest.raises(ImageError, match="none of the 2 images"):
        open_dataset(path, on_broken="skip", warn=lambda line: None)


@pytest.mark.parametrize(
    "files", [{}, {"a.png": picture(1)}, {"notes/a.txt": b"x"}, {"train/a.png": picture(1)}]
)
def test_no_pictures_in_folders(put, files):
    with pytest.raises(FormatError, match=r"no images|no folders"):
        open_dataset(put(files | {"x.txt": b""}))


def test_other_kinds_of_pictures_are_named(put):
    with pytest.raises(ImageError, match="TIFF image"):
        open_dataset(put({"a/1.tif": b"II*\0" + bytes(40)}))


def test_names_that_move_the_cursor_are_quoted(put):
    path = put({"a/1\x1b[2J.png": b"x", "a/2.png": picture(1)})
    lines = []
    open_dataset(path, on_broken="skip", warn=lines.append)
    assert "\x1b" not in lines[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"on_broken": "ignore"},
        {"split": 3},
        {"memory": -1},
        {"memory": 1.5},
        {"threads": 0},
        {"threads": True},
        {"path": 3},
        {"coarse": True},
        {"first": "train"},
    ],
)
def test_arguments_that_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError):
        open_dataset(**({"path": write_files(tmp_path, {"a/1.png": picture(1)})} | arguments))


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89HDF\r\n\x1a\n", bytes(600)])
def test_files_of_no_kind(tmp_path, data):
    path = tmp_path / "data.bin"
    path.write_bytes(data)
    with pytest.raises(FormatError, match="is no data set that can be read"):
        open_dataset(path)
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        open_dataset(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("digits.npz", r"arrays of NumPy, .* by tinyresnext\.data\.from_arrays"),
        ("x.NPY", "arrays of NumPy"),
        ("list.txt", "lists of images and labels are for evaluate only; .* first line image,label"),
    ],
)
def test_files_that_say_where_else_they_go(tmp_path, name, words):
    path = tmp_path / name
    if name == "digits.npz":
        np.savez(path, x_train=np.zeros((2, 8, 8), np.uint8))
    elif name == "x.NPY":
        with path.open("wb") as file:
            np.save(file, np.zeros(2))
    else:
        path.write_text("a/1.jpg cat\n")
    with pytest.raises(FormatError, match=words):
        open_dataset(path)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_names_that_no_file_can_have(tmp_path, name):
    with pytest.raises(FormatError, match="cannot be read"):
        open_dataset(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="a pipe"):
        open_dataset(tmp_path / "pipe")
    write_files(tmp_path, {"d/a/1.png": picture(1)})
    os.mkfifo(tmp_path / "d" / "a" / "2.png")
    with pytest.raises(ImageError, match="a pipe"):
        open_dataset(tmp_path / "d")


def test_links_in_folders(tmp_path):
    """A link to an image is an image; a link to a folder above it is not followed."""
    folder = write_files(tmp_path, {"d/a/1.png": picture(1), "elsewhere.png": picture(2)}) / "d"
    os.symlink(tmp_path / "elsewhere.png", folder / "a" / "2.png")
    os.symlink(folder, folder / "a" / "again")
    assert len(open_dataset(folder)) == 2


# -- zip archives


def changed(path, old, new, count=-1):
    """Replace bytes in a file by as many others."""
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../a/1.png",
        "/etc/1.png",
        "a/../../1.png",
        "a\\..\\1.png",
        "c:/1.png",
        "a//1.png",
        "./a/1.png",
    ],
)
def test_zip_names_that_lead_elsewhere(tmp_path, name):
    hole = "x" * len(name)
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), hole: picture(2)})
    with pytest.raises(UnsafeError, match="no plain relative path"):
        open_dataset(changed(path, hole.encode(), name.encode()))


def test_zip_names_with_a_nul(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "a/2.pngx": picture(2)})
    with pytest.raises(UnsafeError, match="no plain relative path"):
        open_dataset(changed(path, b"a/2.pngx", b"a/2.png\0"))


def test_zip_names_that_occur_twice(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "a/2.png": picture(2)})
    with pytest.raises(UnsafeError, match=r"two members called 'a/1.png'"):
        open_dataset(changed(path, b"a/2.png", b"a/1.png"))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666])
def test_zip_members_that_are_links_or_devices(tmp_path, mode):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.png", picture(1))
        info = zipfile.ZipInfo("a/2.png")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeError, match="a link or a device"):
        open_dataset(path)


def one_zip(tmp_path, data, **fields):
    """Write an archive of a good image and a member, a/2.png, whose central entry is changed.

    Each change is name=(offset, format, value).
    """
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "a/2.png": data})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\1\2")
    local = raw.index(b"PK\3\4", 4)
    for offset, layout, value in fields.values():
        struct.pack_into(layout, raw, at + offset, value)
        if offset < 34 and offset - 2 >= 4:
            struct.pack_into(layout, raw, local + offset - 2, value)
    path.write_bytes(raw)
    return path


ZEROS = bytes(100_000)
MEMBERS = {
    "encrypted": (picture(2), {"flags": (8, "<H", 1)}, "encrypted"),
    "another method": (picture(2), {"method": (10, "<H", 12)}, "method 12"),
    "larger than it says": (ZEROS, {"size": (24, "<I", 50)}, "beyond the 50 bytes"),
    "smaller than it says": (
        ZEROS,
        {"size": (24, "<I", 200_000)},
        "unpacks to 100,000 bytes; the directory says 200,000",
    ),
    "packed into more than it needs": (ZEROS, {"size": (24, "<I", 0)}, "beyond the 0 bytes"),
    "declared larger than any picture": (
        ZEROS,
        {"size": (24, "<I", 0xFFFFFFF0)},
        "more than the 67,108,864",
    ),
    "a wrong checksum": (picture(2), {"crc": (16, "<I", 1)}, "CRC|crc"),
    "its header elsewhere": (picture(2), {"offset": (42, "<I", 3)}, "members .* overlap"),
    "the other one's header": (picture(2), {"offset": (42, "<I", 0)}, "members .* overlap"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_zip_members_that_are_refused(tmp_path, name):
    data, fields, message = MEMBERS[name]
    path = one_zip(tmp_path, data, **fields)
    with pytest.raises(TinyResNeXtError, match=message):
        open_dataset(path)
    lines = []
    if "overlap" not in message:  # which is a fault of the archive
        assert len(open_dataset(path, on_broken="skip", warn=lines.append)) == 1
        assert "a/2.png" in lines[0]


def test_a_zip_member_that_is_a_bomb(tmp_path, monkeypatch):
    """A member never takes more memory than the limit for image files, whatever it inflates to."""
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "a/2.png": bytes(1 << 20)})
    monkeypatch.setattr(zips, "MAX_FILE_BYTES", 1 << 19)
    with pytest.raises(
        ImageError, match=r"a/2.png cannot be read: it has 1,048,576 bytes, more than"
    ):
        open_dataset(path)


def test_bytes_that_deflate_to_a_picture_and_more(tmp_path):
    """A member that inflates to more than its entry says is refused, whatever its checksum."""
    good = picture(2)
    path = one_zip(
        tmp_path, good + ZEROS, size=(24, "<I", len(good)), crc=(16, "<I", zlib.crc32(good))
    )
    with pytest.raises(ImageError, match="continues beyond"):
        open_dataset(path)


def test_a_zip_directory_beyond_all_sense(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "d.zip", {f"a/{i}.png": picture(i) for i in range(40)})
    monkeypatch.setattr(archive, "_FEW_MEMBERS", 20)
    monkeypatch.setattr(archive, "_MEMBER", 1000)
    with pytest.raises(UnsafeError, match=r"more members than the \d\d that one of its length"):
        open_dataset(path)


def test_the_second_end_record_of_a_large_zip_counts(tmp_path):
    """Where there is a zip64 record, zipfile uses it; both must say the same."""
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1)})
    raw = path.read_bytes()
    at = raw.rindex(b"PK\5\6")
    length, begin = struct.unpack_from("<II", raw, at + 12)

    def with_record(claimed, signature=b"PK\6\6"):
        record = struct.pack("<4sQ2H2I4Q", signature, 44, 45, 45, 0, 0, 1, 1, claimed, begin)
        locator = struct.pack("<4sIQI", b"PK\6\7", 0, at, 1)
        path.write_bytes(raw[:at] + record + locator + raw[at:])
        return path

    assert len(open_dataset(with_record(length))) == 1
    with pytest.raises(UnsafeError, match="contradict each other"):
        open_dataset(with_record(1 << 40))
    with pytest.raises(FormatError, match="zip64"):
        open_dataset(with_record(length, b"PK\6\0"))


def test_zips_that_are_cut_short(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "b/2.png": picture(2)})
    whole = path.read_bytes()
    for cut in range(2, len(whole), 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(TinyResNeXtError):
            open_dataset(path)


def test_zips_with_single_bits_changed(tmp_path):
    """Every change raises a typed error, or leaves the images as they were."""
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1), "b/2.png": picture(2)})
    whole = path.read_bytes()
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            data = open_dataset(path)
            assert all((data.picture(i) >= 0).all() for i in range(len(data)))
        except TinyResNeXtError:
            refused += 1
    assert refused > 250
