"""The bundled model: found in a checkout and in a wheel, with a clear error if it is missing."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyresnext
from tinyresnext import Model, cifar, load, save
from tinyresnext.cli.main import parse
from tinyresnext.cli.runs.recipe import typed_recipe
from tinyresnext.errors import FormatError
from tinyresnext.hub.bundled import SHIPPED, shipped_model
from tinyresnext.images.preprocess import CIFAR
from tinyresnext.inference.heads import Prediction
from tinyresnext.network.resnext import parameters
from tinyresnext.ops import reference
from tinyresnext.store.store import check
from tinyresnext.training.recipes import RECIPES, Recipe
from tinyresnext.training.recipes.schedule import Schedule
from tinyresnext.training.samples.teacher import distillation

DATA = Path(__file__).parent / "data"
LABELS = tuple(f"class {i}" for i in range(10))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Return a model file under another name."""
    path, rng = tmp_path_factory.mktemp("shipped") / "m.h5", np.random.default_rng(0)
    spec = cifar(11, 2, 2)
    params = {
        name: rng.random(shape, dtype=np.float32) / 4 for name, shape in parameters(spec).items()
    }
    save(Model(spec, params, CIFAR, LABELS, {}, reference), path, half=True)
    return path


@pytest.fixture(params=["checkout", "wheel"])
def home(request, made, tmp_path) -> Path:
    """Return a folder with a copy of the package, and a model where such an installation has it."""
    shutil.copytree(
        Path(tinyresnext.__file__).parent,
        tmp_path / "tinyresnext",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    weights = (
        tmp_path / "weights"
        if request.param == "checkout"
        else tmp_path / "tinyresnext" / "weights"
    )
    weights.mkdir()
    shutil.copy(made, weights / SHIPPED)
    return tmp_path


def child(home: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Run the copy in another process, from another folder."""
    environment = os.environ | {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    (home / "elsewhere").mkdir(exist_ok=True)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=home / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_without_a_model_use_it(home):
    tool = ("-m", "tinyresnext")
    done = child(home, *tool, "classify", DATA / "chelsea.jpg", "--json", "--device", "reference")
    assert (done.returncode, done.stderr) == (0, "")
    row = json.loads(done.stdout)
    assert row["model"] == SHIPPED
    assert row["predictions"][0]["label"] in LABELS
    for command in (["info"], ["verify"], ["export", "out.npz"]):
        done = child(home, *tool, *command)
        says = done.stderr.splitlines()
        assert done.returncode == 0
        assert [line.partition(" images")[0] for line in says] == [
            "out.npz: the network expects"
        ] * (command[0] == "export")
    assert (home / "elsewhere" / "out.npz").exists()
    options = ["--split", "train", "--labels-by-number", "--device", "reference", "--json"]
    done = child(home, *tool, "evaluate", DATA / "photographs", *options)
    assert done.returncode == 2, "another number of classes than the model has"
    for number in range(len(LABELS)):
        folder = home / "elsewhere" / "data" / f"class {number}"
        folder.mkdir(parents=True)
        shutil.copy(DATA / "chelsea.jpg", folder)
    done = child(home, *tool, "evaluate", "data", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["pictures"] == len(LABELS)
    done = child(home, "-c", "import tinyresnext as tr; print(tr.load().labels[0])")
    assert done.stdout == "class 0\n"


def test_it_is_missed(home):
    for path in home.rglob(SHIPPED):
        path.unlink()
    for command in (
        ["classify", "x.jpg"],
        ["info"],
        ["verify"],
        ["export", "out.npz"],
        ["evaluate", "."],
    ):
        done = child(home, "-m", "tinyresnext", *command)
        assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
        assert f"weights{os.sep}{SHIPPED}" in done.stderr
        assert "name one with --model" in done.stderr


def test_another_folder_called_weights_does_not_matter(made, tmp_path, monkeypatch):
    (tmp_path / "weights" / SHIPPED).mkdir(parents=True)
    monkeypatch.setattr("tinyresnext.hub.bundled.PACKAGE", tmp_path / "tinyresnext")
    with pytest.raises(FormatError, match="name one with --model"):
        shipped_model()
    with pytest.raises(FormatError):
        load()


def test_the_model_that_comes_along():
    model = load()
    assert model.spec.small
    assert model.labels == (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    assert shipped_model().stat().st_size <= 10_000_000
    assert model.provenance["licence"] == "Apache-2.0"
    assert model.provenance["command"].startswith("tinyresnext train ")
    assert "/" not in model.provenance["command"]  # anyone's, in any folder
    card = shipped_model().with_suffix(".md").read_text("utf-8")
    assert check(shipped_model()).digests.model in card
    assert model.provenance["command"] in card


def test_the_readme_shows_what_it_says():
    readme = (DATA.parents[1] / "README.md").read_text("utf-8")
    shown = re.search(
        r"<!-- prediction -->\n```\n(.*?)```\n<!-- /prediction -->", readme, re.DOTALL
    )[1]
    [name, *lines] = shown.splitlines()
    [guesses] = load().predict(str(DATA / "chelsea.jpg"))
    assert name == "tests/data/chelsea.jpg"
    assert guesses[0].label == "cat"
    for line, guess in zip(lines, guesses, strict=True):
        percent, label = line.split()
        assert label == guess.label
        # printed to a tenth of a percent; kernels for other processors round otherwise
        assert abs(float(percent.rstrip("%")) - 100 * guess.probability) <= 0.06


@pytest.fixture(scope="module")
def photographs():
    """Import the script that writes the card's section about photographs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DATA.parents[1] / "weights")
        return importlib.import_module("photographs")


def test_the_card_says_what_it_makes_of_the_photographs(photographs):
    """Its section is what the model says now, but for the last digit of probabilities."""
    card = shipped_model().with_suffix(".md").read_text("utf-8")
    _, begin, rest = card.partition(photographs.BEGIN)
    words, end, _ = rest.partition(photographs.END)
    assert end
    percent = re.compile(r"([0-9.]+)%")
    says, now = begin + words, photographs.section(load())
    assert percent.sub("%", says) == percent.sub("%", now)
    # Kernels for other processors round otherwise, and both are printed to a tenth of a percent.
    for one, other in zip(percent.findall(says), percent.findall(now), strict=True):
        assert abs(float(one) - float(other)) < 0.11


def test_eight_of_ten_photographs_are_right(photographs):
    found = photographs.answers(load())
    assert [one.file for one in found[1:]] == sorted((DATA / "photographs").rglob("*.jpg"))
    assert {one.truth for one in found} <= set(load().labels)
    right = sum(one.label == one.truth for one in found)
    assert 10 * right >= 8 * len(found)


def test_the_shapes_of_a_photograph(photographs):
    """A square keeps the middle, the whole on grey, or the whole squeezed, upright or not."""
    photograph = Image.new("RGB", (5, 9), "red")
    photograph.paste("blue", (0, 2, 5, 7))
    for image in (photograph, photograph.transpose(Image.Transpose.ROTATE_90)):
        middle, padded, squeezed = photographs.squares(image)
        assert (middle.size, padded.size, squeezed.size) == ((5, 5), (9, 9), (5, 5))
        assert middle.getcolors() == [(25, (0, 0, 255))]
        whole = {(255, 0, 0): 20, (0, 0, 255): 25, photographs.GREY: 36}
        assert {colour: count for count, colour in padded.getcolors()} == whole
        assert len(squeezed.getcolors()) > 1


def test_wrong_answers_are_named_and_counted(photographs):
    guesses = [Prediction("cat", 0, 0.5), Prediction("dog", 1, 0.25)]
    files = [DATA / "photographs" / name for name in ("cat/a.jpg", "dog/b.jpg")]
    found = [
        photographs.Answer(files[0], "cat", guesses, ["cat", "cat", "dog"]),
        photographs.Answer(files[1], "dog", guesses, ["dog", "cat", "cat"]),
    ]
    _, _, first, second, _, *sentences = photographs.described(found, LABELS[:1]).splitlines()
    assert first.endswith("| cat | yes | 50.0% | dog 25.0% | right | right | dog |")
    assert second.endswith("| cat | no | 50.0% | dog 25.0% | right | cat | cat |")
    assert sentences == [
        "1 of 2 are right as they are, 2 as middle squares, 1 padded and 0 squeezed.",
        "There is no photograph of these classes: class 0.",
    ]
    assert "no photograph" not in photographs.described(found, ("cat", "dog"))


def test_the_commands_of_the_card_make_it():
    """Its architecture and its recipe have names, and each teacher is made before it teaches."""
    model, card = load(), shipped_model().with_suffix(".md").read_text("utf-8")
    block = re.search(r"^## Training\n\n```sh\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)[1]
    lines = [line for line in block.splitlines() if line.startswith("tinyresnext ")]
    *before, last = (parse(shlex.split(line)[1:]) for line in lines)
    assert model.spec == tinyresnext.variant(last.arch)
    assert last.recipe in RECIPES
    teachers, typed = last.teacher or [], typed_recipe(last)
    if teachers:
        how = distillation(typed)
        typed = typed.changed({"teacher_weight": how.weight, "temperature": how.temperature})
    recipe = json.loads(model.provenance["recipe"])
    assert {name: typed.to_json()[name] for name in recipe} == recipe
    # Settings that are newer than the file have the value that changes nothing.
    plain = Recipe(epochs=1, batch=1, schedule=Schedule(0.1, "linear")).to_json()
    newer = typed.to_json().keys() - recipe.keys()
    assert [name for name in newer if typed.to_json()[name] != plain[name]] == []
    made = set()
    for one in before:
        assert one.command == "train" or one.model in made
        made.add(f"{one.out}/model.h5" if one.command == "train" else one.out)
    assert made.issuperset(teachers)
    digests = re.findall(r"model sha256 (\w+)", model.provenance.get("teacher", ""))
    assert len(digests) == len(teachers)
    assert all(digest in card for digest in digests)
