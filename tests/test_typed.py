"""What is typed for images: patterns, lists, and what is something else."""

from __future__ import annotations

import bz2
import errno
import glob
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest
from data_files import picture, write_files

from tinyresnext.cli.main import main
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.trees.sources import Images
from tinyresnext.data.typed import matching
from tinyresnext.errors import FormatError, ImageError, UsageError
from tinyresnext.images.decode import decode

FILES = ["a.png", "b/c.png", "b/d-e.png", "b/d/f.png", "b/.h/i.png", ".j/k.png", "[l].png"]
FILES += ["b/x/x/x/m.png", "n/x/.o.png", "n/notes.txt"]
PATTERNS = [
    "*", "*.png", "?.png", "**", "**/*.png", "b/**", "b/**/*.png", "*/*.png", "*/*/*.png",
    "**/x/**/*.png", "**/x/*", ".*/*", "**/.*", "[ab]*", "[!a]*", "[[]l].png", "b/*/f.png",
    "b/d/f.[p]ng", "*/", "b/**/", "./*.png", "../here/*.png", "a**", "none/*", "a.png/*",
    "b//*.png", "{a,b}*", "*/../a.png", "b/[.]h/*", "**/**/*.png",
]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_files(tmp_path / "here", dict.fromkeys(FILES, b""))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def refusing(monkeypatch):
    """Let reading some folders fail, as for a user who may not read them."""

    def refuse(*folders):
        real = os.scandir

        def scandir(path="."):
            if os.path.abspath(path) in map(os.path.abspath, folders):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return refuse


def found(pattern: str) -> list[str]:
    return [one.path for one in matching(pattern, Counter())]


# -- patterns


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("top", ["", "absolute"])
def test_a_pattern_means_what_it_means_to_python(here, pattern, top):
    """Where there are no links; and a path comes once, which some patterns find twice."""
    pattern = os.path.join(here, pattern) if top else pattern
    expected = sorted({one for one in glob.glob(pattern, recursive=True) if one})
    if "**" in pattern.split("/"):
        expected = [one for one in expected if not os.path.isdir(one)]
    if not expected:
        with pytest.raises(UsageError, match="nothing matches the pattern"):
            found(pattern)
        return
    assert found(pattern) == expected


def test_a_name_with_signs_of_patterns_is_itself(here):
    assert found("[l].png") == ["[l].png"]
    assert found("no\0*") == ["no\0*"]
    with pytest.raises(UsageError, match="nothing matches"):
        found("\ud800/*")


def test_linked_folders_are_not_searched(here):
    """A loop of links would bring an image 41 times, and evaluations would count each."""
    os.symlink("..", "b/up")
    os.symlink("b", "latest")
    os.symlink("self", "self")
    left_out = Counter()
    assert [one.path for one in matching("**/[a-f]*.png", left_out)] == [
        "a.png", "b/c.png", "b/d-e.png", "b/d/f.png"
    ]  # fmt: skip
    assert left_out == {"linked folder": 2}
    # What the pattern itself names is followed, and then it is not left out.
    left_out.clear()
    assert [one.path for one in matching("**/latest/*.png", left_out)] == [
        "latest/c.png", "latest/d-e.png"
    ]  # fmt: skip
    assert left_out == {"linked folder": 1}
    assert found("latest/*.png") == found("lat*/*.png") == ["latest/c.png", "latest/d-e.png"]
    with pytest.raises(UsageError, match=r"\*\* goes through no linked folder"):
        found("n/../b/**/*.gif")


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("b/**/*.png", "b/d"),
        ("b/*/*.png", "b/d"),
        ("b/**", "b/d"),
        ("**/x/*.png", "b/d"),
        ("b/d/*.png", "b/d"),
        ("*.png", "."),
        ("**/*.png", "."),
        ("b/d/", "b/d"),
    ],
)
def test_a_folder_that_cannot_be_read_is_told(here, refusing, pattern, folder):
    """Where the machine is to blame, the run ends: see `test_machine_faults`."""
    if glob.has_magic(pattern):
        rest = {one for one in glob.glob(pattern, recursive=True) if os.path.isfile(one)}
    else:
        rest = set()
    refusing(folder)
    images = list(Images([pattern]))
    missed = [one for one in images if one.name.rstrip("/") == folder]
    assert [one.name for one in images] == sorted(one.name for one in images)
    assert len(missed) == 1
    below = {one for one in rest if os.path.relpath(one).startswith(f"{folder}/")}
    below = rest if folder == "." else below
    assert {one.name for one in images} - {missed[0].name} == rest - below
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        missed[0].open()


def test_a_path_that_cannot_be_asked_for_is_no_path_that_is_missing(here, monkeypatch):
    real = os.lstat

    def lstat(path, **more):
        if str(path).startswith("b/d"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, **more)

    monkeypatch.setattr(os, "lstat", lstat)
    assert found("*/d/f.png") == ["b/d/f.png"]


def test_evaluate_refuses_what_it_cannot_read(tmp_path, monkeypatch, refusing, capsys):
    """Or an accuracy would be of other images than those that were named."""
    files = {f"{c}/{i}.png": picture(i) for c in ("cat", "dog") for i in range(2)}
    write_files(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    assert len(open_labelled(["*/*.png"])) == 4
    refusing("dog")
    for pattern in ("*/*.png", "**/*.png", "*", "dog/*.png"):
        with pytest.raises((FormatError, ImageError), match=r"dog'? cannot be read: Permission"):
            open_labelled([pattern])
    assert main(["evaluate", "*/*.png"]) == 3
    assert main(["classify", "*/*.png", "--device", "reference"]) == 1
    assert "dog' cannot be read: Permission denied" in capsys.readouterr().err


def test_evaluate_counts_an_image_once(tmp_path, monkeypatch):
    write_files(tmp_path, {f"{c}/{i}.png": picture(i) for c in ("cat", "dog") for i in range(2)})
    monkeypatch.chdir(tmp_path)
    Path("dog/up").symlink_to("..")
    data = open_labelled(["**/*.png"])
    assert (len(data), data.classes, data.left_out) == (
        4, ("cat", "dog"), {"linked folder": 1}
    )  # fmt: skip


# -- lists

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"]


def encoded(text: str, encoding: str) -> bytes:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    return (mark + text).encode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, monkeypatch, capsys, encoding, end):
    """Of lists, of standard input, and of tables; PowerShell writes UTF-16."""
    names = ["cat/ä 日.png", "cat/\u2028.png", "dog/1.png"]
    write_files(tmp_path, {name: picture(i) for i, name in enumerate(names)})
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_bytes(encoded(end.join(names), encoding))
    assert [one.name for one in Images(["list.txt"])] == names
    Path("labels.txt").write_bytes(encoded(end.join(f"{one} {one[:3]}" for one in names), encoding))
    assert [one.name for one in open_labelled(["labels.txt"])] == names
    rows = ["image,label", *(f"{one},{one[:3]}" for one in (names[0], names[2]))]
    Path("t.csv").write_bytes(encoded(end.join(rows), encoding))
    assert open_labelled(["t.csv"]).classes == ("cat", "dog")
    with open("list.txt", encoding="utf-8") as typed:
        monkeypatch.setattr("sys.stdin", typed)
        assert main(["classify", "-", "--device", "reference", "--csv", "out.csv"]) == 0
    written = Path("out.csv").read_text(encoding="utf-8")
    assert all(name in written for name in names)


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xff\xfea\0\0\xd8", b"a\0\n", b"a" * (1 << 17)])
def test_what_is_no_list(here, data):
    Path("list.txt").write_bytes(data)
    with pytest.raises(UsageError, match="line 1 is no name of an image"):
        list(Images(["list.txt"]))


def test_names_in_a_list_may_be_no_text(here):
    for start in (b"", b"\xef\xbb\xbf"):
        Path("list.txt").write_bytes(start + b"caf\xe9.png\n")
        assert [one.name for one in Images(["list.txt"])] == [os.fsdecode(b"caf\xe9.png")]


def test_a_list_says_where_its_paths_begin(here, monkeypatch):
    Path("b/list.txt").write_text("c.png\nd-e.png\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"b/list\.txt, c\.png, is not here but in the folder of"):
        list(Images(["b/list.txt"]))
    monkeypatch.chdir("b")
    assert [one.name for one in Images(["list.txt"])] == ["c.png", "d-e.png"]


# -- what is something else


@pytest.mark.parametrize(
    ("name", "packed", "words"),
    [
        ("a.tar.bz2", bz2.compress, "compressed with bzip2; unpack it first"),
        ("a.tar.xz", lzma.compress, "compressed with xz; unpack it first"),
        ("a.7z", lambda data: b"7z\xbc\xaf\x27\x1c" + data, "a 7z archive; unpack it first"),
    ],
)
def test_other_compressions_are_named(here, capsys, name, packed, words):
    Path(name).write_bytes(packed(b"x" * 600))
    assert main(["classify", name, "--device", "reference"]) == 1
    assert f"'{name}' seems to be {words}" in capsys.readouterr().err
    with pytest.raises(FormatError, match=f"{name} is {words}"):
        open_dataset(name)


def test_a_path_as_bytes_is_no_contents(here):
    """As ``os.fsencode`` makes it; a list of such paths is read by ``classify``."""
    Path("a.png").write_bytes(picture(1))
    with pytest.raises(UsageError, match=r"b'a\.png' is the name of a file, and bytes are taken"):
        decode(b"a.png")
    with pytest.raises(ImageError, match="of an unknown kind"):
        decode(b"none.png")
    assert decode(Path("a.png").read_bytes()).shape == decode("a.png").shape
