"""Storage that fails ends a run, without a row; an image that lacks memory has its own error."""

from __future__ import annotations

import errno
import json
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from data_files import picture, tar, write_files, write_zip
from PIL import Image, PngImagePlugin

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.data import open as opening
from tinyresnext.data.trees import tars, zips
from tinyresnext.data.trees.sources import Images
from tinyresnext.errors import FormatError, ImageError, MachineError
from tinyresnext.images import prepare
from tinyresnext.images.decode import decode
from tinyresnext.system.files import check_machine, regular

ONE = ["--blocks", "1,1", "--width", 8, "--cardinality", 2, "--stem", "cifar", "--size", 8]
MACHINE = [errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ETIMEDOUT]


def small(path):
    """Save a small model of two classes, and return its path."""
    tr.save(tr.random_model(tr.cifar(11, 1, 4, classes=2), seed=1), path)
    return path


@pytest.fixture
def failing(monkeypatch):
    """Return a function that lets opening and listing some names fail, and no others."""
    functions = {name: getattr(os, name) for name in ("open", "scandir")}

    def fails(code, *names, when=lambda: True):
        def wrapped(real):
            def call(path=".", *args, **more):
                if str(path).endswith(names) and when():
                    raise OSError(code, os.strerror(code), path)
                return real(path, *args, **more)

            return call

        for name, real in functions.items():
            monkeypatch.setattr(os, name, wrapped(real))

    return fails


@pytest.mark.parametrize("code", MACHINE)
def test_a_fault_of_the_machine_is_none_of_a_file(tmp_path, failing, code):
    (tmp_path / "a.png").write_bytes(picture(1))
    failing(code, "a.png")
    for read in (decode, lambda path: regular(path).__enter__()):
        with pytest.raises(MachineError, match=f"cannot be read: {os.strerror(code)}; this is a"):
            read(str(tmp_path / "a.png"))


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT, errno.ENXIO])
def test_a_file_that_is_missing_or_not_allowed_is_a_fault_of_its_own(tmp_path, failing, code):
    failing(code, "a.png")
    with pytest.raises(ImageError, match=f"cannot be read: {os.strerror(code)}; name a file"):
        decode(str(tmp_path / "a.png"))
    with pytest.raises(FormatError), regular(tmp_path / "a.png"):
        pass
    check_machine("'a'", ValueError("of no number"))


def test_while_a_file_is_read(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    with pytest.raises(MachineError, match=r"a.png'? cannot be read"), regular(tmp_path / "a.png"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_lack_of_memory_while_an_image_is_decoded_is_its_error(tmp_path, monkeypatch):
    """Whether a file is decoded, a Pillow image is, an object is read, or a view is made."""
    (tmp_path / "a.png").write_bytes(picture(1))

    def fails(self, *given):
        raise MemoryError

    class Object:
        read = fails

    words = "needs more memory than there is; scale it down"
    with pytest.raises(ImageError, match=f"the image in the Object {words}"):
        decode(Object())
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "_views", fails)
        with pytest.raises(ImageError, match=f"a.png' {words}"):
            prepare.prepare(str(tmp_path / "a.png"), tr.Preprocess(8, 8))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fails)
    with Image.open(tmp_path / "a.png") as image:
        for given in (str(tmp_path / "a.png"), picture(1), image):
            with pytest.raises(ImageError, match=words):
                decode(given)


def test_an_image_that_needs_too_much_memory_costs_its_own_row(run, monkeypatch):
    load = PngImagePlugin.PngImageFile.load

    def fails(self):
        if self.size == (9, 9):
            raise MemoryError
        return load(self)

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fails)
    files = [picture(0), picture(1, 9), picture(2)]
    write_files(Path("d"), {f"{i}.png": data for i, data in enumerate(files)})
    model = small("m.h5")
    words = ["classify", "d", "--model", "m.h5", "--device", "reference", "-o", "r.jsonl"]
    assert run(*words)[0] == 1
    rows = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert ["needs more memory" in row.get("error", "") for row in rows] == [False, True, False]
    batch = {"bytes": np.array(files, dtype=object)}
    errors = tr.Predictor(model, "reference", top=1)(batch)["error"]
    assert ["needs more memory" in error for error in errors] == [False, True, False]


@pytest.mark.parametrize(("module", "name"), [(zips, "read_whole"), (tars, "fields")])
def test_in_an_archive(tmp_path, monkeypatch, module, name):
    files = {"a.png": picture(1)}
    if module is zips:
        path = write_zip(tmp_path / "a.zip", files)
    else:
        path = tmp_path / "a.tar"
        path.write_bytes(tar(files))
    [image] = Images([str(path)])

    def fails(*given, **more):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(module, name, fails)
    with pytest.raises(MachineError, match=r"a.png'? cannot be read") as caught:
        image.open()
    assert str(caught.value).endswith("file, put a readable copy of the archive in its place")
    monkeypatch.undo()
    packed = pickle.dumps(image)
    monkeypatch.setattr(os, "stat", fails)
    with pytest.raises(MachineError, match=r"a\.(zip|tar) cannot be read"):
        pickle.loads(packed)
    monkeypatch.undo()


@pytest.mark.parametrize("typed", ["photos", "photos/b/", "photos/*/*.png", "photos/**/*.png"])
def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch, failing, typed):
    """It has no row of its own, which the run would not find again when the storage is mended."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "photos", {name: picture(1) for name in ("a.png", "b/c.png")})
    failing(errno.ESTALE, "b", "b/")
    with pytest.raises(MachineError, match=r"b/?' cannot be read"):
        list(Images([typed]))
    assert main(["classify", typed, "--device", "reference"]) == 2


@pytest.mark.parametrize("command", ["classify", "features", "evaluate"])
def test_a_run_goes_on_when_the_storage_is_mended(run, failing, command):
    files = {f"d/{'xy'[i > 1]}/{i}.png": picture(i) for i in range(5)}
    write_files(Path(), files)
    small("m.h5")
    words = [command, "d", "--model", "m.h5", "--device", "reference", "--batch", 1]
    words += ["--labels-by-number"] if command == "evaluate" else []
    out = "r.h5" if command == "features" else "r.jsonl"
    failing(errno.EIO, "d/y/3.png")
    code, _, err = run(*words, "-o", out)
    failing(errno.EIO)  # nothing any more
    assert (code, "3.png' cannot be read: Input/output error" in err) == (2, True)
    assert "with --resume where results go to a file" in err
    assert not Path(out).exists()
    assert len(Path(f"{out}.part").read_bytes().splitlines()) == 3
    assert run(*words, "-o", out, "--resume")[0] == 0
    assert run(*words, "-o", f"whole-{out}")[0] == 0
    if command != "features":
        assert Path(out).read_bytes() == Path(f"whole-{out}").read_bytes()


@pytest.mark.parametrize("command", ["classify", "evaluate", "train"])
def test_a_file_that_stays_unreadable_is_replaced_by_an_empty_one(
    run, failing, monkeypatch, command
):
    """As the message says. Without a file of that name, `evaluate` and training do not go on."""
    files = {f"d/train/{'xy'[i > 3]}/{i}.png": picture(i) for i in range(8)}
    write_files(Path(), files)
    small("m.h5")
    words = [command, "d/train", "--model", "m.h5", "--device", "reference", "-o", "r.jsonl"]
    words += ["--batch", 1, *(["--labels-by-number"] if command == "evaluate" else [])]
    if command == "train":
        monkeypatch.setattr(opening, "open_dataset", partial(opening.open_dataset, memory=0))
        words = ["train", "d", *ONE, "--epochs", 3, "--batch", 4, "--broken", "skip"]
        words += ["--device", "reference", "--out", "run"]
    when = Path("run/state.npz").exists if command == "train" else lambda: True
    failing(errno.EIO, "y/6.png", when=when)
    code, _, err = run(*words)
    failing(errno.EIO)
    assert (code, "6.png' cannot be read" in err) == (2, True), err
    print(err)
    assert "an empty file of that name unless a training has all images in memory" in err
    words.append("--resume")
    if command != "classify":
        kept = Path("d/train/y/6.png").rename("6.png")
        assert run(*words)[0] == 2
        kept.rename("d/train/y/6.png")
    Path("d/train/y/6.png").write_bytes(b"")
    code, out, err = run(*words)
    assert (code, "6.png' is empty" in out + err) == (int(command != "train"), True), err


def test_no_memory_for_a_command(run, monkeypatch):
    def fails(*given):
        raise MemoryError

    monkeypatch.setattr("tinyresnext.inference.files.load", fails)
    Path("a.png").write_bytes(picture(1))
    code, _, err = run("classify", "a.png")
    assert (code, err) == (2, "tinyresnext: there is not enough memory; try a smaller --batch\n")
