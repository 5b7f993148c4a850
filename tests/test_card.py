"""The card of a model: all of it comes from the run's log, the evaluation and the model."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from tinyresnext import Model, save
from tinyresnext.images.preprocess import CIFAR
from tinyresnext.inference.evaluate import score
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import cifar
from tinyresnext.ops import reference

SOURCE = Path(__file__).parents[1] / "weights" / "card.py"
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
README = "before\n<!-- prediction -->\n```\nold\n```\n<!-- /prediction -->\nafter\n"


@pytest.fixture(scope="module")
def card():
    """Import the script as a module."""
    spec = importlib.util.spec_from_file_location("card", SOURCE)
    module = importlib.util.module_from_spec(spec)
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
        "| `tests/data/photographs/dog/shepherd.jpg` |",
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
    readme = (tmp_path / "README.md").read_text("utf-8")
    assert readme.startswith("before\n<!-- prediction -->\n```\ntests/data/chelsea.jpg\n")
    assert readme.endswith("\n```\n<!-- /prediction -->\nafter\n")
    assert len(readme.splitlines()) == 12
    assert "old" not in readme


def test_card_without_its_sources(card, arguments, tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(SystemExit, match="has no line of an epoch"):
        card.main(arguments)
    with pytest.raises(SystemExit, match="README has no"):
        card.put("nothing", "words")
