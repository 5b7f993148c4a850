"""A mistake of each kind in each family of kernels beside convolutions, which the emulator finds.

The kernels of convolutions have their own (`test_cuda_conv_faults`), and those of float16,
bfloat16 (`test_cuda_half`) and integers (`test_cuda_integer`) too. A line is changed as there.
Where the emulator of PTX says nothing, a result must differ from the right kernel's by a hundredth
of the largest value: no bound of `test_ops` is as wide. `FAMILIES` says which kinds there are for
which family, and a test holds it to the lists.
"""

from __future__ import annotations

import inspect
from functools import cache

import numpy as np
import pytest
import test_cuda_conv_faults as convolutions
import test_cuda_half as half
import test_cuda_integer as integers
from test_cuda_conv_faults import OUT, changed

from tinyresnext.emulator.fault import KernelFault
from tinyresnext.emulator.ptx import PtxMachine
from tinyresnext.ops.cuda import backend, elementwise
from tinyresnext.ops.cuda.conv import interlaced
from tinyresnext.ops.cuda.loss import binary, head, softmax
from tinyresnext.ops.cuda.loss import labels as targets
from tinyresnext.ops.cuda.norm import constant, moments, sums
from tinyresnext.ops.cuda.pool import average, blur, excite, maximum, mean
from tinyresnext.ops.cuda.update import adaptive, clip, muon, products
from tinyresnext.ops.cuda.update import elementwise as updates

RACE = "another thread"
INDEX, BARRIER, WAIT, WARP = "index", "barrier", "wait", "warp"  # the kinds of mistakes

# --- what is computed -----------------------------------------------------------------------------


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


def values(ops, word: str, *shapes: tuple[int, ...], **attrs):
    """Return what a word makes of arrays of these shapes."""
    found = getattr(ops, word)(*(ops.upload(normal(*shape)) for shape in shapes), **attrs)
    results = found if isinstance(found, tuple) else (found,)
    return [ops.download(a) for a in results if a is not None]


def updated(ops, word: str, *shapes: tuple[int, ...], **attrs):
    """Return what a word makes of its arrays in place."""
    arrays = [ops.upload(normal(*shape)) for shape in shapes]
    getattr(ops, word)(*arrays, **attrs)
    return [ops.download(a) for a in arrays]


IMAGE, CHANNELS, ROWS, LOGITS = (2, 9, 8, 40), (40,), (3, 40), (3, 72)
THREE = (2, 9, 8, 3)
WINDOWS = {"size": 3, "stride": 2, "padding": 1}


def norm_train(ops, image=IMAGE, vector=CHANNELS):
    return values(ops, "batch_norm_train", image, vector, vector, relu=True)


def norm_gradients(ops, image=IMAGE, vector=CHANNELS):
    given = (image, image, image, vector, vector)
    return values(ops, "batch_norm_train_backward", *given, relu=True)


def norm_of_few(ops):
    return norm_train(ops, THREE, THREE[-1:])


def norm_gradients_of_few(ops):
    return norm_gradients(ops, THREE, THREE[-1:])


def norm_constant(ops):
    vectors = [ops.upload(np.abs(normal(40)) + 1) for _ in range(4)]
    x, dy = ops.upload(normal(*IMAGE)), ops.upload(normal(2, 9, 8, 40) + 1)
    y = ops.batch_norm(x, *vectors)
    found = (y, *ops.batch_norm_backward(dy, y, x, *vectors))
    return [ops.download(a) for a in found]


def pooled(word: str, shape: tuple[int, ...], **attrs):
    return lambda ops: [
        *values(ops, word, IMAGE, **attrs),
        *values(ops, f"{word}_backward", shape, shape, IMAGE, **attrs),
    ]


def excited(ops):
    scales = (2, 1, 1, 40)
    return [
        *values(ops, "excite", IMAGE, scales, IMAGE, relu=True),
        *values(ops, "excite_backward", IMAGE, IMAGE, IMAGE, scales, IMAGE, relu=True),
    ]


def lost(word: str, labels):
    return lambda ops: [
        *values(ops, word, LOGITS, labels=labels),
        *values(ops, f"{word}_backward", (), (), LOGITS, labels=labels),
    ]


def softmaxes(ops):
    return values(ops, "softmax", LOGITS) + values(ops, "softmax_backward", *[LOGITS] * 3)


def rectified(ops):
    x, place = ops.upload(normal(*IMAGE)), ops.empty(IMAGE)
    ops.machine.launch(elementwise.accumulate(place, x, False))
    found = ops.relu(x), ops.add(x, place), *ops.relu_backward(place, x, place)
    return [ops.download(a) for a in (place, *found)]


def dilated(ops):
    return values(ops, "conv2d", (1, 7, 6, 4), (4, 4, 3, 3), padding=2, dilation=2)


def added_to(ops):
    """Return a gradient that is added to what is there, of three channels."""
    dy, x, place = (ops.upload(normal(*shape)) for shape in ((2, 5, 4, 3), THREE, THREE))
    bind = average.bind_avg_pool2d_backward
    bind(dy, dy, x, size=2, stride=2, ceil_mode=True, out=[place], more=[True])()
    return [ops.download(place)]


def three_channels(ops):
    return values(ops, "conv2d", (2, 20, 20, 3), (4, 3, 3, 3))


def every_other_place(ops):
    shapes = (2, 6, 6, 12), (2, 6, 6, 12), (2, 12, 11, 12), (12, 12, 1, 1)
    return values(ops, "conv2d_backward", *shapes, stride=2)


def of_no_images(ops):
    """Return the gradient of a weight that no image has seen, and a value that is not zero."""
    shapes = (0, 3, 3, 4), (0, 3, 3, 4), (0, 6, 5, 4), (4, 4, 1, 1)
    _, found, *_ = values(ops, "conv2d_backward", *shapes, stride=2)
    return [np.append(found, np.float32(1))]


def sgd(ops):
    return updated(ops, "sgd_step", *[IMAGE] * 3, lr=0.1, momentum=0.9, decay=0.1, nesterov=True)


def adapted(word: str, **attrs):
    numbers = {"lr": 0.1, "momentum": 0.9, "beta2": 0.99, "eps": 1e-3, "decay": 0.1}

    def step(ops):
        arrays = [ops.upload(normal(*IMAGE)) for _ in range(3)]
        squares = ops.upload(np.abs(normal(*IMAGE)))
        getattr(ops, word)(*arrays, squares, **numbers | attrs)
        return [ops.download(a) for a in (*arrays, squares)]

    return step


def clipped(ops):
    return [
        *updated(ops, "clip_norm_step", IMAGE, most=1.0),
        *updated(ops, "clip_value_step", IMAGE, most=0.5),
        *updated(ops, "clip_units_step", (70, 3, 3, 3), (70, 3, 3, 3), most=0.1),
    ]


def statistics(ops):
    return updated(ops, "statistics_step", (40,), (40,), (2, 40), count=9, new=0.5)


def averages(ops):
    return updated(ops, "average_step", IMAGE, IMAGE, new=0.5)


def muons(ops):
    return updated(ops, "muon_step", *[(67, 21, 3, 3)] * 3, groups=1, lr=0.5)


def two_muons(ops):
    return updated(ops, "muon_step", *[(8, 3, 3, 3)] * 3, groups=2, lr=0.5)


MAXIMUM, AVERAGE = (pooled(f"{a}_pool2d", (2, 5, 4, 40), **WINDOWS) for a in ("max", "avg"))
BLUR, MEAN = pooled("blur_pool", (2, 5, 4, 40), stride=2), pooled("mean_pool", (2, 40))
ENTROPY = lost("softmax_cross_entropy", np.array([3, 69, 0]))
BINARY = lost("binary_cross_entropy", (normal(3, 72) > 0).astype(np.float32))

# --- the mistakes ---------------------------------------------------------------------------------

# The module, its kernel, what is changed to what, what is computed, what is said of it.
SYNC = "        cuda.syncthreads()\n"
FEW = "        if t < int32(COLUMNS) and t < channels:\n"  # fewer channels than columns
NORMS = [
    (moments, "parts_kernel", "columns + column)] - high",
     "columns)] - high", norm_train, None),
    (moments, "parts_kernel", SYNC, "", norm_train, RACE),
    (moments, "parts_kernel", SYNC + FEW, FEW, norm_of_few, RACE),
    (moments, "parts_kernel", "int32(t + channels)", "int32(t)", norm_of_few, None),
    (moments, "parts_kernel", "and channels < apart:", "and False:", norm_of_few,
     "nobody has written it"),
    (moments, "whole_kernel", "store4(norm, int32(c * int32(EACH))",
     "store4(norm, int32((c + 1) * int32(EACH))", norm_train, OUT),
    (moments, "whole_kernel", SYNC, "", norm_train, RACE),
    (sums, "sums_kernel", "at = int32(part * int32(2) * apart + c)",
     "at = int32(part * apart + c)", norm_gradients, RACE),
    (sums, "sums_kernel", SYNC, "", norm_gradients, RACE),
    (sums, "sums_kernel", SYNC + FEW, FEW, norm_gradients_of_few, RACE),
    (sums, "sums_kernel", "at + apart - c", "at + apart - c - 1", norm_gradients_of_few,
     "nobody has written it"),
    (sums, "gradients_kernel", "total += own[t + int32(k * FEW)]",
     "total += own[t + int32(k * COLUMNS)]", norm_gradients, "of shared memory, which has"),
    (sums, "gradients_kernel", SYNC, "", norm_gradients, RACE),
    (sums, "spread_kernel", "a, b, _, _ = load4", "b, a, _, _ = load4", norm_gradients, None),
    (constant, "normalise_kernel", "i = int32(row * columns + column)",
     "i = int32(row * columns + column + 1)", norm_constant, OUT),
    (constant, "scaled_kernel", "each = mean[c]", "each = mean[0]", norm_constant, None),
    (constant, "statistics_gradients_kernel", "_, _, centred, total =", "_, _, total, centred =",
     norm_constant, None),
]  # fmt: skip
POOLS = [
    (maximum, "maximum_kernel", "column >= int32(0) and ", "", MAXIMUM, OUT),
    (maximum, "maximum_gradient_kernel", "w_out + int32(v))", "w_out + int32(u))",
     MAXIMUM, OUT),
    (average, "average_kernel", "if i < count:", "if True:", AVERAGE, OUT),
    (average, "average_gradient_kernel", "reaching(row, k_h,", "reaching(row, k_w + 1,",
     AVERAGE, None),
    (blur, "blur_kernel", "column = int32(1)", "column = int32(0)", BLUR, None),
    (blur, "blur_gradient_kernel", "* w_out + v)", "* w_out + u)", BLUR, OUT),
    (mean, "mean_kernel", "position = int32(position + int32(ROWS))",
     "position = int32(position + int32(ROWS + 1))", MEAN, None),
    (mean, "mean_kernel", SYNC, "", MEAN, RACE),
    (mean, "mean_gradient_kernel", "dy[int32(n * c + channel)]", "dy[channel]", MEAN, None),
    (excite, "excite_kernel", "get(s, int32(n * c + channel))", "get(s, channel)", excited,
     None),
    (excite, "excite_sums_kernel", "i = int32(int32(n * positions + position) * wide",
     "i = int32(int32(n * positions + position + 1) * wide", excited, OUT),
    (excite, "excite_sums_kernel", SYNC, "", excited, RACE),
    (excite, "excite_gradient_kernel", "d = dy[i]", "d = dy[channel]", excited, None),
]  # fmt: skip
LOSSES = [
    (head, "softmax_kernel", "end = int32(start + classes)",
     "end = int32(start + classes + 1)", softmaxes, OUT),
    (head, "softmax_kernel", "largest = warp_larger(largest)", "largest = largest",
     softmaxes, None),
    (head, "softmax_gradient_kernel", "total = warp_sum(total)", "total = total", softmaxes, None),
    (head, "softmax_gradient_kernel", "gradient = y[i] *", "gradient = y[start + t] *",
     softmaxes, None),
    (softmax, "losses_kernel", "loss -= (labels[i] * kept", "loss -= (labels[i + 1] * kept",
     ENTROPY, OUT),
    (softmax, "losses_kernel", "loss = warp_sum(loss)", "loss = loss", ENTROPY, None),
    (softmax, "losses_gradient_kernel", "if i < count:", "if True:", ENTROPY, OUT),
    (binary, "binary_losses_kernel", "start = int32(int32(cuda.blockIdx.x) * wide)",
     "start = int32(0)", BINARY, None),
    (binary, "binary_losses_kernel", "loss = warp_sum(loss)", "loss = loss", BINARY, None),
    (binary, "binary_gradient_kernel", "(labels[i] * kept", "(labels[0] * kept", BINARY,
     None),
    (targets, "mean_kernel", "while i < count:", "while i <= count:", ENTROPY, OUT),
    (targets, "mean_kernel", "total = warp_sum(total)", "total = total", ENTROPY, None),
]  # fmt: skip
UPDATES = [
    (updates, "sgd_kernel", "if i < count:", "if True:", sgd, OUT),
    (adaptive, "adamw_kernel", "if i < count:", "if True:", adapted("adamw_step", step=2), OUT),
    (adaptive, "lamb_kernel", "g = gradient[i]", "g = gradient[first]",
     adapted("lamb_step", step=2), None),
    (adaptive, "trusted_kernel", "own[int32(0)] > float32(0):", "own[int32(1)] > float32(0):",
     adapted("lamb_step", step=2), OUT),
    (adaptive, "plain_kernel", "if i < count:", "if True:",
     adapted("lamb_step", step=2, decay=0.0), OUT),
    (adaptive, "rmsprop_kernel", "squares[i] = s", "squares[first] = s", adapted("rmsprop_step"),
     None),
    (clip, "clip_norm_kernel", "norm[int32(0)]", "norm[int32(1)]", clipped, OUT),
    (clip, "clip_value_kernel", "if i < count:", "if True:", clipped, OUT),
    (clip, "clip_units_kernel", "norm[unit], own[unit],", "norm[unit], own[0],", clipped, None),
    (clip, "clip_units_kernel", "if units - first > together", "if True", clipped, OUT),
    (clip, "clip_units_kernel", SYNC, "", clipped, RACE),
    (updates, "average_kernel", "(values[i] - average[i])", "(values[i] - average[0])",
     averages, "another thread|another block"),
    (updates, "statistics_kernel", "statistics[i + count]", "statistics[i]", statistics,
     None),
    (muon, "momentum_kernel", "ahead[i] =", "ahead[k] =", muons, RACE),
    (muon, "squares_kernel", "if begin + part < length:", "if True:", muons, OUT),
    (muon, "squares_kernel", "total = warp_sum(total)", "total = total", muons, None),
    (muon, "norms_kernel", "sums[int32(start + i)]", "sums[i]", two_muons, None),
    (muon, "norms_kernel", "before[int32(cuda.blockIdx.x)]", "before[0]", two_muons, None),
    (muon, "norms_kernel", "total = warp_sum(total)", "total = total", muons, None),
    (muon, "divide_kernel", "norms[quotient(i, length)] + least",
     "norms[quotient(i, length) + 1] + least", muons, OUT),
    (muon, "move_kernel", "* direction[i]", "* direction[k]", muons, None),
    (muon, "rescale_kernel", "factors[quotient(i, length)]", "factors[i]", muons, OUT),
    (products, "product_kernel", "if i < m and j < n:", "if i < m:", muons, OUT),
    (products, "product_kernel", "            cuda.syncthreads()\n            for k",
     "            for k", muons, RACE),
    (products, "product_kernel", "            cuda.syncthreads()\n        for p",
     "        for p", muons, RACE),
]  # fmt: skip
OTHERS = [
    (elementwise, "add_kernel", "put(z, i,", "put(z, first,", rectified, None),
    (elementwise, "relu_kernel", "put(y, i,", "put(y, first,", rectified, None),
    (elementwise, "copy_kernel", "get(x, i)", "get(x, first)", rectified, None),
    (elementwise, "relu_gradient_kernel", "if x[i] >", "if x[first] >", rectified, None),
    (elementwise, "widen_kernel", "+ within - start)", "- start)", three_channels, None),
    (elementwise, "widen_kernel", SYNC, "", three_channels, RACE),
    (elementwise, "narrow_kernel", "if at >= first and int32(i)", "if int32(i)", muons,
     "of shared memory, which has"),
    (elementwise, "narrow_kernel", "value + get(y, int32(i)) if more", "value + value if more",
     added_to, None),
    (elementwise, "narrow_kernel", SYNC, "", muons, RACE),
    (elementwise, "zero_kernel", "x[i] = float32(0)", "x[i] = float32(2)", of_no_images, None),
    (interlaced, "split_kernel", "row < h and ", "", dilated, OUT),
    (interlaced, "join_kernel", "if i < count:", "if True:", dilated, "nobody has written it"),
    (interlaced, "join_few_kernel", "s[int32(i)]", "s[thread]", every_other_place, None),
    (interlaced, "join_few_kernel", SYNC, "", every_other_place, RACE),
]  # fmt: skip
BESIDE = {"norms": NORMS, "pools": POOLS, "losses": LOSSES, "updates": UPDATES, "others": OTHERS}


def kind(old: str) -> str:
    """Return which kind of mistake it is to change a line."""
    marks = {"syncthreads": BARRIER, "copies_done": WAIT, "warp_": WARP}
    return next((marks[mark] for mark in marks if mark in old), INDEX)


# For each family of kernels the kinds of mistakes that it can have. Only the products of
# convolutions copy asynchronously and have to wait; memory is shared between threads where
# `BARRIER` is listed, and registers of a warp are exchanged where `WARP` is.
FAMILIES = {
    "convolutions": {INDEX, BARRIER, WAIT},
    "the classifier": {INDEX, WARP},
    "convolutions in float16": {INDEX, BARRIER, WAIT},
    "convolutions in bfloat16": {INDEX, BARRIER, WAIT},
    "integers": {INDEX, BARRIER, WAIT},
    "norms": {INDEX, BARRIER},
    "pools": {INDEX, BARRIER},
    "losses": {INDEX, WARP},
    "updates": {INDEX, BARRIER, WARP},
    "others": {INDEX, BARRIER},
}


def test_every_family_has_each_kind_of_mistake():
    lines = {family: [row[2] for row in rows] for family, rows in BESIDE.items()}
    product = convolutions.FORWARD + convolutions.BACKWARD
    lines["convolutions"] = [row[2] for row in product] + [row[1] for row in convolutions.FOLD]
    lines["the classifier"] = [row[0] for row in convolutions.CLASSIFIER]
    lines["convolutions in float16"] = [row[0] for row in half.PLANTED]
    lines["convolutions in bfloat16"] = [row[0] for row in half.IN_BFLOAT16]
    lines["integers"] = [row[1] for row in integers.PLANTED + integers.ROUNDING]
    assert {family: set(map(kind, old)) for family, old in lines.items()} == FAMILIES


def test_every_kernel_has_a_mistake():
    """Of the modules above; where there is a barrier or an exchange, one of that kind too."""
    rows = [row for family in BESIDE.values() for row in family]
    there = {
        (module, name): inspect.getsource(factory)
        for module in {row[0] for row in rows}
        for name, factory in vars(module).items()
        if name.endswith("_kernel") and factory.__module__ == module.__name__
    }
    assert {row[:2] for row in rows} == set(there)
    for (module, name), text in there.items():
        kinds = {kind(row[2]) for row in rows if row[:2] == (module, name)}
        assert kinds == {INDEX, kind(text)}, name


@cache
def made_right(computed) -> list[np.ndarray]:
    return computed(backend(PtxMachine()))


@pytest.mark.device
@pytest.mark.usefixtures("nvvm")
@pytest.mark.parametrize(
    ("module", "name", "old", "new", "computed", "said"),
    [row for family in BESIDE.values() for row in family],
    ids=lambda value: value if isinstance(value, str) and value.endswith("_kernel") else "",
)
def test_a_mistake_is_found(module, name, old, new, computed, said, monkeypatch):
    wanted = made_right(computed)
    factory = getattr(changed(module, old, new, monkeypatch, name), name)
    monkeypatch.setattr(softmax if module is targets else module, name, factory)
    ops = backend(PtxMachine())
    if said is not None:
        with pytest.raises(KernelFault, match=said):
            computed(ops)
        return
    far = [
        np.abs(a - b).max() / np.abs(b).max() for a, b in zip(computed(ops), wanted, strict=True)
    ]
    assert not all(one < 0.01 for one in far), "the values are right all the same"
