"""What the user sees of compiling: the command `cache`, and a word when it takes long."""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from types import SimpleNamespace

import numba
import pytest
from cache_use import run, stored, times, use

from tinyresnext.bench import warm
from tinyresnext.cli import main as cli
from tinyresnext.cli.output import progress
from tinyresnext.network.plan.quantised import covered
from tinyresnext.network.resnext import parameters
from tinyresnext.network.rewrite import for_inference
from tinyresnext.network.spec import VARIANTS
from tinyresnext.network.tape import stand_in
from tinyresnext.network.trace import trace
from tinyresnext.ops.checks import pair
from tinyresnext.ops.cpu.conv import forward
from tinyresnext.ops.cpu.conv.integer import narrow_tile
from tinyresnext.ops.cpu.conv.narrow import tile
from tinyresnext.ops.cpu.conv.wide import panels
from tinyresnext.ops.cpu.runtime.compiling.watch import when_compiling
from tinyresnext.ops.cpu.runtime.simd import Machine

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def test_commands(home, capsys, monkeypatch):
    asked = []

    def warmed(ops, names, *, rounds):
        asked.append((names, rounds))
        use(times(3))

    monkeypatch.setattr(warm, "warm", warmed)
    assert cli.main(["cache", "warm", "resnext50_*"]) == 0
    assert "resnext50_32x4d" in asked[0][0]
    assert "resnet50" not in asked[0][0]
    assert cli.main(["cache", "warm", "resnext50_32x4d", "--precision", "int8"]) == 0
    assert asked[1] == (["resnext50_32x4d"], True)
    assert not asked[0][1]
    assert "in use" in capsys.readouterr().out
    assert cli.main(["cache", "info"]) == 0
    assert "  1 kernels, " in capsys.readouterr().out
    assert cli.main(["cache", "clear", "resnext50_*"]) == 2
    for words in (["--precision", "int8"], ["--device", "reference"]):
        assert cli.main(["cache", "clear", *words]) == 2
        assert cli.main(["cache", "info", *words]) == 2
    assert "leave out 'resnext50_*'" in capsys.readouterr().err
    for action in ("info", "warm"):
        assert cli.main(["cache", action, "--others"]) == 2
    assert cli.main(["cache", "clear", "--others"]) == 0
    assert len(stored(home)) == 1
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed ")
    assert stored(home) == []
    assert cli.main(["cache", "warm", "nothing"]) == 2


def integer_kernels(spec, ways):
    """Return what the kernels of a quantised network are made for."""
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    calls = for_inference(trace(params, spec, (1, 256, 256, spec.channels)).calls)
    made = set()
    for call in filter(covered, calls):
        groups, shape = call.attrs.get("groups", 1), call.args[1].shape
        narrow = narrow_tile.narrow_of.__wrapped__(shape, groups, ways)
        made.add(narrow or panels.divided(shape[0] // groups)[2:])
    return made


@pytest.mark.parametrize(("lanes", "ways"), [(4, 2), (8, 2), (16, 2), (16, 4)])
def test_small_networks_need_the_kernels_of_whole_ones(lanes, ways, monkeypatch):
    """In 8 bits a kernel depends on whether there are several groups, too."""
    for module in (narrow_tile, panels):
        monkeypatch.setattr(module, "machine", lambda: Machine(lanes, 16, 3))
    for name in ("resnext50_32x4d", "resnext50_8x14d", "resnext20_8x32d", "resnext20_16x16d"):
        [small] = warm._small([VARIANTS[name]])
        assert integer_kernels(small, ways) == integer_kernels(VARIANTS[name], ways)


def kernels(spec):
    """Return what the kernels of a network's convolutions are made for, in images of its size."""
    side = 32 if spec.small else 224
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    made = set()
    for call in for_inference(trace(params, spec, (1, side, side, spec.channels)).calls):
        if call.op == "conv2d":
            groups, (c_out, inputs, *size) = call.attrs.get("groups", 1), call.args[1].shape
            way, width = forward.way_of((c_out, inputs, *size), groups), c_out // groups
            if way is forward.narrow:
                line, stride = call.out.shape[2], pair("stride", call.attrs.get("stride", 1), 1)
                made.add((inputs, width, size[1], stride[1], tile.pixels_of(line)))
            elif way is forward.wide:
                made.add(panels.divided(width)[2:])
    return made


@pytest.mark.parametrize("machine", [Machine(4, 16, 3), Machine(8, 16, 3), Machine(16, 32, 7)])
def test_small_networks_need_the_kernels_of_whole_ones_in_float32(machine, monkeypatch):
    for module in (forward.narrow, forward.wide, panels, tile):
        monkeypatch.setattr(module, "machine", lambda: machine)
    for name, spec in VARIANTS.items():
        [small] = warm._small([spec])
        assert kernels(small) == kernels(spec), name


def test_commands_without_a_place(monkeypatch, capsys):
    monkeypatch.setenv("TINYRESNEXT_HOME", os.devnull)
    assert cli.main(["cache", "info"]) == 0
    assert "nothing is kept" in capsys.readouterr().err
    assert cli.main(["cache", "warm"]) == 2
    assert cli.main(["cache", "clear"]) == 0


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("seconds", "terminal", "problem", "words"),
    [
        (0.6, True, None, 1),
        (0.6, False, None, 0),
        (0.01, True, None, 0),
        (0.6, True, "a full disk", 1),
        (0.6, False, "a full disk", 1),
    ],
)
def test_a_word_when_compiling_takes_long(monkeypatch, seconds, terminal, problem, words):
    from numba.core.compiler_lock import global_compiler_lock

    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    class Ops:
        @staticmethod
        def when_compiling(tell):
            return when_compiling(tell, after=1.0)

        @staticmethod
        def described():
            return "the processor"

        @staticmethod
        def kernels_problem():
            return problem

    with progress.announce_compiling(Ops):
        for _ in range(3):  # no single kernel takes a second, and all together do
            with global_compiler_lock, global_compiler_lock:
                time.sleep(seconds)
            time.sleep(0.05)
    assert stream.getvalue().count("compiling kernels") == stream.getvalue().count("\n") == words
    assert (" functions compiled in 1 s" in stream.getvalue()) == bool(words and terminal)
    assert ("as every run will, since they cannot be kept: a full disk" in stream.getvalue()) == (
        problem is not None
    )
    assert ("once; later runs" in stream.getvalue()) == (bool(words) and problem is None)


def test_what_is_compiled_is_counted_and_named_each_time(monkeypatch):
    from numba.core import event
    from numba.core.compiler_lock import global_compiler_lock

    def compiled(module, name):
        function = SimpleNamespace(__module__=module, __name__=name)
        data = {"dispatcher": SimpleNamespace(py_func=function)}
        return event.trigger_event("numba:compile", data=data)

    told, heard = [], threading.Event()

    def tell(now):
        told.append(now)
        if now is not None and now.name.startswith("conv.gemm"):  # not before a function begins
            heard.set()

    with when_compiling(tell, after=0.0):
        for number in range(2):
            with global_compiler_lock, compiled("tinyresnext.ops.cpu.head", "walk"):
                with compiled("numba.np.arrayobj", "impl"):
                    pass
                with compiled("tinyresnext.ops.cpu.conv.gemm", f"tile{number}"):
                    assert heard.wait(10)
            heard.clear()
    names = [now and (now.name, now.done) for now in told]
    assert ("conv.gemm.tile0", 0) in names  # not Numba's own, and the inner one
    assert ("conv.gemm.tile1", 2) in names  # told of again, with what is done by then
    assert names.count(None) == 2
    assert names[-1] is None  # nothing is said afterwards
    assert all(now is None or now.seconds >= 0 for now in told)


def test_waiting_is_not_compiling(monkeypatch):
    from numba.core.compiler_lock import global_compiler_lock

    told = []
    with when_compiling(told.append, after=0.2):
        with global_compiler_lock:
            time.sleep(0.01)
        time.sleep(0.4)
    assert told == []


def test_the_library_says_nothing(tmp_path):
    done = run(
        "import numpy as np; from tinyresnext.ops import cpu; cpu.relu(np.zeros(3, np.float32))",
        TINYRESNEXT_HOME=str(tmp_path),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_compiled_or_looked_for_at_import(tmp_path):
    code = """
        import os, sys
        touched, home = [], os.environ["TINYRESNEXT_HOME"]
        def opened(event, args):
            if event == "open" and home in str(args[0]):
                touched.append(args[0])
        sys.addaudithook(opened)
        import tinyresnext.ops.cpu as cpu
        from tinyresnext.ops.cpu.conv import dense
        from tinyresnext.ops.cpu.runtime import cache, launch
        compiled = "c_function" in vars(dense.blocks)
        print(touched, compiled, launch._POOLS, cache.identity.cache_info().currsize)
    """
    assert run(code, TINYRESNEXT_HOME=str(tmp_path / "home")).stdout == "[] False {} 0\n"


def test_without_compiling():
    code = """
        import numpy as np
        from tinyresnext.ops import cpu
        from tinyresnext.ops.cpu import elementwise
        from tinyresnext.ops.cpu.runtime import launch
        from tinyresnext.ops.cpu.runtime.kernel import c_kernel
        with cpu.on_threads(cpu.thread_count(1)):
            y, made = cpu.relu(np.array([-1, 2], np.float32)), c_kernel("void()")(print)
            print(y, type(elementwise._relu).__name__, type(made).__name__)
        print(launch._POOLS)
    """
    done = run(code, NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout) == (
        0,
        "[0. 2.] function builtin_function_or_method\n{}\n",
    ), done.stderr
