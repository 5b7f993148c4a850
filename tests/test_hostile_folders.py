"""Folders with links, pipes and leftovers in them: nothing outside is touched, nothing blocks."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import training_cases as small
from child import ENVIRONMENT

from tinyresnext.cli.main import main
from tinyresnext.cli.runs import images as typed
from tinyresnext.cli.weights import labels
from tinyresnext.errors import UsageError
from tinyresnext.hub import part
from tinyresnext.ops.cpu.runtime import cache
from tinyresnext.system.writing import check_writable, locked, opened, present, replacing
from tinyresnext.training.record import curve
from tinyresnext.training.record import state as training_state
from tinyresnext.training.record.folder import TrainingFolder
from tinyresnext.training.record.log import Log
from tinyresnext.training.weights import size

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
FILES = ("log.jsonl", "best.h5", "model.h5", "stopped.h5", "state.npz", "curve.png", ".lock")
TRAPS = ("a link", "a dangling link", "a pipe", "a folder")


def trap(path: Path, kind: str, outside: Path) -> None:
    """Put something that is no regular file in the place of one."""
    if kind == "a link":
        path.symlink_to(outside / "victim")
    elif kind == "a dangling link":
        path.symlink_to(outside / "new")
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        path.mkdir()


@pytest.fixture
def outside(tmp_path):
    """A folder that must stay as it is; it is compared in the end."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "victim").write_bytes(b"precious\n" * 100)
    yield folder
    assert [path.name for path in folder.iterdir()] == ["victim"]
    assert (folder / "victim").read_bytes() == b"precious\n" * 100


@pytest.fixture(scope="module")
def state():
    return training_state.new(small.SPEC, small.RECIPE, np.ones(size(small.SPEC), np.float32))


@pytest.mark.parametrize("kind", TRAPS)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_folder_with_something_else_in_it(tmp_path, outside, state, name, kind, resume):
    folder = TrainingFolder(tmp_path / "run")
    folder.path.mkdir()
    if resume and name != "state.npz":
        training_state.write(folder.state, state)
    trap(folder.path / name, kind, outside)
    with pytest.raises(UsageError, match="cannot write"), folder.run(state, resume):
        pytest.fail("it has begun")


def test_a_trial_that_another_process_takes_for_left_over(tmp_path, monkeypatch):
    """Two processes write one file: `replacing` removes what no process holds."""
    close = os.close

    def close_late(handle):
        close(handle)
        with replacing(tmp_path / "it"):
            assert len(list(tmp_path.iterdir())) == 1  # the trial is gone

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", lambda handle: (patched.undo(), close_late(handle)))
        check_writable(tmp_path / "it")
    assert list(tmp_path.iterdir()) == [tmp_path / "it"]


@pytest.mark.parametrize("kind", TRAPS)
def test_whatever_is_written_is_a_file_of_our_own(tmp_path, outside, kind):
    path = tmp_path / "it"
    trap(path, kind, outside)
    for write in (check_writable, present, Log, lambda path: opened(path, new=True)):
        with pytest.raises(UsageError, match="cannot write"):
            write(path)
    for block in (replacing(path), locked(path)):
        with pytest.raises(UsageError, match="cannot write"), block:
            pytest.fail("it was opened")
    with pytest.raises(UsageError, match="cannot write"):
        part.begin(path, "https://a.b", {})
    if kind == "a pipe":
        assert not curve.write(tmp_path / "c.png", path)


def test_a_second_name_of_a_file_is_not_written_to(tmp_path, outside):
    os.link(outside / "victim", tmp_path / "log.jsonl")
    with pytest.raises(UsageError, match="a second name"):
        Log(tmp_path / "log.jsonl")
    with replacing(tmp_path / "log.jsonl") as temporary:  # the name only
        temporary.write_text("new")


def test_the_length_of_a_log_is_not_believed(tmp_path, state):
    """A state may say that the log had 2^40 bytes."""
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n{"b": 2}\n{"c"')
    log = Log(path, 1 << 40)
    log.line(d=4)
    log.close()
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"a": 1},
        {"b": 2},
        {"d": 4},
    ]
    lines = b'{"x": 1}\n' + b"y" * (3 << 20)
    path.write_bytes(lines)
    Log(path, len(lines)).close()
    assert path.read_bytes() == lines[:9]
    training_state.write(tmp_path / "state.npz", replace(state, log_bytes=1 << 40))
    assert training_state.read(tmp_path / "state.npz").log_bytes == 1 << 40


@pytest.mark.parametrize("kind", TRAPS)
@pytest.mark.parametrize(
    "command",
    [
        ["convert", "SRC.npz", "DST.h5", "--force"],
        ["export", "DST.pth", "--force"],
        ["export", "DST.safetensors", "--force"],
        ["export", "DST.npz", "--force"],
        ["verify", "--make-reference", "DST.npz", "--force"],
        ["evaluate", "DATA", "--csv", "DST.csv", "--force"],
        ["evaluate", "DATA", "--picture", "DST.png", "--force"],
        ["classify", "DATA", "--csv", "DST.csv", "--force"],
    ],
    ids=lambda words: " ".join(words[:3]),
)
def test_commands_write_no_link(tmp_path, outside, command, kind, capsys, monkeypatch):
    """They say so before any work, which the sources here would not stand."""
    monkeypatch.chdir(tmp_path)
    name = next(word for word in command if word.startswith("DST"))
    trap(tmp_path / name, kind, outside)
    (tmp_path / "DATA").mkdir()
    (tmp_path / "SRC.npz").write_bytes(b"")
    assert main(command) == 2
    assert "cannot write" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("command", ["classify", "evaluate", "convert", "export"])
def test_a_place_that_cannot_be_written_is_named_before_the_work(tmp_path, command, capsys):
    missing = str(tmp_path / "missing" / "x")
    words = {
        "classify": ["classify", "nothing.jpg", "--csv", f"{missing}.csv"],
        "evaluate": ["evaluate", "nothing", "--picture", f"{missing}.png"],
        "convert": ["convert", "nothing.pth", f"{missing}.h5"],
        "export": ["export", "nothing.h5", f"{missing}.pth"],
    }[command]
    main(words)
    assert "cannot write" in capsys.readouterr().err or command == "export"


def test_no_name_at_all_and_one_that_is_too_long(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="it names no file; give the name of a file"):
        check_writable("")
    monkeypatch.setenv("TINYRESNEXT_HOME", "a" * 5000)
    assert main(["models", "cifar10"]) == 0
    assert "cifar10" in capsys.readouterr().out


def test_a_full_disk_leaves_no_empty_table(tmp_path):
    """A file size limit stands for the disk."""
    target = tmp_path / "t.csv"
    target.write_text("old")
    code = (
        "import resource, signal, sys; from tinyresnext.cli.output.tables import table\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "with table(sys.argv[1]) as writer: writer.writerow(['x' * 100])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, target], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert "UsageError: cannot write" in done.stderr
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


KILLED = """
import os, signal, sys
from tinyresnext.system.writing import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "it.h5"
    other = tmp_path / ".00000000abcdef01.tmp"
    other.write_text("of another file")
    subprocess.run([sys.executable, "-c", KILLED, path, "kill"], env=ENVIRONMENT, check=False)
    assert len(list(tmp_path.glob(".*.tmp"))) == 2
    alive = subprocess.Popen(
        [sys.executable, "-c", KILLED, path, "wait"],
        env=ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert alive.stdout.readline() == b"writing\n"
    with replacing(path) as temporary:
        left = {one.name for one in tmp_path.glob(".*.tmp")} - {temporary.name, other.name}
        assert len(left) == 1, "what another process is writing stays"
        temporary.write_text("whole")
    alive.communicate(b"")
    assert path.read_text() == "half", "the other process was the last"
    assert [one.name for one in tmp_path.glob(".*.tmp")] == [other.name]


def test_two_threads_that_write_one_name_do_not_remove_each_others_files(tmp_path):
    def write(text):
        with replacing(tmp_path / "it") as temporary:
            temporary.write_text(text)

    threads = [threading.Thread(target=write, args=(f"text {i}",)) for i in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (tmp_path / "it").read_text().startswith("text ")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_kernels_are_not_read_from_links_or_pipes(tmp_path, monkeypatch, outside):
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "home"))
    assert cache.problem() is None
    assert not (tmp_path / "home").exists(), "asking makes no folder"
    cache.write("f", "x", b"code")
    assert cache.read("f", "x") == b"code"
    kept = cache._path(cache.folder(), "f", "x")
    for kind in TRAPS[:3]:
        kept.unlink()
        trap(kept, kind, outside)
        assert cache.read("f", "x") is None
        cache.write("f", "x", b"new")
        assert cache.read("f", "x") == b"new"
    shutil.rmtree(tmp_path / "home" / "kernels")
    (tmp_path / "home" / "kernels").symlink_to(outside)
    assert "kernels is a link" in cache.problem()


def test_images_in_folders_without_end(tmp_path, capsys):
    """Python's own walk of a tree ends in a RecursionError."""
    handle = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    assert main(["classify", str(tmp_path / "d")]) == 2
    assert "more than 32 levels" in capsys.readouterr().err
    while (tmp_path / "d").exists():  # pytest cannot remove it
        top, path = tmp_path / "d", tmp_path / "d" / "/".join(["d"] * 200)
        if path.exists():
            path.rename(tmp_path / "e")
        shutil.rmtree(top)
        if (tmp_path / "e").exists():
            (tmp_path / "e").rename(top)


def test_lists_of_names_without_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(labels, "MOST_CLASSES", 10)
    (tmp_path / "labels.txt").write_text("\n" * 11)
    words = [
        "convert",
        "none.pth",
        str(tmp_path / "a.h5"),
        "--labels",
        str(tmp_path / "labels.txt"),
    ]
    assert main(words) == 2
    assert "10 lines" in capsys.readouterr().err
    monkeypatch.setattr(typed, "MOST_NAMES", 10)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n" * 11))
    assert main(["classify", "-"]) == 2
    assert "more than 10 bytes of names" in capsys.readouterr().err
