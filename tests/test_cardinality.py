"""The measurement of cardinality against width: its networks cost the same, its images are fair."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tinyresnext.data.dataset import Dataset
from tinyresnext.network.count import layers, totals

SOURCE = Path(__file__).resolve().parents[1] / "benchmarks" / "cardinality.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cardinality", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_multiply_adds_are_equal_to_two_percent(script):
    work = [
        totals(layers(script.network(pair), script.SIDE, script.SIDE))["macs"]
        for pair in script.EQUAL_WORK
    ]
    assert [pair[0] for pair in script.EQUAL_WORK] == [1, 2, 4, 8, 32]
    assert max(work) <= 1.02 * min(work)


def test_a_part_of_the_images_has_as_many_of_each_class(script):
    labels = np.repeat(np.arange(10), 50)
    pixels = np.arange(500, dtype=np.uint8).reshape(500, 1, 1, 1)
    whole = Dataset(
        tuple("abcdefghij"), labels, [str(i) for i in range(500)], pixels.__getitem__, pixels
    )
    part = script.some(whole, 100)
    assert np.array_equal(np.bincount(part.labels), np.full(10, 10))
    assert len(set(part.names)) == 100
    for i in (0, 37, 99):
        assert part.read(i) == part.pixels[i] == whole.read(int(part.names[i]))
    assert script.some(whole, 1000) is whole


@pytest.mark.parametrize("goal", [3.0, 12.2, 40.0])
def test_the_network_of_nearest_time_is_found(script, goal):
    asked = []

    def seconds(pair):
        asked.append(pair)
        return float(pair[1]), 0

    found = script.nearest(lambda n: (2, 2 * n), 2, 15, seconds, goal)
    assert abs(found[1] - goal) == min(abs(2 * n - goal) for n in range(2, 16))
    assert len(asked) <= 4


def test_runs_are_told_apart_and_shared_between_the_families(script, tmp_path):
    run = {"cardinality": 2, "width": 42, "seed": 0, "images": 8, "epochs": 1, "batch": 4}
    script.write(tmp_path / "new" / "runs.jsonl", "a", run | {"family": "time"})
    script.write(tmp_path / "new" / "runs.jsonl", "a", run | {"seed": 1})
    first, second = script.lines(tmp_path / "new" / "runs.jsonl")
    assert script.key(first) == script.key(run) != script.key(second)


def test_committed_runs_are_of_these_networks_with_three_seeds_each(script):
    members = script.lines(script.OUT / "families.jsonl")
    runs = script.lines(script.OUT / "runs.jsonl")
    pairs = {name: [] for name in ("multiply-adds", "time")}
    for one in members:
        pairs[one["family"]].append((one["cardinality"], one["width"]))
    assert tuple(pairs["multiply-adds"]) == script.EQUAL_WORK
    assert [c for c, _ in pairs["time"][:4]] == [1, 2, 4, 8]
    goal = members[0]["step_seconds"]
    seconds = [one["step_seconds"] for one in members if one["family"] == "time"]
    assert max(abs(one / goal - 1) for one in seconds) <= script.EQUAL_TIME
    assert len(set(map(script.key, runs))) == len(runs)
    for pair in {*pairs["multiply-adds"], *pairs["time"]}:
        own = [run for run in runs if (run["cardinality"], run["width"]) == pair]
        assert sorted(run["seed"] for run in own) == [0, 1, 2]
        assert all(len(run["curve"]) == run["epochs"] for run in own)
    for name in ("images", "epochs", "batch", "validation", "threads", "version"):
        assert len({run[name] for run in runs}) == 1, name
