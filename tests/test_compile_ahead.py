"""Kernels that other processes compile: each once, and whatever becomes of these processes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from importlib import import_module
from types import SimpleNamespace

import numba
import pytest
from cache_use import run, stored

from tinyresnext.ops import cpu
from tinyresnext.ops.cpu.conv.narrow.outer import lines_kernel
from tinyresnext.ops.cpu.conv.narrow.strips import strips_kernel as narrow_kernel
from tinyresnext.ops.cpu.conv.wide.outer import sums_kernel
from tinyresnext.ops.cpu.conv.wide.strips import strips_kernel as wide_kernel
from tinyresnext.ops.cpu.runtime import cache
from tinyresnext.ops.cpu.runtime.compiling import ahead, watch
from tinyresnext.ops.cpu.runtime.tasks import Kernel
from tinyresnext.system.writing import locked

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


class Stub:
    """A kernel that notes who compiles it, and compiles nothing."""

    function = SimpleNamespace(__module__=f"{watch.ROOM}head")

    def __init__(self, place, log, kept=False):
        self.place, self._log, self._kept = place, log, kept

    def kept(self):
        return self._kept

    @property
    def c_function(self):
        self._log.append(self.place)


def helped_by(monkeypatch, code):
    """Let helpers run that code, which sees what they are given on standard input."""
    started = []

    def start():
        command = [sys.executable, "-c", textwrap.dedent(code)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, text=True, **pipes))
        return started[-1]

    monkeypatch.setattr(ahead, "_started", start)
    return started


@pytest.fixture
def places():
    return [f"head kernel{number}" for number in range(6)]


def test_helpers_and_this_process_compile_each_kernel_once(home, monkeypatch, places):
    code = """
        import sys
        print("done", flush=True)
        for place in sys.stdin:
            print("said by a module that is imported", flush=True)
            print("done", flush=True)
    """
    log, helpers_began = [], threading.Event()
    started = helped_by(monkeypatch, code)
    give = ahead.Helper._give

    def given(self, process, to):
        helpers_began.set()
        log.append("helped")
        give(self, process, to)

    monkeypatch.setattr(ahead.Helper, "_give", given)
    kernels = [Stub(place, log, kept=place.endswith("5")) for place in places]
    told = []
    monkeypatch.setattr(watch, "EVERY", 0.01)
    with watch.when_compiling(told.append, after=0.0):
        ahead.compile_all([*kernels, *kernels], 2, lambda: helpers_began.wait(20))
    assert [process.returncode is not None for process in started] == [True]
    own = [place for place in log if place != "helped"]
    assert log.count("helped") == 1
    assert len(own) == len(set(own)) < len(places)
    assert places[5] not in own
    assert told[-1] is None


@pytest.mark.parametrize(
    "code",
    [
        "raise SystemExit(1)",
        "print('done', flush=True); input()",
        "print('done', flush=True); import os; os.kill(os.getpid(), 9)",
        "print('done', flush=True); import time; time.sleep(60)",
        "import time; time.sleep(60)",
        "print('what is this?')",
    ],
)
def test_a_helper_that_ends_or_hangs_is_given_up(home, monkeypatch, places, code):
    monkeypatch.setattr(ahead, "PATIENCE", 0.3)
    log = []
    started = helped_by(monkeypatch, code)
    ahead.compile_all([Stub(place, log) for place in places], 2, lambda: None)
    assert [process.poll() is not None for process in started] == [True]
    assert len(log) >= len(places) - 1
    assert not any(isinstance(thread, ahead.Helper) for thread in threading.enumerate())


def test_errors_end_the_helpers(home, monkeypatch, places):
    started = helped_by(monkeypatch, "print('done', flush=True); import time; time.sleep(60)")
    ready = threading.Event()
    monkeypatch.setattr(ahead.Helper, "_give", lambda *_: ready.set())

    def interrupted():
        ready.wait(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ahead.compile_all([Stub(place, []) for place in places], 2, interrupted)
    assert started[0].poll() is not None


READY = """
    import sys
    print("done", flush=True)
    for place in sys.stdin:
        print("done", flush=True)
"""


def test_one_process_at_a_time_has_helpers(home, monkeypatch, places):
    """Or 16 workers of a server that start together have 16 times as many as there are cores."""
    started, log = helped_by(monkeypatch, READY), []
    with locked(cache.made().parent / "helpers.lock"):  # as another process holds it
        ahead.compile_all([Stub(place, log) for place in places], 8, lambda: None)
    assert (started, log) == ([], places)
    ahead.compile_all([Stub(place, log) for place in places], 2, lambda: None)
    assert len(started) == 1
    assert (home / "kernels" / "helpers.lock").stat().st_size == 0


def test_nobody_helps_where_the_disk_is_full(home, monkeypatch, places):
    started, log = helped_by(monkeypatch, READY), []

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(ahead.os, "write", full)
        ahead.compile_all([Stub(place, log) for place in places], 8, lambda: None)
    assert (started, log) == ([], places)


@pytest.mark.parametrize("kept", [True, False])
def test_a_helper_that_cannot_keep_a_kernel_gets_no_other(home, monkeypatch, places, kept):
    log, started = [], helped_by(monkeypatch, READY)

    class Stubborn(Stub):
        asked = 0

        def kept(self):
            self.asked += 1
            return kept and self.asked > 1  # when it is compiled

    def meanwhile():
        for thread in threading.enumerate():
            if isinstance(thread, ahead.Helper):
                thread.join(20)

    ahead.compile_all([Stubborn(place, log) for place in places], 2, meanwhile)
    assert len(started) == 1
    assert log == ([] if kept else places[1:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("executable", "/opt/blender"),
        ("executable", None),
        ("executable", "C:\\\\app\\\\painter.exe"),
        ("frozen", True),
    ],
)
def test_no_other_program_is_started(home, monkeypatch, places, name, value):
    monkeypatch.setattr(sys, name, value, raising=False)
    started, log = helped_by(monkeypatch, ""), []
    ahead.compile_all([Stub(place, log) for place in places], 8, lambda: None)
    assert (started, log) == ([], places)


def test_nobody_helps_where_that_is_no_use(monkeypatch, tmp_path, places):
    started, log = helped_by(monkeypatch, ""), []
    monkeypatch.setenv("TINYRESNEXT_HOME", "/dev/null")
    ahead.compile_all([Stub(place, log) for place in places], 2, lambda: None)  # nothing is kept
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path))
    ahead.compile_all([Stub(place, log) for place in places], 1, lambda: None)  # one core
    ahead.compile_all([Stub(places[0], log)], 2, lambda: None)  # one kernel
    elsewhere = Stub(places[0], log)
    elsewhere.function = SimpleNamespace(__module__="__main__")  # a user's own kernel
    ahead.compile_all([elsewhere, Stub(places[1], log)], 2, lambda: None)
    assert (started, len(log)) == ([], 15)


def test_every_kernel_is_found_at_its_place():
    kernels = [
        narrow_kernel(4, 4, 3, 2, 7),
        wide_kernel(3, 2),
        lines_kernel(4, 3, 1),
        sums_kernel(2, 2, False),
        sums_kernel(2, 2, True),
    ]
    others = {"conv.dense", "conv.outer.floats", "conv.outer.words", "moments", "interlaced"}
    for name in set(cpu.MODULES.values()) | others:
        module = import_module(f"tinyresnext.ops.cpu.{name}")
        kernels += [value for value in vars(module).values() if isinstance(value, Kernel)]
    assert len(kernels) > 20
    for kernel in kernels:
        assert ahead.found(kernel.place) is kernel


@pytest.mark.slow
def test_a_script_is_not_run_again(home, tmp_path):
    """A script without a guard: the helpers import the package, and nothing of the script."""
    script = tmp_path / "numpy_free_script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            import numpy as np
            from tinyresnext.ops import cpu
            from tinyresnext.ops.cpu.runtime.compiling import ahead
            helped = []
            give = ahead.Helper._give
            ahead.Helper._give = lambda *all: helped.append(1) or give(*all)
            with open(sys.argv[1], "a") as file:
                print("run", file=file)
            x = np.linspace(-1, 1, 2 * 16 * 16 * 8, dtype=np.float32).reshape(2, 16, 16, 8)
            w = np.linspace(-1, 1, 8 * 8, dtype=np.float32).reshape(8, 8, 1, 1)
            a, b, c = (cpu.empty(s) for s in ((2, 16, 16, 8), (2, 8, 8, 8), (2, 8)))
            calls = [
                cpu.bind("conv2d", x, cpu.pack(w, 1), out=a),
                cpu.bind("max_pool2d", a, size=2, stride=2, out=b),
                cpu.bind("mean_pool", b, out=c),
            ]
            with cpu.on_threads(cpu.thread_count()):
                cpu.chain(calls)()
            print(len(helped), float(c.sum()))
            """
        )
    )
    lines = tmp_path / "lines"
    code = f"""
        import runpy, sys
        sys.argv = ["script", {str(lines)!r}]
        runpy.run_path({str(script)!r}, run_name="__main__")
    """
    first = run(code, NUMBA_NUM_THREADS="2")
    assert (first.returncode, first.stderr) == (0, "")
    assert lines.read_text() == "run\n"
    names = [path.name.rpartition("-")[0] for path in stored(home)]
    assert {"conv_dense_blocks", "pool_maximum__max_lines", "pool_mean__means"} <= set(names)
    assert len(names) == len(set(names))
    again = run(code, NUMBA_NUM_THREADS="2")
    assert again.stdout.split()[1] == first.stdout.split()[1]
    assert again.stdout.split()[0] == "0"
