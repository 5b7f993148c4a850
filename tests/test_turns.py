"""Steps that take parts of a mini-batch in turn compute what they would one after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import recipe

from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.network.step import Step as TrainingStep
from tinyresnext.ops import backend, cpu
from tinyresnext.ops.cpu import moments
from tinyresnext.ops.cpu.runtime.crew import Chain, Early, Pace, Step, chains
from tinyresnext.ops.cpu.runtime.tasks import finished, in_tasks, next_task

SPEC = Spec((1, 1), 4, 8, 5, stem="pooled", avg_down=True, expansion=1)
WHOLE = 1 << 60  # bytes of a part: no mini-batch has as many


class Copying(NamedTuple):
    """The numbers of the kernel below."""

    positions: int
    length: int
    shares: int
    tasks: int


@in_tasks(Copying)
def one_more(x, out, g, counters):
    """Add 1 to the positions of a task; only the last of those that share them does it."""
    task = next_task(counters)
    while task < g.tasks:
        block, share = divmod(task, g.shares)
        if share == g.shares - 1:
            for p in range(block * g.length, min((block + 1) * g.length, g.positions)):
                out[p] = x[p] + np.float32(1)
        task = next_task(counters)
    finished(counters)


def copying(x, out, samples: int, length: int, shares: int = 1, light: bool = True) -> Step:
    """A step of the kernel above that goes through so many samples."""
    tasks = -(-len(x) // length) * shares
    pace = Pace(samples, len(x) // samples, shares, length, light)
    return Step(one_more, Copying(len(x), length, shares, tasks), pace, x=x, out=out)


def row(samples: int, each: int, lengths: list) -> tuple[list[Step], list]:
    """Steps that hand values on, each with its own length of tasks, and the memory of these."""
    values = [np.arange(samples * each, dtype=np.float32)]
    values += [np.full(samples * each, np.nan, np.float32) for _ in lengths]
    made = [
        copying(x, out, samples, length, shares)
        for (x, out), (length, shares) in zip(pairwise(values), lengths, strict=True)
    ]
    return made, values


def cut(calls) -> list[Step]:
    """The steps that are a later part of another one, where one thread makes these calls."""
    with cpu.on_threads(1):
        found = chains.in_parts(calls)
    return [call for call in found if isinstance(call, Step) and call.first > 0]


# --- the rule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("samples", "each"), [(2, 1), (7, 5), (16, 64), (5, 33)])
def test_a_step_reads_only_what_is_there(samples, each, threads, monkeypatch):
    """What is not there yet is no number, and would be none in the result."""
    monkeypatch.setattr(chains, "PART", 4 * each)  # one sample for each thread
    rng = np.random.default_rng(samples * each)
    with cpu.on_threads(min(threads, cpu.thread_count())):
        for _ in range(8):
            lengths = [
                (int(rng.integers(1, 2 * each + 2)), int(rng.integers(1, 4))) for _ in "1234"
            ]
            made, values = row(samples, each, lengths)
            run = cpu.chain(made)
            for _ in range(2):
                run()
                assert np.array_equal(values[-1], values[0] + 4), lengths
                values[-1][:] = np.nan


def test_every_task_is_done_once(monkeypatch):
    monkeypatch.setattr(chains, "PART", 1)
    made, _ = row(9, 10, [(3, 2), (10, 1), (7, 3), (90, 1)])
    with cpu.on_threads(1):
        calls = chains.in_parts(made)
    for step in made:
        own = [(c.first, c.numbers.tasks) for c in calls if c.out is step.out]
        assert [first for first, _ in own] == [0, *(last for _, last in own[:-1])]
        assert own[-1][1] == step.numbers.tasks
    assert len(cut(made)) > 12


def test_what_cannot_take_turns_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(chains, "PART", 1)
    memory = np.zeros(120, np.float32)
    a, (b, c) = memory[:80], np.zeros((2, 80), np.float32)
    first, second = copying(a, b, 8, 10), copying(b, c, 8, 10)
    assert cut([first, second])
    other = [
        copying(b, c, 4, 10),  # another number of samples
        copying(b, memory[40:], 8, 10),  # it writes over what the first one has still to read
        Step(one_more, first.numbers, x=b, out=c),  # it does not say how it goes through samples
    ]
    for step in other:
        assert not cut([first, step])
    assert not cut([first, lambda: None, second])
    # As the convolutions of a plan.
    assert not cut([copying(a, b, 8, 10, light=False), copying(b, c, 8, 10, light=False)])
    assert not cut([copying(a, b, 8, 10), copying(a, c, 8, 10)])  # nothing is handed on


def test_what_may_be_early_is_not_in_the_way(monkeypatch):
    monkeypatch.setattr(chains, "PART", 1)
    said, (made, values) = [], row(8, 10, [(10, 1), (10, 1)])
    inner = Chain([Early(Chain([lambda: said.append("early")])), made[1]])
    calls = [lambda: said.append("first"), made[0], inner, lambda: said.append("last")]
    run = cpu.chain(calls)
    run()
    assert said == ["first", "early", "last"]
    assert np.array_equal(values[-1], values[0] + 2)
    assert len(cut(run._flat())) > 2


# --- training -------------------------------------------------------------------------------------


def trained(precision: str, part: int, threads: int, monkeypatch) -> tuple[TrainingStep, list]:
    """A step of training after one mini-batch, and all that it found."""
    monkeypatch.setattr(chains, "PART", part)
    monkeypatch.setattr(moments, "FEW", 2)  # so that statistics begin after two samples of eleven
    ops = cpu if precision == "float32" else backend("cpu", precision)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(SPEC).items()}
    step = TrainingStep(params, SPEC, (11, 32, 32, 3), ops, threads=threads)
    x = recipe.tensor("images", (11, 32, 32, 3))
    loss, logits = step(x, np.arange(11) % 5)
    found = [loss, logits, *step.gradients.values(), *step.statistics.values()]
    return step, [np.array(value) for value in found]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_of_training_in_parts(precision, threads, monkeypatch):
    threads = min(threads, cpu.thread_count())
    whole, wanted = trained(precision, WHOLE, threads, monkeypatch)
    for calls in (whole._run_forward, whole._run_backward):
        assert not cut(calls._flat())
    for part in (1 << 10, 40 << 10):
        step, found = trained(precision, part, threads, monkeypatch)
        assert all(map(np.array_equal, found, wanted))
        names = [
            {call.kernel.function.__name__ for call in cut(calls._flat())}
            for calls in (step._run_forward, step._run_backward)
        ]
        assert names[0] >= {"_normalise", "blocks", "strips", "_moments"}
        assert names[1] >= {"blocks", "_gradient_sums"}


@pytest.mark.parametrize("far", [0.0, 30.0, 3e4])
def test_first_samples_that_are_far_from_the_others(far, monkeypatch):
    """Then the sums are taken once more, around the mean of all."""
    monkeypatch.setattr(moments, "FEW", 2)
    x = recipe.tensor("far", (64, 4, 4, 2)).copy()
    x[:2] += np.float32(far)
    scale, shift = np.ones(2, np.float32), np.zeros(2, np.float32)
    statistics = np.zeros((2, 2), np.float32)
    y = cpu.batch_norm_train(x, scale, shift, statistics=statistics)
    wide = x.astype(np.float64)
    mean, var = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
    # A sum of some hundred terms, each rounded, relative to the standard deviation.
    assert np.allclose(statistics[0], mean, rtol=2e-7, atol=1e-5 * np.sqrt(var).max())
    assert np.allclose(statistics[1], var, rtol=1e-5)
    assert np.allclose(y, (wide - mean) / np.sqrt(var + 1e-5), atol=2e-5 * (1 + np.abs(y).max()))
