"""Folders at any size: archives, lists and patterns; rows that go on after a kill; progress."""

from __future__ import annotations

import csv
import errno
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from data_files import picture, tar_header, write_files, write_zip
from PIL import Image

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.cli.output import progress
from tinyresnext.cli.output.tables import csv_line
from tinyresnext.cli.runs.images import computed_by
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.trees.sources import Images, Source
from tinyresnext.data.trees.tars import TarFile
from tinyresnext.data.trees.zips import ZipFile
from tinyresnext.errors import FormatError, ImageError, UnsafeError, UsageError
from tinyresnext.formats.tar import files_in
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.images.decode import decode
from tinyresnext.images.prepare import views
from tinyresnext.inference import files
from tinyresnext.inference.classify import classify
from tinyresnext.inference.many import batches
from tinyresnext.inference.many import features as features_of_many
from tinyresnext.inference.many.features import save_features
from tinyresnext.inference.many.logits import logits_of
from tinyresnext.inference.many.rows import journal as rows_journal
from tinyresnext.inference.many.rows.forms import cells_of, json_form, records
from tinyresnext.inference.many.rows.journal import Journal, journal
from tinyresnext.inference.scores import confusion
from tinyresnext.system.threads import ahead
from tinyresnext.system.version import __version__

NAMES = ["a.png", "b/c.png", "b/d-e.png", "b/d/f.png", "g.png"]


@pytest.fixture
def photos(tmp_path):
    return write_files(tmp_path / "photos", {name: picture(i) for i, name in enumerate(NAMES)})


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1.5  # webdataset writes fractions of a second
            archive.addfile(member, io.BytesIO(data))
    return path


def names(*paths, **more) -> list[str]:
    return [one.name for one in Images(map(str, paths), **more)]


# -- what paths stand for


def test_a_zip_is_a_folder(tmp_path, photos):
    archive = write_zip(tmp_path / "p.zip", {n: (photos / n).read_bytes() for n in NAMES})
    found = list(Images([str(archive)]))
    assert [one.name for one in found] == [f"{archive}/{name}" for name in NAMES]
    for one, name in zip(found, NAMES, strict=True):
        np.testing.assert_array_equal(decode(one.open()), decode(photos / name))


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tar_is_read_in_its_order(tmp_path, photos, form):
    """With names of more than 100 bytes and of other letters, and what is no image."""
    order = ["g.png", "b/" + "long/" * 30 + "c.png", "b/дом.png", "a.png"]
    files = {name: picture(i) for i, name in enumerate(order)}
    others = {"g.json": b"{}", "g.cls": b"3", ".hidden.png": b"", "__MACOSX/a.png": b""}
    archive = write_tar(tmp_path / "s.tar", others | files, form)
    found = list(Images([str(archive)]))
    assert [one.name for one in found] == [f"{archive}/{name}" for name in order]
    for one, data in zip(found, files.values(), strict=True):
        np.testing.assert_array_equal(decode(one.open()), decode(data))
    packed = tmp_path / "s.tar.gz"
    packed.write_bytes(gzip.compress(archive.read_bytes()))
    for one, data in zip(Images([str(packed)]), files.values(), strict=True):
        np.testing.assert_array_equal(decode(one.open()), decode(data))


def in_a_child(check: Callable[[], bool]) -> bool:
    """Return whether a check holds in a forked process, which a deadlock does not keep for ever."""
    child = os.fork()
    if not child:
        signal.alarm(60)
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("form", ["tar", "tar.gz", "zip"])
def test_a_forked_process_reads_an_archive_by_a_position_of_its_own(tmp_path, form):
    """A child moves no position that its parent reads from, and waits for no lock of a thread."""
    files = {f"{c}/{i}.png": picture(10 * c + i) for c in range(2) for i in range(3)}
    if form == "zip":
        path = write_zip(tmp_path / "a.zip", files)
    else:
        path = write_tar(tmp_path / "a.tar", files)
    if form == "tar.gz":
        packed = tmp_path / "a.tar.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    archive = ZipFile(path) if form == "zip" else TarFile(path, forwards=True)
    if form == "zip":
        places = [archive.where(tuple(name.split("/"))) for name in files]
    else:
        places = [placed.start for placed in archive]
    expected = list(files.values())
    assert archive.read(places[0], "first") == expected[0]
    with archive._shared.alone() as source:
        at = source.tell() if form != "tar.gz" else None
        assert in_a_child(lambda: [archive.read(place, "one") for place in places] == expected)
        assert at is None or source.tell() == at
    assert [archive.read(place, "one") for place in places] == expected
    path.write_bytes(b"other")

    def refused() -> bool:
        with pytest.raises(ImageError, match="has changed since it was opened"):
            archive.read(places[0], "one")
        return True

    assert in_a_child(refused)


def test_what_is_wrong_with_an_archive_is_a_row(tmp_path, run):
    """What comes before the damage has a row, and then the archive has one with the error."""
    whole = write_tar(tmp_path / "s.tar", {f"{i}.png": picture(i) for i in range(3)}).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:2600])  # within the second image
    (tmp_path / "no-end.tar").write_bytes(whole[: whole.index(b"2.png")])
    (tmp_path / "no.zip").write_bytes(b"no archive")
    (tmp_path / "s.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    damaged = ["cut.tar", "no-end.tar", "no.zip", "s.tar.gz", "none.tar"]
    code, out, err = run("classify", *damaged, "s.tar", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    failed = {row["path"] for row in rows if "error" in row}
    assert (code, failed) == (1, set(damaged))
    good = ["cut.tar/0.png", "no-end.tar/0.png", "no-end.tar/1.png", *names("s.tar")]
    assert [row["path"] for row in rows if "error" not in row] == good
    assert "cut short" in err
    assert "s.tar.gz: the archive is damaged after 0 unpacked bytes" in err


def test_a_tar_with_a_link_is_refused(tmp_path):
    link = tar_header("a.png", 0, b"2") + bytes(1024)
    with pytest.raises(tr.errors.UnsafeError, match="a link"):
        list(files_in(io.BytesIO(link)))
    with pytest.raises(FormatError, match="behind its end"):
        list(files_in(io.BytesIO(bytes(512) + tar_header("a.png", 0))))


def test_a_name_with_a_zero_in_a_tar(tmp_path):
    """No file of features could have it: it is refused before anything is computed."""
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.png")
        member.pax_headers = {"path": "a\0b.png"}
        archive.addfile(member)
    with (
        (tmp_path / "s.tar").open("rb") as file,
        pytest.raises(UnsafeError, match="a member called"),
    ):
        list(files_in(file))
    assert names(tmp_path / "s.tar") == [str(tmp_path / "s.tar")]


@pytest.mark.parametrize("one", ["photos", b"photos", Path("photos"), 3])
def test_one_path_is_no_list(photos, monkeypatch, one):
    """Its letters would be paths, and one of them may be ``/``."""
    monkeypatch.chdir(photos.parent)
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    for call in (
        lambda: Images(one),
        lambda: Images(["-"], one),
        lambda: open_labelled(one),
        lambda: classify(model, one),
        lambda: list(save_features(model, one, "f.h5")),
    ):
        with pytest.raises(UsageError, match="a list of paths was expected, found"):
            call()
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_paths_are_texts_or_objects(photos):
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    for paths in ([photos / "a.png"], [os.fsencode(photos / "a.png")]):
        assert [row.path for row in classify(model, paths)] == [str(photos / "a.png")]
        assert [one.name for one in Images(paths)] == [str(photos / "a.png")]
    assert len(open_labelled([photos / "a.png", photos / "g.png"])) == 2
    for call in (Images, open_labelled, lambda paths: list(classify(model, paths))):
        with pytest.raises(UsageError, match="the path of an image was expected, found 1"):
            call([1])


def test_lists_patterns_and_numbers(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_bytes("\ufeffphotos/g.png\r\n\n-\nphotos/b\n".encode())
    inner = ["photos/b/c.png", "photos/b/d-e.png", "photos/b/d/f.png"]
    assert names("list.txt") == ["photos/g.png", *inner]
    assert names("-", names=["photos/b\n"]) == inner
    assert names("photos/?.png") == ["photos/a.png", "photos/g.png"]
    assert names("photos/**/*.png") == sorted(f"photos/{name}" for name in NAMES)
    for number in range(9, 12):
        write_tar(Path(f"s-{number:03}.tar"), {"k.png": picture(number)})
    assert names("s-{009..011}.tar") == [f"s-{n:03}.tar/k.png" for n in range(9, 12)]
    with pytest.raises(UsageError, match="nothing matches"):
        names("none/*.png")
    with pytest.raises(UsageError, match="smallest and the largest"):
        names("s-{3..1}.tar")
    Path("list.txt").write_bytes(b"\0")
    with pytest.raises(UsageError, match="line 1 is no name"):
        names("list.txt")


def test_an_order_that_needs_no_list(tmp_path):
    """Folder by folder, names have the order of all sorted paths."""
    order = ["a!.png", "a-b/x.png", "a.png", "a/b!/x.png", "a/b.png", "a/b/x.png", "a0.png"]
    write_files(tmp_path, dict.fromkeys(reversed(order), b""))
    assert names(tmp_path) == sorted(str(tmp_path / name) for name in order)


def test_what_has_no_image_is_named(run, photos):
    """Beside others that have some, its rows would not be missed."""
    write_zip(Path("none.zip"), {"a.pdf": b""})
    Path("empty").mkdir()
    code, out, err = run("classify", "photos/a.png", "none.zip", "empty", "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "there is no image in none.zip, empty" in err


def test_archives_in_a_folder_are_named(tmp_path, run, photos):
    write_tar(photos / "s.tar", {})
    os.symlink(photos / "b", photos / "link")
    code, out, err = run("classify", "photos", "--json")
    assert (code, len(out.splitlines())) == (0, len(NAMES))
    assert "1 archive and 1 linked folder, which are not read" in err.replace(
        "1 linked folder and 1 archive", "1 archive and 1 linked folder"
    )


@pytest.mark.parametrize("outer", ["o.zip", "o.tar", "o.tar.gz"])
def test_archives_in_an_archive_are_named(run, photos, outer):
    """As those in a folder; they are not read, and so their images have no rows."""
    inner = {"x/in.zip": b"", "x/in.tar.xz": b"", ".hidden.zip": b"", "x/notes.txt": b""}

    def write(files):
        if outer == "o.zip":
            write_zip(Path(outer), files)
        else:
            data = write_tar(Path("o"), files).read_bytes()
            Path(outer).write_bytes(gzip.compress(data) if outer == "o.tar.gz" else data)

    write(inner | {"x/a.png": picture(1)})
    code, out, err = run("classify", outer, "--json")
    assert (code, len(out.splitlines())) == (0, 1)
    said = "archives have 2 inner archives, which are not read; unpack them to read them"
    assert said in err
    write(inner)
    code, out, err = run("classify", outer)
    assert (code, out, said in err, "there is no image in o." in err) == (2, "", True, True)


# -- rows


@pytest.mark.skipif(os.name == "nt", reason="windows and services have no output there")
@pytest.mark.parametrize("command", ["classify", "evaluate"])
def test_results_that_would_go_nowhere(run, small, monkeypatch, capsys, command):
    """A shell's `>&-` closes standard output; then results need a file."""
    words = [command, *map(str, small), *(["--labels-by-number"] if command == "evaluate" else [])]
    monkeypatch.setattr(sys, "__stdout__", None)
    for more in ([], ["--json"], ["--csv", "-"], ["-o", "r.jsonl"]):
        monkeypatch.setattr(sys, "stdout", None)
        code, err = main([*words, *more]), capsys.readouterr().err
        goes = bool(more) and more[0] == "-o"
        assert code == (0 if goes else 2)
        assert ("standard output is closed" in err) != goes
        assert goes or err.count("\n") == 1
    assert len(Path("r.jsonl").read_text().splitlines()) == 5


def test_rows_to_a_file_are_those_on_the_screen(run, photos):
    (photos / "b" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    code, out, _ = run("classify", "photos", "--json")
    assert code == 1
    assert run("classify", "photos", "-o", "r.jsonl")[:2] == (
        1,
        "r.jsonl: 6 rows, 1 of them with an error\n",
    )
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert len({row.pop("settings") for row in rows}) == 1
    assert rows == [json.loads(line) for line in out.splitlines()]
    assert run("classify", "photos", "--csv", "whole.csv")[0] == 1
    assert run("classify", "photos", "-o", "r.csv", "--batch", 2)[0] == 1
    assert Path("r.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert sorted(p.name for p in Path().iterdir()) == ["photos", "r.csv", "r.jsonl", "whole.csv"]


def stop_at(patched, place: int) -> None:
    """Let a run be interrupted before an image, but not while images are counted at first."""
    every, counted = Images.__iter__, []

    def images(self):
        for number, source in enumerate(every(self)):
            if number == place and counted:
                raise KeyboardInterrupt
            yield source
        counted.append(True)

    patched.setattr(Images, "__iter__", images)


@pytest.mark.parametrize(
    ("ending", "stops_at"), [("jsonl", 0), ("jsonl", 4), ("csv", 4), ("h5", 3)]
)
def test_a_run_that_stops_goes_on(run, photos, monkeypatch, ending, stops_at):
    """It stops before an image, with half a row behind the last whole one."""
    write_files(photos, {'=b/"quoted"\n\'.png': picture(7), "b/broken.png": b"\x89PNG\r\n\x1a\n"})
    command = ["features" if ending == "h5" else "classify", "photos", "--batch", 1]
    assert run(*command, "-o", f"whole.{ending}")[0] == 1
    file, part = f"r.{ending}", Path(f"r.{ending}.part")
    with monkeypatch.context() as patched:
        stop_at(patched, stops_at)
        code, out, err = run(*command, "-o", file)
    assert (code, out) == (130, "")
    assert "--resume goes on" in err
    assert not Path(file).exists()
    with part.open("ab") as rows:
        rows.write(b'photos/b,"\n' if ending == "csv" else b'{"path": "pho')
    if ending == "h5":
        with Path("r.h5.part.rows").open("ab") as values:
            values.write(b"half a row")
    if part.stat().st_size:
        assert run(*command, "-o", file)[0] == 2  # neither --resume nor --force
    other = ["--stage", "stem"] if ending == "h5" else ["--top", 2]
    if stops_at:  # the rows of another stage, or of fewer classes
        assert run(*command, *other, "-o", file, "--resume")[0] == 2
    code, out, _ = run(*command, "-o", file, "--resume")
    assert code == 1
    if ending == "h5":
        with h5py.File(file) as found, h5py.File("whole.h5") as expected:
            assert found["paths"][:].tolist() == expected["paths"][:].tolist()
            np.testing.assert_array_equal(found["features"][:], expected["features"][:])
    else:
        assert Path(file).read_bytes() == Path(f"whole.{ending}").read_bytes()
    assert list(Path().glob("r.*")) == [Path(file)]


@pytest.mark.parametrize("command", ["classify", "features", "evaluate"])
def test_rows_are_of_the_model_that_was_loaded(run, photos, monkeypatch, command):
    """Its file is replaced while the images are listed, as a training replaces best.h5."""
    model = Path("m.h5")
    model.write_bytes(shipped_model().read_bytes())
    before = files.digest_of(files.load(model))
    other = files.load(model)
    other.params = {**other.params, "fc.bias": other.params["fc.bias"] + np.eye(10, dtype="f4")[0]}
    real = files.load

    def load(*given):
        found = real(*given)
        tr.save(other, model)
        return found

    monkeypatch.setattr(files, "load", load)
    seen = []
    real_journal = rows_journal.journal

    def spying(path, settings, *more, **others):
        seen.append(settings["sha256"])
        return real_journal(path, settings, *more, **others)

    monkeypatch.setattr(rows_journal, "journal", spying)
    monkeypatch.setattr(features_of_many, "journal", spying)
    source, out = "photos", "r.h5" if command == "features" else "r.jsonl"
    if command == "evaluate":
        source = str(write_files(Path("set"), {f"cat/{i}.png": picture(i) for i in range(2)}))
    assert run(command, source, "--model", model, "-o", out)[0] == 0
    assert seen == [[before]]
    assert files.digest_of(real(model)) != before


def test_other_images_are_no_same_run(run, photos):
    assert run("classify", "photos", "-o", "r.jsonl")[0] == 0
    code, _, err = run("classify", "photos", "-o", "r.jsonl", "--resume")
    assert (code, "nothing was computed" in err) == (0, True)
    assert run("classify", "photos", "-o", "r.jsonl", "--resume", "--mirror")[0] == 2
    write_files(photos, {"a0.png": picture(8)})
    code, _, err = run("classify", "photos", "-o", "r.jsonl", "--resume")
    assert (code, "its rows from 2 on" in err) == (2, True)
    Path("r.jsonl").rename("r.jsonl.part")
    settings = Path("s.jsonl.part.json")
    assert run("classify", "photos", "-o", "s.jsonl", "--force")[0] == 0
    for words in ([], ["--resume"]):
        assert run("classify", "photos", "-o", "r.jsonl", *words)[0] == 2
    assert not settings.exists()
    assert run("classify", "photos", "-o", "r.jsonl", "--force")[0] == 0
    assert Path("r.jsonl").read_bytes() == Path("s.jsonl").read_bytes()
    code, _, err = run("classify", "photos", "-o", "r.txt")
    assert (code, ".jsonl" in err) == (2, True)
    assert run("classify", "photos", "--resume")[0] == 2


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("a.csv", ["classify", "photos", "a.csv", "--csv", "a.csv"]),
        ("list.txt", ["classify", "list.txt", "--csv", "list.txt"]),
        ("m.h5", ["features", "photos", "--model", "m.h5", "-o", "m.h5"]),
        ("list.txt", ["classify", "-", "--csv", "list.txt"]),
        ("list.txt", ["evaluate", "photos", "--truth", "list.txt", "--csv", "list.txt"]),
        ("t.csv", ["evaluate", "t.csv", "--results", "t.csv"]),
        ("r.csv", ["evaluate", "photos", "--csv", "r.csv", "--results", "./r.csv"]),
        ("r.csv", ["evaluate", "photos", "--csv", "r.csv", "-o", "again/r.csv"]),
    ],
)
def test_what_is_read_is_not_written_over(run, photos, monkeypatch, file, words):
    """Not even by --force; nor is one result by another."""
    write_files(Path(), {"list.txt": b"photos/a.png\n", "t.csv": b"image,a\nphotos/a.png,1\n"})
    write_files(Path(), {"r.csv": b"old", "m.h5": b"a model", "a.csv": picture(1)})
    Path("again").symlink_to(Path())
    before = Path(file).read_bytes()
    with open("list.txt", encoding="utf-8") as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        code, out, err = run(*words, "--force")
    assert (code, out) == (2, "")
    said = ("is read by this command", "to have two results", "is the file to read")
    assert any(one in err for one in said)
    assert Path(file).read_bytes() == before


@pytest.mark.parametrize("typed", ["p*.zip", "list.txt", "p.zip"])
@pytest.mark.parametrize("words", [["features", "-o", "q.h5"], ["classify", "--csv", "q.csv"]])
def test_an_archive_that_is_read_is_not_written_over(run, photos, typed, words):
    """Here it has a second name, whose ending is that of a result."""
    before = write_zip(Path("p.zip"), {"x/a.png": picture(1)}).read_bytes()
    write_files(Path(), {"list.txt": b"p.zip\n"})
    os.link("p.zip", words[2])
    code, _, err = run(words[0], typed, *words[1:], "--force")
    assert (code, "is read by this command" in err) == (2, True)
    assert Path("p.zip").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["features", "photos", "-o"], ["f.npz", "f.npy", "f.csv", "f.parquet", "f", "f.h5.gz"]),
        (["classify", "photos", "--csv"], ["t.npz", "t.tsv", "t.jsonl", "t.xlsx", "t.h5"]),
        (["evaluate", "photos", "--csv"], ["t.npz", "t.parquet"]),
        (["evaluate", "photos", "--results"], ["t.xlsx"]),
        (["explain", "photos/a.png", "-o"], ["x.png", "x.pdf", "x", "x.json"]),
        (["bench", "--json"], ["b.csv"]),
        (["verify", shipped_model(), "--make-reference"], ["r.h5", "r"]),
    ],
)
def test_a_name_says_what_is_in_the_file(run, photos, words, names):
    """Or other programs take it for something else."""
    for name in names:
        code, out, err = run(*words, name)
        assert (code, out) == (2, "")
        assert " is written to a file that ends in ." in err
        assert not Path(name).exists()


@pytest.mark.parametrize("name", ["t.csv", "t.CSV", "t.txt", "t"])
def test_names_of_tables(run, small, name):
    assert run("classify", *small, "--csv", name)[0] == 0
    assert Path(name).read_text(encoding="utf-8").startswith("path,error,label1,")


def test_files_of_python_have_endings_too(tmp_path, photos):
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    with pytest.raises(UsageError, match=r"f\.npz ends in '\.npz'; .* ends in \.h5 or \.hdf5"):
        list(save_features(model, [photos / "a.png"], "f.npz"))
    with pytest.raises(UsageError, match=r"ends in '\.png'; a page \(HTML\) is written"):
        tr.explain(tr.load(), photos / "a.png", top=1).save(tmp_path / "p.png")


def test_features_are_not_written_over(tmp_path, photos):
    """A run's own rows may go on; what is whole, or of something else, is kept."""
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    file, image = tmp_path / "f.h5", photos / "a.png"
    file.write_bytes(b"precious")
    for more in ({}, {"resume": True}, {"settings": {}}):
        with pytest.raises(UsageError, match="give another name, or"):
            list(save_features(model, [image], file, **more))
        assert file.read_bytes() == b"precious"
    assert len(list(save_features(model, [image], file, force=True))) == 1
    with h5py.File(file) as found:
        assert len(found["paths"]) == 1
    with pytest.raises(UsageError, match="force=True to write over it"):
        list(save_features(model, [image], file))


@pytest.mark.parametrize("other", [["--top", "3"], ["--fast-decode"], []])
def test_a_whole_file_of_other_settings_is_refused(run, photos, other):
    model = tr.load()
    tr.save(model, "m.h5")
    asked = ["classify", "photos", "-o", "r.jsonl", "--top", "2", "--model", "m.h5"]
    assert run(*asked)[0] == 0
    before = Path("r.jsonl").read_bytes()
    if not other:  # the model is trained anew, under the same name
        params = {**model.params, "fc.bias": model.params["fc.bias"][::-1].copy()}
        tr.save(replace(model, params=params), "m.h5")
    code, _, err = run(*asked, *other, "--resume")
    assert code == 2
    assert "is whole, and its rows from 1 on are not those" in err
    assert Path("r.jsonl").read_bytes() == before


def test_the_images_of_a_run_changed(run):
    """A row of another image is refused before anything is computed."""
    form = json_form()
    assert form.read(b"[]\n") is None
    assert form.read(b"\0\0\n") is None
    assert list(records(io.BytesIO(b'{}\n{"half'))) == [(b"{}\n", 3)]
    with journal("r.jsonl", {}, form, False) as kept:
        left = kept.remaining([Source(name, lambda: "") for name in "ab"])
        assert next(left).name == "a"
        kept.write(b'{"path": "a"}\n', None)
        kept.flush()
        with pytest.raises(UsageError, match="another process writes"):
            journal("r.jsonl", {}, form, True).__enter__()
    Path("r.jsonl.part").write_bytes(b'{"path": "a"}\n{"path": "b"}\n')
    for wrong in ("ac", "a", "ba"):
        with (
            journal("r.jsonl", {}, form, True) as kept,
            pytest.raises(UsageError, match="not those that the run began with"),
        ):
            list(kept.remaining([Source(name, lambda: "") for name in wrong]))
    with pytest.raises(UsageError, match="computed with model None, and now it is b"):
        journal("r.jsonl", {"model": "b"}, form, True).__enter__()


@pytest.fixture
def small(run):
    """Return the words for a small model, and write five images of its two classes."""
    files = {f"{'xy'[i > 1]}/{i}.png": picture(i) for i in range(5)}
    write_files(Path("d"), files)
    tr.save(tr.random_model(tr.cifar(11, 1, 4, classes=2), seed=1), "m.h5")
    return ["d", "--model", "m.h5", "--device", "reference", "--batch", 2]


@pytest.mark.parametrize("command", ["classify", "features", "evaluate"])
def test_a_full_disk(run, small, monkeypatch, command):
    """One line says what to do, and that is true."""
    words = [command, *small, "-o", out := "r.h5" if command == "features" else "r.jsonl"]
    words += ["--labels-by-number"] if command == "evaluate" else []
    flush, times = Journal.flush, []

    def no_room(self):
        times.append(1)
        with self.writing():
            if len(times) > 2:
                raise OSError(errno.ENOSPC, "No space left on device")
        flush(self)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "flush", no_room)
        code, printed, err = run(*words)
    assert (code, printed) == (2, "")
    says = f"No space left on device; {out}.part has the rows so far: make room, and go on "
    assert says in err.splitlines()[-1]
    assert Path(f"{out}.part").read_bytes().count(b"\n") >= 2
    assert run(*words, "--resume")[0] == 0


def test_no_room_for_a_file_of_features(run, small, monkeypatch):
    """All values are there, and need to be written once more."""
    replace = os.replace

    def no_room(source, target):
        if str(target).endswith("r.h5"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", no_room)
        code, _, err = run("features", *small, "-o", "r.h5")
    assert (code, err.count("\n")) == (2, 1)
    assert "No space left on device" in err
    assert "r.h5.part has the rows so far: make room, and go on with the run (--resume" in err
    assert run("features", *small, "-o", "r.h5", "--resume")[0] == 0
    with h5py.File("r.h5") as file:
        assert len(file["paths"]) == 5


@pytest.mark.parametrize("command", ["classify", "features", "evaluate"])
def test_rows_of_another_device_are_refused(run, small, monkeypatch, command):
    """Their last digits would differ, and no row would say so; two GPUs of a machine are alike."""
    words = [command, *small, "-o", "r.h5" if command == "features" else "r.jsonl"]
    words += ["--labels-by-number"] if command == "evaluate" else []

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "sync", stopped)
        assert run(*words)[0] == 130
    [settings] = Path().glob("*.part.json")
    settings.write_text(settings.read_text().replace('"reference"', '"cuda"'))
    code, _, err = run(*words, "--resume")
    assert (code, "computed with device cuda, and now it is reference" in err) == (2, True)
    one, other = (SimpleNamespace(device=f"cuda{n}", batch=8) for n in ("", ":1"))
    models = [SimpleNamespace(precision="float16")] * 2
    assert computed_by(one, models) == computed_by(other, models[:1])


@pytest.mark.parametrize("command", ["classify", "features"])
def test_off_the_processor_mini_batches_are_the_same(run, small, monkeypatch, command):
    """Of three rows the third is computed again: with the fourth, as in a run that nobody stops."""
    out = "r.h5" if command == "features" else "r.jsonl"
    words = [command, *small, "-o", out]

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "sync", stopped)
        assert run(*words)[0] == 130
    part, written, write = Path(f"{out}.part"), [], Journal.write
    part.write_bytes(b"".join(part.read_bytes().splitlines(keepends=True)[:3]))
    code, _, err = run(*words, "--batch", 4, "--resume")
    assert (code, "computed with batch 2, and now it is 4" in err) == (2, True)
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "write", lambda self, *row: written.append(write(self, *row)))
        assert run(*words, "--resume")[0] == 0
    assert len(written) == 3
    assert run(*words[:-1], f"w-{out}")[0] == 0
    if command == "features":
        with h5py.File(out) as file, h5py.File("w-r.h5") as whole:
            np.testing.assert_array_equal(file["features"][:], whole["features"][:])
    else:
        assert Path(out).read_bytes() == Path("w-r.jsonl").read_bytes()
    settings = computed_by(SimpleNamespace(device="cuda", batch=None), [])
    assert settings["batch"] == 64


def test_stopped_before_it_began(run, small, monkeypatch):
    """No file is named that is not there."""

    def stopped(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(tr.Model, "features", stopped)
    code, _, err = run("features", *small, "-o", "r.h5")
    assert (code, ".part" in err) == (130, False)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
@pytest.mark.parametrize("command", ["classify", "features", "evaluate", "table"])
def test_names_that_are_not_utf8(run, small, monkeypatch, command):
    """A byte that is none would make a table of a million rows unreadable, and a run goes on."""
    for folder in sorted(Path("d").iterdir()):
        Path(folder, os.fsdecode(b"=caf\xe9.png")).write_bytes(picture(3))
    out = {"features": "r.h5", "table": "t.csv"}.get(command, "r.csv")
    option = "--csv" if command == "table" else "-o"
    words = ["classify" if command == "table" else command, *small, option, out]
    words += ["--labels-by-number"] if command == "evaluate" else []
    code, _, err = run(*words)
    assert (code, "not UTF-8 are written with escapes" in err) == (0, True)
    if command == "features":
        with h5py.File(out) as found:
            names = found["paths"].asstr()[:].tolist()
    else:
        with open(out, encoding="utf-8", newline="") as file:
            names = [row["path"] for row in csv.DictReader(file)]
    assert sum(name.endswith("/=caf\\udce9.png") for name in names) == len(os.listdir("d"))
    if command == "table":
        return
    before, stops = Path(out).read_bytes(), [5]
    write = Journal.write

    def stopped(self, row, error):
        stops[0] -= 1
        if not stops[0]:
            raise KeyboardInterrupt
        write(self, row, error)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "write", stopped)
        assert run(*words, "--force")[0] == 130
    assert run(*words, "--resume")[0] == 0
    if command != "features":
        assert Path(out).read_bytes() == before


def test_cells_of_any_length():
    row = ['a,"b"\r\n', "", "x" * 200_000, "\udcffé", "1.5"]
    assert cells_of(csv_line(row)) == [*row[:3], "\\udcffé", "1.5"]
    for damaged in (b"a,b", b'"a"b,c\r\n', b"a\r\nb\r\n", b'"a\r\n', b""):
        assert cells_of(damaged) == []


def test_features_that_a_power_cut_lost_are_computed_again(tmp_path, photos):
    """The line of a row is there, and its values are not: the checksum says so."""
    model, file = tr.load(), tmp_path / "f.h5"
    paths = [str(photos / name) for name in NAMES]
    rows = save_features(model, paths, file, batch=2, settings={})
    assert [next(rows)[0] for _ in range(3)] == paths[:3]
    rows.close()
    values = tmp_path / "f.h5.part.rows"
    data = values.read_bytes()
    values.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))  # four rows, two are zeros
    found = list(save_features(model, paths, file, batch=2, settings={}, resume=True))
    assert found == [(path, None) for path in paths[2:]]
    whole = tmp_path / "whole.h5"
    list(save_features(model, paths, whole, batch=2))
    with h5py.File(file) as one, h5py.File(whole) as other:
        np.testing.assert_array_equal(one["features"][:], other["features"][:])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.h5", "photos", "whole.h5"]


KILLED = """
import os, signal, sys
from tinyresnext.cli.main import main
from tinyresnext.inference.many.rows.journal import Journal

left, write = int(sys.argv[1]), Journal.write

def some(self, row, error):
    global left
    if len(row) >= left:
        self._file.write(row[:left])
        self._file.flush()
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    left -= len(row)
    write(self, row, error)

Journal.write = some
main(sys.argv[2:])
"""


def killed(folder: Path, words: list[str], after: int) -> None:
    """Begin or continue a run in a process of its own, which is killed behind so many new bytes.

    They need not end with a row. Whoever killed it from outside would have to be quicker than it.
    """
    command = [sys.executable, "-c", KILLED, str(after), *words, "--resume"]
    done = subprocess.run(command, cwd=folder, capture_output=True)
    assert done.returncode in (-9, 15), done.stderr  # 15: that of Windows


def test_killed_at_a_random_point(run, tmp_path):
    """Every image has exactly one row. `test_killed` has many points, and the other commands."""
    write_files(tmp_path / "photos", {f"{i:03}.png": picture(i) for i in range(60)})
    words = ["classify", "photos", "-o", "r.jsonl", "--batch", "2"]
    killed(tmp_path, words, random.Random(1).randrange(1, 6000))
    assert run(*words, "--resume")[0] == 0
    rows = [json.loads(line)["path"] for line in Path("r.jsonl").read_text().splitlines()]
    assert rows == [f"photos/{i:03}.png" for i in range(60)]


# -- while it runs


def test_threads_work_ahead_within_bounds():
    taken, made = [], []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    def make(number):
        made.append(number)
        if number == 13:
            raise ValueError("unlucky")
        return number * number

    found = ahead(make, items(), 2, lambda: 3)
    assert next(found) == 0
    assert taken == [0, 1, 2]
    assert [next(found) for _ in range(12)] == [n * n for n in range(1, 13)]
    with pytest.raises(ValueError, match="unlucky"):
        next(found)
    assert len(taken) == 16
    assert list(ahead(make, [], 2, lambda: 3)) == []


def test_the_size_of_a_mini_batch(monkeypatch):
    """The fastest size is found, if there is memory; a small gain is none."""
    seconds = {8: 0.80, 16: 1.28, 32: 2.54, 64: 5.6}

    def chosen(free: int) -> int:
        monkeypatch.setattr(batches, "free_memory", lambda: free)
        size = batches.BatchSize()
        for _ in range(20):
            size.took(size.now, seconds[size.now], 2**20)
        return size.now

    assert chosen(2**40) == 16  # 32 is less than three hundredths faster
    assert chosen(8 * 3 * 2**20 * 10) == 8  # there is room for ten
    assert batches.BatchSize(5).now == 5
    assert 2**20 < batches.free_memory() < 2**60


@pytest.mark.parametrize("batch", [0, -1, 2.5, "8", True])
def test_mini_batches_that_cannot_be(tmp_path, batch):
    write_files(tmp_path / "d", {f"{'xy'[i > 1]}/{i}.png": picture(i) for i in range(5)})
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    data = open_dataset(tmp_path / "d")
    for call in (
        lambda: classify(model, ["d"], batch=batch),
        lambda: tr.evaluate(model, data, batch=batch, by_number=True),
        lambda: list(save_features(model, ["d"], tmp_path / "f.h5", batch=batch)),
        lambda: logits_of(model, "", data, batch=batch),
    ):
        with pytest.raises(UsageError, match=r"batch is .* give a whole number of at least 1"):
            call()


def test_memory_of_a_container(tmp_path):
    write_files(tmp_path / "sys/fs/cgroup", {"memory.max": b"1000\n", "memory.current": b"400\n"})
    assert batches.free_memory(tmp_path) == 600


@pytest.mark.parametrize("terminal", [True, False])
def test_progress(monkeypatch, capsys, terminal):
    clock = iter([0.0, 10.0, 20.0, 70.0, 140.0, 200.0])
    monkeypatch.setattr(progress, "at_terminal", lambda: terminal)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    list(progress.counted(range(5), 105, lambda: 100))
    text = capsys.readouterr().err
    assert ("102 of 105, 0.1 images/s, 30 s left" in text) == terminal
    assert "103 of 105, 0.0 images/s, 60 s left" in text
    assert (text[0] == "\r") == terminal
    assert terminal or text.count("\n") == 2


def test_fast_decode(tmp_path, run, monkeypatch):
    """Only a JPEG with more than twice the pixels is decoded smaller, and only if asked."""
    x = np.linspace(0, 255, 800 * 600 * 3).reshape(600, 800, 3).astype(np.uint8)
    for kind in ("JPEG", "PNG"):
        Image.fromarray(x).save(tmp_path / f"x.{kind.lower()}", kind)
    size = decode(tmp_path / "x.jpeg", least=100).shape
    assert size == (300, 400, 3)  # a quarter would have fewer than 200
    assert decode(tmp_path / "x.jpeg", least=38).shape == (150, 200, 3)
    assert decode(tmp_path / "x.jpeg").shape == x.shape
    assert decode(tmp_path / "x.png", least=10).shape == x.shape
    model = tr.load()
    slow = tr.prepare(tmp_path / "x.jpeg", model.preprocess)
    [fast] = views(tmp_path / "x.jpeg", model.preprocess, fast=True)
    # The mean of an image of slow changes is the same to a level or two of 255.
    assert 0 < np.abs(fast - slow).max() < 4 / 255 / min(model.preprocess.std)
    for words in ([], ["--fast-decode"]):
        assert run("classify", "x.jpeg", "--json", *words)[0] == 0


def test_fast_decode_of_a_data_set(tmp_path, run):
    """It reads the same images smaller, from folders and zips."""
    from tinyresnext.data import open_dataset

    x = Image.fromarray(np.zeros((160, 200, 3), np.uint8))
    for name in ("cat", "dog"):
        (tmp_path / "d" / name).mkdir(parents=True)
        x.save(tmp_path / "d" / name / "x.jpg")
    files = {f"{name}/x.jpg": (tmp_path / "d" / name / "x.jpg").read_bytes() for name in ("cat",)}
    for place in (tmp_path / "d", write_zip(tmp_path / "d.zip", files)):
        assert open_dataset(place, least=40).picture(0).shape == (80, 100, 3)
        assert open_dataset(place, least=41).picture(0).shape == (160, 200, 3)
    assert run("evaluate", "d", "--split", "train", "--fast-decode")[0] == 0


@pytest.mark.parametrize("command", ["classify", "features"])
def test_images_that_are_added_behind_a_run(run, small, monkeypatch, command):
    """They get rows; others in the place of those that have rows are refused."""
    out = "r.h5" if command == "features" else "r.jsonl"
    words = [command, *small, "-o", out, "--batch", 1]
    write = Journal.write

    def stopped(self, row, error):
        if self.done == 2:
            raise KeyboardInterrupt
        write(self, row, error)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "write", stopped)
        assert run(*words)[0] == 130
    os.rename("d/x/0.png", "d/x/00.png")
    code, _, err = run(*words, "--resume")
    assert (code, "not those that the run began with" in err) == (2, True)
    os.rename("d/x/00.png", "d/x/0.png")
    Path("d/y/9.png").write_bytes(picture(9))
    assert run(*words, "--resume")[0] == 0
    if command == "features":
        with h5py.File(out) as found:
            paths = found["paths"].asstr()[:].tolist()
    else:
        paths = [json.loads(row)["path"] for row in Path(out).read_text().splitlines()]
    expected = [f"d/x/{i}.png" for i in (0, 1)] + [f"d/y/{i}.png" for i in (2, 3, 4, 9)]
    assert paths == expected


@pytest.mark.parametrize("command", ["classify", "features", "evaluate"])
def test_what_another_run_has_made_meanwhile_stays(run, small, monkeypatch, command):
    """Both looked for the file before it was there; the second learns of it before it computes."""
    words = [command, *small, "-o", out := "r.h5" if command == "features" else "r.jsonl"]
    words += ["--labels-by-number"] if command == "evaluate" else []
    real, made = files.load, list[bytes]()

    def load(*given):
        with monkeypatch.context() as patched:
            patched.setattr(files, "load", real)
            assert run(*words)[0] == 0  # the first begins and ends while the second loads a model
        made.append(Path(out).read_bytes())
        return real(*given)

    for more, expected in (([], 2), (["--resume"], 0)):
        with monkeypatch.context() as patched:
            patched.setattr(files, "load", load)
            code, _, err = run(*words, *more)
        assert (code, Path(out).read_bytes()) == (expected, made.pop())
        assert more or f"{out} exists" in err
        assert list(Path().glob("*.part*")) == []
        Path(out).unlink()


def test_a_run_looks_for_the_file_when_it_has_the_lock(run):
    """Also one that goes on, and one that was begun with --force and killed before a row."""
    form = json_form()
    Path("r.jsonl").write_bytes(b"of another run")
    for resume in (False, True):
        Path("r.jsonl.part").write_bytes(b"")
        with pytest.raises(UsageError, match=r"r.jsonl exists by now: another process has made it"):
            journal("r.jsonl", {}, form, resume).__enter__()
        assert [path.name for path in Path().iterdir()] == ["r.jsonl"]
    assert Path("r.jsonl").read_bytes() == b"of another run"
    Path("r.jsonl.part").write_bytes(b'{"path": "a"}\n')  # of a run over it, which was stopped
    Path("r.jsonl.part.json").write_text('{"writes over": true}')
    with journal("r.jsonl", {}, form, True) as kept:
        assert list(kept.remaining([Source("a", lambda: "")])) == []
        kept.end()
    assert Path("r.jsonl").read_bytes() == b'{"path": "a"}\n'
    assert [path.name for path in Path().iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize("command", ["classify", "evaluate", "features"])
def test_rows_stay_if_another_process_makes_the_file_meanwhile(run, small, monkeypatch, command):
    """They get the name when it is free, or at once if the run was begun with --force."""
    out = "r.h5" if command == "features" else "r.jsonl"
    words = [command, *small, "-o", out] + ["--labels-by-number"] * (command == "evaluate")
    sync = Journal.sync

    def late(self):
        sync(self)
        Path(out).write_bytes(b"of another")

    monkeypatch.setattr(Journal, "sync", late)
    code, _, err = run(*words)
    assert (code, f"{out} exists by now, and this run was not begun with --force" in err) == (2, 1)
    assert "make room" not in err
    with monkeypatch.context() as patched:  # nothing is computed as long as it is there
        patched.setattr(tr.Model, "__call__", None)
        patched.setattr(tr.Model, "features", None if command != "features" else tr.Model.features)
        code, _, err = run(*words, "--resume")
    assert (code, f"{out}.part has the rows of this run: give the other" in err) == (2, True)
    assert Path(out).read_bytes() == b"of another"
    Path(out).unlink()
    monkeypatch.setattr(Journal, "sync", sync)
    assert run(*words, "--resume")[0] == 0
    alone = Path(out).read_bytes()
    monkeypatch.setattr(Journal, "sync", late)
    assert run(*words, "--force")[0] == 0
    assert Path(out).read_bytes() == alone
    assert not list(Path().glob("*.part*"))


def test_a_run_over_a_file_goes_on_over_it(run, small, monkeypatch):
    """Whoever began it with --force has allowed it, also for --resume, which takes no --force."""
    words = ["classify", *small, "-o", "r.jsonl"]
    Path("r.jsonl").write_bytes(b"old")

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "sync", stopped)
        assert run(*words, "--force")[0] == 130
        assert run(*words, "--resume")[0] == 130
    assert run(*words, "--resume")[0] == 0
    assert Path("r.jsonl").read_bytes().count(b"\n") == 5


def test_features_stay_if_another_process_makes_the_file(run, small, monkeypatch):
    """Also those of a run that leaves nothing if it is stopped: they are all there."""
    sync = Journal.sync

    def late(self):
        sync(self)
        Path("r.h5").write_bytes(b"of another")

    monkeypatch.setattr(Journal, "sync", late)
    model, images = tr.load("m.h5", device="reference"), sorted(map(str, Path("d").rglob("*.png")))
    with pytest.raises(UsageError, match=r"exists by now.* resume=True"):
        list(save_features(model, images, "r.h5", batch=5))
    Path("r.h5").rename("other.h5")
    monkeypatch.setattr(Journal, "sync", sync)
    assert list(save_features(model, images, "r.h5", batch=5, resume=True)) == []
    assert not list(Path().glob("*.part*"))


@pytest.mark.skipif(os.name == "nt", reason="what is open gets no other name there")
def test_rows_get_their_name_before_another_run_may_begin(run, monkeypatch):
    """A run with --force would drop them; and the settings that are removed are its own."""
    form, replace = json_form(), os.replace

    def late(source, target):
        if str(target) == "r.jsonl":
            with pytest.raises(UsageError, match="another process writes"):
                journal("r.jsonl", {}, form, False, force=True).__enter__()
        replace(source, target)
        if str(target) == "r.jsonl":  # a run that begins now
            Path("r.jsonl.part").write_bytes(b"")
            Path("r.jsonl.part.json").write_text("of the other")

    with monkeypatch.context() as patched, journal("r.jsonl", {}, form, False) as kept:
        patched.setattr(os, "replace", late)
        list(kept.remaining([]))
        kept.write(b'{"path": "a"}\n', None)
        kept.end()
    assert Path("r.jsonl").read_bytes() == b'{"path": "a"}\n'
    assert Path("r.jsonl.part.json").read_text() == "of the other"
    with journal("s.jsonl", {}, form, False) as kept:
        Path("s.jsonl.part").unlink()
        with pytest.raises(UsageError, match="somebody has removed the rows of this run"):
            kept.end()


@pytest.mark.parametrize(
    ("command", "option", "file"),
    [
        ("classify", "--csv", "r.csv"),
        ("evaluate", "--results", "r.csv"),
        ("evaluate", "--picture", "r.png"),
        ("evaluate", "--logits", "r.npz"),
    ],
)
def test_a_table_that_another_run_has_made_meanwhile_stays(
    run, small, monkeypatch, command, option, file
):
    """Unless --force is given; what was computed for it is lost, and that is said."""
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), seed=1)
    tr.save(replace(model, labels=("x", "y")), "m.h5")
    call = tr.Model.__call__

    def writing(self, *given):
        Path(file).write_bytes(b"of another run")
        return call(self, *given)

    monkeypatch.setattr(tr.Model, "__call__", writing)
    code, _, err = run(command, *small, option, file)
    said = f"{file} exists by now: another process has made it; give another name, or --force"
    assert (code, said in err) == (2, True)
    assert Path(file).read_bytes() == b"of another run"
    assert run(command, *small, option, file, "--force")[0] == 0
    assert Path(file).read_bytes() != b"of another run"


def test_rows_of_another_kind_of_processor_are_said_and_of_another_version_refused(
    run, small, monkeypatch
):
    """The first decides last digits only; what a version changes is not known."""
    words = ["classify", *small, "-o", "r.jsonl"]

    def stopped(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "sync", stopped)
        assert run(*words)[0] == 130
    settings = Path("r.jsonl.part.json")
    before = settings.read_text()
    settings.write_text(before.replace('"version": "', '"version": "0.0.'))
    code, _, err = run(*words, "--resume")
    said = f"were computed with version 0.0.{__version__}, and now it is {__version__}"
    assert (code, said in err) == (2, True)
    values = json.loads(before)
    assert values.pop("version") == __version__
    settings.write_text(json.dumps(values))
    code, _, err = run(*words, "--resume")
    said = f"an earlier version, which did not say which, and now it is {__version__}"
    assert (code, said in err) == (2, True)
    settings.write_text(before.replace("(NumPy ", "(skylake 12345678, NumPy "))
    assert settings.read_text() != before
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "sync", stopped)
        code, _, err = run(*words, "--resume")
    assert code == 130
    assert "were computed on plain NumPy (skylake 12345678, NumPy " in err
    assert "and the others will be on plain NumPy (NumPy " in err
    assert "their last digits may differ" in err
    settings.write_text(before)
    code, _, err = run(*words, "--resume")
    assert (code, "last digits" in err) == (0, False)
    settings.write_text("[]")
    Path("r.jsonl").rename("r.jsonl.part")
    assert run(*words, "--resume")[0] == 2


class Ends:
    """Standard output whose reader ends after so many texts."""

    def __init__(self, texts: int) -> None:
        self.left = texts

    def write(self, text: str) -> None:
        if not self.left:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        self.left -= 1

    def flush(self) -> None:
        if not self.left:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("broken", [0, 3])
def test_what_failed_before_a_reader_ended_counts(run, small, monkeypatch, broken):
    """A reader that ends early is no error, as `head`; an image that cannot be read is one."""
    Path(f"d/{'xy'[broken > 1]}/{broken}.png").write_bytes(b"no image")
    monkeypatch.setattr(sys, "stdout", Ends(3))  # one row of two texts, and one more text
    assert main(["classify", *map(str, small), "--json"]) == (1 if broken == 0 else 0)


def test_files_of_an_evaluation_need_no_reader(run, small, monkeypatch):
    monkeypatch.setattr(sys, "stdout", Ends(0))
    words = ["evaluate", *map(str, small), "--labels-by-number"]
    assert main([*words, "--csv", "r.csv", "--picture", "r.png"]) == 0
    assert Path("r.csv").stat().st_size
    assert Path("r.png").stat().st_size
    Path("d/x/0.png").write_bytes(b"no image")
    assert main(words) == 1
    more = ["--csv", "-", "--results", "s.csv", "--picture", "s.png"]
    for texts in (0, 1):
        monkeypatch.setattr(sys, "stdout", Ends(texts))
        assert main([*words, *more, "--force"]) == 1
        for name in ("s.csv", "s.png"):
            assert Path(name).stat().st_size
            Path(name).unlink()


def test_a_table_on_standard_output_needs_no_file(run, small, monkeypatch):
    """What was computed is there also if a file could not be written."""
    words = ["evaluate", *small, "--labels-by-number", "--csv", "-"]
    _, table, _ = run(*words)

    def full(*given):
        raise UsageError("cannot write")

    monkeypatch.setattr(confusion, "write", full)
    assert run(*words, "--picture", "r.png")[:2] == (2, table)
    assert table.count("\n") == 3
