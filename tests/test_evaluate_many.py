"""`evaluate` over lists, shards, patterns and compressed archives; rows that go on after a stop.

The network sees colours. Of 13 images, two greens lie among the reds, one grey among the blues, and
one red cannot be read: 9 of 13 are right.
"""

from __future__ import annotations

import csv
import gc
import gzip
import io
import json
import re
import tarfile
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from data_files import tar, tar_header, write_files, write_zip
from heavy_zips import raw_zip
from PIL import Image
from test_evaluation import COLOURS, by_colour

import tinyresnext as tr
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.trees import gzipped, tars
from tinyresnext.data.trees.gzipped import Unpacked
from tinyresnext.data.trees.sources import Images
from tinyresnext.errors import (
    FormatError,
    ImageError,
    IntegrityError,
    UnsafeError,
    UsageError,
)
from tinyresnext.inference.ensemble import Ensemble
from tinyresnext.inference.many.comparison import Comparison
from tinyresnext.inference.scores.classes import match_numbers

LABELS = ("red", "grey", "green", "blue")  # the model's order; that of the names is another
SEEN = ["green", "red", "green", None, "grey", "grey", "grey", "green", "green", "green",
        "blue", "grey", "blue"]  # fmt: skip
MEANT = ["red"] * 4 + ["grey"] * 3 + ["green"] * 3 + ["blue"] * 3
CONFUSION = [[1, 0, 2, 0], [0, 3, 0, 0], [0, 0, 3, 0], [0, 1, 0, 2]]
BROKEN = b"\x89PNG\r\n\x1a\nnothing"


def shade(number: int, name: str) -> bytes:
    """Return an image of about a colour, of a size of its own."""
    rng = np.random.default_rng(number)
    pixels = rng.normal(COLOURS[name], 8, (18 + number, 30 - number, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


IMAGES = [BROKEN if name is None else shade(i, name) for i, name in enumerate(SEEN)]
FILES = {f"{MEANT[i]}/{i:02}.png": data for i, data in enumerate(IMAGES)}


@pytest.fixture(scope="module")
def model():
    return by_colour(LABELS)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shards(ending: str, labels) -> list[str]:
    """Write two shards of WebDataset, of 7 and 6 samples."""
    for number, part in enumerate((range(7), range(7, 13))):
        files = {}
        for i in part:
            files |= {f"{i:05}.png": IMAGES[i], f"{i:05}.{ending}": labels(i)}
            files[f"{i:05}.txt"] = b"a caption"
        Path(f"s-{number:03}.tar").write_bytes(tar(files))
    return ["s-{000..001}.tar"]


def form(kind: str) -> list[str]:
    """Write the images in one form; return what a user types."""
    if kind == "cls":
        return shards("cls", lambda i: f"{LABELS.index(MEANT[i])}\n".encode())
    if kind == "json":
        return shards("json", lambda i: json.dumps({"label": MEANT[i], "width": 8}).encode())
    if kind == "zip":
        return [str(write_zip(Path("d.zip"), FILES))]
    if kind == "tar":
        Path("d.tar").write_bytes(tar(FILES))
        return ["d.tar"]
    if kind == "tar.gz":  # one folder around all, as ImageNetV2 is packed, in another order
        every = {f"whole-val/{name}": FILES[name] for name in reversed(FILES)}
        Path("d.tar.gz").write_bytes(gzip.compress(tar(every)))
        return ["d.tar.gz"]
    write_files(Path("d"), FILES)
    names = [f"{name} {MEANT[i]}" for i, name in enumerate(FILES)]
    tables = {"csv": ",", "tsv": "\t"}
    if kind in tables:
        rows = ["file,label", *(name.replace(" ", ",") for name in names)]
        Path(f"d/t.{kind}").write_text("\n".join(rows).replace(",", tables[kind]))
        return [f"d/t.{kind}"]
    if kind == "list":
        Path("list.txt").write_text("\n".join(f"d/{name}" for name in names))
        return ["list.txt"]
    if kind == "list beside":  # Caffe's: numbers, and paths from its own folder
        lines = [f"{name}\t{LABELS.index(MEANT[i])}" for i, name in enumerate(FILES)]
        Path("d/val.txt").write_text("\n".join(lines))
        return ["d/val.txt"]
    return {
        "folder": ["d"],
        "pattern": ["d/*/*.png"],
        "folders": sorted(map(str, Path("d").iterdir())),
    }[kind]


FORMS = ["folder", "folders", "pattern", "zip", "tar", "tar.gz", "cls", "json", "list",
         "list beside", "csv", "tsv"]  # fmt: skip
NUMBERS = ("cls", "list beside")


@pytest.mark.parametrize("kind", FORMS)
def test_every_form_has_the_same_result(here, model, kind):
    said = []
    data = open_labelled(form(kind), warn=said.append)
    assert (len(data), len(list(data)), len(data.classes)) == (13, 13, 4)
    found = tr.evaluate(model, data, batch=5, by_number=kind in NUMBERS)
    assert found.confusion.tolist() == CONFUSION
    assert (found.pictures, found.top1, found.broken) == (13, 9 / 13, (1, 0, 0, 0))
    assert found.per_class[0] == ("red", 4, 1 / 4, 3 / 4)
    assert [line for line in said if "counts as wrong" in line]
    names = [one.name for one in data]
    assert len(set(names)) == 13
    if kind in ("folder", "folders", "pattern", "list", "csv", "tsv"):
        assert all(Path(name).is_file() for name in names)


def fill_stores() -> None:
    """Fill Python's own stores of old tuples, so that what goes there is not counted."""
    [tuple(range(size)) for size in range(1, 21) for _ in range(2000)]


def most(kind: str, count: int) -> int:
    """Return the memory that finding so many images takes, twice; they lie in 30 folders."""
    names = [f"{count}{'x' * 60}/{i % 30:02}/{i:05}.png" for i in range(count)]
    files = dict.fromkeys(names, b"")
    path = f"{count}.{kind}"
    if kind == "txt":
        Path("first.png").touch()
        Path(path).write_text(
            "first.png 0\n" + "".join(f"{name} {name[62:64]}\n" for name in names)
        )
    elif kind == "tar":
        samples = ({name: b"", f"{name[:-4]}.cls": b"1"} for name in names)
        Path(path).write_bytes(tar({key: data for one in samples for key, data in one.items()}))
    else:
        path = str(write_files(Path(path), files))
    fill_stores()
    tracemalloc.start()
    try:
        data = open_labelled([path])
        assert len(data) == sum(1 for _ in data) == count + (kind == "txt")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["txt", "tar", "folder"])
def test_nothing_is_kept_of_an_image(here, kind):
    """The names of 240 more images would take 30 kB; Python itself keeps the room of old tuples."""
    less, more = most(kind, 60), most(kind, 300)
    assert more - less < 240 * 64 + 6_000


def kept(kind: str, count: int) -> int:
    """Return the memory that so many images take when they were found; a folder has a hundred."""
    names = [f"n{i // 100:08}/ILSVRC2012_val_{i:08}.JPEG" for i in range(count)]
    path = Path(f"{count}.{kind}")
    if kind == "zip":
        raw_zip(path, map(str.encode, names))
    elif kind == "tar":
        path.write_bytes(b"".join(tar_header(name, 0) for name in names) + bytes(1024))
    else:
        write_files(Path(), {names[0]: b""})
        path.write_text("image,label\n" + "".join(f"{name},{name[:9]}\n" for name in names))
    tracemalloc.start()
    try:
        data = open_labelled([str(path)])
        assert len(data) == sum(1 for _ in data) == count
        gc.collect()  # this empties Python's stores of old objects
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "bytes"), [("zip", 40), ("tar", 44), ("csv", 0)])
def test_what_is_kept_of_an_image(here, kind, bytes):
    """A name has 28 of these bytes. So a million images take less than 50 MiB."""
    folders = 10  # more: of each its name, and what is in it
    kept(kind, 200)  # modules, and patterns that are compiled once
    assert kept(kind, 1500) - kept(kind, 500) < 1000 * bytes + folders * 1500


def test_what_folders_have_and_is_not_read_is_said(here):
    paths = form("folders")
    Path("d/red/more.zip").touch()
    Path("none").mkdir()
    write_zip(Path("none.zip"), {"a.txt": b""})
    data = open_labelled([*paths, "none", "none.zip"])
    assert data.left_out == {"archive": 1, "empty folder": 1, "empty archive": 1}
    said = "13 images in 4 classes; 3 files left out: 1 archive, 1 empty folder, 1 empty archive; "
    assert data.found().startswith(said)
    assert len(list(data)) == 13


def test_what_becomes_of_a_broken_image(here, model):
    [path] = form("list")
    said = []
    found = tr.evaluate(model, open_labelled([path], None, "skip", warn=said.append))
    assert (found.pictures, found.top1, found.broken) == (12, 9 / 12, ())
    assert "03.png" in said[0]
    assert said[0].endswith("it is left out")
    with pytest.raises(ImageError, match=r"03\.png"):
        tr.evaluate(model, open_labelled([path], None, "refuse"))
    Path("none.txt").write_text("d/red/03.png red\nd/red/03.png red\n")
    with pytest.raises(ImageError, match="none of the 2 images can be read"):
        tr.evaluate(model, open_labelled(["none.txt"], warn=said.append))
    wrong = tr.evaluate(model, open_labelled([path], warn=said.append))
    assert "broken              1  of them, which count as wrong" in str(wrong)
    assert wrong.to_json()["broken"] == 1
    # The loss is that of the images that have logits.
    assert wrong.loss == found.loss


@pytest.mark.parametrize(
    ("files", "paths", "words"),
    [
        ({"l.txt": b"a.png\n"}, ["l.txt"], "line 1 is 'a.png'; expected the path of an image"),
        ({"l.txt": b"a.png big dog\n", "a.png": b""}, ["l.txt"], "a tab, if labels have spaces"),
        ({"l.txt": b"a.png,1\n", "a.png": b""}, ["l.txt"], "line 1 is 'a.png,1'"),
        ({"l.txt": b"a.png 1\n"}, ["l.txt"], "neither here nor in the folder of the list"),
        ({"x/l.txt": b"a.png 1\n", "a.png": b"", "x/a.png": b""}, ["x/l.txt"], "is both here"),
        ({"l.txt": b"a.png \x1b[2J\n", "a.png": b""}, ["l.txt"], r"the label '\\x1b\[2J'"),
        ({"l.txt": b"\n"}, ["l.txt"], "there is no image in l.txt"),
        ({"t/1.png": b"", "t/1.cls": b"3"}, ["t", "t.tar"], "one after the other"),
        ({"t/1.png": b"", "t/1.cls": b"3", "t/1.json": b'{"label": 4}'}, ["t.tar"], "'3' in its"),
        ({"t/1.png": b"", "t/1.cls": b"cat", "t/1.json": b'{"cls": "dog"}'}, ["t.tar"], "'dog' in"),
        ({"t/1.png": b"", "t/1.json": b'{"text": "a"}'}, ["t.tar"], "has no label; expected"),
        ({"t/1.png": b"", "t/1.json": b"{"}, ["t.tar"], "the .json beside t.tar/1.png is none"),
        ({"t/1.png": b"", "t/1.jpg": b"", "t/1.cls": b"3"}, ["t.tar"], "one of 2 images of one sa"),
        ({"t/1.png": b"", "t/1.cls": b"3", "t/2.png": b""}, ["t.tar"], "2.png in no folder, and"),
        ({"t/a/1.png": b"", "t/a/2.png": b"", "t/a/2.cls": b"3"}, ["t.tar"], "image a/2.png, and"),
        ({"t/1.png": b"", "t/2.cls": b"3", "t/2.png": b""}, ["t.tar"], "beside the image 2.png, a"),
        ({"t/1.cls": b"3"}, ["t.tar", "t.tar"], "there is no image in t.tar, t.tar"),
        ({"a.pdf": b"", "b/a.png": b""}, ["a.pdf", "b"], "a.pdf is no image, no archive and no li"),
        ({"a.zip": b"PK", "b/a.png": b""}, ["a.zip", "b"], "a.zip"),
        ({}, ["none/*.png"], "nothing matches the pattern"),
        ({"b/a.png": b""}, ["b", "-"], "- is standard input, which has no labels here"),
    ],
)  # fmt: skip
def test_what_has_no_labels_is_refused(here, files, paths, words):
    write_files(here, files)
    packed = {name: data for name, data in files.items() if name.startswith("t/")}
    (here / "t.tar").write_bytes(tar({name[2:]: data for name, data in packed.items()}))
    with pytest.raises((UsageError, FormatError, ImageError), match=words):
        open_labelled(paths)


def test_a_tar_of_folders_is_listed_once(here, monkeypatch):
    (here / "t.tar").write_bytes(tar(FILES))
    names = []

    def files_in(source):
        for placed in whole(source):
            names.append(placed.name)
            yield placed

    whole = tars.files_in
    monkeypatch.setattr(tars, "files_in", files_in)
    assert len(open_labelled(["t.tar"])) == len(FILES)
    few = [name for name in FILES if names.count(name) > 1]
    assert (set(names), few) == (set(FILES), list(FILES)[:2])


def test_a_split_or_a_file_of_classes_goes_with_one_folder(here):
    for more in ({"split": "val"}, {"truth": "val.txt"}):
        with pytest.raises(UsageError, match="goes with one folder or one archive"):
            open_labelled(form("folders"), **more)
    with pytest.raises(UsageError, match="--split goes with"):
        open_labelled(form("list"), "test")
    table = form("csv")
    assert open_labelled(table).part == "all images"
    with pytest.raises(UsageError, match="says which classes its images have; leave out --truth"):
        open_labelled(table, truth="val.txt")


def test_numbers_from_0_may_be_fewer_than_the_models():
    assert match_numbers(tuple("abcde"), ("0", "3")) == (0, 3)
    # The labels of a model that was trained on folders 0 to 11: 10 stands behind 1.
    own = tuple(sorted(map(str, range(12))))
    assert match_numbers(own, ("0", "2", "10")) == (own.index("0"), own.index("2"), own.index("10"))
    assert match_numbers(("0", "1", "3", "7"), ("0", "3")) == (0, 2)  # a label of that number
    assert match_numbers(("1", "2", "3", "4"), ("0", "3")) == (0, 3)  # as 0 is none of them
    with pytest.raises(UsageError, match=r"2 classes, and the model 4; .* label, and '2' is not"):
        match_numbers(("0", "1", "3", "7"), ("0", "2"))
    with pytest.raises(UsageError, match="'12' is not"):
        match_numbers(own, ("0", "12"))
    for names in (("0", "5"), ("1", "3"), ("0", "00")):
        with pytest.raises(UsageError, match="2 classes, and the model 5"):
            match_numbers(tuple("abcde"), names)
    with pytest.raises(UsageError, match="only if there are as many: give"):  # no 0, no number
        match_numbers(tuple("abcde"), ("1", "3"))


def test_a_table_of_classes(here):
    write_files(here, {"a.png": IMAGES[0], "b.png": IMAGES[1], "c.png": IMAGES[2]})
    table = here / "t.csv"
    table.write_text("image,Class,split\na.png,red fox,test\nb.png,3,train\nc.png,red fox,train\n")
    data = open_dataset(table, "train")
    assert (data.classes, data.labels.tolist()) == (("3", "red fox"), [0, 1])
    assert data.found() == "2 images in 2 classes"
    table.write_text("image,label\na.png,1\nb.png,0\n")
    assert open_dataset(table).classes == ("not label", "label")
    table.write_text("image,label\na.png,cat\nb.png,\n")
    with pytest.raises(FormatError, match="line 3 has the class ''"):
        open_dataset(table)


# -- gzip


def test_a_gzip_file_is_read_forwards(monkeypatch):
    """What is not kept is unpacked again; whatever is read, it is the right bytes."""
    monkeypatch.setattr(gzipped, "_BLOCK", 1 << 12)
    data = np.random.default_rng(0).integers(0, 256, 20 << 10, dtype=np.uint8).tobytes()
    parts = gzip.compress(data[: 12 << 10]) + gzip.compress(data[12 << 10 :])
    found = Unpacked(io.BytesIO(parts), 4 << 10)
    assert found.seek(0, 2) > len(data)
    for start in (0, 10, 16 << 10, 12 << 10, (16 << 10) - 5, 7, len(data) - 3, len(data) + 9):
        found.seek(start)
        assert found.read(400) == data[start : start + 400]


def test_threads_that_read_a_little_later_begin_nothing_anew(here, model, monkeypatch):
    """An evaluation unpacks an archive twice: to find what is in it, and to read it in order."""
    begun = []
    begin = Unpacked._begin

    def counted(self):
        begun.append(self)
        begin(self)

    monkeypatch.setattr(Unpacked, "_begin", counted)
    data = open_labelled(form("tar.gz"), warn=lambda line: None)
    assert next(iter(data)).name.endswith("whole-val/blue/12.png")
    del begun[:]
    tr.evaluate(model, data, batch=4)
    assert begun == []


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda data: data[: len(data) // 2], FormatError, "cut short"),
        (lambda data: data[:-8] + bytes(8), IntegrityError, "is damaged"),
        (lambda data: data[:60] + bytes(60) + data[120:], FormatError, "is damaged after"),
        (lambda data: gzip.compress(gzip.decompress(data)[:3000]), FormatError, "in a header"),
        (
            lambda data: gzip.compress(tar_header("a.png", 4 << 20) + bytes(4 << 20)),
            UnsafeError,
            "200 times its length",
        ),
    ],
    ids=["cut", "checksum", "bits", "tar", "bomb"],
)
def test_damaged_archives(here, monkeypatch, change, error, words):
    monkeypatch.setattr(gzipped, "_FEW_BYTES", 1 << 20)
    [path] = form("tar.gz")
    Path("x.tar.gz").write_bytes(change(Path(path).read_bytes()))
    with pytest.raises(error, match=words):
        for _ in tars.TarFile("x.tar.gz", forwards=True):
            pass


@pytest.mark.parametrize("size", [300, 40_000])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda whole, data: data[:-9], FormatError, "cut short after {:,} unpacked bytes"),
        (lambda whole, data: data[: len(data) // 2], FormatError, "cut short after {:,} unpacked"),
        (lambda whole, data: data[:-8] + bytes(8), IntegrityError, "first {:,} unpacked bytes"),
        (lambda whole, data: data + b"garbage", FormatError, "damaged after {:,} unpacked bytes"),
        (lambda whole, data: data + bytes(9) + whole[:30], FormatError, "cut short after {:,} un"),
        (
            lambda whole, data: data[: len(data) // 2] + b"\xff" * 40 + data[-20:],
            (FormatError, IntegrityError),
            " {:,} unpacked bytes",
        ),
    ],
    ids=["end", "middle", "checksum", "garbage", "second", "bits"],
)
def test_all_that_comes_before_the_damage_is_read(size, members, change, error, words):
    """To the last byte, as far as the packed bytes say it; a later read finds the same damage."""
    data = np.random.default_rng(size).integers(0, 60, size, dtype=np.uint8).tobytes()
    cuts = [size * i // members for i in range(members + 1)]
    whole = b"".join(gzip.compress(data[a:b]) for a, b in pairwise(cuts))
    damaged = change(whole, whole)
    told = zlib.decompressobj(31)
    expected, rest = b"", damaged
    with suppress(zlib.error):
        while rest := rest.lstrip(b"\0") if told.eof else rest:
            told = zlib.decompressobj(31) if told.eof else told
            for i in range(len(rest)):
                expected += told.decompress(rest[i : i + 1])
                if told.eof:
                    break
            rest = rest[i + 1 :]
    assert expected[:90] == data[:90]
    assert len(expected) > size // 3
    found = Unpacked(io.BytesIO(damaged))
    assert b"".join(found.read(1) for _ in expected) == expected
    for _ in range(3):
        with pytest.raises(error, match=re.escape(words.format(len(expected)))):
            found.read(1)
    found.seek(0)
    assert found.read(len(expected)) == expected


def test_images_before_the_damage_have_rows(here):
    """A MiB of whole images was lost, and evaluations were of those before it."""
    files = {f"{name}/{i}.png": IMAGES[4] for i in range(40) for name in ("blue", "red")}
    data = gzip.compress(tar(files).rstrip(b"\0") + bytes(600), 0)
    Path("x.tar.gz").write_bytes(data[:-700])  # within the last image
    *whole, cut, archive = Images(["x.tar.gz"])
    assert [one.name for one in [*whole, cut]] == [f"x.tar.gz/{name}" for name in files]
    assert all(one.open().data == IMAGES[4] for one in whole)
    for one in (cut, archive):
        with pytest.raises(ImageError, match=r"cut short after [1-9][\d,]+ unpacked bytes"):
            one.open()


def test_only_what_reads_in_order_takes_compressed_archives(here):
    with pytest.raises(FormatError, match="gunzip"):
        open_dataset(form("tar.gz")[0], None)
    assert gzipped.KEPT < 1 << 26


# -- rows


@pytest.fixture
def run(run, model):
    tr.save(model, "m.h5")

    def command(*words):
        return run("evaluate", *words, "--model", "m.h5", "--device", "reference")

    return command


def test_rows_say_what_the_result_is_made_of(here, run):
    code, out, err = run(*form("folder"), "-o", "r.jsonl", "--json", "--batch", 5)
    found = json.loads(out)
    assert (code, found["broken"], found["pictures"]) == (1, 1, 13)
    assert "1 of 13 images cannot be read; they count as wrong" in err
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert {row["path"] for row in rows} == {f"d/{name}" for name in FILES}
    assert sum(row.get("correct", False) for row in rows) == 9
    by_path = {row["path"]: row for row in rows}
    first = by_path["d/red/00.png"]
    assert (first["labels"], first["predicted"], first["predicted_indices"]) == (
        ["red"],
        ["green"],
        [2],
    )
    assert first["rank"] > 1
    assert 0 < first["probability"] <= 1
    broken = by_path["d/red/03.png"]
    assert "03.png" in broken["error"]
    assert broken["labels"] == ["red"]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert found["loss"] == pytest.approx(sum(losses) / 12, rel=1e-15)
    code, plain, _ = run("d", "--json", "--batch", 5)
    assert (code, json.loads(plain)) == (1, found)
    assert run("d", "-o", "r.csv", "--csv", "c.csv", "--batch", 5)[:2] == (1, run("d")[1])
    with open("r.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert [float(row["loss"]) for row in table if row["loss"]] == losses
    code, out, err = run("d", "-o", "s.jsonl", "--broken", "skip", "--json")
    assert (code, json.loads(out)["left_out"], json.loads(out)["top1"]) == (0, 1, 9 / 12)
    assert len(Path("s.jsonl").read_text().splitlines()) == 13
    assert "they are left out" in err
    code, out, err = run("d", "-o", "s.jsonl", "--broken", "refuse", "--resume")
    assert (code, out, "1 of 13 images cannot be read; see s.jsonl" in err) == (1, "", True)


@pytest.mark.parametrize(("kind", "out"), [("folder", "r.jsonl"), ("json", "r.csv")])
def test_a_run_that_stops_goes_on(here, run, monkeypatch, out, kind):
    """It stops behind seven images, with half a row behind; the result is that of a whole run."""
    words = [*form(kind), "--batch", 3, "--json"]
    whole = run(*words, "-o", f"whole-{out}")
    scores = Comparison.scores

    def stop(self, *more):
        for number, one in enumerate(scores(self, *more)):
            if number == 7:
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(Comparison, "scores", stop)
        code, printed, err = run(*words, "-o", out)
    assert (code, printed) == (130, "")
    assert "has 7 rows; the same command with --resume goes on" in err
    part = Path(f"{out}.part")
    with part.open("ab") as file:
        file.write(b'd/red,"\n' if out.endswith("csv") else b'{"path": "d')
    assert run(*words, "-o", out)[0] == 2  # neither --resume nor --force
    for other in (["--mirror"], ["--fast-decode"], ["--labels-by-number"]):
        assert run(*words, *other, "-o", out, "--resume")[0] == 2
    before = part.read_bytes()
    seen = []

    def counted(self, sources, *more):
        return scores(self, (seen.append(one) or one for one in sources), *more)

    monkeypatch.setattr(Comparison, "scores", counted)
    assert run(*words, "-o", out, "--resume")[:2] == whole[:2]
    assert Path(out).read_bytes() == Path(f"whole-{out}").read_bytes()
    assert before[:500] == Path(out).read_bytes()[:500]
    assert len(seen) == 7  # two whole mini-batches were kept
    assert sorted(Path().glob("r.*")) == [Path(out)]
    code, printed, err = run(*words, "-o", out, "--resume")  # once more: nothing is left to do
    assert (code, printed) == whole[:2]
    assert "nothing was computed" in err


@pytest.mark.parametrize("change", ["model", "labels", "images", "threads"])
def test_other_rows_are_refused(here, run, model, change):
    [path] = form("list")
    assert run(path, "-o", "s.jsonl")[0] == 1
    lines = Path(path).read_text().splitlines()
    if change == "model":
        params = {**model.params, "fc.bias": model.params["fc.bias"][::-1].copy()}
        tr.save(replace(model, params=params), "m.h5")
    elif change == "labels":
        Path(path).write_text("\n".join([lines[0].replace(" red", " blue"), *lines[1:]]))
    elif change == "images":
        Path(path).write_text("\n".join(lines[:-1]))
    code, _, err = run(path, "-o", "s.jsonl", "--resume", "--threads", 1)
    if change == "threads":  # they change nothing
        assert (code, "nothing was computed" in err) == (1, True)
    else:
        assert code == 2
        assert "is whole, and its rows from 1 on are not those of these images and settings" in err


def test_a_run_of_other_labels_is_refused(here, run, monkeypatch):
    [path] = form("list")
    scores = Comparison.scores

    def stop(self, *more):
        yield next(scores(self, *more))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Comparison, "scores", stop)
        assert run(path, "-o", "r.jsonl")[0] == 130
    text = Path(path).read_text()
    Path(path).write_text(text.replace("12.png blue", "12.png red"))
    code, _, err = run(path, "-o", "r.jsonl", "--resume")
    assert (code, "were computed with data " in err) == (2, True)


def test_rows_among_other_classes_are_another_run(here, model):
    """The rank `within` the classes of a data set depends on all of them."""
    [path] = form("list")
    lines = [line for line in Path(path).read_text().splitlines() if line.endswith(" red")]
    Path("red.txt").write_text("\n".join(lines))
    compared = Comparison.of(Ensemble.of(model), open_labelled(["red.txt"]), False, None)
    assert compared.rule.numbers == (0,)
    other = replace(compared, rule=replace(compared.rule, numbers=(0, 1)))
    assert other.digest() != compared.digest()


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("folder", "--csv"),
        ("folder", "--picture"),
        ("pattern", "-o"),
        ("pattern", "--results"),
        ("csv", "-o"),
    ],
)
def test_no_image_is_written_over(here, run, option, kind):
    """Not even by --force, and not under another name of the same file."""
    paths = form(kind)
    ending = ".png" if option == "--picture" else ".csv"
    name = f"d/red/00{ending}"
    if ending == ".csv":
        Path(name).hardlink_to("d/red/01.png")
    before = Path(name).read_bytes()
    code, out, err = run(*paths, option, name, "--force")
    assert (code, out) == (2, "")
    assert "is read by this command" in err
    assert Path(name).read_bytes() == before


def test_the_name_of_an_archive_that_was_cut(here):
    """What is wrong with an archive is said before anything is computed."""
    with tarfile.open("s.tar", "w") as archive:
        for i in range(3):
            for ending, data in ((".png", IMAGES[i]), (".cls", b"1")):
                member = tarfile.TarInfo(f"{i}{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    data = Path("s.tar").read_bytes()
    Path("s.tar").write_bytes(data[: len(data) // 4])
    with pytest.raises(FormatError, match=r"s\.tar.*cut short"):
        open_labelled(["s.tar"])
