"""Every command as a user types it: its output, on which stream, and its exit code."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import cases
import numpy as np
import odd_streams
import pytest

from tinyresnext import Preprocess, Spec, __version__, list_models, load, save
from tinyresnext.cli import main as cli
from tinyresnext.cli.runs import images as typed_images
from tinyresnext.cli.runs import resume
from tinyresnext.errors import DeviceError, UsageError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.hub.catalogue import find, with_weights
from tinyresnext.ops import backend

CAT = Path(__file__).parent / "data" / "chelsea.jpg"
SPEC = Spec((1, 1), 4, 8, 10)


@pytest.mark.parametrize("size", ["PMI", "OMPI_COMM_WORLD"])
def test_processes_of_mpi_that_share_nothing_say_so(run, monkeypatch, size):
    """Else all rows come several times, and nobody knows why."""
    words = ["classify", CAT, "--device", "reference"]
    assert "started together" not in run(*words)[2]
    monkeypatch.setenv(f"{size}_SIZE", "2")
    for rank in (0, 1):
        monkeypatch.setenv(f"{size}_RANK", str(rank))
        code, out, err = run(*words)
        assert (code, out != "") == (0, True)
        assert ("2 processes were started together" in err) == (rank == 0)


def test_a_command_that_was_typed_ends_without_looking_for_garbage(monkeypatch):
    frozen = []
    monkeypatch.setattr(cli.gc, "freeze", lambda: frozen.append(1))
    monkeypatch.setattr(sys, "argv", ["tinyresnext", "--version"])
    with pytest.raises(SystemExit):
        cli.command()
    monkeypatch.setattr(sys, "argv", ["tinyresnext", "info", "no such file"])
    assert cli.command() == 2
    assert len(frozen) == 2


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command in an empty directory; return exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = cli.main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return command


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a folder with a checkpoint, its model, an image, and a file that is no image."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "net.pth").write_bytes(cases.checkpoint(cases.weights(SPEC), legacy=True))
    assert cli.main(["convert", str(folder / "net.pth")]) == 0
    shutil.copy(CAT, folder / "cat.jpg")
    (folder / "broken.jpg").write_bytes(CAT.read_bytes()[:5000])
    return folder


def test_convert_says_what_it_understood(run, made):
    code, out, err = run("convert", made / "net.pth", "mine.h5")
    assert (code, out) == (0, "mine.h5\n")
    assert "cardinality 4, width 8" in err
    assert load("mine.h5").spec == SPEC


def test_convert_takes_what_it_is_given(run, made):
    Path("labels.txt").write_text("\n".join("abcdefghij"))
    options = [
        "--labels",
        "labels.txt",
        "--resize",
        "232",
        "--interpolation",
        "bicubic",
        "--licence",
        "CC0-1.0",
    ]
    code, _, err = run(
        "convert",
        made / "net.pth",
        "mine.h5",
        *options,
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.2,0.2,0.2",
    )
    model = load("mine.h5")
    assert (code, model.labels[2], model.provenance["licence"]) == (0, "c", "CC0-1.0")
    assert (model.preprocess.resize, model.preprocess.crop, model.preprocess.interpolation) == (
        232,
        224,
        "bicubic",
    )
    assert model.preprocess.mean == (0.5, 0.5, 0.5)
    options = "--resize, --interpolation, --mean, --std"
    assert f"assumed, but for {options}: resized to 232 (bicubic), cropped to 224" in err
    assert "assumed: resized" not in err


@pytest.mark.parametrize(
    ("options", "preprocess", "says"),
    [
        (["torch7"], Preprocess(256, 224, "torch7"), "resized to 256 (torch7), cropped to 224"),
        (
            ["keras", "--resize", "224"],
            Preprocess(224, 224, "keras"),
            "squeezed to 224 x 224 (keras)",
        ),
    ],
)
def test_convert_for_the_pictures_of_other_systems(run, made, options, preprocess, says):
    assert run("convert", made / "net.pth", "mine.h5", "--interpolation", *options)[0] == 0
    assert load("mine.h5").preprocess == preprocess
    assert says in run("info", "mine.h5")[1]


def test_keras_cuts_nothing_off(run, made):
    code, _, err = run("convert", made / "net.pth", "mine.h5", "--interpolation", "keras")
    assert (code, Path("mine.h5").exists()) == (2, False)
    assert "resize is 256 and crop 224" in err


def test_nothing_is_written_over_unasked(run, made):
    for target in (made / "net.h5", made / "cat.jpg"):
        before = target.read_bytes()
        assert (
            run("classify", made / "cat.jpg", "--model", made / "net.h5", "--csv", target)[0] == 2
        )
        assert target.read_bytes() == before
    shutil.copy(made / "net.pth", "copy.h5")
    assert run("convert", "copy.h5", "copy.h5", "--force")[0] == 2
    assert Path("copy.h5").read_bytes() == (made / "net.pth").read_bytes()
    assert run("convert", "copy.h5")[:2] == (0, "copy.tinyresnext.h5\n")
    Path("mine.h5").write_text("precious")
    code, _, err = run("convert", made / "net.pth", "mine.h5")
    assert (code, Path("mine.h5").read_text()) == (2, "precious")
    assert "--force" in err
    assert run("convert", made / "net.pth", "mine.h5", "--force")[0] == 0
    assert run("export", "mine.h5", made / "net.pth")[0] == 2


@pytest.mark.parametrize("device", ["cpu", "reference", "auto"])
def test_classify(run, made, device):
    code, out, err = run(
        "classify", made / "cat.jpg", "--model", made / "net.h5", "--top", 3, "--device", device
    )
    assert code == 0
    chosen = err.startswith("tinyresnext: --device auto is c") and err.count("\n") == 1
    assert chosen if device == "auto" else err == ""
    lines = out.splitlines()
    assert lines[0] == str(made / "cat.jpg")
    assert len(lines) == 4
    assert all("%" in line and "class" in line for line in lines[1:])


def test_one_bad_picture_costs_one_row(run, made):
    paths = [made / "cat.jpg", made / "broken.jpg", "missing.png", made / "cat.jpg"]
    code, out, err = run("classify", *paths, "--model", made / "net.h5", "--json", "--batch", 2)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [row["path"] for row in rows] == [str(p) for p in paths]
    assert [("error" in row, len(row.get("predictions", []))) for row in rows] == [
        (False, 5),
        (True, 0),
        (True, 0),
        (False, 5),
    ]
    assert {row["schema"] for row in rows} == {1}
    assert rows[0]["model"] == "net.h5"
    assert set(rows[0]["predictions"][0]) == {"label", "index", "probability"}
    assert "broken.jpg" in err
    assert "missing.png" in err


@pytest.mark.parametrize("target", ["-", "table.csv"])
def test_csv(run, made, target):
    code, out, _ = run(
        "classify",
        made / "cat.jpg",
        made / "broken.jpg",
        "--model",
        made / "net.h5",
        "--top",
        2,
        "--csv",
        target,
    )
    rows = list(
        csv.DictReader(io.StringIO(out if target == "-" else Path(target).read_text("utf-8")))
    )
    assert code == 1
    assert list(rows[0]) == [
        "path",
        "error",
        "label1",
        "index1",
        "probability1",
        "label2",
        "index2",
        "probability2",
    ]
    assert rows[0]["label1"].startswith("class")
    assert float(rows[0]["probability1"]) >= float(rows[0]["probability2"])
    assert "broken.jpg" in rows[1]["error"]
    assert target == "-" or out == ""


def test_directories_are_walked_and_names_read(run, made, tmp_path):
    for name in ("b.JPG", "a.jpeg", "deep/er/c.jpg", "notes.txt", "new\nline.jpg"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CAT, tmp_path / "pictures" / name)
    os.symlink(tmp_path / "pictures", tmp_path / "pictures" / "loop")
    code, out, _ = run("classify", "pictures", "--model", made / "net.h5", "--json")
    wanted = [
        "pictures/a.jpeg",
        "pictures/b.JPG",
        "pictures/deep/er/c.jpg",
        "pictures/new\nline.jpg",
    ]
    assert (code, [json.loads(line)["path"] for line in out.splitlines()]) == (0, wanted)
    code, out, _ = run(
        "classify",
        "-",
        "--model",
        made / "net.h5",
        "--json",
        stdin=f"{made / 'cat.jpg'}\n\npictures/deep\n",
    )
    assert [json.loads(line)["path"] for line in out.splitlines()] == [
        str(made / "cat.jpg"),
        "pictures/deep/er/c.jpg",
    ]


def test_nothing_to_classify(run, made, tmp_path):
    (tmp_path / "empty").mkdir()
    code, _, err = run("classify", "empty", "--model", made / "net.h5")
    assert code == 2
    assert "no image in empty" in err


def test_options_of_a_graph_that_cannot_be(run, made):
    assert run("export", made / "net.h5", "o.onnx", "--opset", "8")[:2] == (2, "")
    for wrong in (("--batch", "few"), ("--batch", "0"), ("--precision", "int8")):
        with pytest.raises(SystemExit):
            run("export", made / "net.h5", "o.onnx", *wrong)


def test_export_and_back(run, made):
    for name in ("out.pth", "out.npz", "out.safetensors"):
        told = f"{name}: the network expects images {Preprocess().described()}\n"
        assert run("export", made / "net.h5", name) == (0, f"{name}\n", told)
    assert run("convert", "out.pth", "again.h5")[0] == 0
    ours, theirs = load(made / "net.h5"), load("again.h5")
    assert all(np.array_equal(value, theirs.params[key]) for key, value in ours.params.items())
    assert run("export", made / "net.h5", "out.tflite")[0] == 2
    for options in ((), ("--fold", "--opset", "13", "--batch", "2"), ("--precision", "float16")):
        code, out, told = run("export", made / "net.h5", "out.onnx", "--force", *options)
        assert (code, out) == (0, "out.onnx\n")
        assert f"its input is images [{'2' if '--batch' in options else 'n'}, " in told
        assert run("convert", "out.onnx", "graph.h5", "--force")[0] == 0
        if not options:
            theirs = load("graph.h5")
            assert all(np.array_equal(value, theirs.params[k]) for k, value in ours.params.items())
    assert run("export", made / "net.h5", "o.pth", "--fold")[:2] == (2, "")
    save(replace(ours, spec=replace(ours.spec, eps=1e-3)), "odd.h5")
    told = (
        "odd.pth: the tensors do not record that eps is 0.001; set this in any other program that "
        "reads them\n"
        f"odd.pth: the network expects images {ours.preprocess.described()}\n"
    )
    assert run("export", "odd.h5", "odd.pth") == (0, "odd.pth\n", told)


def test_a_pooled_stem_comes_back_when_it_is_said(run, tmp_path):
    spec = replace(SPEC, stem="pooled")
    (tmp_path / "pooled.pth").write_bytes(cases.checkpoint(cases.weights(spec), legacy=True))
    code, _, err = run("convert", "pooled.pth")
    assert code == 0
    assert "no pooling in the stem (--stem pooled says otherwise)" in err
    assert load("pooled.h5").spec.stem == "cifar"
    code, _, err = run("convert", "pooled.pth", "--stem", "pooled", "--force")
    assert code == 0
    assert "inferred, but for the stem: " in err
    assert "no pooling" not in err
    assert load("pooled.h5").spec == spec
    assert run("export", "pooled.h5", "again.npz")[2] == (
        "again.npz: the tensors do not record that stem is 'pooled'; set this in any other program "
        "that reads them\n"
        f"again.npz: the network expects images {load('pooled.h5').preprocess.described()}\n"
        "again.npz: if a program drops what tinyresnext wrote beside the tensors, use: tinyresnext "
        "convert again.npz --stem pooled\n"
    )
    code, _, err = run("convert", "pooled.pth", "other.h5", "--stem", "imagenet")
    assert (code, Path("other.h5").exists()) == (3, False)
    assert "conv1.weight is (64, 3, 3, 3) and should be (64, 3, 7, 7)" in err
    assert "name another stem" in err


def test_info(run, made):
    code, out, _ = run("info", made / "net.h5", "--layers")
    assert code == 0
    for words in (
        "cardinality 4, width 8",
        "layer1.0.conv2",
        "net.pth",
        "10: class 0",
        "resized to 256",
        "source sha256",
        "model sha256",
    ):
        assert words in out
    code, out, _ = run("info", "resnext50_32x4d")
    assert "25,028,904" in out
    assert "4.230 G" in out
    code, _, err = run("info", "resnext50_32x4")
    assert (code, "resnext50_32x4d" in err) == (2, True)


def test_info_has_a_table_and_no_json(run):
    _, out, _ = run("info")
    assert "{" not in out
    recipe = json.loads(load(device="reference").provenance["recipe"])
    words = ["recipe"] + [str(word) for item in list(recipe.items())[:3] for word in item]
    assert re.search(rf"\b{' +'.join(map(re.escape, words))}\n", out)
    assert re.search(r"\n {14}\S.*\bwhiten +yes\n", out)
    assert "pictures  " not in out


def test_models(run):
    code, out, _ = run("models", "resnext101*d")
    assert code == 0
    assert "88,791,336" in out
    assert "resnext50" not in out
    assert run("models", "vgg*")[0] == 2


def test_the_name_alone_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert "classify  Print the most probable classes of images." in err
    assert "example:\n  tinyresnext classify photo.jpg\n" in err


def test_columns_fit_the_longest_name(run):
    lines = run("models", "seresnext50")[1].splitlines()
    assert {line.rindex(" x ") for line in lines[1:3]} == {lines[1].rindex(" x ")}


def test_a_part_of_a_name_is_enough(run):
    code, out, _ = run("models", "resnext50")
    assert (code, "resnext50_8x14d " in out, "resnext101" in out) == (0, True, False)
    assert list_models("RESNEXT50") == list_models("*resnext50*") == list_models("resnext50")
    assert "wide_resnet50_2" in list_models("resnet50")
    assert list_models("resnet50*") == ["resnet50"]


def test_the_bundled_model_has_a_name(run):
    name = "tinyresnext_cifar10"
    code, out, _ = run("models", name)
    assert (code, len(out.splitlines())) == (0, 2)
    card, spec = shipped_model().with_suffix(".md").read_text("utf-8"), load(name).spec
    params = re.search(r"^ +parameters +([\d,]+)$", card, re.M)[1]
    work = re.search(r"^ +multiply-adds +([\d.]+) G", card, re.M)[1]
    top1 = re.search(r"\*\*([\d.]+)%\*\* of 10,000", card)[1]
    paths = f"{spec.cardinality} x {spec.width}"
    words = [name, paths, params, work, "32 x 32", top1, "Apache-2.0"]
    assert re.search(rf"^{' +'.join(map(re.escape, words))} +bundled$", out, re.M)
    assert run("info", name) == run("info")
    assert run("export", name, "named.npz")[0] == run("verify", name)[0] == 0
    assert load(name, "reference").labels == load(device="reference").labels
    code, out, err = run("pull", name)
    assert (code, out.endswith(f"{name}.h5\n")) == (0, True)
    assert "is the bundled model" in err


def test_models_say_how_large_a_download_is(run):
    _, out, _ = run("models", "resnext50")
    assert re.search(r"tv_in1k .* BSD-3-Clause +100 MB  no\n", out)  # as published
    assert re.search(r"tv2_in1k .* BSD-3-Clause +~100 MB  no\n", out)  # 4 bytes of 25,028,904
    assert re.search(r"\.fb_in1k .* CC-BY-NC-4.0 +no\n", out)  # Torch7 may keep gradients too
    assert "\n~ is the size of the weights" in out
    assert "download      ~100 MB" in run("info", "resnext50_32x4d.tv2_in1k")[1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("resnext50", "resnext50_32x4d, resnext50d_32x4d, resnext50_64x4d"),
        ("resnext50_32x4d.a1h", "resnext50_32x4d.a1h_in1k"),
        ("tinyresnext_cifar", "tinyresnext_cifar10"),
        ("resnext50_32x4d.keras", "resnext50_32x4d.keras_in1k"),  # not keras_notop: unreadable
    ],
)
def test_what_was_meant_has_weights(run, typed, meant):
    for command in (["classify", "x.jpg", "--model", typed], ["pull", typed], ["info", typed]):
        code, out, err = run(*command)
        assert (code, out) == (2, "")
        assert f"no model called {typed!r}; did you mean {meant}? `tinyresnext models`" in err
    for name in with_weights():
        assert name == "tinyresnext_cifar10" or not find(name).unreadable
    assert {"resnet50", "resnext101_32x48d"}.isdisjoint(with_weights())


def test_a_name_that_resembles_nothing_is_answered_without_a_guess(run):
    code, _, err = run("classify", "x.jpg", "--model", "zzz")
    assert (code, "did you mean" in err) == (2, False)
    assert "`tinyresnext models` lists all" in err


def test_verify(run, made, tmp_path):
    assert run("verify", made / "net.h5")[0] == 0
    model = load(made / "net.h5", "reference")
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    np.savez("right.npz", x=x, logits=model(x))
    np.savez("wrong.npz", x=x, logits=model(x) * 1.00001)
    np.savez("other.npz", x=x, logits=np.ones((2, 11)))
    code, out, _ = run("verify", made / "net.h5", "--reference", "right.npz")
    assert (code, "first class equal for 2 of 2" in out) == (0, True)
    assert run("verify", made / "net.h5", "--reference", "wrong.npz")[0] == 3
    assert run("verify", made / "net.h5", "--reference", "other.npz")[0] == 2
    assert run("verify", made / "net.h5", "--reference", "missing.npz")[0] == 2
    damaged = bytearray((made / "net.h5").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("damaged.h5").write_bytes(damaged)
    code, out, _ = run("verify", "damaged.h5")
    assert (code, "FAILED" in out) == (3, True)
    assert run("classify", CAT, "--model", "damaged.h5")[0] == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["convert", "missing.pth"], 3),
        (["convert", __file__], 3),
        (["info", __file__], 3),
        (["export", "missing.h5", "out.pth"], 3),
        (["classify", "x.jpg", "--model", "missing.h5"], 3),
        (["classify", "x.jpg", "--model", ""], 3),
        (["classify", "x.jpg", "--model", __file__], 3),
        (["info", "missing.h5"], 3),
        (["convert", __file__, "out.pth"], 2),
        (["convert", __file__, "labels.h5", "--labels", "missing.txt"], 2),
        (["classify", "x.jpg", "--model", "resnext50_32x4d"], 2),
    ],
    ids=lambda a: a[0] if isinstance(a, list) else str(a),
)
def test_bad_files_have_exit_codes_and_words(run, arguments, code):
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert err.startswith("tinyresnext: ")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err


def test_missing_device(run, made):
    code, out, err = run("classify", CAT, "--model", made / "net.h5", "--device", "cuda:99")
    assert (code, out, len(err.splitlines())) == (4, "", 1)  # whether there is a driver or not


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["classify"],
        ["evaluate"],
        ["export"],
        ["nothing"],
        ["classify", "x", "--model", "m", "--top", "0"],
    ],
)
def test_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--top", "abc"], "'abc' is not a whole number from 1"),
        (["--batch", "-1"], "not a whole number"),
        (["--top", "9" * 5000], "not a whole number"),
    ],
    ids=["word", "negative", "endless"],
)
def test_numbers_on_the_command_line(options, words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["classify", "x", "--model", "m", *options])
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("clasify x.jpg", "classify"),
        ("INFO", "info"),
        ("classify x.jpg --modle m.h5", "--model"),
        ("classify x.jpg --tpo=3", "--top"),
        ("train data --out run --depth 11 --epcohs 3 --nestrov", "--epochs, --nesterov"),
        ("convert x.pth --stem deeep", "deep"),
        ("convert x.pth --interpolation bicubik", "bicubic"),
        ("evaluate data --broken skpi", "skip"),
        ("cache wram", "warm"),
        ("train data --out run --depth 11 --schedule cosin", "cosine"),
        ("finetune data --out run --crop padd", "pad"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest_right_one(arguments, meant, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments.split())
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert err.startswith("usage: tinyresnext")
    assert err.splitlines()[-1].endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("arguments", "code", "meant"),
    [
        ("train data --out run --depth 11 --recipe fast-cifr", 2, "fast-cifar"),
        ("train data --out run --depth 11 --device refrence", 4, "reference"),
        ("train data --out run --depth 11 --device CPU", 4, "cpu"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(run, arguments, code, meant):
    found, out, err = run(*arguments.split())
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert err.startswith("tinyresnext: ")
    assert err.endswith(f"; did you mean {meant}?\n")


@pytest.mark.parametrize("arguments", ["zzz", "classify x.jpg --zzz", "cache zzz"])
def test_a_word_that_resembles_nothing_is_answered_without_a_guess(arguments, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments.split())
    err = capsys.readouterr().err
    assert "zzz" in err
    assert "did you mean" not in err


def test_only_a_string_resembles_a_word():
    with pytest.raises(DeviceError, match="device is 3: expected one of cpu, cuda, auto, "):
        backend(3)


@pytest.mark.parametrize("mean", ["a,b,c", "", "123.7,116.3,103.5", "nan,0,0", "0.5,,0.5"])
def test_means_on_the_command_line(mean, capsys):
    with pytest.raises(SystemExit):
        cli.main(["convert", "x.pth", "--mean", mean])
    assert "0.485,0.456,0.406" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": np.float32(1), "logits": np.ones((1, 10))},
        {"x": np.zeros((1, 64, 64, 3), np.float32), "logits": np.ones((1, 10), np.complex64)},
        {"x": np.zeros((1, 64, 64, 3), np.float32), "logits": np.full((1, 10), np.nan)},
        {
            "x": np.zeros((1, 64, 64, 3), np.float32),
            "logits": np.ones((1, 10)),
            "float32_error": np.float64(0.5),
        },
        {"x": np.zeros((1, 9600, 9600, 3), np.uint8), "logits": np.ones((1, 10))},
        {"x": np.array([None]), "logits": np.ones((1, 10))},
        {"y": np.zeros(3)},
    ],
    ids=["scalar", "complex", "nan", "large-error", "bomb", "pickled", "other-names"],
)
def test_strange_references(run, made, arrays):
    np.savez_compressed("r.npz", **arrays)
    code, out, err = run("verify", made / "net.h5", "--reference", "r.npz")
    assert (code, out) == (2, "")
    assert "the reference r.npz" in err
    assert "pickle" not in err


def test_names_cannot_move_the_cursor(run, made, tmp_path):
    shutil.copy(CAT, tmp_path / "a\x1b[31m\nb.jpg")
    code, out, _ = run("classify", tmp_path, "--model", made / "net.h5", "--top", 1)
    assert (code, len(out.splitlines())) == (0, 2)
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["convert", ""], 2),
        (["convert", "/"], 2),
        (["classify", "x.jpg", "--model", "m" * 5000], 2),
        (["info", "resnext50_32x4d", "--size", "1000000000"], 2),
        (["info", "resnetaa50", "--size", "100"], 2),
        (["info", "resnetblur50", "--size", "16", "--layers"], 2),
    ],
    ids=["no-name", "root", "endless-name", "endless-picture", "odd-picture", "small-picture"],
)
def test_strange_arguments(run, arguments, code):
    found, out, err = run(*arguments)
    assert (found, out, len(err.splitlines())) == (code, "", 1)


@pytest.mark.skipif(os.name == "nt", reason="a shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams(made, closed):
    command = (
        f"-m tinyresnext classify - '{made / 'cat.jpg'}' --model '{made / 'net.h5'}' "
        f"--device reference {closed}"
    )
    done = subprocess.run(
        ["sh", "-c", f"'{sys.executable}' {command}"], input=b"", capture_output=True
    )
    assert done.returncode == (2 if closed == ">&-" else 0)  # the results would go there
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", odd_streams.STREAMS)
def test_commands_need_no_console(name, made, monkeypatch):
    model = ["--model", str(made / "net.h5"), "--device", "reference"]
    commands = {
        ("classify", str(made / "cat.jpg"), *model): 0,
        ("classify", str(made / "cat.jpg"), str(made / "broken.jpg"), *model, "--csv", "-"): 1,
        ("classify", str(made / "nothing"), *model): 1,
        ("evaluate", str(made / "nothing"), *model): 3,
        ("info", str(made / "net.h5")): 0,
        ("convert", str(made / "net.pth"), str(made / "net.h5")): 2,
    }
    for streams in (("stderr",), ("stdout", "stderr")):
        for words, code in commands.items():
            with monkeypatch.context() as patch:
                for stream in streams:
                    patch.setattr(sys, stream, odd_streams.STREAMS[name]())
                console = sys.stderr
                if not (name == "failing" and "stdout" in streams):  # results need an output
                    assert cli.main(list(words)) == code
                else:
                    assert cli.main(list(words)) in {code, 1}
                if isinstance(console, odd_streams.TextOnly) and name != "failing" and code:
                    assert "tinyresnext: " in console.text
        with monkeypatch.context() as patch:
            for stream in streams:
                patch.setattr(sys, stream, odd_streams.STREAMS[name]())
            with pytest.raises(SystemExit, match="2"):
                cli.main(["no-such-command"])


def test_an_empty_line_is_no_class(run, made):
    for text, line in (("a\n\nb\n", 2), ("a\nb\n\n", 3), (" \n", 1)):
        Path("labels.txt").write_text(text)
        code, _, err = run("convert", made / "net.pth", "mine.h5", "--labels", "labels.txt")
        assert (code, f"line {line} of 'labels.txt' is empty" in err) == (2, True)


def test_labels_that_the_terminal_does_not_know(made, tmp_path):
    labels = "\ufeff猫\r\n" + "\r\n".join("abcdefghi") + "\r\n"
    (tmp_path / "labels.txt").write_bytes(labels.encode())
    command = [sys.executable, "-m", "tinyresnext"]
    subprocess.run(
        [
            *command,
            "convert",
            made / "net.pth",
            tmp_path / "m.h5",
            "--labels",
            tmp_path / "labels.txt",
        ],
        check=True,
    )
    assert load(tmp_path / "m.h5").labels == ("猫", *"abcdefghi")
    options = ["--model", tmp_path / "m.h5", "--top", "10", "--device", "reference"]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*command, "classify", CAT, *options], env=ascii_only, capture_output=True, check=True
    )
    assert rb"\u732b" in done.stdout


def test_a_picture_on_standard_input_is_explained(run, made):
    code, _, err = run(
        "classify", "-", "--model", made / "net.h5", stdin=CAT.read_bytes().decode("latin-1")
    )
    assert code == 2
    assert "expects the names of images" in err


@pytest.mark.parametrize("terminal", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"\xef\xbb\xbf", "utf-8"),
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xff\xfe\0\0", "utf-32-le"),
    ],
)
def test_names_behind_a_byte_order_mark(mark, encoding, terminal, monkeypatch):
    """The mark says the encoding, whatever that of the terminal is."""
    text = "a b.png\r\n\N{CAT FACE}\u0085\u2028.png\n\ufeffc.png"
    data = io.BytesIO(mark + text.encode(encoding))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, terminal))
    names = ["a b.png", "\N{CAT FACE}\u0085\u2028.png", "c.png"]
    assert list(typed_images._names_on_stdin()) == names


@pytest.mark.parametrize(("terminal", "name"), [("utf-8", "ä.png"), ("latin-1", "ä.png")])
def test_names_without_a_mark_are_in_the_encoding_of_the_terminal(terminal, name, monkeypatch):
    data = io.BytesIO(f"{name}\n".encode(terminal))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, terminal))
    assert list(typed_images._names_on_stdin()) == [name]


@pytest.mark.parametrize("data", [b"\xff\xfea", b"\xef\xbb\xbf\xff", "a.png".encode("utf-16-le")])
def test_names_that_are_no_text_behind_a_mark(data, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    with pytest.raises(UsageError, match="not text"):
        typed_images._names_on_stdin()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("evaluate nothing --logits", "'' does not end in .npz"),
        ("evaluate nothing --picture", "names no file"),
        ("bench --model resnext50_32x4d --json", "names no file"),
        ("convert nothing.pth --labels", "'' cannot be read"),
        ("cache warm --device", "device is ''"),
        ("cache info --precision", "are for `cache warm`"),
        ("train nothing --blocks 1 --out run --dry-run", "does not end in .png"),
        ("verify --reference", "'' cannot be read"),
    ],
)
def test_an_empty_name_is_none_that_is_left_out(run, monkeypatch, words, says):
    """As a shell passes a variable that is not set."""
    monkeypatch.setattr("tinyresnext.bench.bench.bench", lambda *_: pytest.fail("it has begun"))
    code, _, err = run(*words.split(), "")
    assert (code in (2, 4), says in err) == (True, True), err  # 4: there is no such device


@pytest.mark.parametrize("command", ["features", "explain"])
def test_a_second_model_is_refused(run, capsys, command):
    with pytest.raises(SystemExit) as stopped:
        run(command, "x.jpg", "-o", "o.h5", "--model", "a.h5", "--model", "b.h5")
    assert stopped.value.code == 2
    assert "--model is given twice, and this command takes one" in capsys.readouterr().err


def test_a_second_first_model_is_refused(capsys):
    """`--init` and `--model` are one option; of a run that goes on, a new one is taken."""
    for first, second in itertools.product(("--init", "--model"), repeat=2):
        with pytest.raises(SystemExit):
            cli.parse(["finetune", "x", "--out", "o", first, "a.h5", second, "b.h5"])
        assert f"{second} is given twice" in capsys.readouterr().err
    parser = cli.parsers()[1]["finetune"]
    cli.add_options(parser)
    assert resume._typed(parser, ["--model", "a.h5"], "o")["model"] == "a.h5"
    assert "model" not in resume._typed(parser, ["--val", "v"], "o")


def test_options_of_bench_add_up(run, monkeypatch):
    seen = []
    monkeypatch.setattr("tinyresnext.bench.bench.bench", lambda **given: seen.append(given) or {})
    monkeypatch.setattr("tinyresnext.bench.tables.text", lambda report: "")
    assert run("bench", "--model", "a", "b", "--model", "c", "--size", "32", "--size", "64")[0] == 0
    assert run("bench")[0] == 0
    assert (seen[0]["models"], seen[0]["sizes"], "batches" in seen[0]) == (
        list("abc"),
        [32, 64],
        False,
    )
    assert not seen[1].keys() & {"models", "batches", "sizes"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
def test_no_room_for_the_results(made):
    for command in (
        ["models"],
        ["classify", made / "cat.jpg", "--model", made / "net.h5", "--device", "reference"],
    ):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "tinyresnext", *command],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "cannot be written" in done.stderr


def test_version_and_help_as_a_module():
    for option, words in (("--version", __version__), ("--help", "classify")):
        done = subprocess.run(
            [sys.executable, "-m", "tinyresnext", option],
            capture_output=True,
            text=True,
            check=True,
        )
        assert words in done.stdout
        assert done.stderr == ""


def test_a_reader_that_stops_early_is_no_error(made):
    names = "\n".join([str(made / "cat.jpg")] * 40)
    command = [
        sys.executable,
        "-m",
        "tinyresnext",
        "classify",
        "-",
        "--json",
        "--batch",
        "1",
        "--device",
        "reference",
    ]
    with subprocess.Popen(
        [*command, "--model", made / "net.h5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdin.write(names)
        child.stdin.close()
        child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read()
    assert (child.returncode, err) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt(made):
    names = "\n".join([str(made / "cat.jpg")] * 4000)
    command = [
        sys.executable,
        "-m",
        "tinyresnext",
        "classify",
        "-",
        "--json",
        "--batch",
        "1",
        "--device",
        "reference",
    ]
    with subprocess.Popen(
        [*command, "--model", made / "net.h5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        child.stdin.write(names)
        child.stdin.close()
        first = child.stdout.readline()
        time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        rest, err = child.stdout.read(), child.stderr.read()
    assert child.returncode == 130
    assert err.endswith("tinyresnext: interrupted\n")
    assert all(json.loads(line)["predictions"] for line in [first, *rest.splitlines()])


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("speaks", [True, False])
def test_the_first_interrupt_is_answered_and_the_second_ends(speaks):
    code = f"""
        import signal, time
        from tinyresnext.cli.output import interrupt
        interrupt.AFTER = 0.0
        said = iter(["heard"])
        signal.signal(signal.SIGINT, lambda *a: [print(one, flush=True) for one in said])
        with interrupt.interruptible({speaks}):
            print("begun", flush=True)
            time.sleep(600)  # as in a computation of minutes
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "heard\n"  # so the second is no part of the first
        if speaks:
            assert "Ctrl-C again ends it" in child.stderr.readline()
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=300) == ("", "")
    assert child.returncode == 130


def test_a_command_leaves_signals_as_they_were(run):
    before = signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGINT), threading.active_count()
    assert run("models", "resnext50*")[0] == 0
    after = signal.set_wakeup_fd(-1), signal.getsignal(signal.SIGINT), threading.active_count()
    assert before == after
