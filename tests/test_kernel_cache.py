"""Compiled kernels on disk: used when whole, and otherwise compiled again."""

from __future__ import annotations

import os
import shutil

import numba
import numpy as np
import pytest
from cache_use import X, counts, run, start, stored, times, use
from numba import prange, types
from numba.core.registry import cpu_target

from tinyresnext.ops.cpu.runtime import cache
from tinyresnext.ops.cpu.runtime import kernel as kernels
from tinyresnext.ops.cpu.runtime.compiling import identity
from tinyresnext.ops.cpu.runtime.kernel import kernel

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


# --- what it is for -------------------------------------------------------------------------------


def test_compiled_once(home):
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)
    assert len(stored(home)) == 1


def test_loading_fills_numbas_tables_only_for_a_function_that_is_not_known(home, monkeypatch):
    """Code that calls an unknown address would end the process, and filling takes long."""
    assert use(times(3)) == (0, 1)
    context, filled = type(cpu_target.target_context), []
    refresh = context.refresh
    monkeypatch.setattr(context, "refresh", lambda self: filled.append(self) or refresh(self))
    assert use(times(3)) == (1, 0)
    assert not filled
    monkeypatch.setattr(kernels.binding, "address_of_symbol", lambda name: None)
    assert use(times(3)) == (1, 0)
    assert filled


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
        from tinyresnext.ops.cpu.runtime.kernel import c_kernel

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
    from tinyresnext.bench import warm
    from tinyresnext.ops import cpu
    from tinyresnext.ops.cpu import elementwise, head, norm
    from tinyresnext.ops.cpu.conv import dense, forward, gemm
    from tinyresnext.ops.cpu.conv.narrow import strips
    from tinyresnext.ops.cpu.pool import maximum
    from tinyresnext.ops.cpu.runtime import simd
    from tinyresnext.ops.cpu.runtime.crew import walk

    warm.warm(cpu, ["resnext50_32x4d"])
    x = np.linspace(-1, 1, 6 * 6 * 8, dtype=np.float32).reshape(1, 6, 6, 8)
    w = np.linspace(-1, 1, 8 * 9 * 4, dtype=np.float32).reshape(8, 4, 3, 3)
    total = float(cpu.conv2d(x, w, groups=2, padding=1).sum())
    total += float(cpu.avg_pool2d(x, size=2, stride=2).sum())
    modules = (dense, forward, walk, elementwise, gemm, strips, head, norm, simd)
    values = [value for module in modules for value in vars(module).values()]
    found = {id(value): value for value in values if isinstance(value, Dispatcher)}
    kernels = [dense.blocks, strips.strips_kernel(4, 4, 3, 1, 7), head._classes, maximum._max_lines]
    hits = sum(sum(d.stats.cache_hits.values()) for d in found.values())
    misses = sum(sum(d.stats.cache_misses.values()) for d in found.values())
    print(hits + sum(kernel.c_function.cache_hits for kernel in kernels), misses, total)
"""


SOME = """
    import numpy as np
    from tinyresnext.ops import cpu
    from tinyresnext.ops.cpu import elementwise, head

    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    total = float(cpu.softmax(cpu.relu(x)).sum())
    stats = [kernel.stats for kernel in (head._softmax, elementwise._relu)]
    hits = sum(sum(s.cache_hits.values()) for s in stats)
    print(hits, sum(sum(s.cache_misses.values()) for s in stats), total)
"""


@pytest.mark.parametrize(
    ("code", "together", "least"),
    [
        (SOME, 3, 2),
        pytest.param(SOME, 8, 2, marks=pytest.mark.slow),
        pytest.param(EVERYTHING, 2, 8, marks=pytest.mark.slow),
    ],
    ids=["some", "some in many", "everything"],
)
def test_processes_cold_together(home, code, together, least):
    """Those that start at once compile the same kernels; one after them compiles nothing."""
    started = [start(code) for _ in range(together)]
    done = [process.wait_for() for process in started]
    assert {process.returncode for process in done} == {0}, [process.stderr for process in done]
    totals = {process.stdout.split()[2] for process in done}
    left = {path.name for path in stored(home) if path.suffix != ".kernel"}
    assert left <= {"helpers.lock"}  # and no temporary file
    hits, misses, total = run(code).stdout.split()
    assert int(hits) >= least
    assert int(misses) == 0
    assert totals == {total}


def test_names_do_not_repeat_between_processes(home):
    """Two processes may give the same name to different code, and a third loads both."""
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


# --- what can happen to it ------------------------------------------------------------------------


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
    for length in [
        1,
        20,
        21,
        22,
        52,
        53,
        54,
        len(content) - 1,
        *rng.integers(55, len(content), 20),
    ]:
        made[f"cut to {length}"] = content[:length]
    for at in [*range(0, 56, 5), *rng.integers(0, len(content), 40)]:
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        made[f"bit of byte {at}"] = bytes(flipped)
    for at in rng.integers(0, len(content) - 512, 20):
        made[f"hole at {at}"] = content[:at] + bytes(512) + content[at + 512 :]
    return {name: damaged for name, damaged in made.items() if damaged != content}


@pytest.mark.slow
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
    other = cache.identity().replace(
        numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[1], "elsewhere"
    )
    assert other != cache.identity()
    monkeypatch.setattr(cache, "identity", lambda: other)
    there = cache.folder()
    assert there != here
    assert use(times(3)) == (0, 1)
    (copied,) = there.iterdir()
    copied.write_bytes(
        path.read_bytes()
    )  # someone copies the cache of one machine to another's place
    assert use(times(3)) == (0, 1)
    assert path.exists()  # another's folder is left alone


@pytest.mark.parametrize("payload", [b"", b"garbage", b"\x80\x04N.", b"cno_such_module\nthing\n."])
def test_a_whole_file_that_numba_cannot_use(home, payload):
    """As another version of something it depends on might have written it: its digest is right."""
    use(times(3))
    (path,) = stored(home)
    cache.write(
        f"{times.__module__}.times.<locals>.multiply_3", repr((types.float32[::1],)), payload
    )
    assert path.read_bytes().endswith(payload)
    assert stored(home) == [path]
    assert use(times(3)) == (0, 1)
    assert use(times(3)) == (1, 0)


def test_sources_are_part_of_the_identity(tmp_path, monkeypatch):
    """A changed line in any file of the backend, or of the reference, is another folder."""
    ops, *patterns = cache.SOURCES
    copy, seen = tmp_path / "ops", {cache.IMPORTED}
    shutil.copytree(ops, copy, ignore=shutil.ignore_patterns("__pycache__", "cuda"))
    assert cache.sources(copy, *patterns) in seen
    files = sorted(path for one in ("cpu/**/*.py", "reference/*.py") for path in copy.glob(one))
    assert len(files) > 30
    for changed in files:
        changed.write_text(changed.read_text("utf-8") + "# another line\n", "utf-8")
        seen.add(cache.sources(copy, *patterns))
    assert len(seen) == 1 + len(files)
    before = cache.identity.__wrapped__()
    monkeypatch.setattr(identity, "IMPORTED", cache.sources(copy, *patterns))
    assert cache.identity.__wrapped__() != before


@pytest.mark.parametrize(
    "setting",
    [
        {"NUMBA_CPU_NAME": "x86-64"},
        {"NUMBA_OPT": "1"},
        {"NUMBA_BOUNDSCHECK": "1"},
        {"NUMBA_CPU_FEATURES": "+sse2"},
    ],
)
def test_settings_that_change_code_are_part_of_the_identity(home, setting):
    if (
        numba.config.MACHINE_BITS != 64
        or "x86" not in numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[0]
    ):
        pytest.skip("names a processor of another kind")
    code = "from tinyresnext.ops.cpu.runtime import cache; print(cache.folder())"
    assert (
        run(code).stdout
        == run(code, NUMBA_NUM_THREADS="1", NUMBA_THREADING_LAYER="workqueue").stdout
        != run(code, **setting).stdout
    )
