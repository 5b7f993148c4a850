"""Every reader answers inputs that nobody thought of; the long form is in the slow stage."""

from __future__ import annotations

import random
import time

import loop
import pytest
from loop import Finding, fuzz, mutated
from readers import READERS

from tinyresnext.errors import FormatError


@pytest.mark.parametrize("name", READERS)
def test_some(name):
    reader = READERS[name]
    count = max(30, reader.count // 600)
    assert not list(
        fuzz(
            reader.read,
            reader.seeds(),
            count,
            traced=20,
            memory=reader.memory,
            seconds=reader.seconds,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many(name):
    reader = READERS[name]
    assert not list(
        fuzz(
            reader.read,
            reader.seeds(),
            reader.count,
            seed=1,
            memory=reader.memory,
            seconds=reader.seconds,
        )
    )


def test_the_loop_finds_what_is_wrong(monkeypatch):
    """A reader with three faults, the last of them behind two lines that must be reached first."""

    def read(data):
        if data[:1] == b"a":
            raise FormatError("an answer")
        if data[:2] == b"ba":
            raise ValueError("no answer")
        if data[:2] == b"bb":
            end = time.process_time() + 0.002
            while time.process_time() < end:
                pass

    monkeypatch.setattr(loop, "MOST_SECONDS", 0.001)
    found = list(fuzz(read, [b"bcd", b"xab"], 3000, seed=2))
    assert all(isinstance(one, Finding) for one in found)
    kinds = {one.what.split(":")[0] for one in found}
    assert any(kind.startswith("ValueError") for kind in kinds)
    assert any("processor time" in kind for kind in kinds)


def test_mutations_are_those_of_the_seed():
    a, b = (
        [mutated(b"abcdef", [b"x", b"yz"], rng) for _ in range(50)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert a == b
    assert len(set(a)) > 40
