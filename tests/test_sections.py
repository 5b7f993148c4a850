"""Sections of a plan: how many samples go through which calls together, and that no bit changes."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest
import recipe

from tinyresnext.bench.measure import Measuring, layers, whole
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.plan import plan as module
from tinyresnext.network.plan.sections import cuts, sections
from tinyresnext.network.resnext import parameters
from tinyresnext.network.rewrite import for_inference
from tinyresnext.network.spec import Spec, variant
from tinyresnext.network.tape import stand_in
from tinyresnext.network.trace import inputs, trace
from tinyresnext.ops import cpu, reference

SPEC = Spec((1, 2, 1), 2, 8, 5)
SHAPE = (8, 40, 40, 3)


def recorded(spec, side):
    """Return a network's fused calls for one image, its input, and the sizes of all values."""
    params = {name: stand_in(shape) for name, shape in parameters(spec).items()}
    found = trace(params, spec, (1, side, side, 3))
    calls = for_inference(found.calls)
    return calls, found.x, {id(a): a.size for a in (found.x, *(call.out for call in calls))}


def made(threads=None, ops=cpu):
    """Return a plan of a small network for eight images, and these."""
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(SPEC).items()}
    images = recipe.pictures("sections", (8, 3, 40, 40))
    return Plan(program(params, SPEC, ops), SHAPE, ops, threads=threads), images


def growing(monkeypatch, ops=cpu):
    """Let the first layers take one sample, the next two, then four, and the last ones eight."""
    wanted = iter([8, 4, 2])
    monkeypatch.setattr(ops, "at_once", lambda n, weights, values: min(n, next(wanted, 1)))


def test_sections_cover_all_calls_and_divide_each_other():
    calls, x, sizes = recorded(variant("resnext50_32x4d"), 224)
    for n in (1, 2, 6, 8, 30, 64):
        found = sections(calls, x, sizes, n, cpu.at_once)
        assert [part.first for part in found] == [0, *(part.last for part in found[:-1])]
        assert found[-1].last == len(calls)
        assert n % found[-1].together == 0
        for one, following in pairwise(found):
            assert following.together > one.together
            assert following.together % one.together == 0


def test_a_section_begins_where_nothing_else_is_read_from_before():
    calls, x, _ = recorded(variant("resnext50_32x4d"), 224)
    starts = cuts(calls, x)
    for t in starts[1:]:
        before = {id(call.out) for call in calls[:t]} | {id(x)}
        read = {id(a) for call in calls[t:] for a in inputs(call)} & before
        assert read == {id(calls[t - 1].out)}
    names = {calls[t].name for t in starts}
    assert {"layer1.0.conv1", "layer3.4.conv1", "fc"} <= names
    assert not any(name.endswith(("conv2", "conv3")) for name in names)


def test_a_backend_that_takes_all_samples_has_one_section():
    calls, x, sizes = recorded(SPEC, 40)
    assert sections(calls, x, sizes, 60, reference.at_once) == [(0, len(calls), 60)]


@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_depends_on_how_many_samples_go_together(monkeypatch, threads):
    threads = min(threads, cpu.thread_count())
    wanted = {}
    for some in (1, 8):
        monkeypatch.setattr(cpu, "at_once", lambda n, weights, values, some=some: some)
        plan, images = made(threads)
        assert [part.together for part in plan.sections] == [some]
        wanted[some] = plan(images).tobytes()
    growing(monkeypatch)
    plan, images = made(threads)
    assert [part.together for part in plan.sections] == [1, 2, 4, 8]
    assert plan(images).tobytes() == wanted[1] == wanted[8]
    assert plan(images).tobytes() == wanted[1]


def test_the_numbers_of_a_plan_are_those_of_its_sections(monkeypatch):
    growing(monkeypatch)
    plan, images = made()
    assert [shape[0] for shape in plan.shapes[:2]] == [1, 1]
    assert plan.shapes[-1] == (8, 5)
    assert "samples together: 1 from conv1 on, 2 from layer2.1.conv1 on, 4" in str(plan)
    profile = plan.profile(images, 1)
    assert len(profile.seconds) == len(plan.calls)
    assert str(profile).endswith("ms in all for 8 samples")


def test_samples_that_wait_have_places_of_their_own(monkeypatch):
    """If all samples waited in the first one's place, the logits would be those of the last."""
    growing(monkeypatch)
    plan, images = made()
    right = plan(images)
    part = module.Value.part
    growing(monkeypatch)
    monkeypatch.setattr(module.Value, "part", lambda self, ops, first, n: part(self, ops, 0, n))
    wrong, _ = made()
    found = wrong(images)
    assert not np.array_equal(found, right)


def test_what_waits_has_a_buffer_that_no_other_call_uses(monkeypatch):
    growing(monkeypatch)
    plan, _ = made()
    ends = {part.first - 1 for part in plan.sections[1:]}
    others = [place for t, place in enumerate(plan.places) if t not in ends]
    waiting = [plan.places[t] for t in sorted(ends)]
    assert len({*waiting, *others}) == len(waiting) + len(set(others))
    assert all(plan.buffers[plan.places[t]] == 2 * prod(plan.shapes[t]) for t in ends)


@pytest.mark.parametrize(
    ("weights", "values", "together"),
    [(0, 40, 1), (10, 40, 1), (20, 40, 2), (39, 40, 2), (40, 40, 4), (70, 40, 4), (10**6, 1, 16)],
)
def test_samples_go_together_until_weights_are_a_quarter_of_the_values(weights, values, together):
    with cpu.on_threads(1):
        assert cpu.at_once(64, weights, values) == together


def test_resnext50_shares_the_weights_of_its_last_stages():
    """At 224 pixels the first stages hold many values and the last ones many weights."""
    calls, x, sizes = recorded(variant("resnext50_32x4d"), 224)
    with cpu.on_threads(1):
        found = sections(calls, x, sizes, 16, cpu.at_once)
    starts = [(calls[part.first].name, part.together) for part in found]
    assert starts == [
        ("conv1", 1),
        ("layer3.0.conv1", 2),
        ("layer3.1.conv1", 4),
        ("layer4.0.conv1", 16),
    ]


def test_layers_are_timed_on_the_samples_that_they_take(monkeypatch):
    growing(monkeypatch)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(SPEC).items()}
    ready = program(params, SPEC, cpu)
    rows = layers("small", ready, SHAPE, Measuring(cpu, 1, None, 1))
    growing(monkeypatch)
    calls = Plan(ready, SHAPE, cpu).calls
    assert sum(row["count"] for row in rows) == len(calls)
    growing(monkeypatch)
    of_all = whole("small", ready, SHAPE, Measuring(cpu, 1, None, 1))
    alone = whole("small", ready, (1, *SHAPE[1:]), Measuring(cpu, 1, None, 1))
    assert of_all["gflop"] == pytest.approx(8 * alone["gflop"], rel=1e-12)
