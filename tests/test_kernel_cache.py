"""Compiled kernels on disk: used when whole, and otherwise compiled again, whatever has happened to them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import prange, types

from tinyresnext import cli, warm
from tinyresnext.ops.cpu import cache
from tinyresnext.ops.cpu import kernel as kernels
from tinyresnext.ops.cpu.kernel import kernel, when_compiling

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
X = np.arange(5, dtype=np.float32)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of its own, empty."""
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def times(factor):
    """A kernel from a factory; each call makes a new one that knows nothing yet, as in a new process."""

    @kernel(key=(factor,))
    def multiply(x):
        return x * np.float32(factor)

    return multiply


def counts(dispatcher) -> tuple[int, int]:
    """Loaded from disk, and compiled."""
    return sum(dispatcher.stats.cache_hits.values()), sum(dispatcher.stats.cache_misses.values())


def use(dispatcher, factor=3) -> tuple[int, int]:
    """Call it, check the result, and tell where it came from."""
    np.testing.assert_array_equal(dispatcher(X), X * factor)
    return counts(dispatcher)


def stored(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, beside the tests."""
    return _start(code, **environment).wait_for()


class _Process(subprocess.Popen):
    def wait_for(self):
        out, err = self.communicate(timeout=300)
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


def _start(code: str, **environment: str) -> _Process:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return _Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


# --- what it is for ---------------------------------------------------------------------------------------------------


def test_compiled_once(home):
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)
    assert len(stored(home)) == 1


def test_each_constant_and_each_type_is_its_own(home):
    assert use(times(3), 3) == use(times(4), 4) == (0, 1)
    twice = times(3)
    np.testing.assert_array_equal(twice(X.astype(np.float64)), 3.0 * X)
    assert counts(twice) == (0, 1)
    assert use(times(4), 4) == (1, 0)
    assert use(times(3), 3) == (1, 0)
    assert len(stored(home)) == 3


def test_c_functions(home):
    code = """
        import numpy as np
        from numba import types
        from tinyresnext.ops.cpu.kernel import c_kernel

        def half(x):
            return x * np.float32(0.5)

        made = c_kernel(types.float32(types.float32), key=("half",))(half)
        print(made.address > 0, made.ctypes(3.0), made.cache_hits)
    """
    assert [run(code).stdout for _ in range(2)] == ["True 1.5 0\n", "True 1.5 1\n"]


def test_parallel_kernels_that_call_others(home):
    def make():
        @kernel(fastmath={"contract"})
        def inner(x):
            return x + np.float32(1)

        @kernel(parallel=True)
        def outer(x, out):
            for i in prange(len(x)):
                out[i] = inner(x[i])

        return outer

    for expected in ((0, 1), (1, 0)):
        outer, out = make(), np.empty_like(X)
        outer(X, out)
        np.testing.assert_array_equal(out, X + 1)
        assert counts(outer) == expected


EVERYTHING = """
    import numpy as np, numba
    from numba.core.dispatcher import Dispatcher
    from tinyresnext import warm
    from tinyresnext.ops import cpu
    from tinyresnext.ops.cpu import conv, crew, gemm, grouped, head, norm, pool

    warm.warm(cpu, ["resnext50_32x4d"])
    x = np.linspace(-1, 1, 6 * 6 * 8, dtype=np.float32).reshape(1, 6, 6, 8)
    w = np.linspace(-1, 1, 8 * 9 * 4, dtype=np.float32).reshape(8, 4, 3, 3)
    total = float(cpu.conv2d(x, w, groups=2, padding=1).sum() + cpu.avg_pool2d(x, size=2, stride=2).sum())
    modules = (conv, crew, gemm, grouped, head, norm, pool)
    found = {id(d): d for module in modules for d in vars(module).values() if isinstance(d, Dispatcher)}
    made = [conv._kernel(), grouped.strips_kernel(4, 3, 1), head._kernel(), pool._kernel(pool._max_lines)]
    hits = sum(sum(d.stats.cache_hits.values()) for d in found.values())
    misses = sum(sum(d.stats.cache_misses.values()) for d in found.values())
    print(hits + sum(kernel.cache_hits for kernel in made), misses, total)
"""


def test_a_second_process_compiles_nothing(home):
    first = run(EVERYTHING).stdout.split()
    second = run(EVERYTHING).stdout.split()
    assert int(first[1]) > 10
    assert int(second[0]) >= 8
    assert int(second[1]) == 0
    assert first[2] == second[2]


SOME = """
    import numpy as np
    from tinyresnext.ops import cpu
    from tinyresnext.ops.cpu import head, norm

    total = float(cpu.softmax(cpu.relu(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))).sum())
    stats = [kernel.stats for kernel in (head._softmax, head._distribution, norm._relu)]
    print(sum(sum(s.cache_hits.values()) for s in stats), sum(sum(s.cache_misses.values()) for s in stats), total)
"""


@pytest.mark.parametrize("code", [SOME, pytest.param(EVERYTHING, marks=pytest.mark.slow)], ids=["some", "everything"])
def test_eight_processes_cold_together(home, code):
    started = [_start(code) for _ in range(8)]
    done = [process.wait_for() for process in started]
    assert {process.returncode for process in done} == {0}, [process.stderr for process in done]
    assert len({process.stdout.split()[2] for process in done}) == 1
    assert {path.suffix for path in stored(home)} == {".kernel"}  # no temporary file is left
    hits, misses, _ = run(code).stdout.split()
    assert int(hits) > 1
    assert int(misses) == 0


def test_names_do_not_repeat_between_processes(home):
    """Two processes may give the same name to different code, and a third loads both: so they count from elsewhere."""
    code = """
        from tinyresnext.ops import cpu
        from numba.core.bytecode import FunctionIdentity
        import numpy as np
        cpu.softmax(np.zeros((1, 2), np.float32))
        print(next(FunctionIdentity._unique_ids))
    """
    assert len({run(code).stdout for _ in range(2)}) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_names_do_not_repeat_after_a_fork(home):
    code = """
        import os
        from numba.core.bytecode import FunctionIdentity
        import numpy as np
        from tinyresnext.ops import cpu
        cpu.softmax(np.zeros((1, 2), np.float32))
        child = os.fork()
        from tinyresnext.ops.cpu.head import _softmax
        _softmax(np.zeros((1, 2)), np.zeros((1, 2)))
        if child:
            os.waitpid(child, 0)  # one after the other: what two print at once may be mixed up
        print(next(FunctionIdentity._unique_ids), flush=True)
        os._exit(0)
    """
    assert len(set(run(code).stdout.split())) == 2


# --- what can happen to it --------------------------------------------------------------------------------------------


def damages(content: bytes) -> dict[str, bytes]:
    """A hundred and more things that can have become of a file."""
    rng = np.random.default_rng(7)
    made = {
        "empty": b"",
        "zeros": bytes(len(content)),
        "twice": content * 2,
        "text": b"not found\n",
        "one more": content + b"\0",
    }
    made["without magic"] = content[len(cache.MAGIC) :]
    made["another version's magic"] = content.replace(b"kernel 1", b"kernel 2", 1)
    made["no payload"] = content[: len(cache.MAGIC) + 32]
    for length in [1, 20, 21, 22, 52, 53, 54, len(content) - 1, *rng.integers(55, len(content), 20)]:
        made[f"cut to {length}"] = content[:length]
    for at in [*range(0, 56, 5), *rng.integers(0, len(content), 40)]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        made[f"bit of byte {at}"] = bytes(flipped)
    for at in rng.integers(0, len(content) - 512, 20):
        made[f"hole at {at}"] = content[:at] + bytes(512) + content[at + 512 :]
    return {name: damaged for name, damaged in made.items() if damaged != content}


def test_damaged_files(home):
    use(times(3))
    (path,) = stored(home)
    whole = path.read_bytes()
    states = damages(whole)
    assert len(states) >= 100
    for name, content in states.items():
        path.write_bytes(content)
        assert use(times(3)) == (0, 1), name
        assert use(times(3)) == (1, 0), name  # and it is whole again
        assert stored(home) == [path]


def test_damage_is_seen_before_anything_is_unpickled(home, monkeypatch):
    use(times(3))
    (path,) = stored(home)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(kernels.pickle, "loads", lambda _: pytest.fail("unpickled"))
    assert use(times(3)) == (0, 1)


def test_a_whole_file_of_another_kernel(home):
    use(times(3), 3)
    (three,) = stored(home)
    use(times(4), 4)
    (four,) = set(stored(home)) - {three}
    four.replace(three)
    assert use(times(3), 3) == (0, 1)


def test_a_whole_file_of_another_processor(home, monkeypatch):
    use(times(3))
    (path,) = stored(home)
    here = cache.folder()
    other = cache.identity().replace(numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[1], "elsewhere")
    assert other != cache.identity()
    monkeypatch.setattr(cache, "identity", lambda: other)
    there = cache.folder()
    assert there != here
    assert use(times(3)) == (0, 1)
    (copied,) = there.iterdir()
    copied.write_bytes(path.read_bytes())  # someone copies the cache of one machine to another's place
    assert use(times(3)) == (0, 1)
    assert path.exists()  # another's folder is left alone


@pytest.mark.parametrize("payload", [b"", b"garbage", b"\x80\x04N.", b"cno_such_module\nthing\n."])
def test_a_whole_file_that_numba_cannot_use(home, payload):
    """As another version of something it depends on might have written it: its digest is right."""
    use(times(3))
    (path,) = stored(home)
    cache.write(f"{__name__}.times.<locals>.multiply_3", repr((types.float32[::1],)), payload)
    assert path.read_bytes().endswith(payload)
    assert stored(home) == [path]
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)


def test_sources_are_part_of_the_identity(tmp_path, monkeypatch):
    """A changed line in any file of the backend, or in the contract, is another folder."""
    seen = {cache.identity.__wrapped__()}
    package = tmp_path / "ops" / "cpu"
    package.mkdir(parents=True)
    for path in Path(cache.__file__).parent.glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())
    contract = [package.parent / "checks.py", package.parent / "shapes.py"]
    for path in contract:
        path.write_bytes((Path(cache.__file__).parent.parent / path.name).read_bytes())
    monkeypatch.setattr(cache, "__file__", str(package / "cache.py"))
    assert cache.identity.__wrapped__() in seen
    for changed in [*sorted(package.glob("*.py")), *contract]:
        changed.write_text(changed.read_text("utf-8") + "# another line\n", "utf-8")
        seen.add(cache.identity.__wrapped__())
    assert len(seen) == 1 + len(list(package.glob("*.py"))) + len(contract)


@pytest.mark.parametrize(
    "setting", [{"NUMBA_CPU_NAME": "x86-64"}, {"NUMBA_OPT": "1"}, {"NUMBA_BOUNDSCHECK": "1"}, {"NUMBA_CPU_FEATURES": "+sse2"}]
)
def test_settings_that_change_code_are_part_of_the_identity(home, setting):
    if numba.config.MACHINE_BITS != 64 or "x86" not in numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[0]:
        pytest.skip("names a processor of another kind")
    code = "from tinyresnext.ops.cpu import cache; print(cache.folder())"
    assert (
        run(code).stdout
        == run(code, NUMBA_NUM_THREADS="1", NUMBA_THREADING_LAYER="workqueue").stdout
        != run(code, **setting).stdout
    )


# --- where it can be --------------------------------------------------------------------------------------------------


@POSIX
def test_private(home):
    use(times(3))
    for path in [home, *home.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@POSIX
@pytest.mark.parametrize("which", ["home", "kernels", "folder"])
def test_a_folder_that_others_can_write_to_is_not_used(home, which):
    use(times(3))
    (path,) = stored(home)
    {"home": home, "kernels": home / "kernels", "folder": path.parent}[which].chmod(0o777)
    before = path.stat().st_mtime_ns
    for _ in range(2):
        assert use(times(3)) == (0, 1)
    assert path.stat().st_mtime_ns == before  # nothing is written either
    assert "others can write to it" in cache.problem()


@POSIX
def test_a_file_that_others_can_write_to_is_not_used(home):
    use(times(3))
    (path,) = stored(home)
    path.chmod(0o666)
    assert use(times(3)) == (0, 1)
    assert path.stat().st_mode & 0o077 == 0  # it was made anew


@POSIX
def test_somebody_elses_folder_is_not_used(home, monkeypatch):
    use(times(3))
    somebody = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: somebody)
    assert use(times(3)) == (0, 1)


@POSIX
def test_a_link_in_place_of_the_folder_is_not_used(home, tmp_path):
    use(times(3))
    (home / "kernels").rename(tmp_path / "elsewhere")
    (home / "kernels").symlink_to(tmp_path / "elsewhere")
    assert use(times(3)) == (0, 1)
    assert cache.clear() == 0


@pytest.mark.parametrize("what", ["file", "under a file", "null device", "NUL in the name"])
def test_a_home_that_cannot_be(what, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    places = {"file": tmp_path / "file", "under a file": tmp_path / "file" / "home", "null device": os.devnull}
    if what == "NUL in the name":
        monkeypatch.setattr(cache, "home", lambda: Path("a\0b"))
    else:
        monkeypatch.setenv("TINYRESNEXT_HOME", str(places[what]))
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (0, 1)
    assert cache.problem()
    assert cache.kept() == []
    assert cache.clear() == 0
    assert (tmp_path / "file").read_text() == "mine"


def refuse(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("moment", ["folder", "open", "write", "replace"])
def test_a_full_disk(home, monkeypatch, moment):
    if moment == "folder":
        monkeypatch.setattr(Path, "mkdir", refuse)
    elif moment == "replace":
        monkeypatch.setattr(os, "replace", refuse)
    else:
        original = open

        def limited(path, mode="r", **options):
            if "x" not in mode:
                return original(path, mode, **options)
            if moment == "open":
                refuse()
            file = original(path, mode, **options)
            file.write(b"half")
            file.close()
            full = io.BytesIO()
            full.write = refuse
            return full

        monkeypatch.setattr(cache, "open", limited, raising=False)
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (0, 1)
    assert stored(home) == []
    monkeypatch.undo()
    monkeypatch.setenv("TINYRESNEXT_HOME", str(home))
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)


@POSIX
def test_a_read_only_folder_is_read(home):
    use(times(3))
    (path,) = stored(home)
    path.parent.chmod(0o500)
    if os.access(path.parent, os.W_OK):
        pytest.skip("root may write anywhere")
    assert use(times(3)) == (1, 0)
    assert use(times(4), 4) == (0, 1)
    path.write_bytes(b"damaged")
    assert use(times(3)) == use(times(3)) == (0, 1)
    assert "cannot be written to" in cache.problem()
    path.parent.chmod(0o700)


def test_cleared_at_any_moment(home):
    """One thread clears all the time, and the kernels keep coming."""
    stop, failed = threading.Event(), []

    def sweep():
        while not stop.is_set():
            try:
                cache.kept()
                cache.clear()
            except BaseException as error:
                failed.append(error)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for _ in range(30):
            use(times(3))
    finally:
        stop.set()
        sweeper.join()
    assert failed == []


def test_clear_takes_only_what_is_ours(home):
    use(times(3))
    (path,) = stored(home)
    old = home / "kernels" / f"0.0.1-{'0' * 20}"
    old.mkdir()
    (old / "a.kernel").write_bytes(b"12345")
    (old / ".b.tmp").write_bytes(b"1")  # a process was killed here
    (path.parent / "notes.txt").write_text("keep me")
    (home / "models").mkdir()
    (home / "models" / "a.kernel").write_text("keep me")
    size = path.stat().st_size
    assert [(kept.files, kept.bytes, kept.current) for kept in cache.kept()] == [(2, 6, False), (1 + 0, size, True)]
    assert cache.clear() == size + 6
    assert {p.name for p in stored(home)} == {"notes.txt", "a.kernel"}
    assert not old.exists()


PLACES = {
    "ours": ("linux", {"TINYRESNEXT_HOME": "/ours", "XDG_CACHE_HOME": "/x"}, "/ours"),
    "XDG": ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/tinyresnext"),
    "XDG, relative": ("linux", {"XDG_CACHE_HOME": "x"}, "/home/me/.cache/tinyresnext"),
    "Linux": ("linux", {}, "/home/me/.cache/tinyresnext"),
    "macOS": ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/tinyresnext"),
    "Windows": ("win32", {"LOCALAPPDATA": "/local"}, "/local/tinyresnext"),
    "Windows without": ("win32", {}, "/home/me/AppData/Local/tinyresnext"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="the paths are POSIX's")
@pytest.mark.parametrize("case", PLACES)
def test_home(case, monkeypatch):
    platform, environment, expected = PLACES[case]
    for name in ("TINYRESNEXT_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    assert cache.home() == Path(expected)


def test_no_home(monkeypatch):
    for name in ("TINYRESNEXT_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert cache.home() is None
    assert cache.folder() is None
    assert use(times(3)) == (0, 1)


@pytest.mark.parametrize(
    "gone",
    [
        "caching.NullCache",
        "ccallback.CFunc",
        "compiler.CompileResult",
        "compiler.CompileResult._rebuild",
        "compiler.CompileResult._reduce",
        "bytecode.FunctionIdentity",
        "registry.cpu_target",
        "sigutils.normalize_signature",
    ],
)
def test_another_numba(home, gone):
    """One without what the cache stands on: everything is compiled as ever. (It is restored where Numba needs it itself.)"""
    owner, _, name = gone.rpartition(".")
    code = f"""
        import numpy as np, numba.core.ccallback
        from numba.core import caching, ccallback, compiler, bytecode, registry, sigutils

        class Without:
            def __getattr__(self, name):
                if name == {name!r}:
                    raise AttributeError(name)
                return getattr(self.real, name)

        if {owner!r} == "compiler.CompileResult":
            delattr({owner}, {name!r})
        elif {owner!r} == "caching":
            del caching.NullCache
        else:  # only our modules look these up through numba.core
            instead = Without()
            instead.real = {owner}
            setattr(numba.core, {owner!r}, instead)
        from tinyresnext.ops import cpu
        from tinyresnext.ops.cpu.kernel import c_kernel
        print(cpu.softmax(np.zeros((1, 2), np.float32)), c_kernel("float64(float64)")(lambda x: x + 1).ctypes(1))
    """
    for _ in range(2):
        done = run(code)
        assert (done.returncode, done.stdout) == (0, "[[0.5 0.5]] 2.0\n"), done.stderr


# --- the command line -------------------------------------------------------------------------------------------------


def test_commands(home, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(warm, "warm", lambda ops, names: asked.append(names) or use(times(3)))
    assert cli.main(["cache", "warm", "resnext50_*"]) == 0
    assert "resnext50_32x4d" in asked[0]
    assert "resnet50" not in asked[0]
    assert "in use" in capsys.readouterr().out
    assert cli.main(["cache", "info"]) == 0
    assert "  1 kernels, " in capsys.readouterr().out
    assert cli.main(["cache", "clear"]) == 0
    assert capsys.readouterr().out.startswith("removed ")
    assert stored(home) == []
    assert cli.main(["cache", "warm", "nothing"]) == 2


def test_commands_without_a_place(monkeypatch, capsys):
    monkeypatch.setenv("TINYRESNEXT_HOME", os.devnull)
    assert cli.main(["cache", "info"]) == 0
    assert "nothing is kept" in capsys.readouterr().err
    assert cli.main(["cache", "warm"]) == 2
    assert cli.main(["cache", "clear"]) == 0


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("seconds", "terminal", "words"), [(0.6, True, 1), (0.6, False, 0), (0.01, True, 0)])
def test_a_word_when_compiling_takes_long(monkeypatch, seconds, terminal, words):
    from numba.core.compiler_lock import global_compiler_lock

    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    class Ops:
        @staticmethod
        def when_compiling(tell):
            return when_compiling(tell, after=1.0)

    with cli._word_on_compiling(Ops):
        for _ in range(3):  # no single kernel takes a second, and all together do
            with global_compiler_lock, global_compiler_lock:
                time.sleep(seconds)
            time.sleep(0.05)
    assert stream.getvalue().count("compiling kernels") == stream.getvalue().count("\n") == words


def test_waiting_is_not_compiling(monkeypatch):
    from numba.core.compiler_lock import global_compiler_lock

    told = []
    with when_compiling(lambda: told.append(1), after=0.2):
        with global_compiler_lock:
            time.sleep(0.01)
        time.sleep(0.4)
    assert told == []


def test_the_library_says_nothing(tmp_path):
    done = run(
        "import numpy as np; from tinyresnext.ops import cpu; cpu.relu(np.zeros(3, np.float32))", TINYRESNEXT_HOME=str(tmp_path)
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_compiled_or_looked_for_at_import(tmp_path):
    code = """
        import os, sys
        touched, home = [], os.environ["TINYRESNEXT_HOME"]
        sys.addaudithook(lambda event, args: touched.append(args[0]) if event == "open" and home in str(args[0]) else None)
        import tinyresnext.ops.cpu as cpu
        from tinyresnext.ops.cpu import cache, conv, launch
        print(touched, conv._kernel.cache_info().currsize, launch._POOLS, cache.identity.cache_info().currsize)
    """
    assert run(code, TINYRESNEXT_HOME=str(tmp_path / "home")).stdout == "[] 0 {} 0\n"


def test_without_compiling():
    code = """
        import numpy as np
        from tinyresnext.ops import cpu
        from tinyresnext.ops.cpu import launch, norm
        from tinyresnext.ops.cpu.kernel import c_kernel
        with cpu.on_threads(cpu.thread_count(1)):
            print(cpu.relu(np.array([-1, 2], np.float32)), type(norm._relu).__name__, type(c_kernel("void()")(print)).__name__)
        print(launch._POOLS)
    """
    done = run(code, NUMBA_DISABLE_JIT="1")
    assert (done.returncode, done.stdout) == (0, "[0. 2.] function builtin_function_or_method\n{}\n"), done.stderr
