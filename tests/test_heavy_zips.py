"""Zip archives of images that are heavy to list, or that two readers understand differently."""

from __future__ import annotations

import io
import random
import re
import zipfile
import zlib

import heavy_zips
import pytest
from data_files import picture, write_files, write_zip
from meter import assert_refused, cost

from tinyresnext.data import open_dataset
from tinyresnext.errors import FormatError, TinyResNeXtError, UnsafeError
from tinyresnext.formats.stored_zip import archive
from tinyresnext.formats.stored_zip.names import Names

IMPORTS = """
from tinyresnext.data.pixels import cifar, mnist
from tinyresnext.data.trees import folders
from tinyresnext.data.open import open_dataset
"""


@pytest.mark.parametrize("name", heavy_zips.HEAVY)
def test_an_archive_that_is_heavy_is_refused_at_little_cost(tmp_path, name):
    names, words = heavy_zips.HEAVY[name]
    path = heavy_zips.raw_zip(tmp_path / "d.zip", names())
    found = cost(IMPORTS, "open_dataset(path)", path)
    assert re.search(words, found.error)
    assert_refused(found, path.stat().st_size)
    assert found.seconds < 5, "it is listed once"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2_000_000, 130_000])
def test_archives_of_many_members(tmp_path, count):
    path = heavy_zips.raw_zip(tmp_path / "d.zip", heavy_zips.many(count))
    assert_refused(cost(IMPORTS, "open_dataset(path)", path), path.stat().st_size)


def test_a_tree_on_a_disk_that_is_deep(tmp_path):
    path = write_files(tmp_path / "d", {"/".join(["a"] * 40 + ["1.png"]): picture(1)})
    with pytest.raises(FormatError, match="more than 32 levels"):
        open_dataset(path)


def in_memory(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, data in files.items():
            zipped.writestr(name, data)
    return file.getvalue()


WHOLE = in_memory({"a/1.png": picture(1), "b/2.png": picture(2)})
OTHER = in_memory({"evil/1.png": picture(3)})


@pytest.mark.parametrize("name", heavy_zips.two_directories(WHOLE, OTHER))
def test_archives_with_two_directories_are_refused(tmp_path, name):
    path = tmp_path / "d.zip"
    path.write_bytes(heavy_zips.two_directories(WHOLE, OTHER)[name])
    with pytest.raises((FormatError, UnsafeError)):
        open_dataset(path)


def test_an_archive_with_a_comment_is_read(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a/1.png": picture(1)})
    with zipfile.ZipFile(path, "a") as zipped:
        zipped.comment = b"made by hand" * 100
    assert len(open_dataset(path)) == 1


@pytest.mark.parametrize("packed", [b"", b"\xab", zlib.compress(bytes(1 << 20), wbits=-15)])
@pytest.mark.parametrize("size", [0, 1])
def test_a_member_that_unpacks_to_more_than_it_says(packed, size):
    """For zlib, a limit of 0 bytes is no limit; and data that do not end ask for no more."""
    found = bytearray(in_memory({"a/1.png": packed}))
    for magic, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = found.index(magic) + method
        found[at] = 8
        found[at + 14 : at + 18] = size.to_bytes(4, "little")
    file = io.BytesIO(found)
    listed = archive.open_archive(file)
    with pytest.raises((FormatError, UnsafeError), match=r"unpacks to|continues beyond"):
        archive.read_whole(file, listed, listed.folders["a",].files["1.png"], 1 << 20)


def test_members_that_overlap_are_refused(tmp_path):
    """The data of one member hold another member: a reader of local headers sees it."""
    path = tmp_path / "d.zip"
    inner = in_memory({"b/1.png": picture(2)})
    data = in_memory({"a/1.png": inner})
    at = data.rindex(b"PK\1\2")
    start = data.index(b"PK\3\4", 4)
    entry = inner[inner.rindex(b"PK\1\2") : inner.rindex(b"PK\5\6")]
    listing = data[at : data.rindex(b"PK\5\6")] + entry[:42] + start.to_bytes(4, "little")
    path.write_bytes(data[:at] + listing + entry[46:] + heavy_zips.ends(2, at, len(listing) + 7))
    with zipfile.ZipFile(path) as zipped:
        assert zipped.namelist() == ["a/1.png", "b/1.png"]
    with pytest.raises(UnsafeError, match="overlap"):
        open_dataset(path)


def test_a_folder_and_a_file_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "d.zip", {"a/1.png/2.png": picture(1), "a/1.png": picture(2)})
    with pytest.raises(UnsafeError, match="a folder and a file"):
        open_dataset(path)


@pytest.mark.parametrize("encoding", ["utf-8", "cp437", "unicode path", "unsaid"])
def test_names_beyond_ascii(tmp_path, encoding):
    path = tmp_path / "d.zip"
    name = "Käse/1.png"
    if encoding == "utf-8":
        write_zip(path, {name: picture(1)})
    else:
        block = b""
        raw = name.encode({"cp437": "cp437", "unsaid": "utf-8"}.get(encoding, "latin-1"))
        if encoding == "unicode path":
            text = name.encode()
            crc = zlib.crc32(raw)
            block = b"\x75\x70" + (5 + len(text)).to_bytes(2, "little")
            block += b"\1" + crc.to_bytes(4, "little") + text
        with zipfile.ZipFile(path, "w") as zipped:
            info = zipfile.ZipInfo("x" * len(raw))
            info.extra = block
            zipped.writestr(info, picture(1))
        path.write_bytes(path.read_bytes().replace(b"x" * len(raw), raw))
    assert open_dataset(path).classes == ("Käse",)


def test_names_in_few_bytes():
    """In the order of texts, as a dict has them; a byte that is no UTF-8 is a name, too."""
    texts = ["b", "a\udcff", "a", "\ufb01", "\U0001f431", "aé", "a/", ""]
    found = Names()
    for number, text in enumerate(texts):
        found.add(text, number << 40)
    assert found.sort() is None
    assert list(found) == sorted(texts)
    assert dict(found) == {text: number << 40 for number, text in enumerate(texts)}
    assert found.numbers().tolist() == [found[text] for text in sorted(texts)]
    assert "c" not in found
    assert "aa" not in found
    twice = Names()
    for text in ("x", "y", "x"):
        twice.add(text, 0)
    assert twice.sort() == "x"
    assert (len(Names()), list(Names()), Names().numbers().tolist()) == (0, [], [])


@pytest.mark.parametrize("seed", range(4))
def test_ours_and_zipfile_agree_on_what_is_damaged(tmp_path, seed):
    """Whatever is accepted has the names and the bytes that `zipfile` finds."""
    rng = random.Random(seed)
    path = tmp_path / "d.zip"
    agreed = 0
    for _ in range(150):
        data = bytearray(WHOLE)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        path.write_bytes(data)
        with open(path, "rb") as file:
            try:
                found = archive.open_archive(file)
                ours = {
                    "/".join((*place, name)): archive.read_whole(file, found, at, 1 << 20)
                    for place, folder in found.folders.items()
                    for name, at in folder.files.items()
                }
            except TinyResNeXtError:
                continue
        with zipfile.ZipFile(path) as zipped:
            theirs = {i.filename.replace("\\", "/"): zipped.read(i) for i in zipped.infolist()}
        assert ours == theirs
        agreed += 1
    assert agreed > 3
