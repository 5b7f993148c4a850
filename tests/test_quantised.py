"""Quantised tensors of PyTorch become the numbers that their integers stand for."""

from __future__ import annotations

import cases
import numpy as np
import pytest
import torch_files as tf
from audit import watching
from test_hostile_checkpoints import accepted, bits, mutations

from tinyresnext import Spec
from tinyresnext.checkpoints.names.layouts import FOLDED_EPSILON
from tinyresnext.checkpoints.readers import container
from tinyresnext.errors import FormatError, IntegrityError, UnsafeError
from tinyresnext.inference.model import Model
from tinyresnext.network import plan
from tinyresnext.ops import reference

WRITERS = {"legacy": tf.legacy_file, "zip": tf.zip_file}
TINY = Spec((1, 1), 8, 4, 10, expansion=1, eps=FOLDED_EPSILON)
KINDS = {"QInt8": np.int8, "QUInt8": np.uint8, "QInt32": np.int32}


def quantised(shape, *, channels=True, lists=False, kind="QInt8", order=None, zero=3, axis=0,
              seed=0, **changes):  # fmt: skip
    """Return a quantised tensor, and the numbers that it stands for.

    ``order``: the axes in the order in which they lie in the file, the outermost first.
    """
    rng, order = np.random.default_rng(seed), order or tuple(range(len(shape)))
    least = max(-99, np.iinfo(KINDS[kind]).min)
    integers = rng.integers(least, 99, shape).astype(KINDS[kind])
    laid_out = np.ascontiguousarray(integers.transpose(order))
    back = laid_out.transpose(np.argsort(order))
    strides = tuple(s // back.itemsize for s in back.strides)
    count = shape[axis] if channels else 1
    scales, points = rng.uniform(0.001, 0.1, count), np.full(count, zero)
    if channels:
        rows = (
            (scales.tolist(), points.tolist()) if lists else (tf.tensor(scales), tf.tensor(points))
        )
        how = ("per_channel_affine", *rows, axis)
    else:
        how = ("per_tensor_affine", float(scales[0]), int(points[0]))
    along = [-1 if i == axis and channels else 1 for i in range(len(shape))]
    numbers = scales.reshape(along) * (integers.astype(np.float64) - points.reshape(along))
    store = tf.Storage(laid_out.reshape(-1), kind)
    fields = {"quantiser": how} | changes
    return tf.View(store, 0, shape, strides, **fields), numbers.astype(np.float32)


def activation(module):
    """Return the scale and zero point of what a module computes."""
    scale, point = tf.tensor(np.array(0.1, np.float32)), tf.tensor(np.array(64))
    return {f"{module}.scale": scale, f"{module}.zero_point": point}


def network(old=False, **options):
    """Return a quantised network as torchvision has it, and the weights of the float one."""
    plain = cases.weights(TINY, counters=False)
    state, numbers = tf.StateDict(), {}
    for i, (name, value) in enumerate(plain.items()):
        module, _, field = name.rpartition(".")
        if value.ndim == 4:
            state[name], numbers[name] = quantised(value.shape, seed=i, **options)
            norm = module.replace("downsample.0", "downsample.1").replace("conv", "bn")
            state[f"{module}.bias"] = tf.tensor(plain[f"{norm}.bias"], parameter=True)
            state |= activation(module)
        elif field == "bias":
            numbers[name] = value
    weight, numbers["fc.weight"] = quantised(plain["fc.weight"].shape, **options)
    bias = tf.tensor(plain["fc.bias"], parameter=True)
    state |= activation("fc") | activation("quant") | activation("layer1.0.skip_add_relu")
    state["fc._packed_params.dtype"] = tf.Raw(tf.glob("torch", "qint8"))
    if old:
        state |= {"fc._packed_params.weight": weight, "fc._packed_params.bias": bias}
    else:
        state["fc._packed_params._packed_params"] = (weight, bias)
    return state, numbers


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pth"


@pytest.mark.parametrize("old", [False, True], ids=["packed", "older"])
@pytest.mark.parametrize("channels", [True, False], ids=["fbgemm", "qnnpack"])
@pytest.mark.parametrize("container_", WRITERS)
def test_a_whole_network(path, container_, channels, old):
    state, numbers = network(old, channels=channels, lists=old)
    path.write_bytes(WRITERS[container_](state))
    stored, notes = cases.read_checkpoint(path)
    assert stored.spec == TINY
    for name, wanted in numbers.items():
        assert np.array_equal(stored.params[name], wanted), name
    said = "\n".join(notes)
    assert "names: torchvision, quantised" in said
    assert "rounds its activations to 8 bits too" in said
    assert len(stored.params) == len(cases.weights(TINY, counters=False))


def test_its_norms_are_the_identity_to_the_bit(path):
    """Folding one into a convolution gives the convolution again, with its bias."""
    state, numbers = network()
    path.write_bytes(tf.zip_file(state))
    stored, _ = cases.read_checkpoint(path)
    model = Model(*stored, reference)
    program = plan.program(model.params, model.spec, reference)
    x = np.random.default_rng(1).standard_normal((1, 32, 32, 3)).astype(np.float32)
    doubled = {name: value.astype(np.float64) for name, value in stored.params.items()}
    norms = {name: value for name, value in doubled.items() if name.endswith("running_var")}
    assert norms
    for value in norms.values():
        assert (np.sqrt(value + stored.spec.eps) == 1).all()
    assert np.array_equal(stored.params["bn1.bias"], numbers["bn1.bias"])
    assert np.isfinite(plan.Plan(program, x.shape, reference)(x)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 0, 1, 2)])
@pytest.mark.parametrize("axis", [0, 1])
def test_layouts_and_types(path, kind, order, axis):
    """Channels last, as PyTorch keeps unpacked weights; any axis may have the scales."""
    view, wanted = quantised((6, 5, 3, 4), kind=kind, order=order, axis=axis)
    path.write_bytes(tf.zip_file({"a.weight": view}))
    assert np.array_equal(container.read(path).tensors["a.weight"], wanted)


def test_a_piece_ends_inside_of_a_channel(path):
    """More integers than are computed together."""
    view, wanted = quantised((7, 31_001))
    path.write_bytes(tf.legacy_file({"a.weight": view}))
    assert np.array_equal(container.read(path).tensors["a.weight"], wanted)


SHORT = tf.tensor(np.ones(5)), tf.tensor(np.zeros(6, np.int64))
MATRICES = tf.tensor(np.ones((0, 1))), tf.tensor(np.zeros((0, 1), np.int64))
WRONG = {
    "fewer-scales": (("per_channel_affine", *SHORT, 0), UnsafeError, "for each channel"),
    "axis": (("per_channel_affine", *SHORT, 4), UnsafeError, "for each channel"),
    "no-axis": (("per_channel_affine", *SHORT), FormatError, "quantised numbers"),
    "negative-axis": (("per_channel_affine", *SHORT, -1), UnsafeError, "for each channel"),
    "matrices": (("per_channel_affine", *MATRICES, -1), UnsafeError, "for each channel"),
    "long": (("per_channel_affine", [10**400], [0], 0), UnsafeError, "that are no numbers"),
    "long-point": (("per_tensor_affine", 0.1, 10**400), UnsafeError, "that are no numbers"),
    "text": (("per_tensor_affine", "0.1", 0), UnsafeError, "that are no numbers"),
    "true": (("per_tensor_affine", 0.1, True), UnsafeError, "that are no numbers"),
    "other": (("per_channel_affine_float_qparams", *SHORT, 0), FormatError, "quantised numbers"),
    "nothing": (("per_tensor_symmetric",), FormatError, "quantised numbers"),
    "zero-scale": (("per_tensor_affine", 0.0, 0), IntegrityError, "a scale that is not above"),
    "nan-scale": (("per_tensor_affine", float("nan"), 0), IntegrityError, "a scale that is not"),
    "far": (("per_tensor_affine", 0.1, 1 << 40), IntegrityError, "no possible zero point"),
    "large": (("per_tensor_affine", 1e38, -99), IntegrityError, "beyond float32's range"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("container_", WRITERS)
def test_refused(path, container_, case):
    quantiser, error, says = WRONG[case]
    view, _ = quantised((6, 5, 3, 4), quantiser=quantiser)
    path.write_bytes(WRITERS[container_]({"a.weight": view, "b.weight": tf.tensor(np.ones(2))}))
    with watching() as events, pytest.raises(error, match=says):
        container.read(path)
    assert events == [("open", str(path))]


def test_other_forms_are_refused(path):
    view, _ = quantised((4, 4))
    apart = tf.View(view.storage, 0, (2, 4), (8, 2), quantiser=("per_tensor_affine", 0.1, 0))
    shared = tf.View(view.storage, 0, (4, 4), (0, 1), quantiser=quantised((4, 4))[0].quantiser)
    row = tf.tensor(np.arange(4.0))
    backwards = tf.View(tf.Storage(np.ones(8), "Double"), 0, (4,), (2,))
    fc = "fc._packed_params._packed_params"
    for state, says in (
        ({"a.weight": apart}, "has gaps between its integers"),
        ({"a.weight": shared}, "share their integers"),
        ({"a.b": tf.View(view.storage, 0, (4,), (1,)), "c.d": row}, "quantised numbers"),
        ({fc: (view,), "a.b": row}, "is not a weight and a bias"),
        ({fc: (view, None), "fc.weight": row}, "is not a weight and a bias"),
        ({fc: 3, "a.b": row}, "is not a weight and a bias"),
        (
            {"a.b": quantised((4, 4), quantiser=("per_channel_affine", backwards, row, 0))[0]},
            "scales in an unusual order",
        ),
    ):
        path.write_bytes(tf.zip_file(state))
        with pytest.raises(FormatError, match=says):
            container.read(path)


def test_a_damaged_scale_is_found(path):
    """Its storage has a checksum of its own, also where the tensor has a part of it."""
    view, _ = quantised((6, 5))
    whole = tf.Storage(np.ones(7), "Double")
    part = tf.View(whole, 0, (6,), (1,))
    points = tf.tensor(np.zeros(6, np.int64))
    state = {"a.b": tf.View(*vars_of(view), quantiser=("per_channel_affine", part, points, 0))}
    entries = tf.zip_entries(state)
    at = next(i for i, one in enumerate(entries) if one.name.endswith("/data/1"))
    entries[at].crc = 1
    path.write_bytes(tf.Zip(entries).build())
    with pytest.raises(IntegrityError, match="CRC-32"):
        container.read(path)


def vars_of(view):
    return view.storage, view.offset, view.size, view.stride


@pytest.mark.parametrize("count", [300, pytest.param(5_000, marks=pytest.mark.slow, id="5000")])
@pytest.mark.parametrize("container_", WRITERS)
def test_mutated(path, container_, count):
    """A typed error, or the same numbers; the legacy format has no checksum, so others are told.

    There, what is accepted must be what the changed scales, zero points and integers stand for.
    """
    state = {"a.weight": quantised((6, 5, 3))[0], "b.weight": quantised((4, 6), channels=False)[0]}
    data = WRITERS[container_](state)
    path.write_bytes(data)
    original, read = bits(container.read(path).tensors), 0
    for changed, found in accepted(path, mutations(data, count, seed=5)):
        read += 1
        if container_ == "zip":
            assert bits(found.tensors) == original
        else:
            assert bits(found.tensors) == bits(literally(changed, found))
    assert read < count


def literally(data, found):
    """What Python's own unpickler finds, with the meaning of a quantiser written here again."""
    import torch_oracle

    top = torch_oracle.read_legacy(data)
    return {name: torch_oracle.array_of(top[name]) for name in found.tensors}
