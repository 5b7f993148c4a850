"""Gradients of whole networks: the tape against differences and against PyTorch's autograd."""

from __future__ import annotations

import elsewhere
import numpy as np
import pytest
import recipe

from tinyresnext.errors import UsageError
from tinyresnext.network.resnext import Walk, blocks, concatenated, forward, parameters, summed
from tinyresnext.network.spec import Spec, cifar
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import reference

SPECS = {
    "B": Spec((1, 2), 2, 8, 5),
    "A": Spec((1, 1), 2, 8, 5, stem="cifar", shortcut="A"),
    "d": Spec((1, 1), 2, 8, 5, stem="deep", avg_down=True),
    "p": Spec((1, 1), 2, 8, 5, stem="pooled"),
    "cifar": cifar(11, 2, 8),
}


def setting(name: str):
    """Return float64 weights, an input and labels."""
    spec = SPECS[name]
    params = {
        key: recipe.tensor(key, shape).astype(np.float64) for key, shape in parameters(spec).items()
    }
    return spec, params, recipe.pictures(name, (2, 3, 24, 24)).astype(np.float64), np.array([1, 4])


def loss(spec, params, x, labels, ops, training, at=lambda name, value: value):
    """Compute the training loss."""
    logits = forward(params, spec, x, ops, training=training, at=at)
    return ops.softmax_cross_entropy(logits, labels=labels, smoothing=0.1)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "cifar" else name for name in SPECS],
)
def test_directional_derivative(name, training):
    """<gradient, v> is the slope of the loss along v, by a central difference.

    With step h the difference errs by h^2 times a third derivative and by about 1e-15 / h of
    rounding. The step is shortened until every ReLU is on the same side at both ends, since a kink
    between them is an error of the difference.
    """
    spec, params, x, labels = setting(name)
    tape = Tape(reference)
    loss(spec, params, x, labels, tape, training)
    wrt = {"x": x} | {
        key: value for key, value in params.items() if not (training and "running" in key)
    }
    found = dict(zip(wrt, gradients(tape, np.float64(1), list(wrt.values())), strict=True))
    assert all(found[key].shape == value.shape for key, value in wrt.items())
    rng, compared = np.random.default_rng(7), 0
    for key in [
        "x",
        "fc.weight",
        "fc.bias",
        *[k for k in wrt if k.startswith(("layer2.0", "conv1"))],
    ]:
        v = rng.standard_normal(wrt[key].shape)
        for h in (1e-5, 1e-6, 1e-7, 1e-8):
            ends, sides = [], ([], [])
            for side, step in zip(sides, (h, -h), strict=True):

                def at(name, value, side=side):
                    side.append(value > 0)
                    return value

                moved = {**wrt, key: wrt[key] + step * v}
                given = params | {k: m for k, m in moved.items() if k != "x"}
                ends.append(loss(spec, given, moved["x"], labels, reference, training, at))
            if all(np.array_equal(a, b) for a, b in zip(*sides, strict=True)):
                assert (found[key] * v).sum() == pytest.approx(
                    (ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-14 / h
                ), key
                compared += 1
                break
    assert compared >= 10


def test_what_is_not_reached_has_no_gradient():
    spec, params, x, labels = setting("B")
    tape = Tape(reference)
    loss(spec, params, x, labels, tape, True)
    assert gradients(tape, np.float64(1), [params["bn1.running_mean"], np.ones(3)]) == [None, None]


def test_a_value_on_the_way_has_one():
    """The gradient of a logit at the last stage is the classifier's row, spread evenly.

    Grad-CAM needs it.
    """
    spec, params, x, _ = setting("B")
    tape, seen = Tape(reference), {}
    logits = forward(params, spec, x, tape, at=lambda name, value: seen.setdefault(name, value))
    [found] = gradients(tape, np.eye(5)[[2, 2]], [seen["layer2"]])
    positions = found.shape[1] * found.shape[2]
    np.testing.assert_allclose(
        found, np.broadcast_to(params["fc.weight"][2] / positions, found.shape), rtol=1e-12
    )
    assert logits.shape == (2, 5)


def test_any_value_on_the_tape_is_differentiated():
    """As that of a shorter tape is, whose last value it is."""
    spec, params, x, _ = setting("B")
    tape, short, seen = Tape(reference), Tape(reference), {}
    forward(params, spec, x, tape, at=lambda name, value: seen.setdefault(name, value))
    short.calls.extend(tape.calls)
    while short.calls[-1].out is not seen["layer2"]:
        short.calls.pop()
    dy = np.random.default_rng(0).standard_normal(seen["layer2"].shape)
    [wanted], [found] = gradients(short, dy, [x]), gradients(tape, dy, [x], of=seen["layer2"])
    assert np.array_equal(found, wanted)
    with pytest.raises(UsageError, match="as of="):  # of the logits, not of layer2
        gradients(tape, dy, [x])
    with pytest.raises(UsageError, match="no op whose result"):
        gradients(tape, dy, [x], of=seen["layer2"].copy())
    with pytest.raises(UsageError, match="empty"):
        gradients(Tape(reference), dy, [x])


@pytest.mark.parametrize("form", [concatenated, summed])
def test_forms_that_a_tape_does_not_see_are_refused(form):
    spec, params, x, _ = setting("B")
    with pytest.raises(UsageError, match="found ndarray and Tape: give block=grouped"):
        forward(params, spec, x, Tape(reference), block=form)
    with pytest.raises(UsageError, match="found list and module"):
        form(Walk(params, spec, reference), next(iter(blocks(spec))), x.tolist())


@pytest.mark.parametrize("name", SPECS)
def test_gradients_on_a_device_with_its_own_memory(name):
    """They are computed with the words of the contract only, and are the same bits."""
    spec, params, x, _ = setting(name)
    dy, found = np.eye(spec.classes)[[1, 3]], []
    for ops in (reference, elsewhere):
        tape, seen = Tape(ops), {}
        there = {key: ops.upload(value) for key, value in params.items()}
        forward(
            there, spec, ops.upload(x), tape, at=lambda name, y, to=seen: to.setdefault(name, y)
        )
        wanted = [
            seen["layer1"],
            seen["layer1.0.add"],
            seen["pooled"],
            there["layer1.0.bn3.weight"],
        ]
        found.append([ops.download(g) for g in gradients(tape, ops.upload(dy), wanted)])
    assert all(map(np.array_equal, *found))


def test_what_nobody_wants_is_not_computed(monkeypatch):
    spec, params, x, _ = setting("B")
    tape, seen, made = Tape(reference), {}, []
    forward(params, spec, x, tape, at=lambda name, value: seen.setdefault(name, value))
    bind = reference.bind
    monkeypatch.setattr(
        reference, "bind", lambda op, *a, **k: made.append((op, k)) or bind(op, *a, **k)
    )
    gradients(tape, np.eye(5)[[2, 2]], [seen["layer2.0.add"]])
    assert made[-1][0] == "relu_backward"  # the one after the addition; nothing before it
    weights = [k["out"][1] for op, k in made if op in ("conv2d_backward", "linear_backward")]
    assert len(weights) == 4
    assert weights == [None] * 4


@pytest.mark.parametrize("training", [False, True])
def test_against_autograd(training):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    spec, params, x, labels = setting("B")
    t = {key: torch.tensor(value, requires_grad=True) for key, value in params.items()}

    def norm(y, name):
        running = (
            t[f"{name}.running_mean"].detach().clone(),
            t[f"{name}.running_var"].detach().clone(),
        )
        return functional.batch_norm(
            y, *running, t[f"{name}.weight"], t[f"{name}.bias"], training, 0.1, spec.eps
        )

    def block(y, name, stride):
        z = norm(functional.conv2d(y, t[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
        z = norm(
            functional.conv2d(z, t[f"{name}.conv2.weight"], stride=stride, padding=1, groups=2),
            f"{name}.bn2",
        ).relu()
        z = norm(functional.conv2d(z, t[f"{name}.conv3.weight"]), f"{name}.bn3")
        if f"{name}.downsample.0.weight" in t:
            y = norm(
                functional.conv2d(y, t[f"{name}.downsample.0.weight"], stride=stride),
                f"{name}.downsample.1",
            )
        return (y + z).relu()

    y = functional.conv2d(
        torch.tensor(x.transpose(0, 3, 1, 2).copy()), t["conv1.weight"], stride=2, padding=3
    )
    y = functional.max_pool2d(norm(y, "bn1").relu(), 3, 2, 1)
    for name, stride in (("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1)):
        y = block(y, name, stride)
    y = functional.linear(y.mean((2, 3)), t["fc.weight"], t["fc.bias"])
    theirs = functional.cross_entropy(y, torch.tensor(labels), label_smoothing=0.1)
    theirs.backward()

    tape = Tape(reference)
    ours = loss(spec, params, x, labels, tape, training)
    assert ours == pytest.approx(theirs.item(), rel=1e-12)
    names = [key for key in params if "running" not in key]
    for key, found in zip(
        names, gradients(tape, np.float64(1), [params[key] for key in names]), strict=True
    ):
        wanted = t[key].grad.numpy()
        assert np.abs(found - wanted).max() <= 1e-11 * np.abs(wanted).max() + 1e-15, key


def test_ops_of_a_backends_own_are_recorded():
    """A backend that lists an op has its gradient too: d(a b) = b da + a db."""

    class Own:
        more_ops = ("multiply",)

        def __getattr__(self, name):
            return getattr(reference, name)

        @staticmethod
        def multiply(a, b):
            return a * b

        @staticmethod
        def bind(op, *args, **attrs):
            if op != "multiply_backward":
                return reference.bind(op, *args, **attrs)
            (dy, _, a, b), more = args, attrs["more"]
            assert more == (False, True)  # a square has one gradient, from two arguments

            def run():
                attrs["out"][0][...] = dy * b
                attrs["out"][1][...] += dy * a

            return run

    tape, x = Tape(Own()), np.array([1.0, -2.0, 3.0])
    tape.multiply(x, x)
    tape.empty((1,), np.float32)  # not an op, so not recorded
    assert [call.op for call in tape.calls] == ["multiply"]
    assert np.array_equal(gradients(tape, np.ones(3), [x])[0], 2 * x)


@pytest.mark.parametrize(
    ("wrt", "text"),
    [
        (lambda x: x, r"wrt is of type ndarray; give a list of arrays: \[x\] for one"),
        (lambda x: {"x": x}, r"wrt has 'x' in it, .* list\(params\.values\(\)\) for a dict"),
        (lambda x: [x, "x"], "wrt has 'x' in it, which is no array"),
        (lambda x: None, "wrt is of type NoneType"),
    ],
)
def test_gradients_are_asked_for_by_a_list_of_arrays(wrt, text):
    tape, x = Tape(reference), np.ones((2, 3))
    tape.relu(x)
    with pytest.raises(UsageError, match=text):
        gradients(tape, np.ones((2, 3)), wrt(x))
    for several in ([x], (x,), {"x": x}.values(), iter([x])):
        assert np.array_equal(gradients(tape, np.ones((2, 3)), several)[0], x)
