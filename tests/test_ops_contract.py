"""The contract: every backend refuses the same calls in the same words and has the same words.

And what the Numba backend requires of memory: float32, C-contiguous, in NumPy arrays.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import numpy as np
import pytest
from op_cases import CONVS, conv_data, generator, normal, result_shape

from tinyresnext.ops import cpu, reference, shapes

INFERENCE = {
    "add",
    "avg_pool2d",
    "batch_norm",
    "blur_pool",
    "conv2d",
    "excite",
    "linear",
    "max_pool2d",
    "mean_pool",
    "relu",
    "softmax",
}
PLACEMENT = {"empty", "upload", "download", "view", "pack", "bind", "chain", "repeated"}
PLACEMENT |= {"at_once", "wait"}
UPDATES = {"sgd_step", "muon_step", "average_step", "statistics_step"}
UPDATES |= {"adamw_step", "lamb_step", "rmsprop_step"}
UPDATES |= {"clip_norm_step", "clip_units_step", "clip_value_step"}
MACHINE = {"described", "kind", "thread_count", "loaders", "on_threads", "when_compiling", "peak"}
KERNELS = {"kernels_kept", "kernels_problem", "clear_kernels"}


# --- refusals -------------------------------------------------------------------------------------


def a(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


IMAGE = a(1, 5, 5, 4)
REFUSED = {
    "conv2d: x is not an image": ("conv2d", (a(5, 5, 4), a(4, 4, 1, 1)), {}, "x has shape"),
    "conv2d: weight is a matrix": ("conv2d", (IMAGE, a(4, 4)), {}, "weight has shape"),
    "conv2d: channels": ("conv2d", (IMAGE, a(4, 3, 1, 1)), {}, "4 channels"),
    "conv2d: groups do not divide c_in": (
        "conv2d",
        (IMAGE, a(6, 1, 1, 1)),
        {"groups": 3},
        "3 groups",
    ),
    "conv2d: groups do not divide c_out": (
        "conv2d",
        (IMAGE, a(3, 2, 1, 1)),
        {"groups": 2},
        "multiple of groups",
    ),
    "conv2d: no groups": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"groups": 0}, "0 groups"),
    "conv2d: bias": ("conv2d", (IMAGE, a(6, 4, 1, 1), a(4)), {}, "bias has shape"),
    "conv2d: kernel too large": ("conv2d", (IMAGE, a(4, 4, 6, 1)), {}, "does not fit"),
    "conv2d: kernel too large with padding": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 8)),
        {"padding": 1},
        "does not fit",
    ),
    "conv2d: empty picture": (
        "conv2d",
        (a(1, 0, 5, 4), a(4, 4, 1, 1)),
        {"padding": 1},
        "does not fit",
    ),
    "conv2d: stride 0": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"stride": 0}, "stride is 0"),
    "conv2d: stride of three": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 1)),
        {"stride": (1, 1, 1)},
        "stride is",
    ),
    "conv2d: negative padding": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 1)),
        {"padding": -1},
        "padding is -1",
    ),
    "conv2d: fractional padding": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 1)),
        {"padding": (0.5, 1)},
        "padding is",
    ),
    "conv2d: no stride": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"stride": None}, "stride is None"),
    "conv2d: endless stride": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"stride": 10**30}, "stride is"),
    "conv2d: fractional groups": ("conv2d", (IMAGE, a(4, 2, 1, 1)), {"groups": 2.0}, "2.0 groups"),
    "conv2d: no filters": ("conv2d", (IMAGE, a(0, 4, 1, 1)), {}, "no axis of length 0"),
    "conv2d: empty kernel": ("conv2d", (IMAGE, a(4, 4, 0, 1)), {}, "no axis of length 0"),
    "conv2d: residual": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 1)),
        {"residual": a(1, 5, 5, 1)},
        "residual has shape",
    ),
    "conv2d: dilation with a stride": (
        "conv2d",
        (IMAGE, a(4, 4, 1, 1)),
        {"dilation": 2, "stride": 2},
        "expected stride 1",
    ),
    "conv2d: dilation and another padding": (
        "conv2d",
        (IMAGE, a(4, 4, 3, 3)),
        {"dilation": (1, 2), "padding": 1},
        "multiple of the dilation",
    ),
    "conv2d: dilation 0": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"dilation": 0}, "dilation is 0"),
    "conv2d: dilated kernel too large": (
        "conv2d",
        (IMAGE, a(4, 4, 3, 3)),
        {"dilation": 3},
        "does not fit",
    ),
    "conv2d: out": ("conv2d", (IMAGE, a(4, 4, 1, 1)), {"out": a(1, 5, 4, 4)}, "out has shape"),
    "batch_norm: x": ("batch_norm", (a(5, 4), a(4), a(4), a(4), a(4)), {}, "x has shape"),
    "batch_norm: scale": ("batch_norm", (IMAGE, a(5), a(4), a(4), a(4)), {}, "scale has shape"),
    "batch_norm: shift": ("batch_norm", (IMAGE, a(4), a(1), a(4), a(4)), {}, "shift has shape"),
    "batch_norm: mean": ("batch_norm", (IMAGE, a(4), a(4), a(4, 1), a(4)), {}, "mean has shape"),
    "batch_norm: var": ("batch_norm", (IMAGE, a(4), a(4), a(4), a()), {}, "var has shape"),
    "batch_norm: out": (
        "batch_norm",
        (IMAGE, a(4), a(4), a(4), a(4)),
        {"out": a(4)},
        "out has shape",
    ),
    "relu: out": ("relu", (IMAGE,), {"out": a(1, 5, 4, 5)}, "out has shape"),
    "add: y": ("add", (IMAGE, a(4)), {}, "y has shape"),
    "add: out": ("add", (IMAGE, IMAGE), {"out": a(4)}, "out has shape"),
    "max_pool2d: x": ("max_pool2d", (a(5, 5),), {"size": 2, "stride": 2}, "x has shape"),
    "max_pool2d: size": ("max_pool2d", (IMAGE,), {"size": 6, "stride": 1}, "does not fit"),
    "max_pool2d: size 0": ("max_pool2d", (IMAGE,), {"size": 0, "stride": 1}, "size is 0"),
    "max_pool2d: padding": (
        "max_pool2d",
        (IMAGE,),
        {"size": 3, "stride": 1, "padding": 2},
        "more than half",
    ),
    "max_pool2d: larger by the stride": (
        "max_pool2d",
        (a(1, 1, 1, 4),),
        {"size": 3, "stride": 2, "ceil_mode": True},
        "does not fit",
    ),
    "max_pool2d: out": (
        "max_pool2d",
        (IMAGE,),
        {"size": 2, "stride": 2, "out": IMAGE},
        "out has shape",
    ),
    "avg_pool2d: padding": (
        "avg_pool2d",
        (IMAGE,),
        {"size": 2, "stride": 1, "padding": (0, 2)},
        "more than half",
    ),
    "avg_pool2d: stride": ("avg_pool2d", (IMAGE,), {"size": 2, "stride": (1, 0)}, "stride is"),
    "avg_pool2d: out": (
        "avg_pool2d",
        (IMAGE,),
        {"size": 2, "stride": 2, "out": IMAGE},
        "out has shape",
    ),
    "mean_pool: no positions": ("mean_pool", (a(1, 0, 5, 4),), {}, "no positions"),
    "mean_pool: out": ("mean_pool", (IMAGE,), {"out": a(4)}, "out has shape"),
    "mean_pool: out, kept": ("mean_pool", (IMAGE,), {"keepdims": True, "out": a(1, 4)}, "out has"),
    "blur_pool: x": ("blur_pool", (a(5, 5),), {}, "x has shape"),
    "blur_pool: one line": ("blur_pool", (a(1, 1, 5, 4),), {}, "at least two lines"),
    "blur_pool: stride": ("blur_pool", (IMAGE,), {"stride": (2, 2)}, "stride is"),
    "blur_pool: out": ("blur_pool", (IMAGE,), {"out": IMAGE}, "out has shape"),
    "excite: x": ("excite", (a(5, 4), a(4)), {}, "x has shape"),
    "excite: s": ("excite", (IMAGE, a(1, 4)), {}, "s has shape"),
    "excite: residual": ("excite", (IMAGE, a(1, 1, 1, 4), a(4)), {}, "residual has shape"),
    "excite: out": ("excite", (IMAGE, a(1, 1, 1, 4)), {"out": a(4)}, "out has shape"),
    "linear: x": ("linear", (a(4), a(3, 4), a(3)), {}, "x has shape"),
    "linear: c_in": ("linear", (a(2, 5), a(3, 4), a(3)), {}, "do not fit"),
    "linear: bias": ("linear", (a(2, 4), a(3, 4), a(4)), {}, "do not fit"),
    "linear: out": ("linear", (a(2, 4), a(3, 4), a(3)), {"out": a(3, 2)}, "out has shape"),
    "softmax: x": ("softmax", (a(3),), {}, "x has shape"),
    "softmax: no classes": ("softmax", (a(3, 0),), {}, "no classes"),
    "softmax: out": ("softmax", (a(3, 2),), {"out": a(2, 3)}, "out has shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_contract_and_every_backend_in_the_same_words(case: str):
    op, args, attrs, words = REFUSED[case]
    messages = set()
    for module in (shapes, reference, cpu):
        with pytest.raises(ValueError, match=words) as caught:
            getattr(module, op)(*args, **attrs)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_the_backend_of_gpus_in_the_words_of_the_contract(case: str):
    """Nothing is compiled: what is refused never becomes a launch."""
    op, args, attrs, words = REFUSED[case]
    on_device = pytest.importorskip("on_device")
    from tinyresnext.emulator.ptx import PtxMachine
    from tinyresnext.ops import cuda

    messages = set()
    for module in (shapes, on_device.OnDevice(cuda.backend(PtxMachine()))):
        with pytest.raises(ValueError, match=words) as caught:
            getattr(module, op)(*args, **attrs)
        messages.add(str(caught.value))
    assert len(messages) == 1


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("relu", {}),
        ("mean_pool", {}),
        ("max_pool2d", {"size": 2, "stride": 2}),
        ("avg_pool2d", {"size": 2, "stride": 2}),
    ],
)
def test_cpu_refuses_other_types_and_layouts(op: str, attrs: dict):
    call, x = getattr(cpu, op), np.zeros((1, 4, 4, 4), np.float32)
    for dtype in (np.float64, np.float16, np.uint8, np.int64, ">f4"):
        with pytest.raises(TypeError, match="expected float32; use upload"):
            call(x.astype(dtype), **attrs)
    for strided in (
        x.transpose(0, 3, 1, 2),
        x[..., ::2],
        x[:, ::-1],
        np.broadcast_to(x[:, :1], x.shape),
    ):
        with pytest.raises(ValueError, match="C-contiguous"):
            call(strided, **attrs)
        assert call(cpu.upload(strided), **attrs).dtype == np.float32


def test_cpu_refuses_other_types_of_every_argument():
    x, w, v = a(1, 3, 3, 2), a(2, 2, 1, 1), a(2)
    conv = {"x": x, "weight": w, "bias": v, "residual": a(1, 3, 3, 2), "out": a(1, 3, 3, 2)}
    norm = {"x": x, "scale": v, "shift": v, "mean": v, "var": v, "out": a(1, 3, 3, 2)}
    linear = {"x": a(3, 2), "weight": a(2, 2), "bias": v, "out": a(3, 2)}
    for call, arguments in ((cpu.conv2d, conv), (cpu.batch_norm, norm), (cpu.linear, linear)):
        for name, array in arguments.items():
            with pytest.raises(TypeError, match=f": {name} is float64, expected float32"):
                call(**(arguments | {name: array.astype(np.float64)}))


class Stand:
    """Has a shape and nothing else."""

    shape = (1, 3, 3, 2)


def test_cpu_refuses_what_is_no_array():
    with pytest.raises(TypeError, match="x is a Stand, expected a NumPy array"):
        cpu.relu(Stand())


def test_cpu_refuses_out_that_cannot_be_written_to():
    out = a(1, 3, 3, 2)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        cpu.relu(a(1, 3, 3, 2), out=out)


@pytest.mark.parametrize("how", ["read-only", "misaligned"])
def test_cpu_refuses_to_change_what_cannot_be_written_to(how: str):
    """A copy would be changed, and nothing said."""

    def given() -> np.ndarray:
        if how == "misaligned":
            return np.zeros(4 * 8 + 1, np.uint8)[1:].view(np.float32).reshape(2, 4)
        array = np.zeros((2, 4), np.float32)
        array.flags.writeable = False
        return array

    fine = np.zeros((2, 4), np.float32)
    sgd = {"lr": 0.1, "momentum": 0.9, "decay": 0.0, "nesterov": False}
    adamw = {"lr": 0.1, "momentum": 0.9, "beta2": 0.9, "eps": 1e-8, "decay": 0.0, "step": 1}
    calls = [
        lambda: cpu.sgd_step(given(), fine, fine, **sgd),
        lambda: cpu.sgd_step(fine, fine, given(), **sgd),
        lambda: cpu.adamw_step(given(), fine, fine, fine, **adamw),
        lambda: cpu.adamw_step(fine, fine, fine, given(), **adamw),
        lambda: cpu.average_step(given(), fine, new=0.5),
        lambda: cpu.muon_step(given(), fine, fine, groups=1, lr=0.1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is read-only or misaligned, expected memory of its"):
            call()
    cpu.sgd_step(fine, given(), fine, **sgd)  # what is only read may be either
    out = np.zeros((2, 4), np.uint8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        cpu.quantise(fine, scale=1.0, out=out)


def test_cpu_refuses_a_weight_packed_for_other_groups():
    packed = cpu.pack(a(4, 2, 1, 1), 2)
    with pytest.raises(ValueError, match="packed for 2 groups, expected 1"):
        cpu.conv2d(a(1, 3, 3, 2), packed)


@pytest.mark.parametrize("shape", [(0, 4, 1, 1), (4, 0, 3, 3), (4, 4, 0, 1)], ids=str)
def test_cpu_packs_no_weight_without_values(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=re.escape(f"{shape}, expected no axis of length 0")):
        cpu.pack(a(*shape), 1)


def test_cpu_takes_read_only_and_misaligned_arrays():
    (case,) = (case for case in CONVS if case.name == "epilogue: bias residual relu")
    arrays = conv_data(case, result_shape(case))
    want = cpu.conv2d(*arrays[:3], **case.attrs, residual=arrays[3])
    for spoil in (read_only, misaligned):
        x, weight, bias, residual = map(spoil, arrays)
        assert np.array_equal(cpu.conv2d(x, weight, bias, **case.attrs, residual=residual), want)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def misaligned(array: np.ndarray) -> np.ndarray:
    moved = np.empty(array.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(array.shape)
    moved[...] = array
    return moved


# --- one vocabulary -------------------------------------------------------------------------------


def parameters(function) -> list[tuple]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_every_op_has_the_signature_of_the_contract(ops):
    spelled = {name for name in shapes.OPS if hasattr(ops, name)}
    assert spelled >= INFERENCE
    for name in spelled:
        assert parameters(getattr(ops, name)) == parameters(getattr(shapes, name)), name


@pytest.mark.parametrize("backend", [cpu, reference])
def test_every_op_says_where_its_arguments_are_described(backend):
    for name in {op for op in shapes.OPS if hasattr(backend, op)} | {*shapes.INTEGER}:
        assert f"`tinyresnext.ops.shapes.{name}`" in (getattr(backend, name).__doc__ or ""), name


def test_an_image_with_its_channels_first_is_told_that_they_come_last(ops):
    x, weight = np.zeros((1, 4, 9, 9), np.float32), np.zeros((6, 4, 3, 3), np.float32)
    with pytest.raises(ValueError, match="channels come last: the second axis of x has 4"):
        ops.conv2d(x, weight)
    with pytest.raises(ValueError, match=r"a multiple of groups$"):
        ops.conv2d(x.reshape(1, 9, 4, 9), weight)


def test_every_backend_places_data_with_the_same_words(ops):
    for name in PLACEMENT | UPDATES | MACHINE | KERNELS:
        assert parameters(getattr(ops, name)) == parameters(getattr(reference, name)), name


def test_the_reference_has_every_op_and_every_gradient_but_that_of_constants():
    """The form is ``op_backward(dy, y, *positional, **constants)``, without an epilogue."""
    for name in shapes.OPS:
        unsaid = ("out", "residual", "relu") if name == "conv2d" else ("out",)
        forward = [p for p in parameters(getattr(shapes, name)) if p[0] not in unsaid]
        assert parameters(getattr(reference, f"{name}_backward"))[2:] == forward, name


def test_the_cpu_backend_lists_what_it_has():
    gradients = {f"{name}_backward" for name in shapes.OPS}
    words = PLACEMENT | UPDATES | MACHINE | KERNELS
    assert set(cpu.__all__) == set(shapes.OPS) | gradients | words | {"Packed", "precision"}


IMAGES, CHANNELS, LOGITS = (2, 4, 6, 8), (8,), (2, 8)
WINDOWS = {"size": 2, "stride": 2}
# The shapes of the arguments, and the attributes.
GRADIENTS = {
    "conv2d": ((IMAGES, (8, 4, 3, 3), CHANNELS), {"padding": 1, "groups": 2}),
    "batch_norm": ((IMAGES, *[CHANNELS] * 4), {}),
    "batch_norm_train": ((IMAGES, CHANNELS, CHANNELS), {"relu": True}),
    "batch_norm_train, residual": ((IMAGES, CHANNELS, CHANNELS, IMAGES), {"relu": True}),
    "relu": ((IMAGES,), {}),
    "add": ((IMAGES, IMAGES), {}),
    "excite": ((IMAGES, (2, 1, 1, 8)), {"relu": True}),
    "excite, residual": ((IMAGES, (2, 1, 1, 8), IMAGES), {"relu": True}),
    "max_pool2d": ((IMAGES,), WINDOWS),
    "avg_pool2d": ((IMAGES,), WINDOWS),
    "blur_pool": ((IMAGES,), {}),
    "mean_pool": ((IMAGES,), {}),
    "linear": ((LOGITS, (3, 8), (3,)), {}),
    "softmax": ((LOGITS,), {}),
    "softmax_cross_entropy": ((LOGITS,), {"labels": np.array([0, 7])}),
    "binary_cross_entropy": ((LOGITS,), {"labels": np.eye(2, 8, dtype=np.float32)}),
}


@pytest.mark.parametrize("case", GRADIENTS)
def test_a_gradient_is_computed_from_nothing_but_what_is_said(ops, case: str):
    """What `READ` does not name may have been overwritten: here it is NaN."""
    op, (sizes, attrs) = case.partition(",")[0], GRADIENTS[case]
    rng = generator(case)
    x, *others = (normal(rng, *size) for size in sizes)
    args = [x, *map(np.abs, others)]  # no variance is negative
    y = np.asarray(getattr(ops, op)(*args, **attrs))
    known = {"dy": normal(rng, *y.shape), "y": y} | dict(enumerate(args))
    gone = {
        which: value if which in shapes.READ[op] else np.full_like(value, np.nan)
        for which, value in known.items()
    }
    backward = getattr(ops, f"{op}_backward")
    wanted, found = (backward(*given.values(), **attrs) for given in (known, gone))
    for one, want in zip(found, wanted, strict=True):
        assert one is want is None or np.array_equal(one, want)


def test_every_gradient_is_said_from_what_it_is_computed():
    assert {case.partition(",")[0] for case in GRADIENTS} == set(shapes.READ) == set(shapes.OPS)


def test_every_op_and_every_gradient_can_be_bound(ops):
    """As the plain call, and with a place for each result."""
    for name in [op + which for op in shapes.OPS for which in ("", "_backward")]:
        plain = [p[0] for p in parameters(getattr(ops, name))]
        if ops is cpu:
            module = import_module(f"{cpu.__name__}.{cpu.MODULES[name]}")
            bound = [p[0] for p in parameters(getattr(module, f"bind_{name}"))]
            extra = ["out", "more"] if name.endswith("_backward") else []
            extra += ["words"] if name == "conv2d_backward" else []  # how bfloat16 is laid out
            assert bound == plain + extra, name
        with pytest.raises(TypeError, match="argument"):
            ops.bind(name, out=[None], more=[False])()


def test_placing_data(ops):
    assert ops.empty((2, 3)).shape == (2, 3)
    assert ops.empty((2, 3)).dtype == np.float32
    assert ops.empty((4,), np.int64).dtype == np.int64
    x = normal(generator("placing"), 2, 3)
    assert np.array_equal(ops.download(ops.upload(x)), x)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 8, 60])
def test_at_once_divides_the_batch(ops, n):
    for weights in (0, 3, 10**6):
        some = ops.at_once(n, weights, 1)
        assert some >= 1
        assert n % some == 0


def test_a_bound_call_works_on_what_its_arrays_then_hold(ops):
    x, weight, out = (
        np.ones((1, 3, 3, 2), np.float32),
        np.ones((4, 2, 3, 3), np.float32),
        ops.empty((1, 3, 3, 4)),
    )
    call = ops.bind("conv2d", x, ops.pack(weight, 1), None, padding=1, out=out)
    for value in (1, 2):
        x[:] = value
        call()
        np.testing.assert_array_equal(out, reference.conv2d(x, weight, padding=1))
