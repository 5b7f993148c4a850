"""What cannot be saved in the end is refused before the first step, and before an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_cases as small

from tinyresnext import Evaluation
from tinyresnext.cli.main import main
from tinyresnext.data.loader import Loader
from tinyresnext.errors import TinyResNeXtError, UsageError
from tinyresnext.inference.scores import confusion, evaluation
from tinyresnext.training.train import train

CLASSES = {
    "a newline": "c\nd",
    "an escape sequence": "\x1b[31m",
    "another direction": "\u202ecod.exe",
    "bytes that are no text": "\udc80",
}


@pytest.fixture
def no_steps(monkeypatch):
    """No mini-batch is ever made."""
    monkeypatch.setattr(Loader, "epoch", lambda *_, **__: pytest.fail("it has begun"))


def begin(folder, classes=tuple("abcd"), **more):
    data = small.pictures(classes=classes)
    spec = replace(small.SPEC, classes=len(classes))
    train(spec, data, small.RECIPE, folder, device="reference", **more)


@pytest.mark.parametrize("name", CLASSES)
def test_class_names_that_no_model_can_have(tmp_path, no_steps, name):
    with pytest.raises(UsageError, match=r"could not be saved .* rename that class"):
        begin(tmp_path / "run", ("a", "b", "c", CLASSES[name]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("licence", ["MIT\nor not", "x" * 100_000, "\x9b1m"])
def test_licences_that_no_model_can_have(tmp_path, no_steps, licence):
    with pytest.raises(UsageError, match=r"could not be saved .*--licence in one line"):
        begin(tmp_path / "run", provenance={"licence": licence})
    assert not (tmp_path / "run").exists()


def test_a_command_that_no_state_can_have(tmp_path, no_steps):
    """A state that could not be read is not begun, so the folder is free for another run."""
    with pytest.raises(TinyResNeXtError):
        begin(tmp_path / "run", origin={"command": "x" * (2 << 20)})
    assert not (tmp_path / "run" / "state.npz").exists()


def test_a_folder_that_cannot_be_written(tmp_path, no_steps):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        begin(tmp_path / "file" / "run")


@pytest.mark.parametrize("option", [["--csv", "t.csv"], ["--json"], ["--picture", "p.png"]])
def test_a_confusion_matrix_that_will_not_fit(tmp_path, monkeypatch, capsys, option):
    """ImageNet's 21,841 classes make 477 million numbers, which took 6 to 11 GB in the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation, "MOST_CLASSES", 9)  # the bundled model has ten
    assert main(["evaluate", "nothing", *option]) == 2
    assert "a confusion matrix of 10 classes" in capsys.readouterr().err
    assert not list(Path().iterdir())
    assert main(["evaluate", "nothing"]) == 3, "without them, the data set is opened"


def test_no_large_matrix_is_written_by_any_way():
    n = evaluation.MOST_CLASSES + 1
    classes = tuple(map(str, range(n)))
    found = Evaluation(classes, np.zeros((n, n), np.int64), np.zeros(n, np.int64), 0.0)
    for write in (
        found.to_json,
        lambda: next(found.table()),
        lambda: confusion.draw(found.confusion, classes, "title"),
    ):
        with pytest.raises(UsageError, match="16,785,409 numbers"):
            write()
