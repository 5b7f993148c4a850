"""The card of a model: all of it comes from the run's log, the evaluation and the model."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from tinyresnext import Model, quantise, save
from tinyresnext.images.preprocess import CIFAR
from tinyresnext.inference.evaluate import score
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import cifar
from tinyresnext.ops import reference
from tinyresnext.store.store import check, read, write

SOURCE = Path(__file__).parents[1] / "weights" / "card.py"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
README = "before\n<!-- prediction -->\n```\nold\n```\n<!-- /prediction -->\nafter\n"


@pytest.fixture(scope="module")
def card():
    """Import the script as a module."""
    spec = importlib.util.spec_from_file_location("card", SOURCE)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SOURCE.parent)  # as when the script is run
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """Write the files that training and evaluation write, and return the script's arguments."""
    spec, rng = cifar(11, 1, 2), np.random.default_rng(0)
    params = {
        name: rng.random(shape, dtype=np.float32) / 8 for name, shape in parameters(spec).items()
    }
    model = Model(
        spec, params, CIFAR, LABELS, {"recipe": json.dumps({"epochs": 30, "lr": 0.1})}, reference
    )
    save(model, tmp_path / "net.h5", half=True)
    with (tmp_path / "log.jsonl").open("w") as log:
        for epoch in range(1, 31):
            print(json.dumps({"epoch": epoch, "step": 10, "loss": 9.0, "accuracy": 0.0}), file=log)
            whole = {
                "epoch": epoch,
                "epochs": 30,
                "learning_rate": 0.1,
                "loss": 2 / epoch,
                "accuracy": 1 - 0.5 / epoch,
            }
            print(
                json.dumps(
                    whole
                    | {"seconds": 360, "images_per_second": 500 + epoch, "top1": 0.5 + epoch / 100}
                ),
                file=log,
            )
    found = score(
        lambda x: x,
        [(np.eye(10, dtype=np.float32)[[3, 5, *range(10)]], np.array([5, 5, *range(10)]))],
        LABELS,
    )
    (tmp_path / "test.json").write_text(json.dumps(found.to_json()))
    (tmp_path / "README.md").write_text(README)
    files = [str(tmp_path / name) for name in ("net.h5", "log.jsonl", "test.json")]
    return [
        *files,
        "tinyresnext train cifar10.zip --seed 7",
        "--readme",
        str(tmp_path / "README.md"),
    ]


def test_card(card, arguments, tmp_path, capsys):
    arguments += ["--aim", "0.92"]
    assert card.main(arguments) == card.main(arguments) == 0
    text = (tmp_path / "net.md").read_text("utf-8")
    for words in (
        "resnext11_1x2d",
        "kernels in half precision",
        "**91.67%** of 12",
        "tinyresnext train cifar10.zip --seed 7",
        "| lr | 0.1 |",
        "3.0 hours for 30 epochs, at a median of 516 images a",
        "| 30 | 0.1 | 0.0667 | 98.33% | 80.00% |",
        "| dog | 3 | 66.67% | 66.67% |",
        "dog taken for cat 1x",
        "92% of the test images, and 0.3 points are missing",
        "is named is 23.2%, and the calibration error 68.5%",
        "it is right more often than its probabilities say.",
        "| `tests/data/photographs/dog/shepherd.jpg` |",
        " are right as they are, ",
    ):
        assert words in text
    assert "9.0000" not in text  # of single steps
    curve = ET.parse(tmp_path / "net.svg")
    lines = [line for line in curve.iter() if line.tag.endswith("polyline")]
    assert [len(line.attrib["points"].split()) for line in lines] == [30, 30]
    ends = [float(line.attrib["points"].split()[-1].split(",")[1]) for line in lines]
    assert ends == [
        pytest.approx(24 + 280 * (100 - value) / 50, abs=0.06) for value in (100 - 50 / 30, 80)
    ]
    stored = read(tmp_path / "net.h5")
    assert stored.provenance["accuracy"] == "91.67% top-1 of 12 images"
    assert check(tmp_path / "net.h5").digests.model in text
    assert "half precision" in str(check(tmp_path / "net.h5"))  # as before
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert readme.startswith("before\n<!-- prediction -->\n```\ntests/data/chelsea.jpg\n")
    assert readme.endswith("\n```\n<!-- /prediction -->\nafter\n")
    assert len(readme.splitlines()) == 12
    assert "old" not in readme


def test_a_run_without_validation(card, arguments, tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    kept = [{key: line[key] for key in line if key != "top1"} for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    assert card.main(arguments) == 0
    text = (tmp_path / "net.md").read_text("utf-8")
    head = "| epoch | learning rate | training loss | training accuracy |\n|---|---|---|---|\n| 1 |"
    assert head in text
    assert "| 30 | 0.1 | 0.0667 | 98.33% |\n" in text
    assert "never used the test images: they were evaluated after the last epoch." in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    curve = ET.parse(tmp_path / "net.svg")
    assert sum(line.tag.endswith("polyline") for line in curve.iter()) == 1


def test_a_model_that_had_teachers(card, arguments, tmp_path):
    """The card has all commands, what each teacher is, and how it taught."""
    net, files = tmp_path / "net.h5", [tmp_path / f"t{number}.h5" for number in (1, 2)]
    learned = read(net)
    params = dict(learned.params) | {"fc.bias": np.ones(10, np.float32)}
    write(files[0], learned._replace(params=params, provenance={}))
    other = Model(*learned._replace(provenance={"recipe": '{"precision": "bfloat16"}'}), reference)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    save(quantise(other, list(images)), files[1])
    digests = [check(file).digests.model for file in files]
    says = {
        "teacher": ", ".join(f"model sha256 {digest}" for digest in digests),
        "recipe": json.dumps({"teacher_weight": 0.9, "temperature": 2.0}),
        "command": "tinyresnext train cifar10.zip --depth 11",
    }
    write(net, learned._replace(provenance=says))
    *files_of_it, command, _, readme = arguments
    steps = ["tinyresnext train cifar10.zip --out t1", "tinyresnext train cifar10.zip --out t2"]
    given = [*files_of_it, *steps, command, "--readme", readme]
    teachers = [["--teacher", str(file), str(tmp_path / "test.json")] for file in files]
    assert card.main([*given, *teachers[0], *teachers[1]]) == 0
    text = (tmp_path / "net.md").read_text("utf-8")
    assert "```sh\n" + "\n".join([*steps, command]) + "\n```\n" in text
    assert "```sh\ntinyresnext train cifar10.zip --depth 11\n```\n" in text
    assert "at temperature 2: that is 90% of the loss." in text
    for row in (
        f"| `t1.h5` | resnext11_1x2d | float32 | 91.67% of 12 | `{digests[0]}` |",
        f"| `t2.h5` | resnext11_1x2d, quantised to int8, with 8 images | bfloat16 "
        f"| 91.67% of 12 | `{digests[1]}` |",
    ):
        assert row in text
    for wrong in (teachers[1] + teachers[0], teachers[0], []):
        with pytest.raises(SystemExit, match="the model was taught by"):
            card.main([*given, *wrong])


def test_card_without_its_sources(card, arguments, tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(SystemExit, match="has no line of an epoch"):
        card.main(arguments)
    with pytest.raises(SystemExit, match="README has no"):
        card.put("nothing", "words")
