"""The bundled model trained by one command (`weights/train.py`), with small networks and images."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest
import training_cases as small
from on_device import by_fibers

from tinyresnext import load
from tinyresnext.cli.main import parse
from tinyresnext.hub.bundled import shipped_model

WEIGHTS = Path(__file__).parents[1] / "weights"
NETWORK = "--blocks 1,1 --cardinality 2 --width 8 --widen 1 --stem cifar --size 8"
RECIPE = "--epochs 2 --batch 4 --padding 1 --muon 0.1"


@pytest.fixture
def script():
    """Import the script as a module."""
    spec = importlib.util.spec_from_file_location("train", WEIGHTS / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tiny(script, tmp_path, monkeypatch):
    """The script with tiny networks, in a folder with images for it, on the reference."""

    def on_the_reference(line: str) -> str:
        line = re.sub(r"--threads 2|--precision bfloat16", "", line)
        return line if line.startswith("python") else f"{line} --device reference"

    monkeypatch.setattr(script, "CARD", tuple(map(on_the_reference, map(smaller, script.CARD))))
    monkeypatch.setattr(script, "EVALUATION", on_the_reference(script.EVALUATION))
    return in_a_folder(script, tmp_path, monkeypatch)


def smaller(line: str) -> str:
    """Return a command with a small network and a short run."""
    line = re.sub(r"--arch \S+ --recipe \S+", f"{NETWORK} {RECIPE}", line)
    return line.replace("--epochs 36", "")


def in_a_folder(script, tmp_path, monkeypatch):
    """Return the script; the current folder has a zip file of small images for it."""
    small.write_folder(tmp_path / "images")
    shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return script


def shown(out: str) -> list[str]:
    """Return what was done with each command: it was run, or left out."""
    return [line.partition(" -")[0] for line in out.splitlines() if line.startswith(("$", "done"))]


ALL = [
    "$ tinyresnext train cifar10-jpeg.zip",
    "$ tinyresnext train cifar10-jpeg.zip",
    "$ python",
    "$ tinyresnext quantise t1/model.h5",
    "$ tinyresnext quantise t2/model.h5",
    "$ tinyresnext train cifar10-jpeg.zip",
    "$ tinyresnext quantise a8/model.h5",
    "$ tinyresnext train cifar10-jpeg.zip",
    "$ tinyresnext evaluate cifar10-jpeg.zip",
]


def left_out(lines: list[str]) -> list[str]:
    return [line.replace("$ ", "done before: ") for line in lines]


def test_the_card_has_these_commands(script):
    card = shipped_model().with_suffix(".md").read_text("utf-8")
    [block] = re.findall(r"^## Training\n\n```sh\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    assert block.splitlines() == list(script.CARD)
    assert [" ".join(words) for words in script.commands()] == [*script.CARD, script.EVALUATION]


def test_for_a_gpu_they_are_in_float32(script):
    """And the teachers have other seeds: they would be one network to the bit."""
    plain, there = script.commands(), script.commands("cuda")
    assert there[2] == plain[2]
    for words in (*there[:2], *there[3:]):
        assert words[-2:] == ["--device", "cuda"]
        assert not {"--precision", "--threads", "bfloat16"} & set(words)
        parse(words[1:])
    seeds = [words[words.index("--seed") + 1] if "--seed" in words else None for words in there]
    assert seeds == [None, "1", *[None] * 7]
    teachers = [[w for w in words if w not in ("t1", "t2")] for words in there[:2]]
    assert teachers[0] != teachers[1]
    taken = {"--threads", "2", "--precision", "bfloat16"}
    for one, other in zip(plain, there, strict=True):
        assert [w for w in one if w not in taken] == [
            w for w in other if w not in taken | {"--device", "cuda", "--seed", "1"}
        ]


def test_threads_and_epochs_are_typed_in_place_of_the_cards(script):
    for device in ("cpu", "cuda"):
        for words in script.commands(device, threads=3, epochs=2):
            if words[0] == "tinyresnext":
                given = parse(words[1:])
                assert given.threads == 3
                assert words.count("--threads") == 1
                assert given.command != "train" or given.epochs == 2


def test_it_goes_on_where_it_was_stopped(tiny, monkeypatch, capsys):
    """In the first training, in the last, and when all is done."""
    with monkeypatch.context() as stopping:
        small.interrupt(stopping, 2)
        assert tiny.main(["data.zip"]) == 130
    said = capsys.readouterr()
    assert shown(said.out) == ALL[:1]
    assert "the same command goes on from here" in said.err
    with monkeypatch.context() as stopping:
        small.interrupt(stopping, 5 + 6 + 6 + 3)  # steps: what is left of t1, t2, a8, half of c16
        assert tiny.main(["data.zip"]) == 130
    said = capsys.readouterr()
    assert shown(said.out) == ["$ tinyresnext train", *ALL[1:8]]
    assert "$ tinyresnext train --resume t1\n" in said.out
    assert tiny.main(["data.zip"]) == 0
    said = capsys.readouterr()
    assert shown(said.out) == [*left_out(ALL[:7]), "$ tinyresnext train", ALL[8]]
    assert "$ tinyresnext train --resume c16\n" in said.out
    assert said.out.splitlines()[-1].startswith("red ")  # the evaluation
    assert tiny.main(["data.zip"]) == 0
    said = capsys.readouterr()
    assert shown(said.out) == [*left_out(ALL[:8]), ALL[8]]
    model = Path("trained/c16/model.h5")
    assert model.is_file()
    made = model.read_bytes()
    # What was made and not noted before a kill is made anew, or found to be done.
    steps = Path("trained/steps.json")
    known = json.loads(steps.read_text("utf-8"))
    assert known["done"] == 8
    steps.write_text(json.dumps(known | {"done": 0}), "utf-8")
    assert tiny.main(["data.zip"]) == 0
    on = ["$ tinyresnext train"]
    assert shown(capsys.readouterr().out) == [*on, *on, *ALL[2:5], *on, ALL[6], *on, ALL[8]]
    assert model.read_bytes() == made


@pytest.mark.slow
@by_fibers
def test_every_command_runs_on_the_driver_in_python(script, tmp_path, monkeypatch, capsys):
    """With teachers of 8 bits there, and Muon: this is as near to a GPU as it has come."""
    from fake_cuda import FakeCuda, installed

    installed(monkeypatch, FakeCuda(memory=1 << 30))
    monkeypatch.setattr(script, "CARD", tuple(map(smaller, script.CARD)))
    in_a_folder(script, tmp_path, monkeypatch)
    assert script.main(["data.zip", "--device", "cuda"]) == 0
    assert shown(capsys.readouterr().out) == ALL
    for name, many in (("a8", 2), ("c16", 1)):
        model = load(tmp_path / "trained" / name / "model.h5", "reference")
        assert model.provenance["teacher"].count("model sha256") == many
        assert len(set(model.provenance["teacher"].split(", "))) == many


def test_what_cannot_be(tiny, capsys, monkeypatch):
    def refused(*words: str) -> str:
        assert tiny.main(words) == 2
        return capsys.readouterr().err

    assert "nothing.zip is not there, expected a zip file" in refused("nothing.zip")
    assert "images is no zip file, expected" in refused("images")
    shutil.make_archive("other", "zip", "images/test")
    assert "other.zip has dark, red in it, expected" in refused("other.zip")
    assert "images is there and has no steps.json" in refused("data.zip", "--out", "images")
    monkeypatch.setattr(tiny, "ran", lambda words: 3)
    assert tiny.main(["data.zip", "--out", "run"]) == 3
    assert "ended with exit code 3." in capsys.readouterr().err
    assert "run was begun with other options" in refused(
        "data.zip", "--out", "run", "--epochs", "3"
    )
    shutil.rmtree("images/train/red")
    shutil.make_archive("other", "zip", "images")
    assert "other.zip differs from run" in refused("other.zip", "--out", "run")
