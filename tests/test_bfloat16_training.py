"""Training in bfloat16 on the processor: gradients of ops, steps, and runs.

An op's gradients are bounded as in `test_backward`, and those that are stored in bfloat16 are
rounded once, as results are in `test_bfloat16`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import training_cases as small
from op_cases import (
    BLURS,
    CONVS,
    POOLS,
    SCALED,
    Conv,
    Pool,
    conv_data,
    gamma,
    generator,
    ident,
    normal,
    result_shape,
)
from ranks import together
from test_backward import norm_bound, norm_gradient_bounds
from test_bfloat16 import (
    COMPILED,
    MORE,
    SLOW,
    SMALLEST,
    backend_of,
    between,
    narrow,
    near,
    skip_if_slow,
    up,
)
from test_ops import inside

from tinyresnext import Spec
from tinyresnext.cli.main import main
from tinyresnext.errors import DeviceError, UsageError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.inference.files import load
from tinyresnext.network.step import Step
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import reference
from tinyresnext.ops.bfloat16 import rounded, widened
from tinyresnext.system.ranks import ALONE, Ranks, part_of
from tinyresnext.training.initial import initialise
from tinyresnext.training.recipes import Recipe
from tinyresnext.training.samples.dropping import Gates
from tinyresnext.training.setting import Setting, check
from tinyresnext.training.train import finetune, train
from tinyresnext.training.weights import size, views

QUICK = ("epilogue of 1x1: bias",)
SOME = (
    *QUICK,
    "kernel 3 by 2, stride 2 by 1",
    "1x1 stride 2",
    "1x1 padded",
    "prime everything, 1x1",
    "r50 layer2.0 grouped",
    "width 40",
    "half the filters",
    "dilated, no padding",
    "no pictures",
    "no pictures, 1x1",
    "prime everything",
    "a kernel wider than registers",
    "two vectors, odd lines",
    "one vector of 16, stride 2",
    "lines of one position",
)
# Groups that fill vectors, whose weights have gradients in words where the processor has them.
FULL = (
    Conv("two vectors, odd lines", (2, 5, 7, 64), 64, 3, 1, 1, 2),
    Conv("one vector of 16, stride 2", (2, 6, 9, 48), 48, 3, 2, 1, 3),
    Conv("lines of one position", (3, 4, 1, 64), 64, 3, 1, 1, 2),
)
# So many that threads share them: a task has one group or two, and two threads have other tasks.
MANY = Conv("sixteen groups of sixteen", (2, 5, 7, 256), 256, 3, 1, 1, 16)
BY_NAME = {case.name: case for case in (*CONVS, *FULL, MANY)}
WAYS = ["reference", pytest.param("cpu", marks=SLOW), pytest.param("words", marks=SLOW)]
IMAGES = small.pictures(16)
OPTIONS = {"device": "reference", "threads": 1, "preprocess": small.PREPROCESS}
FEW = small.RECIPE.changed({"batch": 8, "epochs": 2, "precision": "bfloat16"})


def convolutions() -> list:
    found = []
    for way in ("reference", "cpu", "words"):
        for case in (BY_NAME[name] for name in SOME):
            quick = way == "reference" or (way == "words" and case.name in QUICK)
            found.append(
                pytest.param(way, case, id=f"{way}-{ident(case)}", marks=[] if quick else SLOW)
            )
    return found


@pytest.fixture(params=WAYS[:2])
def ops(request):
    return backend_of(request.param)


def slopes(name: object, ops, shape) -> tuple[np.ndarray, np.ndarray]:
    """Return a gradient in bfloat16, and its values in float64."""
    dy = normal(generator((name, "dy")), *shape)
    return up(ops, dy), narrow(dy)


# --- the tape -------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS[:2])
@pytest.mark.parametrize("kind", ["logits", "images", "images in float32"])
def test_gradients_of_a_tape_are_as_their_arguments(way: str, kind: str):
    """With equal images and weights of whole numbers every sum is exact, in any order."""
    rng, found = generator(kind), []
    x = rng.integers(-2, 3, (2, 4, 4, 8)).astype(np.float32)
    weight, last = (rng.integers(-2, 3, s).astype(np.float32) for s in ((8, 8, 1, 1), (3, 8)))
    dy = rng.integers(-2, 3, (2, 3) if kind == "logits" else x.shape).astype(np.float32)
    for ops in (backend_of(way), reference):
        tape, half = Tape(ops), ops is not reference
        image = up(ops, x) if half else x
        middle = tape.relu(tape.conv2d(image, weight))
        logits = tape.linear(tape.mean_pool(middle, keepdims=False), last, np.zeros(3, np.float32))
        slope = up(ops, dy) if half and kind == "images" else dy
        of = logits if kind == "logits" else middle
        dx, dweight = gradients(tape, slope, [image, weight], of=of)
        assert (dx.dtype, dweight.dtype) == (image.dtype, weight.dtype)
        found.append((ops.download(dx), dweight))
    for one, other in zip(*found, strict=True):
        assert np.array_equal(one, other)


def test_logits_have_gradients_in_float32_for_features_in_bfloat16():
    """The compiled backend takes them; one is added to, and rounded once."""
    x, weight, dy = (np.array(a, np.float32) for a in ([[1, 2]], [[1, 2], [3, 4]], [[1, 1.5]]))
    found = []
    for way in ("reference", "cpu"):
        ops = backend_of(way)
        out = (up(ops, x), *map(np.zeros_like, (weight, dy[0])))
        args = (dy, dy, up(ops, x), weight, dy[0])
        ops.bind("linear_backward", *args, out=out, more=(True, False, False))()
        found.append([ops.download(out[0]), *out[1:]])
    for one in found:
        assert one[0].tolist() == [[6.5, 10]]
        assert one[1].tolist() == [[1, 2], [1.5, 3]]
        assert one[2].tolist() == [1, 1.5]


@COMPILED
def test_a_gradient_of_a_weight_is_not_written_as_bfloat16():
    ops, x = backend_of("cpu"), np.zeros((1, 2, 2, 8), np.uint16)
    weight = np.zeros((8, 8, 1, 1), np.float32)
    out = (None, np.zeros(weight.shape, np.uint16))
    with pytest.raises(TypeError, match="the gradient of weight is uint16, expected float32"):
        ops.bind("conv2d_backward", x, x, x, weight, out=out, more=(False,) * 2)


# --- ops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("way", "case"), convolutions())
def test_conv2d(way: str, case: Conv):
    """Of the input it is rounded; of weight and bias it is float32. Then it is added to another."""
    ops, shape = backend_of(way), result_shape(case)
    skip_if_slow(ops, case.work)
    x, weight, bias, _ = conv_data(case, shape)
    dy, d = slopes(case.name, ops, shape)
    y, image = up(ops, np.zeros(shape, np.float32)), up(ops, x)
    found = ops.conv2d_backward(dy, y, image, weight, bias, **case.attrs)
    exact = [narrow(x), narrow(weight), None if bias is None else bias.astype(np.float64)]
    wanted = reference.conv2d_backward(d, np.zeros(shape), *exact, **case.attrs)
    sizes = [None if a is None else np.abs(a) for a in (d, np.zeros(shape), *exact)]
    bounds = reference.conv2d_backward(*sizes, **case.attrs)
    fan_out, positions = weight[:, 0].size // case.groups, d.size // max(1, shape[-1])
    assert found[0].dtype == np.uint16
    assert between(ops.download(found[0]), wanted[0], bounds[0], fan_out)
    tiny = (2 * positions + 1) * SMALLEST
    for gradient, want, bound in zip(found[1:], wanted[1:], bounds[1:], strict=True):
        assert (gradient is None) == (want is None)
        assert gradient is None or inside(gradient, want, gamma(positions + 1) * bound + tiny)
    there, before = slopes((case.name, "there"), ops, x.shape)
    start = normal(generator((case.name, "start")), *weight.shape)
    total = start.copy()
    call = ops.bind(
        "conv2d_backward", dy, y, image, weight, bias, **case.attrs,
        out=(there, total, None), more=(True, True, False),
    )  # fmt: skip
    call()
    both = wanted[0] + before, wanted[1] + start
    assert between(ops.download(there), both[0], bounds[0] + np.abs(before), fan_out + 1)
    assert inside(total, both[1], gamma(positions + 2) * (bounds[1] + np.abs(start)) + tiny)


def test_the_interval_sees_a_weight_that_is_not_rounded_and_a_sum_rounded_twice():
    ops, case = backend_of("reference"), BY_NAME["r50 layer1.0 reduce"]
    x, weight, _, _ = conv_data(case, result_shape(case))
    dy, d = slopes(case.name, ops, result_shape(case))
    wanted, *_ = reference.conv2d_backward(d, d, narrow(x), narrow(weight))
    bound, *_ = reference.conv2d_backward(np.abs(d), d, narrow(x), np.abs(narrow(weight)))
    right, *_ = ops.conv2d_backward(dy, dy, up(ops, x), weight)
    assert between(widened(right), wanted, bound, len(weight))
    other, *_ = reference.conv2d_backward(d, d, narrow(x), weight.astype(np.float64))
    assert not between(widened(rounded(other)), wanted, bound, len(weight))
    _, before = slopes("there", ops, x.shape)
    twice = widened(rounded(widened(right) + before))
    assert not between(twice, wanted + before, bound + np.abs(before), len(weight) + 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["r50 layer2.0 grouped", "epilogue of 1x1: none"])
def test_a_bound_call_reads_weights_that_have_changed(way: str, name: str):
    ops, case = backend_of(way), BY_NAME[name]
    skip_if_slow(ops, case.work)
    shape = result_shape(case)
    x, weight, _, _ = conv_data(case, shape)
    dy, _ = slopes(name, ops, shape)
    image, y, dx = (ops.empty(s, "bfloat16") for s in (x.shape, shape, x.shape))
    ops.upload(x, out=image)
    calls = [
        ops.bind("conv2d", image, weight, **case.attrs, out=y),
        ops.bind(
            "conv2d_backward", dy, y, image, weight, **case.attrs, out=(dx, None), more=(False,) * 2
        ),
    ]
    weight *= np.float32(1.37)
    for call in calls:
        call()
    assert np.array_equal(y, ops.conv2d(image, weight, **case.attrs))
    assert np.array_equal(dx, ops.conv2d_backward(dy, y, image, weight, **case.attrs)[0])


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 8, 8, 16)], ids=str)
def test_batch_norm_train(ops, shape, residual: bool, relu: bool):
    """What is so near zero that a ReLU may pass it or not has no gradient here."""
    rng, c = generator((shape, residual)), shape[-1]
    x, other = normal(rng, *shape) + np.float32(2), normal(rng, *shape)
    scale, shift = rng.uniform(0.5, 2, c).astype(np.float32), normal(rng, c)
    vectors = [scale.astype(np.float64), shift.astype(np.float64)]
    args = [narrow(x), *vectors, *([narrow(other)] if residual else [])]
    given = [up(ops, x), scale, shift, *([up(ops, other)] if residual else [])]
    attrs, statistics = {"relu": relu, "eps": 1e-5}, np.empty((2, c), np.float32)
    want = reference.batch_norm_train(*args, **attrs)
    y = ops.batch_norm_train(*given, **attrs, statistics=statistics)
    assert near(ops.download(y), want, norm_bound(*args))
    dy = normal(rng, *shape)
    dy[np.abs(reference.batch_norm_train(*args)) < 0.05] = 0
    wanted = reference.batch_norm_train_backward(narrow(dy), want, *args, **attrs)
    d = np.abs(narrow(dy) * (want > 0) if relu else narrow(dy))
    bounds = norm_gradient_bounds(*args[:2], d)
    found = ops.batch_norm_train_backward(up(ops, dy), y, *given, **attrs, statistics=statistics)
    assert [a.dtype.itemsize for a in found if a is not None] == [2, 4, 4, 2][: len(args)]
    assert near(ops.download(found[0]), wanted[0], bounds[0])
    assert all(inside(found[i], wanted[i], bounds[i]) for i in (1, 2))
    assert not residual or near(ops.download(found[3]), wanted[3], 0)
    over = up(ops, dy)  # in place, as a step has it
    places = [np.empty_like(a) for a in given]
    places[3 if residual else 0] = over
    bound = {"statistics": statistics, "out": tuple(places), "more": (False,) * len(given)}
    ops.bind("batch_norm_train_backward", over, y, *given, **attrs, **bound)()
    assert all(np.array_equal(a, b) for a, b in zip(places, found, strict=False))


@pytest.mark.parametrize("case", [POOLS[0], POOLS[2], POOLS[5], POOLS[-1]], ids=ident)
def test_pools(ops, case: Pool):
    """A place is in several windows: their gradients are added before they are rounded."""
    x, places = normal(generator(case.name), *case.x), int(np.prod(case.size)) ** 2
    for op, attrs in (("max_pool2d", {}), ("avg_pool2d", {"count_include_pad": case.include_pad})):
        attrs = case.attrs | attrs
        y = getattr(reference, op)(narrow(x), **attrs)
        dy, d = slopes((case.name, op), ops, y.shape)
        check_gradient(ops, op, (dy, d), (up(ops, x), narrow(x)), y, attrs, places + 1)


def check_gradient(ops, op: str, dy, x, y, attrs: dict, terms: int) -> None:
    """Check the gradient of an op of one argument, and that it is added to what is there."""
    backward, halves = getattr(reference, f"{op}_backward"), up(ops, y.astype(np.float32))
    (want,), (bound,) = (backward(d, y, x[1], **attrs) for d in (dy[1], np.abs(dy[1])))
    (found,) = getattr(ops, f"{op}_backward")(dy[0], halves, x[0], **attrs)
    assert between(ops.download(found), want, bound, terms)
    there, before = slopes((op, "there"), ops, x[1].shape)
    args = dy[0], halves, x[0]
    ops.bind(f"{op}_backward", *args, **attrs, out=(there,), more=(True,))()
    assert between(ops.download(there), want + before, bound + np.abs(before), terms + 1)


@pytest.mark.parametrize(("shape", "stride"), BLURS, ids=str)
def test_blur_pool(ops, shape, stride: int):
    skip_if_slow(ops, int(np.prod(shape)) * 9)
    x = normal(generator(shape), *shape)
    y = reference.blur_pool(narrow(x), stride=stride)
    dy = slopes(shape, ops, y.shape)
    check_gradient(ops, "blur_pool", dy, (up(ops, x), narrow(x)), y, {"stride": stride}, 12)


@pytest.mark.parametrize("keepdims", [False, True])
def test_the_gradient_of_pooled_features_may_be_float32(ops, keepdims: bool):
    x = normal(generator("pooled"), 2, 3, 5, 7)
    y = ops.empty((2, 1, 1, 7) if keepdims else (2, 7))  # float32, as the classifier reads it
    ops.bind("mean_pool", up(ops, x), keepdims=keepdims, out=y)()
    mean, total = (reference.mean_pool(a, keepdims=keepdims) for a in (narrow(x), abs(narrow(x))))
    assert inside(y, mean, gamma(16) * total)
    dy, dx = normal(generator("dy"), *y.shape), ops.empty(x.shape, "bfloat16")
    args = dy, y, up(ops, x)
    ops.bind("mean_pool_backward", *args, keepdims=keepdims, out=(dx,), more=(False,))()
    wide = dy.astype(np.float64)
    (want,) = reference.mean_pool_backward(wide, mean, narrow(x), keepdims=keepdims)
    assert between(ops.download(dx), want, np.abs(want), 2)


@pytest.mark.parametrize("end", ["", "residual", "relu", "residual relu"])
@pytest.mark.parametrize("shape", [SCALED[0], SCALED[-1]], ids=str)
def test_excite(ops, shape, end: str):
    rng, relu = generator((shape, end)), "relu" in end
    x, s, other = normal(rng, *shape), normal(rng, shape[0], 1, 1, shape[3]), normal(rng, *shape)
    arrays = [x, s, *([other] if "residual" in end else [])]
    args, given = [narrow(a) for a in arrays], [up(ops, a) for a in arrays]
    y = reference.excite(*args, relu=relu)
    dy = normal(rng, *shape)
    dy[np.abs(reference.excite(*args)) < 0.05] = 0
    result = up(ops, y.astype(np.float32))
    found = ops.excite_backward(up(ops, dy), result, *given, relu=relu)
    wanted = reference.excite_backward(narrow(dy), y, *args, relu=relu)
    bounds = reference.excite_backward(
        np.abs(narrow(dy)), y, np.abs(args[0]), np.abs(args[1]), *args[2:], relu=relu
    )
    terms = 12, shape[1] * shape[2] + 16, 1
    for gradient, want, bound, k in zip(found, wanted, bounds, terms, strict=False):
        assert between(ops.download(gradient), want, np.abs(bound), k)


def test_relu_add_and_a_fixed_batch_norm(ops):
    rng, shape = generator("rest"), (2, 3, 5, 7)
    x, scale, mean = normal(rng, *shape), normal(rng, 7), normal(rng, 7)
    (dy, d), image = slopes("rest", ops, shape), up(ops, x)
    (dx,) = ops.relu_backward(dy, image, image)
    assert np.array_equal(ops.download(dx), np.where(narrow(x) > 0, d, 0))
    assert all(np.array_equal(a, dy) for a in ops.add_backward(dy, dy, image, image))
    var = rng.uniform(0.5, 2, 7).astype(np.float32)
    vectors = scale, mean, mean, var
    found = ops.batch_norm_backward(dy, image, image, *vectors)
    doubles = [a.astype(np.float64) for a in vectors]
    wanted = reference.batch_norm_backward(d, d, narrow(x), *doubles)
    assert between(ops.download(found[0]), wanted[0], np.abs(wanted[0]), 8)
    sums = np.abs(d).sum((0, 1, 2)) * (np.abs(narrow(x)).max((0, 1, 2)) + np.abs(mean))
    rstd = 1 / np.sqrt(doubles[3] + 1e-5)
    assert inside(found[1], wanted[1], gamma(42) * sums * rstd)
    there, before = slopes("there", ops, shape)
    out = (there, None, None, None, None)
    ops.bind("batch_norm_backward", dy, image, image, *vectors, out=out, more=(True,) * 5)()
    size = np.abs(wanted[0]) + np.abs(before)
    assert between(ops.download(there), wanted[0] + before, size, 9)


@COMPILED
@SLOW
@pytest.mark.parametrize("way", ["cpu", "words"])
@pytest.mark.parametrize("name", ["width 40", "r50 layer2.0 grouped", "epilogue of 1x1: bias"])
def test_gradients_of_the_input_are_the_same_bits_for_any_number_of_threads(way: str, name: str):
    ops, case, found = backend_of(way), BY_NAME[name], []
    x, weight, bias, _ = conv_data(case, result_shape(case))
    dy, _ = slopes(name, ops, result_shape(case))
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        with ops.on_threads(threads):
            gradients = ops.conv2d_backward(dy, dy, up(ops, x), weight, bias, **case.attrs)
            found.append((gradients[0], ops.conv2d(up(ops, x), weight, bias, **case.attrs)))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@COMPILED
@SLOW
@pytest.mark.parametrize("name", ["1x1 padded", "prime everything, 1x1", MANY.name])
def test_weights_in_words_have_the_same_gradient_for_any_number_of_threads(name: str):
    ops, case, found = backend_of("words"), BY_NAME[name], []
    x, weight, bias, _ = conv_data(case, result_shape(case))
    dy, _ = slopes(name, ops, result_shape(case))
    for threads in (1, numba.config.NUMBA_NUM_THREADS):
        with ops.on_threads(threads):
            found.append(ops.conv2d_backward(dy, dy, up(ops, x), weight, bias, **case.attrs)[1])
    assert np.array_equal(*found)


@SLOW
@pytest.mark.parametrize("way", ["cpu", "words"])
@pytest.mark.parametrize("width", [7, 8])
def test_a_weight_learns_nothing_from_pixels_that_no_position_of_its_tap_sees(way: str, width: int):
    """A line of odd length ends in half a word: what is beside it is never multiplied."""
    ops, rng = backend_of(way), generator("pixels beside")
    x, weight = normal(rng, 1, 3, width, 64), normal(rng, 64, 32, 1, 3)
    x[:, :, -1] = np.inf  # the last position's last tap sees it
    dy, _ = slopes("pixels beside", ops, (1, 3, width - 2, 64))
    _, found, _ = ops.conv2d_backward(dy, dy, up(ops, x), weight, None, groups=2)
    assert np.isfinite(found[..., :2]).all()
    assert not np.isfinite(found[..., 2]).any()


# --- steps ----------------------------------------------------------------------------------------

PLAIN = Spec((1, 1), 4, 8, 10, stem="cifar", expansion=2)
STEPS = {
    "plain": (PLAIN, (8, 8, 8, 3), {}),
    "with everything": (MORE, (4, 40, 40, 3), {}),
    "imagenet's stem, max pooling": (Spec((1, 1), 8, 4, 6, expansion=2), (8, 24, 24, 3), {}),
    "padded shortcuts, frozen": (
        dataclasses.replace(PLAIN, shortcut="A"), (8, 8, 8, 3), {"frozen": ("conv1", "bn1")},
    ),
    "pooled stem": (Spec((1, 1), 2, 8, 4, stem="pooled"), (8, 16, 16, 3), {}),
    "parts left out": (PLAIN, (8, 8, 8, 3), {"drops": {"layer2.0": 0.5, "pooled": 0.25}}),
}  # fmt: skip


def step_of(ops, name: str, ranks: Ranks = ALONE) -> tuple[float, np.ndarray, int]:
    """Return loss, gradients and bytes of one step, or of a rank's part of it."""
    spec, shape, more = STEPS[name]
    params = views(np.zeros(size(spec), np.float32), spec)
    initialise(params, small.RECIPE.start, 0)
    if "drops" in more:
        gates = Gates(reference, spec, more["drops"], shape[0])
        kept = np.arange(shape[0]) % 2 == 0
        wide = (np.arange(shape[0] * spec.features) % 4 > 0).reshape(shape[0], -1)
        gates.open({"layer2.0": kept, "pooled": wide})
        more = {"drops": gates.drops}
    rng = generator(name)
    x, labels = normal(rng, *shape), rng.integers(0, spec.classes, shape[0])
    own = slice(*part_of(ranks, shape[0]))
    step = Step(params, spec, x[own].shape, ops, ranks=ranks, sync_norm=True, **more)
    loss, _ = step(x[own], labels[own])
    assert {a.dtype for a in step.gradients.values()} == {np.dtype(np.float32)}
    return loss, np.concatenate([a.ravel() for a in step.gradients.values()]), step.bytes


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_near_that_of_float32(way: str, name: str):
    """Every value is off by one part in 2^9 at most where it is stored, and some ReLUs change.

    Over a dozen layers such errors add up to a tenth of a gradient, and to a fifth where a max
    pooling chooses another value (found 0.08 to 0.18). Two backends round at the same places, and
    only what sums leave near a half becomes another number (found 0.0005 to 0.06). The gradient of
    a wrong layer would be as far from the right one as it is long.
    """
    ops = backend_of(way)
    skip_if_slow(ops, 10**6)
    loss, gradient, room = step_of(ops, name)
    want, slope, whole = step_of(reference, name)
    assert 0 < abs(loss - want) < 2.0**-8 * want
    assert np.linalg.norm(gradient - slope) < 0.25 * np.linalg.norm(slope)
    if way != "reference":
        _, other, _ = step_of(backend_of("reference"), name)
        assert np.linalg.norm(gradient - other) < 0.1 * np.linalg.norm(other)
    assert room < 0.52 * whole  # what is left is float32: pooled features, logits and the loss


def test_ranks_that_share_norms_make_the_step_of_one_process():
    """Sums are added up in another order, and a value that is near a half is rounded otherwise."""
    ops = backend_of("reference")
    loss, gradient, _ = step_of(ops, "plain")
    (first, slope, _), (second, other, _) = together(2, lambda rank: step_of(ops, "plain", rank))
    assert np.array_equal(slope, other)
    assert abs((first + second) / 2 - loss) < 2.0**-8 * loss
    assert np.linalg.norm(slope - gradient) < 0.1 * np.linalg.norm(gradient)


@SLOW
def test_the_loss_of_a_model_is_learnt_as_in_float32(tmp_path):
    """Two runs from the same weights with the same images: their losses stay close, and fall.

    A first loss differs by some 2^-9 of itself, and each step adds as much to a difference.
    """
    losses, how = {}, {"epochs": 8, "lr": 0.02, "mixup": 0.0, "crop": "none"}
    for precision in ("float32", "bfloat16"):
        recipe = FEW.changed({"precision": precision} | how)
        made = train(small.SPEC, IMAGES, recipe, tmp_path / precision, **OPTIONS)
        lines = (tmp_path / precision / "log.jsonl").read_text("utf-8").splitlines()
        losses[precision] = np.array([json.loads(line)["loss"] for line in lines])
        assert json.loads(made.provenance["recipe"])["precision"] == precision
        assert made.ops is reference  # what is trained in bfloat16 is a model of float32
    assert losses["bfloat16"][-1] < 0.8 * losses["bfloat16"][0]
    apart = np.abs(losses["bfloat16"] - losses["float32"])
    assert 0 < apart.max() < 16 * 2.0**-9 * losses["float32"][0]


# --- runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["reference", pytest.param("cpu", marks=SLOW)])
@pytest.mark.parametrize(
    "more", [{}, {"parts": 2, "muon": 0.1, "ema": 0.9}], ids=["plain", "parts"]
)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, device, more):
    recipe = FEW.changed(more)
    given, options = (small.SPEC, IMAGES, recipe), OPTIONS | {"device": device}
    whole = train(*given, tmp_path / "whole", **options)
    small.interrupt(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(*given, tmp_path / "cut", **options)
    monkeypatch.undo()
    wide = recipe.changed({"precision": "float32"})
    with pytest.raises(UsageError, match="has precision 'bfloat16', and not 'float32'"):
        train(small.SPEC, IMAGES, wide, tmp_path / "cut", resume=True, **options)
    made = train(*given, tmp_path / "cut", resume=True, **options)
    for name, value in whole.params.items():
        assert np.array_equal(value, made.params[name]), name
    assert not np.array_equal(rounded(value), value)


def test_a_teacher_labels_and_frozen_layers(tmp_path):
    """What computes beside the network is float32, and none of it minds the precision."""
    options, recipe = OPTIONS, FEW.changed({"epochs": 1})
    first = train(small.SPEC, IMAGES, recipe, tmp_path / "first", **options)
    taught = recipe.changed({"teacher_weight": 0.5, "temperature": 2.0})
    made = train(small.SPEC, IMAGES, taught, tmp_path / "a", teacher=first, **options)
    assert "teacher" in made.provenance
    more = recipe.changed({"entropy": "binary", "drop_path": 0.2, "dropout": 0.2, "mixup": 0.0})
    frozen = finetune(first, IMAGES, more, tmp_path / "b", frozen_to="layer1", threads=1)
    for name, value in first.params.items():
        kept = name.partition(".")[0] in ("conv1", "bn1", "layer1")
        assert np.array_equal(value, frozen.params[name]) == kept, name


def test_old_recipes_are_float32():
    values = small.RECIPE.to_json()
    assert values.pop("precision") == "float32"
    assert Recipe.from_json(values) == small.RECIPE
    with pytest.raises(UsageError, match="precision is 'float16': expected one of float32, bfloat"):
        small.RECIPE.changed({"precision": "float16"})


def test_what_cannot_be_trained_is_refused(tmp_path):
    half = load(shipped_model(), "reference", precision="bfloat16")
    with pytest.raises(DeviceError, match="weights are trained in float32: load it without a prec"):
        finetune(half, IMAGES, FEW, tmp_path / "a")
    gpu = SimpleNamespace(
        __name__="tinyresnext.ops.cuda:0", precision="float32", described=lambda: "a GPU"
    )
    setting = Setting(IMAGES, None, small.PREPROCESS, (), gpu, 1, 0, False, {})
    with pytest.raises(DeviceError, match=r"a GPU trains in float32 only, .*--device cpu"):
        check(small.SPEC, FEW, setting)
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_computes_in(tmp_path, capsys):
    small.write_folder(tmp_path / "images")
    command = ["train", str(tmp_path / "images"), "--depth", "11", "--cardinality", "1"]
    command += ["--width", "4", "--size", "8", "--device", "reference", "--batch", "4"]
    command += ["--epochs", "1", "--precision", "bfloat16", "--crop", "none", "--no-whiten"]
    picture = tmp_path / "dry.png"
    assert main([*command, "--dry-run", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "for a step on plain NumPy, in bfloat16" in said
    assert "--precision" in said
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "plain NumPy, in bfloat16; weights, sums" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "run" / "model.h5")]) == 0
    assert re.search(r"precision +bfloat16 ", capsys.readouterr().out)
    assert main(["train", "--resume", str(tmp_path / "run"), "--precision", "float32"]) == 2
