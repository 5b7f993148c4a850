"""Names that would move the cursor, hide text or forge lines are shown with escapes, everywhere."""

from __future__ import annotations

import contextlib
import csv
import json
import shutil
import sys
from pathlib import Path

import cases
import numpy as np
import pytest
from data_files import picture

from tinyresnext import Spec
from tinyresnext.cli.main import main
from tinyresnext.cli.output.tables import csv_line, csv_row, print_json, table
from tinyresnext.inference.classify import Row
from tinyresnext.system.console import plain

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names are of Unix")
EVIL = "e\x1b[31mv\x9b1mi\u202el\nFORGED line"
CAT = Path(__file__).parent / "data" / "chelsea.jpg"
TRAIN = ["--depth", "20", "--epochs", "1", "--batch", "2"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with hostile names: a checkpoint, its model, images, a data set, other files."""
    folder = tmp_path_factory.mktemp("made")
    weights = cases.weights(Spec((1, 1), 4, 8, 10))
    (folder / f"{EVIL}.pth").write_bytes(cases.checkpoint(weights, legacy=True))
    assert main(["convert", str(folder / f"{EVIL}.pth"), str(folder / f"{EVIL}.h5")]) == 0
    shutil.copy(CAT, folder / f"{EVIL}.jpg")
    (folder / f"{EVIL}.broken.jpg").write_bytes(CAT.read_bytes()[:5000])
    (folder / f"{EVIL}.txt").write_text("not\nclasses")
    (folder / f"{EVIL}.npz").write_bytes(b"no archive")
    for i, name in enumerate((f"{EVIL}.1", f"{EVIL}.2")):
        (folder / f"{EVIL}.data" / name).mkdir(parents=True)
        (folder / f"{EVIL}.data" / name / f"{EVIL}.png").write_bytes(picture(i))
    (folder / f"{EVIL}.data" / f"{EVIL}.3").mkdir()
    (folder / f"{EVIL}.splits" / "train" / EVIL).mkdir(parents=True)
    (folder / f"{EVIL}.splits" / "train" / EVIL / "1.png").write_bytes(b"broken")
    (folder / f"{EVIL}.run").mkdir()
    (folder / f"{EVIL}.run" / "state.npz").write_bytes(b"no state")
    (folder / f"{EVIL}.link.csv").symlink_to(folder / f"{EVIL}.h5")
    return folder


COMMANDS = {
    "classify": ["classify", ".jpg"],
    "classify a broken one": ["classify", ".broken.jpg"],
    "classify in JSON": ["classify", ".jpg", ".broken.jpg", "--json"],
    "classify nothing": ["classify", ".missing.jpg"],
    "classify a folder": ["classify", ".data", "--top", "1"],
    "a model": ["classify", str(CAT), "--model", ".h5", "--json"],
    "no model": ["classify", str(CAT), "--model", ".missing.h5"],
    "a model that is none": ["classify", str(CAT), "--model", ".txt"],
    "a table": ["classify", str(CAT), "--csv", ".missing/x.csv"],
    "a table that exists": ["classify", str(CAT), "--csv", ".txt"],
    "a table that is a link": ["classify", str(CAT), "--csv", ".link.csv", "--force"],
    "info": ["info", ".h5"],
    "info of nothing": ["info", ".missing.h5"],
    "info of another file": ["info", ".txt"],
    "models": ["models", EVIL],
    "verify": ["verify", ".h5"],
    "verify nothing": ["verify", ".missing.h5"],
    "verify another file": ["verify", ".txt"],
    "verify with no reference": ["verify", ".h5", "--reference", ".missing.npz"],
    "verify with another file": ["verify", ".h5", "--reference", ".npz"],
    "make a reference": ["verify", ".h5", "--make-reference", ".missing/r.npz"],
    "make a reference that exists": ["verify", ".h5", "--make-reference", ".npz"],
    "convert": ["convert", ".pth", ".new.h5", "--force"],
    "convert nothing": ["convert", ".missing.pth"],
    "convert another file": ["convert", ".txt", ".other.h5"],
    "convert to no place": ["convert", ".pth", ".missing/x.h5"],
    "convert to what exists": ["convert", ".pth", ".h5"],
    "convert to another ending": ["convert", ".pth", ".txt"],
    "convert with other labels": ["convert", ".pth", ".n.h5", "--labels", ".txt"],
    "convert with no labels": ["convert", ".pth", ".n.h5", "--labels", ".missing.txt"],
    "convert with an architecture": ["convert", ".pth", ".n.h5", "--arch", EVIL],
    "export": ["export", ".h5", ".new.npz", "--force"],
    "export to no place": ["export", ".h5", ".missing/x.npz"],
    "export to another ending": ["export", ".h5", ".txt"],
    "pull": ["pull", EVIL],
    "pull from nothing": ["pull", "resnext50_32x4d.tv_in1k", "--from", ".missing.pth"],
    "pull from another file": ["pull", "resnext50_32x4d.tv_in1k", "--from", ".pth"],
    "evaluate": ["evaluate", ".data"],
    "evaluate with its classes": ["evaluate", ".data", "--model", ".h5", "--by", "number"],
    "evaluate nothing": ["evaluate", ".missing"],
    "evaluate a broken image": ["evaluate", ".splits", "--split", "train"],
    "evaluate another split": ["evaluate", ".splits", "--split", EVIL],
    "evaluate another file": ["evaluate", ".txt"],
    "evaluate into a picture": ["evaluate", ".data", "--picture", ".missing/x.png"],
    "evaluate into another ending": ["evaluate", ".data", "--picture", ".new"],
    "train": ["train", ".data", "--out", ".out", *TRAIN],
    "train into no folder": ["train", ".data", "--out", ".txt", *TRAIN],
    "train with a broken image": ["train", ".splits", "--out", ".out", *TRAIN],
    "resume": ["train", "--resume", ".run"],
    "resume nothing": ["train", "--resume", ".missing"],
    "finetune nothing": ["finetune", "--init", ".missing.h5", ".data", "--out", ".out", *TRAIN[2:]],
    "finetune another file": ["finetune", "--init", ".txt", ".data", "--out", ".out"],
    "too many words": ["info", ".h5", ".txt"],
    "bench": ["bench", "--model", EVIL],
    "an unknown command": [EVIL],
    "an unknown option": ["classify", f"--{EVIL}"],
    "a number": ["classify", ".jpg", "--top", EVIL],
    "a device": ["classify", ".jpg", "--device", EVIL],
    "a recipe": ["train", ".data", "--out", ".out", "--recipe", EVIL],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_message_shows_names_with_escapes(made, name, capsys):
    words = [
        str(made / f"{EVIL}{word}") if word.startswith(".") else word for word in COMMANDS[name]
    ]
    with contextlib.suppress(SystemExit):  # argparse ends so
        main(words)
    out, err = capsys.readouterr()
    text = out + err
    assert text
    assert all(c.isprintable() for line in text.split("\n") for c in line), repr(text)
    assert not any(line.startswith("FORGED") for line in text.split("\n")), repr(text)


def test_messages_have_one_line_that_is_not_too_long():
    assert plain("a\x1b\u202e\ud800é") == "a\\x1b\\u202e\\ud800é"
    assert plain("x" * 5000).count("x") == 2000
    assert plain("as it is") == "as it is"


def test_a_long_message_is_cut(capsys):
    assert main(["info", "y" * 4000])
    assert len(capsys.readouterr().err) < 2100


def test_json_means_the_same_and_has_no_control_characters(capsys):
    values = {"path": EVIL + "\U000e0001é\udc80"}
    print_json(values)
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert json.loads(out) == values


CELLS = ["=cmd|'/c calc'!A1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "'quoted", "plain", "", "a=b"]


def test_cells_are_no_formulas_and_can_be_read_back(tmp_path):
    with table(str(tmp_path / "t.csv")) as writer:
        writer.writerows([[cell, -1.5, 3] for cell in CELLS])
    with open(tmp_path / "t.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert not any(row[0][:1] in tuple("=+-@\t\r") for row in rows)
    assert [row[0].removeprefix("'") for row in rows] == CELLS
    assert all(row[1:] == ["-1.5", "3"] for row in rows)


def test_an_error_in_a_table_has_no_second_quotation_mark():
    """Its message begins with a quoted name, and so with a ' of its own."""
    row = Row("x", [], "'x' cannot be read: No such file or directory")
    assert csv_line(csv_row(row)) == b"x,image 'x' cannot be read: No such file or directory\r\n"


def test_a_table_of_hostile_names(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(CAT, "=1+1.jpg")
    shutil.copy(CAT, "-2.jpg")
    assert main(["classify", ".", "--csv", "t.csv", "--top", "1"]) == 0
    with open("t.csv", newline="", encoding="utf-8") as file:
        names = [row[0] for row in csv.reader(file)][1:]
    assert sorted(name.removeprefix("'") for name in names) == ["-2.jpg", "=1+1.jpg"]
    assert np.all([name.startswith("'") for name in names])
