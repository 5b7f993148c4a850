"""The table of what is expected of a GPU (`benchmarks/gpu_expected.py`), from files made here."""

from __future__ import annotations

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = ("layer1.0.conv2", "layer2.0.conv2")


@pytest.fixture
def expected(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return import_module("gpu_expected")


def measured() -> dict:
    """Return results in which everything is as expected: our own times are 1, 4 and 9 ms."""
    speed, peer = [], []
    for precision, batch, ms in [(p, b, m) for p in ("float32", "float16") for b, m in OWN]:
        ms /= 1 + (precision == "float16")
        names = {name: ms / 10 for name in LAYERS} | dict.fromkeys(("layer1.0.conv1", "fc"), 0.2)
        layers = [{"name": n, "min_ms": one, "gflops": 800.0} for n, one in names.items()]
        times = {"network": {"median_ms": ms}, "with_copies": {"median_ms": ms + 0.04}}
        speed.append({"precision": precision, "batch": batch, "layers": layers, **times})
    for tf32, last in ((False, False), (False, True), (True, True)):
        for batch, ms in OWN:  # the second layout is the faster one, and TF32 does not count
            theirs = (ms + 0.5 * (not last)) / (1 + 9 * tf32)
            both = {"tf32": tf32, "channels_last": last, "batch": batch}
            peer.append(both | {"median_ms": theirs, "min_ms": theirs})
            peer += [
                both | {"layer": name, "median_ms": 9.0, "min_ms": theirs / 4} for name in LAYERS
            ]
        peer.append({"tf32": tf32, "channels_last": last, "training": 64, "median_ms": 100.0})
    machine = {"limits": {"gflops": 1000.0}, "packages": {"pytest-xdist": "3"}}
    step = {"batch": 64, "median_ms": 119.0}
    return {"machine": machine, "speed": {"rows": speed}, "peer": {"rows": peer}, "step": step}


OWN = ((1, 0.9), (32, 4.0), (256, 9.0))  # milliseconds of mini-batches


def verdicts(expected, found: dict) -> dict[str, tuple[str, ...]]:
    lines = expected.table(found).splitlines()
    rows = [tuple(line.strip("| ").split(" | ")) for line in lines if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_every_expectation_has_its_ratio(expected):
    found = verdicts(expected, measured())
    assert found.pop("the bundled model, trained")[-1] == "not measured"
    assert {row[-1] for row in found.values()} == {"yes"}
    assert len(found) == 3 + 3 * len(LAYERS) + 3 + 1 + 1
    wanted = {
        "inference, 32 images, beside PyTorch": ("at most 1.00", "4.000 ms to 4.000 ms", "1.00"),
        "layer2.0.conv2, 1 image, beside cuDNN": ("at most 0.50", "0.090 ms to 0.225 ms", "0.40"),
        "its 1x1 together, 256 images, of the peak": (
            "at least 0.70", "800 of 1000 GFLOP/s; least 800, layer1.0.conv1", "0.80",
        ),
        "one image, with its copies, in ms": ("under 1.00", "0.940 ms", "0.94"),
        "a step of training, 64 images, beside PyTorch": (
            "at most 1.20", "119.000 ms to 100.000 ms", "1.19",
        ),
    }  # fmt: skip
    assert {what: found[what][:-1] for what in wanted} == wanted
    assert expected.missing(measured()) == []


def test_what_is_slower_is_not_met(expected):
    found = measured()
    for row in found["speed"]["rows"]:
        row["network"]["median_ms"] *= 1.01
        row["with_copies"]["median_ms"] += 0.07
        for layer in row["layers"]:
            layer["min_ms"] *= 1.3
            layer["gflops"] /= 1.3
    found["step"]["median_ms"] = 121.0
    rows = verdicts(expected, found)
    del rows["the bundled model, trained"]
    assert {row[-1] for row in rows.values()} == {"NO"}


def test_a_layer_of_pytorch_in_a_graph_counts(expected):
    """One image is computed sooner than it is started."""
    found = measured()
    for row in found["peer"]["rows"]:
        if row.get("layer") == LAYERS[0] and row["batch"] == 1:
            row["graph_ms"] = row["min_ms"] / 2
    rows = verdicts(expected, found)
    assert rows[f"{LAYERS[0]}, 1 image, beside cuDNN"][-2:] == ("0.80", "NO")
    assert rows[f"{LAYERS[1]}, 1 image, beside cuDNN"][-2:] == ("0.40", "yes")


@pytest.mark.parametrize(
    ("part", "instead", "says", "count"),
    [
        ("peer", {"absent": "no torchvision"}, "the part peer: no torchvision", 7),
        ("peer", None, "the part peer did not run", 7),
        ("speed", None, "the part speed did not run", 13),
        ("step", None, "the part step did not run", 1),
        ("machine", {"packages": {"pytest-xdist": "3"}}, "the part machine has no such row", 3),
    ],
)
def test_what_is_not_there_is_not_measured(expected, part, instead, says, count):
    """Without a peer there is one row of grouped layers for each mini-batch."""
    found = measured() | {part: instead}
    rows = verdicts(expected, found)
    del rows["the bundled model, trained"]
    missed = [row for row in rows.values() if row[-1] == "not measured"]
    assert len(missed) == count
    assert {row[1] for row in missed} == {says}
    assert {row[-1] for row in rows.values() if row not in missed} <= {"yes"}


def test_a_part_that_was_stopped_says_so(expected):
    found = measured()
    found["peer"]["rows"] = [row for row in found["peer"]["rows"] if "training" not in row]
    found["failed"] = {"peer": "stopped after 75 s"}
    row = verdicts(expected, found)["a step of training, 64 images, beside PyTorch"]
    assert row[1:] == ("the part peer: stopped after 75 s", "", "not measured")


def test_what_is_absent_is_named_with_what_to_install(expected):
    found = measured() | {"peer": {"absent": "PyTorch or torchvision is not there"}}
    found["runtime"] = {"rows": [{"tf32": False, "absent": "it does not start"}]}
    found["machine"]["packages"]["pytest-xdist"] = None
    peer, runtime, xdist = expected.missing(found)
    assert peer == (
        "peer is absent: PyTorch or torchvision is not there; pip install torch torchvision"
    )
    assert runtime == "runtime is absent: it does not start; pip install onnxruntime-gpu"
    assert xdist.startswith("pytest-xdist is absent: ")
    assert expected.table(found).endswith("\n".join([peer, runtime, xdist]))


def test_a_folder_is_read(expected, tmp_path, capsys):
    with pytest.raises(SystemExit, match=re.escape("results.json is not there; `python")):
        expected.main([str(tmp_path)])
    (tmp_path / "results.json").write_text(json.dumps(measured()), "utf-8")
    assert expected.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == expected.table(measured()) + "\n"
    (tmp_path / "results.json").write_text("{}", "utf-8")
    assert expected.main([str(tmp_path)]) == 0
    assert "yes" not in capsys.readouterr().out


def test_the_page_promises_the_same(expected):
    page = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    section = page[page.index("## What is expected") : page.index("## How it is built")]
    assert (expected.NETWORK, "as fast as PyTorch" in section) == (1, True)
    assert (expected.GROUPED, "at least twice as fast as cuDNN's" in section) == (0.5, True)
    assert f"{expected.OF_PEAK:.0%}".replace("%", " % of the measured peak") in section
    assert f"under {expected.ONE_IMAGE:.0f} ms" in section
    assert f"at most {expected.STEP} times as long as PyTorch's" in section
    *first, last = expected.BATCHES
    assert f"{', '.join(map(str, first))} and {last} images" in section
