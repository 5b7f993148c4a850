"""Ranks that a real mpiexec starts; they compute in NumPy, so that no kernel is compiled."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_ranks import SAME_LOSS
from training_cases import write_folder

from tinyresnext.training.record import state as states

pytestmark = pytest.mark.slow
pytest.importorskip("mpi4py")
MPIEXEC = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
SIZE = ["--depth", "11", "--cardinality", "2", "--width", "4", "--size", "8"]
RATE = ["--recipe", "fast-cifar", "--batch", "8", "--lr", "0.002", "--mixup", "0.2"]
OPTIONS = [*SIZE, *RATE, "--device", "reference", "--sync-norm"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "data"
    write_folder(folder, 8)
    return str(folder)


def train(ranks, *words):
    """Start a run; without ranks as one process without MPI."""
    command = [sys.executable, "-m", "tinyresnext", "train"]
    if ranks:
        command = [MPIEXEC, "-n", str(ranks), *command, "--mpi"]
    return subprocess.Popen(
        [*command, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def said(process, seconds=120):
    """Return what a run prints, and its exit code; a run that hangs is ended, and fails."""
    try:
        return process.communicate(timeout=seconds)[0], process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def until(folder, epochs):
    """Wait until a run has finished so many epochs."""
    for _ in range(2400):
        if (folder / "log.jsonl").exists() and len(losses(folder)) >= epochs:
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder} does not come to {epochs} epochs")


def below(process):
    """Return the processes that one has started, and those that they have, by their ids."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [each for child in children for each in (int(child), *below(int(child)))]


def test_one_two_and_four_ranks_have_the_losses_of_one_process(data, tmp_path):
    for ranks in (0, 1, 2, 4):
        sync = OPTIONS if ranks else OPTIONS[:-1]
        text, code = said(train(ranks, data, *sync, "--epochs", 3, "--out", tmp_path / str(ranks)))
        assert code == 0, text
        assert text.count("model.h5") == 2, "the first rank alone talks"
        found = losses(tmp_path / str(ranks))
        assert len(found) == 3
        alone = losses(tmp_path / "0")
        assert found == (alone if ranks < 2 else pytest.approx(alone, rel=SAME_LOSS))


def test_a_killed_rank_ends_the_run_and_another_number_goes_on(data, tmp_path):
    process = train(2, data, *OPTIONS, "--epochs", 100, "--out", tmp_path / "run")
    until(tmp_path / "run", 2)
    os.kill(below(process.pid)[-1], signal.SIGKILL)
    text, code = said(process)
    assert code != 0, text
    began = states.read(tmp_path / "run" / "state.npz")
    assert began.epoch >= 1
    process = train(4, "--resume", tmp_path / "run")
    until(tmp_path / "run", began.epoch + 2)
    process.send_signal(signal.SIGINT)
    text, code = said(process)
    assert "in 2 ranks with shared batch norms (1 thread) until now and continues on" in text
    assert "mpiexec -n 4 tinyresnext train --mpi --resume" in text
    assert states.read(tmp_path / "run" / "state.npz").epoch > began.epoch


def test_ranks_with_other_images_end_together(data, tmp_path):
    write_folder(tmp_path / "other", 9)
    words = [sys.executable, "-m", "tinyresnext", "train", "--mpi", *OPTIONS]
    words += ["--epochs", "2", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [MPIEXEC, "-n", "1", *words, data, ":", "-n", "1", *words, str(tmp_path / "other")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert "rank 1 has other images or another recipe than rank 0" in done.stdout


def test_a_rank_that_ends_alone_ends_all(tmp_path):
    """The first waits for it; what the last one says is not compared, since mpiexec may lose it."""
    code = """
import argparse
from tinyresnext.cli.runs.ranks import ranks_of
from tinyresnext.system.ranks import any_rank
with ranks_of(argparse.Namespace(mpi=True)) as ranks:
    if ranks.rank:
        raise ValueError("only here")
    any_rank(ranks, False)
"""
    words = [MPIEXEC, "-n", "2", sys.executable, "-c", code]
    done = subprocess.run(words, timeout=120, check=False)
    assert done.returncode != 0


def test_a_rank_that_does_not_answer():
    code = """
import time, numpy as np
from tinyresnext.errors import DeviceError
from tinyresnext.system.mpi import Mpi
ranks, hasty = Mpi(), Mpi(limit=0.5)
found = np.full(3, ranks.rank + 1.0)
ranks.sum(found)
assert found.tolist() == [3, 3, 3]
if ranks.rank == 0:
    try:
        hasty.sum(found)
    except DeviceError as error:
        print(error, flush=True)
        assert not ranks.ended_together()  # some seconds, in which mpiexec passes on the words
        ranks.abort(3)
time.sleep(600)
"""
    done = subprocess.run(
        [MPIEXEC, "-n", "2", sys.executable, "-c", code], text=True, timeout=120, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode != 0
    assert "rank 0 of 2 has waited 0 seconds for the others" in done.stdout
