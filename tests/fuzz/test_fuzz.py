"""Every reader answers inputs that nobody thought of; the long form is in the slow stage."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import loop
import pytest
from loop import Finding, fuzz, mutated
from readers import READERS

from tinyresnext.errors import FormatError

INPUTS = 100_000  # for each reader


@pytest.mark.parametrize("name", READERS)
def test_some(name):
    read, seeds = READERS[name]
    assert not list(fuzz(read, seeds(), 150, traced=20))


def _found(name: str) -> list[Finding]:
    read, seeds = READERS[name]
    return list(islice(fuzz(read, seeds(), INPUTS, seed=1), 10))


@pytest.fixture(scope="module")
def answers():
    """All readers, each in a process of its own, on all cores."""
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), start, max_tasks_per_child=1) as pool:
        yield {name: pool.submit(_found, name) for name in READERS}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many(name, answers):
    assert not answers[name].result()


def test_the_loop_finds_what_is_wrong(monkeypatch):
    """A reader with four faults, two of them behind lines that must be reached first."""

    def read(data):
        while data[:2] == b"bd":  # it does not end
            pass
        if data[:1] == b"a":
            raise FormatError("an answer")
        if data[:2] == b"ba":
            raise ValueError("no answer")
        if data[:2] == b"bb":
            end = time.process_time() + 0.002
            while time.process_time() < end:
                pass

    monkeypatch.setattr(loop, "MOST_SECONDS", 0.001)
    monkeypatch.setattr(loop, "ENDLESS", 0.01)
    found = list(fuzz(read, [b"bcd", b"xab"], 3000, seed=2))
    assert all(isinstance(one, Finding) for one in found)
    kinds = {one.what.split(":")[0] for one in found}
    assert any(kind.startswith("ValueError") for kind in kinds)
    assert any("processor time" in kind for kind in kinds)
    assert any(one.what.startswith("Endless: no answer") for one in found)


def test_mutations_are_those_of_the_seed():
    a, b = (
        [mutated(b"abcdef", [b"x", b"yz"], rng) for _ in range(50)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert a == b
    assert len(set(a)) > 40
