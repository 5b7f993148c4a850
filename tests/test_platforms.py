"""What Windows, macOS and mounted folders do, imitated here in a few lines."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from child import child

import tinyresnext as tr
from tinyresnext.cli.output.tables import print_json, table
from tinyresnext.cli.runs import images
from tinyresnext.errors import UsageError
from tinyresnext.explanation.explain import class_number
from tinyresnext.inference.many.features import save_features
from tinyresnext.inference.many.rows.forms import json_form
from tinyresnext.inference.many.rows.journal import journal
from tinyresnext.inference.scores.classes import match_classes
from tinyresnext.system.words import as_typed
from tinyresnext.system.writing import replacing

NAME = "ä é \U0001f431 \udce9 \x1b"


def windows(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "utf_8", "utf-16"])
def test_json_is_json_in_every_encoding(monkeypatch, encoding):
    """As `cli.main` sets the streams: what an encoding lacks is escaped as Python does it."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding, errors="backslashreplace", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    print_json({"path": NAME})
    line = raw.getvalue().decode("utf-16" if encoding == "utf-16" else "utf-8")
    assert json.loads(line) == {"path": NAME}
    assert ("é" in line) == encoding.startswith("utf") * (encoding != "utf-16")


def test_a_table_on_standard_output_of_windows(monkeypatch, tmp_path):
    """The stream puts a carriage return before each line feed."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "utf-8", newline="\r\n"))
    windows(monkeypatch)
    with table("-") as writer:
        writer.writerow(["a", "two\nlines"])
    sys.stdout.flush()
    assert raw.getvalue() == b'a,"two\r\nlines"\r\n'
    with table(str(tmp_path / "t.csv")) as writer:
        writer.writerow(["a", "two\nlines"])
    assert (tmp_path / "t.csv").read_bytes() == b'a,"two\nlines"\r\n'


@pytest.mark.skipif(sys.platform == "win32", reason="locks of Unix")
def test_a_lock_that_shuts_out_who_holds_it(monkeypatch, tmp_path):
    """In a folder that is mounted by SMB, another descriptor of the file cannot be written to."""
    import fcntl

    held = set()

    def flock(file, how):
        which = os.fstat(file if isinstance(file, int) else file.fileno()).st_ino
        (held.discard if how == fcntl.LOCK_UN else held.add)(which)

    def write(handle, data):
        if os.fstat(handle).st_ino in held:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(handle, data)

    real = os.write
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(os, "write", write)
    with replacing(tmp_path / "t") as first:
        assert not held
        with replacing(tmp_path / "t") as second:
            assert first.exists(), "nobody can tell that it is left over"
            second.write_bytes(b"second")
        first.write_bytes(b"first")
    assert (tmp_path / "t").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_a_file_that_another_program_reads_on_windows(monkeypatch, tmp_path):
    """It cannot be replaced until that program has closed it."""
    replace, tries, pauses = os.replace, [], []

    def open_for_a_while(source, target):
        tries.append(target)
        if len(tries) % 100 < 3:
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", open_for_a_while)
    monkeypatch.setattr(time, "sleep", pauses.append)
    (file := tmp_path / "t").write_bytes(b"old")
    with pytest.raises(UsageError, match="cannot write"), replacing(file):
        pass  # elsewhere the error has another reason
    assert (len(tries), pauses, file.read_bytes()) == (1, [], b"old")
    windows(monkeypatch)
    with replacing(file) as temporary:
        temporary.write_bytes(b"new")
    assert (len(tries), len(pauses), file.read_bytes()) == (3, 1, b"new")

    def open_for_ever(source, target):
        raise PermissionError(errno.EACCES, "Access is denied")

    monkeypatch.setattr(os, "replace", open_for_ever)
    with pytest.raises(UsageError, match="Access is denied"), replacing(file):
        pass
    assert sum(pauses) < 10
    assert [path.name for path in tmp_path.iterdir()] == ["t"]


def test_what_killed_processes_left_on_windows(monkeypatch, tmp_path):
    """A file that has just been closed is about to get its name."""
    with replacing(tmp_path / "t") as temporary:
        start = temporary.name[:9]
    for name, age in (("0" * 8, 3600), ("1" * 8, 1)):
        (tmp_path / f"{start}{name}.tmp").touch()
        os.utime(tmp_path / f"{start}{name}.tmp", (time.time() - age,) * 2)
    windows(monkeypatch)
    with replacing(tmp_path / "t"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"t", f"{start}{'1' * 8}.tmp"}


def files_of_windows(monkeypatch):
    """Refuse to remove a file that is open, and to open one that is locked."""

    def unless_open(call, ending):
        def called(path, *given, **more):
            if os.fspath(path).endswith(ending):
                handles = [f"/proc/self/fd/{one}" for one in os.listdir("/proc/self/fd")]
                if os.path.realpath(path) in map(os.path.realpath, handles):
                    raise PermissionError(errno.EACCES, "Access is denied", path)
            return call(path, *given, **more)

        return called

    locks = SimpleNamespace(LK_NBLCK=2, locking=lambda handle, how, count: None)
    monkeypatch.setitem(sys.modules, "msvcrt", locks)
    monkeypatch.setattr(os, "unlink", unless_open(os.unlink, ""))
    monkeypatch.setattr(os, "open", unless_open(os.open, ".part"))
    windows(monkeypatch)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which files are open")
def test_a_refusal_leaves_no_part_on_windows(monkeypatch, tmp_path):
    """An empty one would make the file not whole, so that `--resume` could never succeed."""
    files_of_windows(monkeypatch)
    (file := tmp_path / "r.jsonl").write_bytes(b"of another run")
    with pytest.raises(UsageError, match="exists by now"):
        journal(str(file), {}, json_form(), False).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux says which files are open")
@pytest.mark.parametrize("resume", [False, True])
def test_features_on_windows(monkeypatch, tmp_path, resume):
    """A file that is open is not removed there, and one that is locked not opened once more."""

    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    files_of_windows(monkeypatch)
    image = Path(__file__).parent / "data" / "chelsea.jpg"
    file = tmp_path / "f.h5"
    assert list(save_features(model, [image], file, resume=resume)) == [(str(image), None)]
    stopped = save_features(model, [image, image], tmp_path / "g.h5", batch=1)
    next(stopped)
    stopped.close()  # nothing is left of such a run
    assert [path.name for path in tmp_path.iterdir()] == ["f.h5"]


def test_the_emulator_is_imported_where_no_fiber_runs():
    """Windows has no SIGBUS."""
    code = """
import signal, sys
del signal.SIGBUS
from tinyresnext.emulator.fibers import FiberMachine, stops
sys.platform = "win32"
try:
    FiberMachine()
except Exception as error:
    print(type(error).__name__, error)"""
    done = child(code)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("DeviceError the fibers of the emulator run on Linux on x86-64")


ONE, OTHER = "\u00c4pfel", "A\u0308pfel"  # the accent in the letter, and behind it


def test_classes_whose_accents_are_stored_otherwise():
    assert match_classes([ONE, "x"], ["x", OTHER]) == (1, 0)
    assert match_classes([ONE, OTHER], [OTHER]) == (1,), "what is the same comes first"
    assert class_number([ONE, "x"], OTHER.lower()) == 0
    with pytest.raises(UsageError, match="two classes of the data set match the same label"):
        match_classes([ONE, "x"], [ONE, OTHER])


@pytest.mark.skipif(sys.getfilesystemencoding() != "utf-8", reason="names in UTF-8")
@pytest.mark.skipif(sys.platform == "win32", reason="names are bytes on Unix")
def test_names_that_are_no_text_on_standard_input(monkeypatch):
    """As in a list, where standard input has the encoding of names; in another it must be text."""

    def names(data, encoding):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding))
        return list(images._names_on_stdin())

    assert names(b"caf\xe9.png\nd\xc3\xa9.png\n", "UTF-8") == ["caf\udce9.png", "d\u00e9.png"]
    assert names(b"caf\xe9.png\n", "latin-1") == ["caf\u00e9.png"]
    wrong = (b"caf\xe9", "ascii"), (b"caf\xe9\0", "utf-8"), (b"\xff\xfea\xd8", "utf-8")
    for data, encoding in wrong:
        with pytest.raises(UsageError, match="standard input is not text"):
            names(data, encoding)


def test_a_command_for_the_shell_of_the_system(monkeypatch):
    words = ["tinyresnext", "train", "--resume", "my run"]
    assert as_typed(words) == "tinyresnext train --resume 'my run'"
    windows(monkeypatch)
    assert as_typed(words) == 'tinyresnext train --resume "my run"'


@pytest.mark.parametrize("other", ["T.CSV", "d/../t.csv"])
def test_two_results_whose_names_differ_in_capital_letters(run, tmp_path, other):
    """Neither is there yet, and on Windows and macOS the second would replace the first."""
    (tmp_path / "d").mkdir()
    code, _, err = run("evaluate", "d", "--csv", "t.csv", "--results", other)
    assert (code, "is to have two results" in err) == (2, True)
    code, _, err = run("evaluate", "d", "--csv", "t.csv", "--results", "d/T.csv")
    assert "two results" not in err
