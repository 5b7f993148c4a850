"""The number of threads, calls from several threads at once, and forks, on every pool."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import recipe
import training_cases as small
from PIL import Image

from tinyresnext import Model, Preprocess, Spec, finetune, load, parameters, save
from tinyresnext.cli import main as cli
from tinyresnext.errors import DeviceError, UsageError
from tinyresnext.inference import model
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.cpu.runtime import launch
from tinyresnext.ops.cpu.runtime.cores import cores
from tinyresnext.ops.cpu.runtime.crew import walk
from tinyresnext.training import train as training

MOST = numba.config.NUMBA_NUM_THREADS
LAYERS = ["omp", "workqueue", *(["tbb"] if importlib.util.find_spec("tbb") else [])]
SPEC = Spec((1, 1), 2, 4, 5)
JITTED = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, beside the tests."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


# --- how many -------------------------------------------------------------------------------------


def files(root: Path, content: dict[str, str]) -> Path:
    """A root folder with these files in it."""
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/cpu,cpuacct/"
GROUPS = {
    "no files": ({}, 64),
    "v2, no quota": ({"proc/self/cgroup": "0::/a/b\n", V2 + "a/b/cpu.max": "max 100000\n"}, 64),
    "v2, the group's own": (
        {"proc/self/cgroup": "0::/a/b\n", V2 + "a/b/cpu.max": "200000 100000\n"},
        2,
    ),
    "v2, of the group around it": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            V2 + "a/b/cpu.max": "max 100000\n",
            V2 + "a/cpu.max": "300000 100000\n",
        },
        3,
    ),
    "v2, the smaller of two": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            V2 + "a/b/cpu.max": "700000 100000\n",
            V2 + "a/cpu.max": "300000 100000\n",
        },
        3,
    ),
    "v2, in a container that sees itself as the top": (
        {"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "400000 100000\n"},
        4,
    ),
    "v2, in a container that sees the path outside": (
        {"proc/self/cgroup": "0::/x/y\n", V2 + "cpu.max": "400000 100000\n"},
        4,
    ),
    "v2, path above the container": (
        {"proc/self/cgroup": "0::/../../x\n", V2 + "cpu.max": "400000 100000\n"},
        4,
    ),
    "v2, rounded up": ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "150000 100000\n"}, 2),
    "v2, less than one": ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "5000 100000\n"}, 1),
    "v2, more than there is": (
        {"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "99900000 100000\n"},
        64,
    ),
    "v1": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/d\n",
            V1 + "d/cpu.cfs_quota_us": "250000",
            V1 + "d/cpu.cfs_period_us": "100000",
        },
        3,
    ),
    "v1, no quota": (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n",
            V1 + "cpu.cfs_quota_us": "-1",
            V1 + "cpu.cfs_period_us": "100000",
        },
        64,
    ),
    "v1, under the short name": (
        {
            "proc/self/cgroup": "9:memory:/d\n4:cpu,cpuacct:/d\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        5,
    ),
    "garbage": (
        {"proc/self/cgroup": "::\n\nx\n0::/a:b\n3:cpu\n", V2 + "cpu.max": "many few\n"},
        64,
    ),
    "division by zero": ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "100000 0\n"}, 64),
    "quota of zero": ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "0 100000\n"}, 64),
    "no text": ({"proc/self/cgroup": "0::/\n", V2 + "cpu.max": "\x00\x01"}, 64),
}


@pytest.mark.parametrize("case", GROUPS)
def test_quota(case, tmp_path, monkeypatch):
    content, expected = GROUPS[case]
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert cores(files(tmp_path, content)) == expected


def test_without_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores(tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_affinity():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from tinyresnext.ops import cpu
        print(cpu.thread_count())
    """
    assert run(code, NUMBA_NUM_THREADS="8").stdout == "1\n"


def test_affinity_after_import(monkeypatch):
    """Numba has fixed the largest count; the default follows what the process may use now."""
    monkeypatch.setattr(launch, "cores", lambda: 1)
    assert cpu.thread_count() == 1
    monkeypatch.setattr(launch, "cores", lambda: MOST + 1)
    assert cpu.thread_count() == MOST


@pytest.mark.parametrize("count", [0, -1, MOST + 1, 10**30, 1.0, True, "2"])
def test_impossible_counts(count, tmp_path):
    with pytest.raises(UsageError, match="threads is"):
        cpu.thread_count(count)
    asked = network(count)
    with pytest.raises(UsageError, match="threads is"):
        asked(picture())


def test_reference_has_its_own_threads():
    assert reference.thread_count() == reference.thread_count(1) == 1
    with pytest.raises(UsageError, match="OPENBLAS_NUM_THREADS"):
        reference.thread_count(2)


# --- that it is so many ---------------------------------------------------------------------------


def network(threads: int | None = None) -> Model:
    """A small network."""
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(SPEC).items()}
    return Model(SPEC, params, Preprocess(), tuple("abcde"), {}, cpu, threads)


def picture() -> np.ndarray:
    return recipe.pictures("threads", (1, 3, 40, 40))


@JITTED
def test_the_count_reaches_the_kernels(monkeypatch):
    seen = []
    original = launch._pool
    monkeypatch.setattr(launch, "_pool", lambda: seen.append(numba.get_num_threads()) or original())
    monkeypatch.setattr(
        walk, "threads_now", lambda: seen.append(numba.get_num_threads()) or seen[-1]
    )
    before = numba.get_num_threads()
    for threads in {1, MOST}:
        asked = network(threads)
        asked.plan(picture().shape)
        seen.clear()
        asked(picture())
        assert set(seen[1:]) == {threads}  # the first is `on_threads` itself
        seen.clear()
        asked.trace(picture())
        assert set(seen[1:]) == {threads}
        assert numba.get_num_threads() == before


@JITTED
def test_whatever_a_model_is_given_to_computes_on_its_threads(monkeypatch, tmp_path):
    known, seen = network(1), []
    monkeypatch.setattr(
        walk, "threads_now", lambda: seen.append(numba.get_num_threads()) or seen[-1]
    )
    known.rank(known(picture()))
    assert set(seen) == {1}
    monkeypatch.setattr(training, "_run", lambda start, setting, *more: setting.threads)
    given = known, small.pictures(16, tuple("abcde")), small.RECIPE, tmp_path
    assert (finetune(*given), finetune(*given, threads=MOST)) == (1, MOST)


@pytest.mark.parametrize(
    ("asked", "known", "sharing", "found"),
    [(None, None, 1, 8), (None, 3, 1, 3), (2, 3, 1, 2), (None, 8, 2, 4), (3, None, 4, 3)],
)
def test_ranks_that_share_cores_divide_them(asked, known, sharing, found):
    """A model has all cores if nobody says how many, too many for each of several ranks."""
    ops = SimpleNamespace(thread_count=lambda count=None: 8 if count is None else count)
    ranks = SimpleNamespace(sharing=sharing)
    assert training._threads(ops, asked, ranks, known) == found


@JITTED
@pytest.mark.skipif(sys.platform != "linux", reason="needs GNU's OpenMP, which says how it waits")
@pytest.mark.parametrize(
    ("said", "looks", "kept"),
    [({}, "0", None), ({"OMP_WAIT_POLICY": "active"}, "30000000000", "active")],
)
def test_threads_sleep_while_they_wait_unless_it_is_said_otherwise(monkeypatch, said, looks, kept):
    for name in launch._WAITING:
        monkeypatch.delenv(name, raising=False)
    code = """
        import os
        from tinyresnext.ops.cpu.runtime import launch
        print(launch.threads_now() > 0, os.environ.get("OMP_WAIT_POLICY"))
    """
    done = run(code, OMP_DISPLAY_ENV="verbose", NUMBA_THREADING_LAYER="omp", **said)
    assert done.stdout.split() == ["True", str(kept)], done.stderr
    assert f"GOMP_SPINCOUNT = '{looks}'" in done.stderr  # before a thread sleeps


@JITTED
def test_the_environment_is_changed_only_when_threads_start(monkeypatch):
    launch.threads_now()

    def changed():
        raise AssertionError("the pool is there")

    monkeypatch.setattr(launch, "_asleep", changed)
    assert launch.threads_now() > 0


@JITTED
def test_the_count_is_restored_after_an_error():
    before = numba.get_num_threads()
    inside = []

    def fail():
        inside.append(numba.get_num_threads())
        raise RuntimeError

    with pytest.raises(RuntimeError), cpu.on_threads(1):
        fail()
    assert inside == [1]
    assert numba.get_num_threads() == before


@JITTED
def test_another_thread_does_not_care():
    with cpu.on_threads(1):
        seen = []
        other = threading.Thread(target=lambda: seen.append(numba.get_num_threads()))
        other.start()
        other.join()
    assert seen == [MOST]


def test_results_do_not_depend_on_the_count():
    np.testing.assert_array_equal(network(1)(picture()), network(MOST)(picture()))


def test_command_line(tmp_path, capsys):
    save(network(), tmp_path / "m.h5")
    cat = str(Path(__file__).parent / "data" / "chelsea.jpg")
    command = ["classify", cat, "--model", str(tmp_path / "m.h5"), "--threads"]
    assert cli.main([*command, "1"]) == 0
    assert cli.main([*command, str(MOST + 1)]) == 2
    assert (
        f"threads is {MOST + 1}, expected a whole number from 1 to {MOST}"
        in capsys.readouterr().err
    )
    assert cli.main([*command, "2", "--device", "reference"]) == 2
    assert (
        cli.main(["verify", str(tmp_path / "m.h5"), "--threads", "1"]) == 2
    )  # it computes nothing
    assert load(tmp_path / "m.h5", threads=1).threads == 1
    assert 1 <= load(tmp_path / "m.h5").threads <= MOST


# --- several at once, and forks -------------------------------------------------------------------

PREPARE = """
    import os, sys, threading
    import numba, numpy as np
    from tinyresnext import Model, Preprocess, Spec, parameters
    from tinyresnext.errors import DeviceError
    from tinyresnext.ops import cpu
    import recipe

    spec = Spec((1, 1), 2, 4, 5)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    x = recipe.pictures("threads", (1, 3, 40, 40))

    def network():
        return Model(spec, params, Preprocess(), tuple("abcde"), {}, cpu)

    def fork(work):
        child = os.fork()
        if child == 0:
            code = 9
            try:
                code = work()
            finally:
                os._exit(code)
        return os.waitpid(child, 0)[1]

    def told():
        try:
            network()(x)
        except DeviceError as error:
            return 3 if "spawn" in str(error) else 4
        return 0
"""


@JITTED
@pytest.mark.parametrize("layer", LAYERS)
def test_several_threads_predict_at_once(layer):
    code = """
    wanted, wrong, models = network()(x), [], [network() for _ in range(4)]
    shared = network()
    def work(model):
        for _ in range(40):
            if not (np.array_equal(model(x), wanted) and np.array_equal(shared(x), wanted)):
                wrong.append(1)
            cpu.relu(x)
    workers = [threading.Thread(target=work, args=(model,)) for model in models]
    [w.start() for w in workers], [w.join() for w in workers]
    print(numba.threading_layer(), len(wrong))
    """
    done = run(
        textwrap.dedent(PREPARE) + textwrap.dedent(code),
        NUMBA_THREADING_LAYER=layer,
        NUMBA_NUM_THREADS="2",
    )
    assert (done.returncode, done.stdout) == (0, f"{layer} 0\n"), done.stderr


MISSING = {
    ("NUMBA_THREADING_LAYER", "foo"): "'foo'",
    ("NUMBA_THREADING_LAYER", ""): "''",
    ("NUMBA_THREADING_LAYER_PRIORITY", "foo"): "'foo'",
    ("NUMBA_THREADING_LAYER_PRIORITY", "omp tbb"): "'omp tbb'",
} | {
    ("NUMBA_THREADING_LAYER", layer): f"'{layer}'"
    for layer in ("tbb", "safe")
    if "tbb" not in LAYERS
}


@JITTED
@pytest.mark.parametrize("setting", MISSING, ids="=".join)
def test_a_pool_that_is_not_there_is_an_error_of_the_device(setting):
    code = """
    def message(call):
        try:
            call()
        except DeviceError as error:
            return str(error)
    calls = [
        lambda: network()(x),
        lambda: network().trace(x),
        lambda: cpu.relu(x),
        lambda: cpu.conv2d(x, np.ones((3, 3, 1, 1), np.float32)),
        lambda: cpu.peak([1]),
    ]
    said = {message(call) for call in calls}
    print(*said, sep="\\n")
    """
    name, value = setting
    done = run(textwrap.dedent(PREPARE) + textwrap.dedent(code), **{name: value})
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert lines, "no call was refused"
    assert all(f"{name} is {MISSING[setting]}" in line for line in lines), lines


@JITTED
@pytest.mark.parametrize(
    "setting", [("NUMBA_THREADING_LAYER", "foo"), ("NUMBA_NUM_THREADS", "0")], ids="=".join
)
def test_commands_say_which_setting_asks_for_a_pool(setting, tmp_path):
    image, data, (name, value) = str(tmp_path / "test" / "cat" / "0.png"), str(tmp_path), setting
    for number in range(16):
        folder = tmp_path / ("train", "test")[number % 2] / ("cat", "dog")[number // 8]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(folder / f"{number // 2 % 4}.png")
    words = f"{name} is {MISSING.get(setting, repr(value))}"
    network = "--blocks 1 --cardinality 2 --width 8 --widen 1 --stem cifar --size 8 --padding 1"
    options = ["--epochs", "1", "--batch", "4", "--out"]
    commands = [
        ["classify", image],
        ["evaluate", data],
        ["train", data, *network.split(), *options, str(tmp_path / "run")],
        ["finetune", data, *options, str(tmp_path / "run2")],
        ["bench", "--repeats", "1"],
    ]
    code = f"""
    from tinyresnext.cli.main import main
    print([main(words) for words in {commands!r}])
    print(main(["classify", {image!r}, "--device", "reference"]))
    """
    done = run(textwrap.dedent(code), **{name: value})
    assert done.stdout.splitlines()[0] == "[4, 4, 4, 4, 4]", done.stderr
    assert done.stdout.splitlines()[-1] == "0"
    assert sum(words in line for line in done.stderr.splitlines()) == 5
    assert "Traceback" not in done.stderr


@JITTED
def test_the_first_calls_of_several_threads(tmp_path):
    """Nothing is compiled and no pool is started yet when they come."""
    code = """
    wanted, start = [], threading.Barrier(4)
    def work():
        start.wait()
        wanted.append(cpu.add(x, x))
    workers = [threading.Thread(target=work) for _ in range(4)]
    [w.start() for w in workers], [w.join() for w in workers]
    print(len(wanted), all(np.array_equal(y, x + x) for y in wanted))
    """
    env = {
        "NUMBA_THREADING_LAYER": "workqueue",
        "NUMBA_NUM_THREADS": "2",
        "TINYRESNEXT_HOME": str(tmp_path),
    }
    done = run(textwrap.dedent(PREPARE) + textwrap.dedent(code), **env)
    assert (done.returncode, done.stdout) == (0, "4 True\n"), done.stderr


class Shape(tuple):
    """A plan that is its shape."""

    input_shape, in_parts = tuple, False

    def __new__(cls, program, shape, ops, threads):
        return super().__new__(cls, shape)


def test_one_model_and_many_shapes(monkeypatch):
    """More shapes than plans are kept, so plans come and go while other threads ask for theirs."""
    monkeypatch.setattr(model, "Plan", Shape)
    shared, failed = network(1), []
    shared.plan((1, 33, 33, 3))

    def work(first):
        try:
            for i in range(first, first + 20_000):
                assert shared.plan((1, 33, i % 7, 3)) == (1, 33, i % 7, 3)
        except BaseException as error:
            failed.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        [w.start() for w in workers], [w.join() for w in workers]
    finally:
        sys.setswitchinterval(interval)
    assert failed == []


FORK = pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform != "linux", reason="needs fork, and GNU OpenMP's ways"
)


@JITTED
@FORK
@pytest.mark.parametrize(("layer", "status"), [("omp", 3 << 8), ("workqueue", 0)])
def test_fork_after_use(layer, status):
    code = "network()(x); print(fork(told)); network()(x)"
    done = run(textwrap.dedent(PREPARE) + code, NUMBA_THREADING_LAYER=layer)
    assert (done.returncode, done.stdout) == (0, f"{status}\n"), done.stderr


@JITTED
@FORK
def test_fork_after_a_call_of_one_task():
    """It runs on the thread that makes it, but Numba has started the others."""
    code = "cpu.conv2d(np.ones((1, 1, 1, 8), 'f4'), np.ones((8, 8, 1, 1), 'f4')); print(fork(told))"
    done = run(textwrap.dedent(PREPARE) + code, NUMBA_THREADING_LAYER="omp")
    assert (done.returncode, done.stdout) == (0, f"{3 << 8}\n"), done.stderr


@JITTED
@FORK
@pytest.mark.parametrize("layer", LAYERS)
def test_fork_before_use(layer):
    code = "model = network(); print(fork(told), fork(told)); print(told())"
    done = run(textwrap.dedent(PREPARE) + code, NUMBA_THREADING_LAYER=layer)
    assert (done.returncode, done.stdout) == (0, "0 0\n0\n"), done.stderr


@JITTED
@FORK
def test_fork_while_another_thread_computes():
    """The lock that it holds is its own: the child must not wait for it."""
    code = """
    from tinyresnext.ops.cpu.runtime import launch
    network()(x)
    with launch._pool().turns:
        print(fork(told))
    """
    done = run(textwrap.dedent(PREPARE) + textwrap.dedent(code), NUMBA_THREADING_LAYER="workqueue")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@JITTED
@FORK
@pytest.mark.parametrize("where", ["_load", "_place"])  # of a plan that computes, or is made
@pytest.mark.parametrize(
    ("layer", "device", "status"),
    [("omp", "cpu", 3 << 8), ("workqueue", "cpu", 0), ("workqueue", "reference", 0)],
)
def test_fork_while_another_thread_is_in_a_prediction(layer, device, status, where):
    """The thread does not go on in the child, where nobody frees the locks that it held."""
    code = f"""
    import signal
    from tinyresnext.network.plan import Plan
    from tinyresnext.ops import backend
    shared, wanted = network(), network()(x)
    shared.ops = backend({device!r})
    if {device!r} == "reference":
        wanted = shared(x)
    inside, go_on, method = threading.Event(), threading.Event(), Plan.{where}
    def waits(self, *given):
        found = method(self, *given)
        if threading.current_thread() is other:
            inside.set()
            go_on.wait(60)
        return found
    Plan.{where} = waits
    x2 = x if {where!r} == "_load" else np.zeros((1, 36, 36, 3), np.float32)
    other = threading.Thread(target=shared, args=(x2,))
    other.start()
    inside.wait(60)
    def predicted():
        signal.alarm(20)  # it would wait for ever
        try:
            return 0 if np.array_equal(shared(x), wanted) else 1
        except DeviceError as error:
            return 3 if "spawn" in str(error) else 4
    print(fork(predicted))
    go_on.set()
    other.join()
    """
    done = run(textwrap.dedent(PREPARE) + textwrap.dedent(code), NUMBA_THREADING_LAYER=layer)
    assert (done.returncode, done.stdout) == (0, f"{status}\n"), done.stderr


@FORK
def test_a_lock_that_another_thread_holds_is_free_after_a_fork():
    code = """
    import os, threading
    from tinyresnext.system.threads import OwnLock
    lock, held, end, found = OwnLock(), threading.Event(), threading.Event(), []
    def hold():
        with lock.here():
            held.set()
            end.wait(60)
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        taken = [lock.here().acquire(timeout=5) for _ in range(2)]
        os._exit(0 if all(taken) else 1)
    print(os.waitpid(child, 0)[1], lock.here().acquire(timeout=0.05))
    end.set()
    holder.join()
    print(lock.here().acquire(timeout=5))
    """
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "0 False\nTrue\n"), done.stderr


def test_the_error_is_typed(monkeypatch):
    monkeypatch.setattr(launch, "_POOLS", {-1: launch.Pool("omp", None)})
    monkeypatch.setattr(numba, "threading_layer", lambda: "omp")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(DeviceError, match="spawn"):
        launch._pool()
