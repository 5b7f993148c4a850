"""A chain of steps in one parallel region: the same results for any number of threads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
import threading
import time
from typing import NamedTuple

import numba
import numpy as np
import pytest
import recipe

from tinyresnext.network.plan import Plan, program
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.ops import cpu, reference
from tinyresnext.ops.cpu.runtime.crew import Step, chains, walk
from tinyresnext.ops.cpu.runtime.tasks import (
    ACTIVE,
    ENTERED,
    FINISHED,
    LINE,
    NEXT,
    finished,
    in_tasks,
    next_task,
)

LAYERS = ["omp", "workqueue", *(["tbb"] if importlib.util.find_spec("tbb") else [])]
JITTED = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="needs compiled kernels")
SPEC = Spec((1, 1), 4, 8, 5)
SHAPE = (1, 40, 40, 3)


class Turns(NamedTuple):
    """The numbers of the kernels below."""

    turns: int
    fails: int
    tasks: int


@in_tasks(Turns)
def stir(x, out, g, counters):
    """A task adds up all of ``x`` in its own order, ``g.turns`` times, and writes one value."""
    task = next_task(counters)
    while task < g.tasks:
        total = np.float32(0)
        for turn in range(g.turns):
            for i in range(len(x)):
                total = total * np.float32(0.5) + x[(i + task + turn) % len(x)]
        out[task] = total
        task = next_task(counters)
    finished(counters)


@in_tasks(Turns)
def give_up(x, out, g, counters):
    """A kernel that finds no memory: it raises before it takes a task."""
    if g.fails == 1:
        raise MemoryError
    task = next_task(counters)
    while task < g.tasks:
        out[task] = x[task]
        task = next_task(counters)
    finished(counters)


@in_tasks(Turns)
def break_off(x, out, g, counters):
    """Worse: it raises after it has taken a task."""
    if next_task(counters) >= 0:
        raise MemoryError


def steps(count: int = 12, tasks: int = 16, turns: int = 20) -> tuple[list[Step], list[np.ndarray]]:
    """Each reads all that the one before wrote: going on too early changes the result."""
    values, numbers, made = (
        [recipe.tensor("chain", (tasks,)).reshape(-1)],
        Turns(turns, 0, tasks),
        [],
    )
    for _ in range(count):
        values.append(np.zeros(tasks, np.float32))
        made.append(Step(stir, numbers, x=values[-2], out=values[-1]))
    return made, values


def plan(threads: int | None = None) -> tuple[Plan, np.ndarray]:
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(SPEC).items()}
    return Plan(program(params, SPEC, cpu), SHAPE, cpu, threads=threads), recipe.pictures(
        "chain", (1, 3, 40, 40)
    )


@pytest.fixture
def wanted():
    """What one thread makes of the steps, one after the other."""
    made, values = steps()
    with cpu.on_threads(1):
        for step in made:
            step()
    return [value.copy() for value in values]


# --- values ---------------------------------------------------------------------------------------


def test_a_chain_is_its_calls_one_after_the_other(wanted):
    made, values = steps()
    for threads in sorted({1, cpu.thread_count()}):
        for value in values[1:]:
            value[:] = 0
        with cpu.on_threads(threads):
            cpu.chain(made)()
        assert all(map(np.array_equal, values, wanted))


def test_other_calls_in_a_chain_are_made_in_their_place(ops):
    said, x = [], np.ones((1, 4, 4, 2), np.float32)
    y, z = ops.empty((1, 2, 2, 2)), ops.empty((1, 2))
    calls = [
        lambda: said.append("first"),
        ops.bind("max_pool2d", x, size=2, stride=2, out=y),
        lambda: said.append(float(y.sum())),
        ops.bind("relu", y, out=y),
        ops.bind("mean_pool", y, out=z),
        lambda: said.append(float(z.sum())),
    ]
    run = ops.chain(calls)
    run()
    x *= 3
    run()
    assert said == ["first", 8.0, 2.0, "first", 24.0, 6.0]
    ops.chain([])()


@JITTED
def test_a_plan_of_this_backend_is_one_region(monkeypatch):
    made, x = plan()
    counts, original = [], chains.walk
    monkeypatch.setattr(
        chains,
        "walk",
        lambda steps, table=None: counts.append(len(steps)) or original(steps, table),
    )
    made(x)
    assert counts == [len(made.calls)]


def test_the_steps_of_a_plan_alone_give_the_same_bits():
    made, x = plan()
    together = made(x)
    made.profile(x, 1)
    assert np.array_equal(made._y, together)
    alone, _ = plan(1)
    assert np.array_equal(alone(x), together)


def test_a_step_without_tasks(ops):
    x, y = np.zeros((0, 4, 4, 2), np.float32), np.zeros((0, 2), np.float32)
    ops.chain([ops.bind("mean_pool", x, out=y)])()


# --- threads that come when they like -------------------------------------------------------------


def prepared(made: list[Step]):
    """A table, its counters, and a walk by the calling thread."""
    table, counters = (
        np.concatenate([step.row for step in made]),
        np.zeros(len(made) * LINE, np.int64),
    )
    return counters, lambda: walk._alone(table.ctypes.data, counters.ctypes.data, len(made))


@JITTED
def test_one_thread_may_make_all_walks_one_after_the_other(wanted):
    """As a pool of threads does that has only one: nobody waits for those who come later."""
    made, values = steps()
    counters, walk = prepared(made)
    walk()
    assert all(map(np.array_equal, values, wanted))
    before = counters.copy()
    for _ in range(3):
        walk()
    assert np.array_equal(counters, before)  # who comes late passes without going in


@JITTED
@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("late", [0.0, 0.002])
def test_more_threads_than_cores_and_late_ones(wanted, count, late):
    made, values = steps()
    prepared(made)[1]()  # compiled
    for turn in range(10):
        for value in values[1:]:
            value[:] = 0
        counters, walk = prepared(made)

        def come(after, walk=walk):
            time.sleep(after)
            walk()

        workers = [
            threading.Thread(target=come, args=(late * i * turn / 10,)) for i in range(count)
        ]
        [worker.start() for worker in workers], [worker.join() for worker in workers]
        assert all(map(np.array_equal, values, wanted))
        counts = counters.reshape(-1, LINE)
        assert (counts[:, ACTIVE] == 0).all()
        assert (counts[:, ENTERED] == counts[:, FINISHED]).all()
        assert (
            counts[:, NEXT] == 16 + counts[:, ENTERED]
        ).all()  # everyone inside asks once in vain


# --- failures -------------------------------------------------------------------------------------

QUIET = """
    import sys, threading
    import numba, numpy as np
    import test_chain as t
    from tinyresnext.errors import OutOfMemoryError
    from tinyresnext.ops import cpu

    def broken(kernel, at, count=6):
        made, values = t.steps(count)
        numbers = made[at].numbers._replace(fails=1)
        made[at] = t.Step(kernel, numbers, x=values[at], out=values[at + 1])
        return cpu.chain(made)

    def told(run):
        try:
            run()
        except OutOfMemoryError as error:
            return "smaller mini-batch" in str(error)
"""


def child(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, beside the tests; one that hangs is ended."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", textwrap.dedent(QUIET) + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


@JITTED
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("threads", ["1", "2", "5"])
def test_no_memory_ends_in_an_error_on_every_pool(layer, threads):
    code = """
    kernels = (t.give_up, t.break_off)
    said = [told(broken(kernel, at)) for kernel in kernels for at in (0, 3, 5)]
    made, values = t.steps()
    cpu.chain(made)()  # and all is well afterwards
    layer = numba.threading_layer() if numba.get_num_threads() > 1 else ""
    print(layer, said == [True] * 6, float(values[-1].sum()))
    """
    done = child(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=threads)
    made, values = steps()
    cpu.chain(made)()
    name = layer if threads != "1" else ""
    assert (done.returncode, done.stdout) == (0, f"{name} True {float(values[-1].sum())}\n"), (
        done.stderr
    )


@JITTED
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of a process")
def test_memory_that_really_runs_out():
    """The kernel's own request for working memory fails: shelves for two million channels."""
    code = """
    import resource
    x, w = np.ones((1, 1, 1, 1 << 21), np.float32), np.ones((1, 1 << 21, 1, 1), np.float32)
    call = cpu.bind("conv2d", x, cpu.pack(w, 1), out=cpu.empty((1, 1, 1, 1)))
    small = cpu.bind("conv2d", x[..., :8].copy(), w[:, :8].copy(), out=cpu.empty((1, 1, 1, 1)))
    cpu.chain([small, small])()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
    print(told(cpu.chain([small, call, small])), told(call))
    """
    done = child(code)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


@JITTED
@pytest.mark.parametrize("layer", LAYERS)
def test_chains_on_every_pool_with_more_threads_than_cores(layer):
    code = """
    plan, x = t.plan()
    alone, _ = t.plan(1)
    wanted, wrong = alone(x), []
    def work():
        own, _ = t.plan()
        for _ in range(20):
            if not np.array_equal(own(x), wanted):
                wrong.append(1)
    workers = [threading.Thread(target=work) for _ in range(3)]
    [w.start() for w in workers], [w.join() for w in workers]
    print(numba.threading_layer(), plan.threads, len(wrong), np.array_equal(plan(x), wanted))
    """
    most = str(2 * cpu.thread_count())
    code = code.replace("t.plan()", f"t.plan({most})")
    done = child(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS=most)
    assert (done.returncode, done.stdout) == (0, f"{layer} {most} 0 True\n"), done.stderr


@JITTED
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_chain_made_before_a_fork_works_after_it():
    code = """
    import os
    made, values = t.steps()
    run = cpu.chain(made)
    run()
    wanted = values[-1].copy()
    child = os.fork()
    if child == 0:
        values[-1][:] = 0
        run()
        os._exit(0 if np.array_equal(values[-1], wanted) else 1)
    print(os.waitpid(child, 0)[1])
    """
    done = child(code, NUMBA_THREADING_LAYER="workqueue")
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_reference_makes_them_one_after_the_other():
    said = []
    reference.chain([lambda: said.append(1), lambda: said.append(2)])()
    assert said == [1, 2]
