"""Runs over many images that are killed at random points: every image has exactly one row."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_files import picture, write_files

import tinyresnext as tr

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
]

# It begins a run as often as there are numbers. Each run is killed behind so many new bytes of rows
# or values, in the middle of a row or not: from within, since nobody outside is quick enough. The
# processes are forked, so that each takes a twentieth of a second.
KILLED = """
import io, json, os, signal, sys
from tinyresnext.cli.main import main
from tinyresnext.system.writing import ours

left, numbers, words = 1 << 40, json.loads(sys.argv[1]), sys.argv[2:]

class Dying(io.BufferedRandom):
    def write(self, data):
        global left
        if len(data) >= left:
            super().write(bytes(data)[:left])
            self.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        left -= len(data)
        return super().write(data)

main([*words[:-2], "first-" + words[-2]])  # it imports what they need
ours.open = lambda name, mode: Dying(io.FileIO(name, mode))
for left in numbers:
    process = os.fork()
    if not process:
        os._exit(main(words))
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == -signal.SIGKILL, code
"""
COUNT = 150


def killed(kills: int, command: str, out: str, options: list[str]) -> None:
    numbers = json.dumps([random.Random(kills + i).randrange(1, 1000) for i in range(kills)])
    words = [command, "photos", *options, "-o", out, "--resume"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, numbers, *words],
        capture_output=True, text=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def names(out: str) -> list[str]:
    if out.endswith(".h5"):
        with h5py.File(out) as file:
            return [os.fsdecode(name) for name in file["paths"][:]]
    with open(out, newline="") as file:
        if out.endswith(".csv"):
            return [row["path"] for row in csv.DictReader(file)]
        return [json.loads(line)["path"] for line in file]


def parted(out: str) -> tuple[str, list[float]]:
    """Return a file without its fractions, and the fractions."""
    text, fraction = Path(out).read_text(), r"\d+\.\d+(?:e-\d+)?"
    return re.sub(fraction, "", text), [float(one) for one in re.findall(fraction, text)]


def close(values, wanted) -> None:
    """Compare what NumPy computed on one thread and on several: last digits differ."""
    np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kills", "command", "out"),
    [
        (50, "classify", "r.jsonl"),
        (10, "classify", "r.csv"),
        (50, "features", "r.h5"),
        (50, "evaluate", "r.jsonl"),
        (10, "evaluate", "r.csv"),
    ],
)
def test_killed_at_random_points(run, tmp_path, kills, command, out):
    """The result is that of a run that nobody killed.

    In NumPy the last digits depend on the number of threads, and on the mini-batches, which
    `classify` does not keep.
    """
    spec, small = tr.cifar(11, 1, 4, classes=3), tr.Preprocess(8, 8)
    model = tr.random_model(spec, seed=1, device="reference", preprocess=small)
    tr.save(model, "m.h5")
    files = {f"{i % 3}/{i:03}.png": picture(i) for i in range(COUNT)}
    write_files(tmp_path / "photos", files)
    options = ["--model", "m.h5", "--device", "reference", "--batch", "2"]
    options += ["--labels-by-number"] if command == "evaluate" else []
    whole = run(command, "photos", *options, "-o", f"whole-{out}")
    killed(kills, command, out, options)
    assert not Path(out).exists()
    code, text, _ = run(command, "photos", *options, "-o", out, "--resume")
    assert (code, text.replace(f"whole-{out}", out)) == (0, whole[1].replace(f"whole-{out}", out))
    assert names(out) == [f"photos/{name}" for name in sorted(files)]
    if out.endswith(".h5"):
        with h5py.File(out) as one, h5py.File(f"whole-{out}") as other:
            close(one["features"][:], other["features"][:])
    elif command == "evaluate":
        (text, values), (wanted, numbers) = map(parted, (out, f"whole-{out}"))
        assert text == wanted
        close(values, numbers)
    assert not list(tmp_path.glob("r.*.part*"))
