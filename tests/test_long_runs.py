"""Runs of weeks: no room for the log, a picture that cannot be drawn, lost terminals."""

from __future__ import annotations

import errno
import io
import json
import os
import signal

import numba
import pytest
import training_cases as small
from numba.core.registry import cpu_target

from tinyresnext import load, train
from tinyresnext.errors import UsageError
from tinyresnext.ops import backend, cpu
from tinyresnext.system import writing
from tinyresnext.training import run as training_run
from tinyresnext.training.record import begin
from tinyresnext.training.record import log as training_log
from tinyresnext.training.record import state as states

OPTIONS = {"preprocess": small.PREPROCESS, "device": "reference"}
GIVEN = (small.SPEC, small.pictures(), small.RECIPE)


class Full(io.BufferedRandom):
    """A file with room for some lines; what has no room stays in the buffer, and fails again."""

    lines = 0

    def flush(self):
        if self.lines == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines -= 1
        super().flush()


@pytest.fixture
def room_for(monkeypatch):
    """Return a function that lets a log have room for so many lines only."""

    def limit(lines):
        def opened(path):
            file = Full(writing.opened(path).detach())
            file.lines = lines
            return file

        monkeypatch.setattr(training_log, "opened", opened)

    return limit


@pytest.mark.parametrize(
    ("log_every", "lines", "place"), [(1, 2, (0, 3)), (0, 1, (2, 0)), (0, 0, (1, 0))]
)
def test_a_log_without_room_costs_no_step(tmp_path, room_for, capsys, log_every, lines, place):
    """The error says what to do, and is not replaced by that of closing the file."""
    options = OPTIONS | {"validation": small.pictures(20, seed=1), "log_every": log_every}
    train(*GIVEN, tmp_path / "whole", **options)
    room_for(lines)
    with pytest.raises(UsageError, match="cannot be written: No space left on device; make"):
        train(*GIVEN, tmp_path / "cut", **options)
    assert "the run ends after step" in capsys.readouterr().err
    state = states.read(tmp_path / "cut" / "state.npz")
    assert (state.epoch, state.step) == place
    room_for(-1)
    train(*GIVEN, tmp_path / "cut", **options, resume=True)
    ends = [states.read(tmp_path / name / "state.npz") for name in ("whole", "cut")]
    assert ends[0].values.tobytes() == ends[1].values.tobytes()
    first, second = ((one.top1, one.best, one.waited) for one in ends)
    assert first == second  # no validation was counted twice
    for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines():
        json.loads(line)


def test_no_room_for_the_state_either(tmp_path, room_for, monkeypatch):
    """The error of the log says what to do; the state is that of the last epoch."""
    room_for(1)
    write = states.write

    def full(path, state):
        if state.epoch == 2:
            raise UsageError(f"cannot write {path}: No space left on device")
        write(path, state)

    monkeypatch.setattr(states, "write", full)
    with pytest.raises(UsageError, match=r"the log .* cannot be written: .*; make room and resume"):
        train(*GIVEN, tmp_path / "run", **OPTIONS)
    assert states.read(tmp_path / "run" / "state.npz").epoch == 1


@pytest.fixture
def spoilt(monkeypatch):
    """Let somebody move the log, and put other things in the place of files, in the first epoch."""
    monkeypatch.setattr(training_run, "DRAWN_EVERY", -1.0)
    real, calls = training_run.Run.step, []

    def step(self, *given):
        if not calls:
            calls.append(1)
            os.rename(self.folder.log, self.folder.path / "log.jsonl.1")
            os.symlink("/nowhere", self.folder.curve)
            self.folder.stopped.mkdir()
        return real(self, *given)

    monkeypatch.setattr(training_run.Run, "step", step)


def test_a_picture_that_cannot_be_drawn_ends_no_run(tmp_path, spoilt, capsys):
    """It is tried again at the end only, so a run of many epochs does not say it at each."""
    made = train(*GIVEN, tmp_path / "run", **OPTIONS)
    err = capsys.readouterr().err
    assert err.count("warning: the curve is not drawn: ") == 2
    assert "log.jsonl' cannot be read: No such file or directory" in err
    stored = load(tmp_path / "run" / "model.h5", "reference")
    assert stored.params["fc.weight"].tobytes() == made.params["fc.weight"].tobytes()
    assert states.read(tmp_path / "run" / "state.npz").epoch == small.RECIPE.epochs


def test_a_stop_says_how_to_go_on_whatever_cannot_be_written(tmp_path, spoilt, monkeypatch, capsys):
    small.interrupt(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(*GIVEN, tmp_path / "run", **OPTIONS)
    said, err = str(stopped.value), capsys.readouterr().err
    assert said.startswith("stopped after step 2 of 4 in epoch 2 of 3; the state is in ")
    assert "state.npz, and this goes on from there: " in said
    assert "warning: there is no model of what was learnt so far: cannot write" in err
    assert "warning: the curve is not drawn: " in err


def test_the_model_of_a_stop_comes_before_the_curve(tmp_path, monkeypatch):
    """Whatever drawing raises, as an error of a library that nobody has seen before."""
    small.interrupt(monkeypatch, 6)
    drawn = []

    def fails(*given):
        if drawn:
            raise ZeroDivisionError
        return drawn.append(given) is None  # the end of the first epoch

    monkeypatch.setattr(training_run, "DRAWN_EVERY", -1.0)
    monkeypatch.setattr(training_run.curve, "write", fails)
    with pytest.raises(ZeroDivisionError):
        train(*GIVEN, tmp_path / "run", **OPTIONS)
    stopped = load(tmp_path / "run" / "stopped.h5", "reference")
    assert stopped.provenance["stopped"] == "after step 2 of 4 in epoch 2 of 3"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no terminals to lose")
@pytest.mark.parametrize("first", ["SIGHUP", "SIGINT"])
def test_a_terminal_that_is_lost_stops_a_run(capsys, first):
    """A shell and the system both send the signal, so the second does not end the run at once."""
    before = signal.signal(signal.SIGHUP, lambda *given: pytest.fail("it would have been ended"))
    own = signal.getsignal(signal.SIGHUP)
    try:
        with training_log.Stop() as stop:
            signal.raise_signal(getattr(signal, first))
            assert stop.asked
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is own
        said = "a SIGTERM ends" if first == "SIGHUP" else "a second Ctrl-C ends"
        assert said in capsys.readouterr().err
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
        with training_log.Stop() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_kind_of_processor_is_said_once(tmp_path, monkeypatch, capsys):
    real = begin.computing
    with monkeypatch.context() as patched:
        small.interrupt(patched, 2)
        with pytest.raises(KeyboardInterrupt):
            train(*GIVEN, tmp_path, **OPTIONS)
    with monkeypatch.context() as patched:
        small.interrupt(patched, 2)
        patched.setattr(begin, "computing", lambda kind: f"skylake 12345678, {real(kind)}")
        capsys.readouterr()
        for said in (1, 0):
            with pytest.raises(KeyboardInterrupt):
                train(*GIVEN, tmp_path, **OPTIONS, resume=True)
            err = capsys.readouterr().err
            assert err.count(", skylake 12345678, NumPy ") == said
            assert err.count("some bits may differ") == said
            small.interrupt(patched, 2)


def test_the_kind_of_processor_is_that_of_the_kernels(monkeypatch):
    before = cpu.kind()
    assert before == backend("cpu", "bfloat16").kind()
    assert before.endswith(f", Numba {numba.__version__}")
    assert begin.computing(before).startswith(f"{before}, NumPy ")
    assert backend("reference").kind() == ""
    assert begin.computing("").startswith("NumPy ")
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    codegen = type(cpu_target.target_context.codegen())
    monkeypatch.setattr(codegen, "magic_tuple", lambda self: (triple, name, f"{features},+more"))
    assert cpu.kind() != before
    assert cpu.kind().split()[0] == before.split()[0] == name
