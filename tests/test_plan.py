"""Plans: no rewrite changes results, live buffers never overlap, calls are named and timed."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import recipe

from tinyresnext.errors import OutOfMemoryError, UsageError
from tinyresnext.network import plan, rewrite, trace
from tinyresnext.network.resnext import forward, parameters
from tinyresnext.network.spec import Spec, cifar, variant
from tinyresnext.network.tape import Tape
from tinyresnext.ops import cpu, reference

SPECS = {
    "imagenet": Spec((2, 1), 4, 8, 7),
    "deep": Spec((2, 1), 4, 8, 7, stem="deep", avg_down=True),
    "pooled": Spec((1, 1), 4, 8, 7, stem="pooled"),
    "cifar": cifar(11, 2, 8),
    "A": Spec((1, 2), 4, 8, 7, shortcut="A"),
    "C": Spec((1, 2), 4, 8, 7, shortcut="C", stride_on=1),
}
REWRITES = {"fold": rewrite.fold_batch_norm, "add": rewrite.fuse_add, "relu": rewrite.fuse_relu}


@pytest.fixture(params=SPECS)
def network(request):
    """Return a spec, float64 weights and an input."""
    spec = SPECS[request.param]
    params = {
        name: recipe.tensor(name, shape).astype(np.float64)
        for name, shape in parameters(spec).items()
    }
    return spec, params, recipe.pictures("plan", (2, 3, 33, 30)).astype(np.float64)


def replayed(calls, traced, x):
    """Return the logits of a list of calls."""
    return trace.replay(calls, traced, x, reference)[-1]


@pytest.mark.parametrize("names", [("fold",), ("fold", "add"), ("fold", "add", "relu")])
def test_rewrites_change_nothing(network, names):
    spec, params, x = network
    recorded = trace.trace(params, spec, x.shape)
    traced, calls = recorded.x, recorded.calls
    before, count = replayed(calls, traced, x), len(calls)
    for name in names:
        calls = REWRITES[name](calls)
        assert len(calls) < count
        count = len(calls)
    # Folding rounds each weight once more: 60 layers of float64 stay far below 1e-12; the others
    # move, and round nothing.
    np.testing.assert_allclose(replayed(calls, traced, x), before, rtol=1e-12)


def test_everything_is_fused(network):
    """Only pools, the classifier and convolutions are left."""
    spec, params, _ = network
    ops = {call.op for call in plan.program(params, spec, reference).calls}
    assert ops <= {"conv2d", "max_pool2d", "avg_pool2d", "mean_pool", "linear"}


def test_a_value_that_two_calls_read_is_not_fused_away():
    """The value of the convolution is added later, so its ReLU must not be fused into it."""
    x = trace.stand_in((1, 4, 4, 2))
    weight = np.ones((2, 2, 1, 1))
    tape = Tape(trace.ShapesOnly())
    y = tape.conv2d(x, weight)
    tape.add(tape.relu(y), y)
    assert [call.op for call in rewrite.fuse_relu(tape.calls)] == ["conv2d", "relu", "add"]


def test_fold_is_exact_for_extreme_statistics():
    """Folding in float64 loses less than one rounding in float32 for extreme norms.

    The variance is 1e-12, epsilon 1e-5, and the scale 1e6.
    """
    spec = Spec((1,), 2, 4, 3)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    for name in params:
        if name.endswith("running_var"):
            params[name][::2] = 1e-12
    x = recipe.pictures("extreme", (1, 3, 32, 32))
    exact = forward(
        {k: v.astype(np.float64) for k, v in params.items()}, spec, x.astype(np.float64), reference
    )
    planned = plan.Plan(plan.program(params, spec, reference), x.shape, reference)(x)
    assert np.abs(planned - exact).max() <= 2e-6 * np.abs(exact).max()


def test_live_buffers_never_overlap(network):
    spec, params, x = network
    made = plan.Plan(plan.program(params, spec, reference), x.shape, reference, np.float64)
    outs = [id(call.out) for call in made.calls]
    owner: dict[int, int] = {}
    for call, place in zip(made.calls, made.places, strict=True):
        for value in [*call.args, call.attrs.get("residual")]:
            if id(value) in outs:  # whatever a call reads still lies where it was put
                assert owner[made.places[outs.index(id(value))]] == id(value)
                assert made.places[outs.index(id(value))] != place
        owner[place] = id(call.out)
    assert all(
        np.prod(shape) <= made.buffers[place]
        for shape, place in zip(made.shapes, made.places, strict=True)
    )
    assert len(made.buffers) <= 4


def test_resnext50_needs_little_memory():
    """The buffers take three or four maps of the widest stage, not sixty."""
    params = {
        name: trace.stand_in(shape)
        for name, shape in parameters(variant("resnext50_32x4d")).items()
    }
    made = plan.Plan(
        plan.program(params, variant("resnext50_32x4d"), reference), (1, 224, 224, 3), reference
    )
    assert made.bytes < 12 * 2**20
    assert len(made.calls) == 56


def test_plan_runs_again_and_again(network, ops):
    spec, params, x = network
    params32 = {name: value.astype(np.float32) for name, value in params.items()}
    program = plan.program(params32, spec, ops)
    made, x32 = plan.Plan(program, x.shape, ops), x.astype(np.float32)
    first = made(x32)
    other = made(x32[::-1].copy())
    again = made(x32)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(other[::-1], first, rtol=1e-4, atol=1e-5)
    smaller = plan.Plan(program, (1, *x.shape[1:]), ops)(x32[:1])
    np.testing.assert_allclose(smaller, first[:1], rtol=1e-4, atol=1e-5)


def test_threads_take_turns(network):
    spec, params, x = network
    made = plan.Plan(plan.program(params, spec, reference), x.shape, reference, np.float64)
    inputs = [x * scale for scale in (1.0, 2.0, 3.0, 4.0)]
    wanted = [made(value) for value in inputs]
    found = [None] * 4

    def run(i):
        for _ in range(5):
            found[i] = made(inputs[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


def test_print_and_profile():
    spec = Spec((1,), 2, 8, 3)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    made = plan.Plan(plan.program(params, spec, reference), (1, 64, 64, 3), reference)
    text = str(made)
    for part in (
        "input 1 x 64 x 64 x 3",
        "layer1.0.conv2",
        "3x3",
        "batch_norm add relu",
        "8 steps",
        "GFLOP",
        "buffers",
    ):
        assert part in text
    profile = made.profile(recipe.pictures("p", (1, 3, 64, 64)), repeats=2)
    assert len(profile.seconds) == 8
    assert min(profile.seconds) > 0
    assert "GFLOP/s" in str(profile)


def test_a_plan_says_how_many_pictures_it_takes_at_a_time():
    spec = Spec((1,), 2, 8, 3)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    made = plan.Plan(plan.program(params, spec, cpu), (97, 32, 32, 3), cpu)
    assert f"together: {made.sections[0].together} from conv1 on" in str(made)


def test_another_shape_is_refused(network):
    spec, params, x = network
    made = plan.Plan(plan.program(params, spec, reference), x.shape, reference, np.float64)
    for other in (x[:1], x[0]):
        with pytest.raises(UsageError, match="make another plan"):
            made(other)
        with pytest.raises(UsageError, match="make another plan"):
            made.profile(other)
    for other in (x.tolist(), x.astype(complex), x.astype(str)):
        with pytest.raises(UsageError, match="expected a float32 array"):
            made(other)
    for repeats in (0, -1, 1.5, None):
        with pytest.raises(UsageError, match="give a whole number of at least 1"):
            made.profile(x, repeats)
    none = plan.Plan(plan.program(params, spec, reference), (0, *x.shape[1:]), reference)
    assert none(x[:0].astype(np.float32)).shape == (0, spec.classes)
    with pytest.raises(UsageError, match="the plan is for no images"):
        none.profile(x[:0].astype(np.float32))


@pytest.mark.parametrize("ops", [cpu, reference])
def test_values_that_no_memory_holds_are_one_error(ops):
    """Values of one sample would take more than the addresses of a process."""
    spec = Spec((1,), 2, 8, 3)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    program = plan.program(params, spec, ops)
    with pytest.raises(OutOfMemoryError, match="does not fit in this computer's memory; give"):
        plan.Plan(program, (2, 2**22, 2**22, 3), ops)
    for shape in ((2**50,), (2**62, 2**62)):
        with pytest.raises(OutOfMemoryError, match="does not fit in this computer's memory") as one:
            ops.empty(shape)
        assert (one.value.wanted >= 2**52, one.value.free) == (True, 0)


def test_fewer_samples_go_together_where_memory_is_short(monkeypatch):
    spec = Spec((1,), 2, 8, 3)
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    program, x = plan.program(params, spec, cpu), recipe.pictures("plan", (6, 3, 40, 40))
    empty, sizes = np.empty, []

    def counted(shape, *kind, **named):
        sizes.append(np.prod(shape))
        return empty(shape, *kind, **named)

    def short(shape, *kind, **named):
        if np.prod(shape) >= max(sizes):
            raise MemoryError
        return empty(shape, *kind, **named)

    monkeypatch.setattr(np, "empty", counted)
    whole = plan.Plan(program, x.shape, cpu)
    monkeypatch.setattr(np, "empty", short)
    made = plan.Plan(program, x.shape, cpu)
    monkeypatch.undo()
    assert made.at_once < whole.at_once == 6
    assert np.array_equal(made(x), whole(x))


def test_what_is_no_shape_is_refused():
    program = plan.Program(None, ())
    wrong = 32, None, "abcd", (32, 32, 3), (1, 32.0, 32, 3), (-1, 32, 32, 3), (1, 32, 32, -3)
    for shape in wrong:
        with pytest.raises(UsageError, match=r"give four whole numbers \(n, h, w, channels\)"):
            plan.Plan(program, shape, reference)
