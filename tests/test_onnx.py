"""ONNX graphs: what other programs wrote is read, what we write is what the network computes."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import numpy as np
import onnx_files as of
import pytest
import recipe
from audit import watching
from cases import DATA, load, read_checkpoint, relative_error
from meter import assert_refused, cost
from test_hostile_checkpoints import accepted

from tinyresnext import Spec
from tinyresnext.checkpoints.convert import opened_checkpoint
from tinyresnext.checkpoints.onnx import values
from tinyresnext.checkpoints.onnx.write import OPSETS, write_onnx
from tinyresnext.checkpoints.readers import container, parts
from tinyresnext.errors import FormatError, ShapeError, UnsafeError, UsageError, WeightsError
from tinyresnext.formats.dtypes import NUMBERS
from tinyresnext.formats.onnx import tensor, wire
from tinyresnext.network.resnext import forward
from tinyresnext.ops import reference

GENUINE = ("tiny8_8x4d-legacy17-float16", "tiny8_8x4d-legacy17-preserve-stride1x1-eps")


def logits(found, x):
    """Those of the reference, in float64, of images [n, h, w, c]."""
    params = {name: np.asarray(value, np.float64) for name, value in found.params.items()}
    return forward(params, found.spec, np.asarray(x, np.float64), reference)


def images(spec, side, n=2):
    return recipe.pictures("onnx", (n, spec.channels, side, side))


# -- files that other programs wrote


@pytest.mark.parametrize("name", GENUINE)
def test_genuine_files(name):
    """PyTorch's exporter, and onnxconverter-common behind it; their own float64 logits."""
    case = load(f"onnx.{name}")
    stored, notes = read_checkpoint(DATA / f"onnx.{name}.onnx")
    error = relative_error(logits(stored, case.x), case.logits)
    assert error < max(3 * case.torch_float32_error, 1e-6)
    assert any("by the structure of the graph" in note for note in notes)
    kept = "preserve" in name
    assert stored.spec == Spec(
        (1, 1), 8, 4, 10, expansion=1, stride_on=1 if kept else 2, eps=1e-3 if kept else 2.0**-17
    )
    assert any("folded" in note for note in notes) != kept


# -- our own files, against an independent reading


SPECS = {
    "small": of.SMALL,
    "imagenet": Spec((1, 2), 2, 2, 3, channels=1, expansion=1),
    "deep": Spec((1, 1), 2, 2, 3, channels=1, stem="deep", avg_down=True, expansion=1),
    "pooled": Spec((2,), 1, 4, 3, stem="pooled", expansion=2),
    "A": Spec((1, 1, 1), 2, 2, 3, channels=1, stem="cifar", shortcut="A", expansion=1),
    "C": Spec((2, 1), 2, 2, 3, channels=1, stem="cifar", shortcut="C", expansion=1, eps=1.001e-5),
    "C, one": Spec((1, 1), 2, 2, 3, channels=1, stem="cifar", shortcut="C", expansion=1),
    "caffe": Spec((1,), 2, 2, 3, channels=1, stem="caffe", shortcut="A", expansion=1),
    "tiered": Spec((1,), 2, 2, 3, channels=1, stem="deep", stem_channels=(8, 12, 16), expansion=1),
    "se": Spec((1, 2), 2, 4, 3, channels=1, stem="cifar", expansion=1, se_reduction=16),
    "se, rounded": Spec(
        (1, 1, 1, 1), 2, 4, 5, expansion=1, se_reduction=16, se_divisor=8, channels=1, stem="cifar"
    ),
    "se, cut": Spec((1, 1, 1), 2, 4, 5, channels=1, stem="cifar", se_reduction=24),
    "1x1": Spec((1, 2), 2, 2, 3, channels=1, stem="cifar", stride_on=1, expansion=1, eps=1e-3),
    "binomial": Spec((1, 2), 2, 2, 3, channels=1, expansion=1, blur_pool="binomial"),
    "average": Spec((1, 1), 2, 2, 3, channels=1, stem="pooled", expansion=1, blur_pool="average"),
    "dilated": Spec((1, 2, 2), 2, 2, 3, channels=1, stem="cifar", expansion=1, dilated=2),
    "averaged": Spec(
        (1, 1, 2), 2, 2, 3, channels=1, stem="cifar", avg_down=True, expansion=1, dilated=1
    ),
    "everything": Spec(
        (1, 2, 2),
        2,
        2,
        3,
        channels=1,
        stem="pooled",
        avg_down=True,
        expansion=1,
        se_reduction=16,
        blur_pool="binomial",
        dilated=1,
    ),
    "features": Spec((1,), 2, 2, 0, channels=1, stem="cifar", shortcut="A", expansion=1),
}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_written_and_read(tmp_path, name, fold):
    """The file computes what the network does; read again it is the same network."""
    spec = SPECS[name]
    data = of.onnx_file(tmp_path, spec, fold=fold, opset=13)
    x = images(spec, 16)
    found = of.evaluate(data, x.transpose(0, 3, 1, 2))
    model = of.stored(spec)
    assert relative_error(found, logits(model, x)) < 1e-6
    stored, _ = read_checkpoint(tmp_path / "made.onnx")
    assert relative_error(logits(stored, x), found) < 1e-6
    if fold:
        assert stored.spec.eps == 2.0**-17
        for name_ in stored.params:
            if name_.endswith("running_var"):
                same = np.float32(stored.params[name_]) + np.float32(2.0**-17) == 1
                assert same.all()
    else:
        assert stored.spec == spec
        for key, value in model.params.items():
            assert stored.params[key].tobytes() == value.tobytes()


@pytest.mark.parametrize(
    "fields",
    [
        # where nothing strides and no shortcut has weights, these leave no trace in a graph
        {"avg_down": True, "stride_on": 1},
        {"blocks": (1, 2), "blur_pool": "average", "dilated": 1},
        {"blocks": (1, 2), "blur_pool": "binomial", "dilated": 1, "avg_down": True},
        {"blocks": (2,), "blur_pool": "binomial"},
        {"blocks": (2,), "avg_down": True, "expansion": 2},
    ],
)
def test_a_whole_model_comes_back(tmp_path, fields):
    """Labels, preprocessing and licence lie in the metadata; weights are equal to the bit."""
    spec = replace(of.TINY, shortcut="B", width=2, cardinality=2, classes=3, **fields)
    model = of.stored(spec)
    of.onnx_file(tmp_path, spec, plain=False)
    stored, notes = read_checkpoint(tmp_path / "made.onnx")
    assert (stored.spec, stored.preprocess, stored.labels) == model[0:1] + model[2:4]
    assert stored.provenance["licence"] == "MIT"
    assert all(stored.params[k].tobytes() == v.tobytes() for k, v in model.params.items())
    assert any(note.startswith("found: spec") for note in notes)


def test_half_precision(tmp_path):
    of.onnx_file(tmp_path, half=True, fold=True)
    stored, notes = read_checkpoint(tmp_path / "made.onnx")
    x = images(of.SMALL, of.SIDE)
    error = relative_error(logits(stored, x), logits(of.stored(), x))
    assert 1e-6 < error < 5e-3  # half numbers have 11 bits
    assert any("half precision" in note for note in notes)


def test_too_large_for_half(tmp_path):
    model = of.stored()
    params = dict(model.params)
    params["fc.bias"] = params["fc.bias"] + np.float32(1e6)
    with pytest.raises(UsageError, match=r"fc\.bias has numbers beyond"):
        write_onnx(tmp_path / "o.onnx", model._replace(params=params), half=True)
    assert not [*tmp_path.iterdir()]


def test_options_that_cannot_be(tmp_path):
    with pytest.raises(UsageError, match="opset is 8; expected 9 to 20"):
        of.onnx_file(tmp_path, opset=8)
    for name in ("deep", "caffe"):
        with pytest.raises(UsageError, match="shortcuts and the stem caffe, need opset 10"):
            of.onnx_file(tmp_path, SPECS[name], opset=9)
    assert tuple(range(9, 21)) == OPSETS


# -- the same network in other clothes


def shuffled(data):
    """Names that say nothing, initializers in another order, and inputs of Add the other way."""
    names: dict[bytes, bytes] = {}

    def new(name):
        return names.setdefault(name, b"v%d" % (7919 * (len(names) + 1) % 10007))

    def change(parts):
        nodes = [whole for number, _, whole in parts if number == 1]
        rest = [(number, value) for number, value, _ in parts if number != 1]
        for whole in nodes:
            one = of.node_parts(of.fields(whole)[0][1])
            one["inputs"] = [new(name) for name in one["inputs"]]
            if one["op"] == b"Add":
                one["inputs"] = one["inputs"][::-1]
            one["outputs"], one["name"] = [new(name) for name in one["outputs"]], b""
            yield of.field(1, of.node_bytes(one))
        for number, value in reversed(rest):
            if number == 2:
                continue
            at = 8 if number == 5 else 1
            parts = [
                of.field(at, new(inner)) if index == at else whole
                for index, inner, whole in of.fields(value)
            ]
            yield of.field(number, b"".join(parts))

    return of.in_graph(data, change)


@pytest.mark.parametrize("name", ["small", "C"])
@pytest.mark.parametrize("fold", [False, True])
def test_names_and_order_mean_nothing(tmp_path, name, fold):
    data = of.onnx_file(tmp_path, SPECS[name], fold=fold)
    wanted = read_checkpoint(tmp_path / "made.onnx").stored
    (tmp_path / "s.onnx").write_bytes(shuffled(data))
    found = read_checkpoint(tmp_path / "s.onnx").stored
    assert found.spec == wanted.spec
    assert all(found.params[k].tobytes() == v.tobytes() for k, v in wanted.params.items())


def retyped(change):
    """Each float tensor with its numbers written in another way: ``change`` gives the fields."""

    def each(parts):
        for number, value, whole in parts:
            if number == 5:
                rest = b"".join(w for n, _, w in of.fields(value) if n not in (2, 9))
                raw = next(v for n, v, _ in of.fields(value) if n == 9)
                whole = of.field(5, rest + change(np.frombuffer(raw, "<f4")))
            yield whole

    return lambda data: of.in_graph(data, each)


FORMS = {
    "float_data": lambda a: of.field(2, 1) + of.field(4, a.tobytes()),
    "float_data one by one": lambda a: (
        of.field(2, 1) + b"".join(of.put(4 << 3 | 5) + n.tobytes() for n in a)
    ),
    "double": lambda a: of.field(2, 11) + of.field(9, a.astype("<f8").tobytes()),
    "double_data": lambda a: of.field(2, 11) + of.field(10, a.astype("<f8").tobytes()),
    "float16 as int32_data": lambda a: (
        of.field(2, 10)
        + of.field(5, b"".join(of.put(int(n)) for n in a.astype("<f2").view("<u2")))
    ),
    "float16 one by one": lambda a: (
        of.field(2, 10) + b"".join(of.field(5, int(n)) for n in a.astype("<f2").view("<u2"))
    ),
    "bfloat16": lambda a: (
        of.field(2, 16) + of.field(9, (a.view("<u4") >> 16).astype("<u2").tobytes())
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_numbers_in_every_form(tmp_path, form):
    data = of.onnx_file(tmp_path)
    (tmp_path / "t.onnx").write_bytes(retyped(FORMS[form])(data))
    found = read_checkpoint(tmp_path / "t.onnx").stored.params
    for name, value in of.stored().params.items():
        if form.startswith("float16"):
            value = value.astype(np.float16).astype(np.float32)
        elif form == "bfloat16":
            value = (value.view(np.uint32) >> 16 << 16).view(np.float32)
        assert np.array_equal(found[name], value), name


# -- another function


def with_attribute(op, name, value, which=0):
    """The nth node of an operator with one attribute changed, or with one more."""

    def change(data):
        seen = []

        def each(one):
            if one["op"].decode() == op:
                seen.append(one)
                if len(seen) == which + 1:
                    one["a"][name] = of.attribute(name, value)
            return one

        return of.in_nodes(data, each)

    return change


def replaced(op, new):
    def each(one):
        if one["op"].decode() == op:
            one["op"] = new.encode()
        return one

    return lambda data: of.in_nodes(data, each)


def ends_in(*nodes):
    """The graph with more nodes behind it, the last of which makes its output."""

    def change(parts):
        for number, value, whole in parts:
            if number == 1 and of.node_parts(value)["op"] == b"Identity":
                yield of.field(1, value.replace(b"logits", b"before"))
                yield from nodes
            else:
                yield whole

    return lambda data: of.in_graph(data, change)


def pooled_over(op):
    """The graph with an operator whose axes are the shape of the image, not all of it known."""

    def change(parts):
        yield of.node("Shape", ["images"], "axes")
        yield of.node(op, ["images", "axes"], "mean")
        yield from (whole for *_, whole in parts)

    return lambda data: of.in_graph(data, change)


OTHERS = {
    "dilated": (with_attribute("Conv", "dilations", [2, 2], 2), "Conv.*dilation is 2; expected 1"),
    "stride": (with_attribute("Conv", "strides", [2, 2], 0), "Conv.*stride is 2; expected 1"),
    "uneven": (with_attribute("Conv", "strides", [1, 2], 0), r"strides is \(1, 2\)"),
    "padding": (with_attribute("Conv", "pads", [0, 0, 0, 0], 2), "padding is 0; expected 1"),
    "sided": (with_attribute("Conv", "pads", [0, 0, 1, 1], 2), r"pads is \(0, 0, 1, 1\)"),
    "groups": (with_attribute("Conv", "group", 1, 5), "groups is 1; expected 2"),
    "auto_pad": (with_attribute("Conv", "auto_pad", b"SAME_UPPER", 5), "auto_pad is 'SAME_UPPER'"),
    "kernel": (with_attribute("Conv", "kernel_shape", [5, 5]), "kernel"),
    "unknown": (with_attribute("Relu", "alpha", 0.1), "'alpha' is 0.1"),
    "epsilon": (with_attribute("BatchNormalization", "epsilon", 1e-3), "expected one for all"),
    "training": (with_attribute("BatchNormalization", "training_mode", 1), "training_mode"),
    "alpha": (with_attribute("Gemm", "alpha", 2.0), "'alpha' is 2.0; expected 1.0"),
    "beta": (with_attribute("Gemm", "beta", 0.0), "'beta' is 0.0"),
    "axis": (with_attribute("Flatten", "axis", 2), "'axis' is 2"),
    "leaky": (replaced("Relu", "LeakyRelu"), r"LeakyRelu\): no plain ResNeXt"),
    "quantised": (replaced("Relu", "QLinearRelu"), "quantised networks are not read"),
    "multiplied": (replaced("Add", "Mul"), r"\(Mul\): an Add"),
    "divided": (replaced("Add", "Div"), r"\(Div\)"),
    "softmax": (ends_in(of.node("Softmax", ["before"], "logits")), r"\(Softmax\)"),
    "relu behind": (ends_in(of.node("Relu", ["before"], "logits")), "more than a ResNeXt.*Relu"),
    "beside": (
        lambda data: ends_in(
            of.node("Identity", ["before"], "logits"), of.node("Relu", ["images"], "idle")
        )(data),
        "branches|no part of it",
    ),
    "two biases": (
        ends_in(
            of.node("MatMul", ["before", "fc.weight"], "product"),
            of.node("Add", ["product", "fc.bias"], "idle"),
            of.node("Add", ["product", "fc.bias"], "logits"),
        ),
        "MatMul.*is read twice",
    ),
    "max": (replaced("GlobalAveragePool", "GlobalMaxPool"), "GlobalMaxPool"),
    "unknown axes": (pooled_over("ReduceMean"), r"ReduceMean.*axes is \(None, 1"),
    "squeezed axes": (pooled_over("Squeeze"), r"Squeeze.*axes is \(None, 1"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_function_is_refused(tmp_path, name):
    """The message names the node and what differs."""
    change, words = OTHERS[name]
    data = of.onnx_file(tmp_path)
    changed = change(data)
    assert changed != data
    (tmp_path / "o.onnx").write_bytes(changed)
    with pytest.raises((FormatError, ShapeError), match=words):
        read_checkpoint(tmp_path / "o.onnx")


def with_number(op, value, which=0):
    """The nth node of an operator with the first number of its weight changed, and that alone."""

    def change(data):
        weights = []
        of.in_nodes(data, lambda one: weights.append(one) or one)
        name = [one for one in weights if one["op"].decode() == op][which]["inputs"][1]

        def each(parts):
            for number, inner, whole in parts:
                if number == 5 and (8, name) in [(n, v) for n, v, _ in of.fields(inner)]:
                    raw = next(v for n, v, _ in of.fields(inner) if n == 9)
                    new = np.float32(value).tobytes() + raw[4:]
                    whole = of.field(5, inner.replace(raw, new))
                yield whole

        return of.in_graph(data, each)

    return change


def read_again(op):
    """The graph with a Relu more that reads what an operator reads."""

    def change(parts):
        for number, value, whole in parts:
            if number == 1 and of.node_parts(value)["op"].decode() == op:
                yield of.node("Sigmoid", [of.node_parts(value)["inputs"][0].decode()], "more")
            yield whole

    return lambda data: of.in_graph(data, change)


# In the first stage of both there are three convolutions, behind that of the stem.
BLURRED = Spec((1, 1), 2, 2, 3, channels=1, stem="cifar", expansion=1, blur_pool="binomial")
DILATED = replace(BLURRED, blocks=(1, 2), blur_pool="none", dilated=1, avg_down=True)
OTHER_POOLINGS = {
    "edges": (BLURRED, with_attribute("Pad", "mode", b"edge"), "edges are not reflected"),
    "zeros": (BLURRED, with_attribute("Pad", "mode", b"constant"), "edges are not reflected"),
    "unknown": (BLURRED, with_attribute("Pad", "other", 1), r"Pad\): 'other' is 1"),
    "stride": (BLURRED, with_attribute("Conv", "strides", [3, 3], 6), "stride is 3; expected 2"),
    "none": (BLURRED, with_attribute("Conv", "strides", [1, 1], 6), "stride is 2; expected 1"),
    "pads": (BLURRED, with_attribute("Conv", "pads", [1] * 4, 6), "edges are not reflected"),
    "taps": (BLURRED, with_number("Conv", 0.0626, 6), "has 4 convolutions"),
    "dilations": (BLURRED, with_attribute("Conv", "dilations", [2, 2], 6), "has 4 convolutions"),
    "shared": (BLURRED, read_again("Pad"), "branches|no part|into the two ways"),
    "dilation": (DILATED, with_attribute("Conv", "dilations", [1, 1], 10), "dilation is 1"),
    "far": (DILATED, with_attribute("Conv", "dilations", [4, 4], 10), "dilation is 4; expected 2"),
    "early": (DILATED, with_attribute("Conv", "dilations", [2, 2], 5), "dilation is 2; expected 1"),
    "mean": (DILATED, with_number("Conv", 0.25, 7), "3 convolutions, and 2 in its shortcut"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_POOLINGS)
def test_another_pooling_or_dilation_is_refused(tmp_path, name):
    spec, change, words = OTHER_POOLINGS[name]
    data = of.onnx_file(tmp_path, spec)
    assert read_checkpoint(tmp_path / "made.onnx").stored.spec == spec
    changed = change(data)
    assert changed != data
    (tmp_path / "o.onnx").write_bytes(changed)
    with pytest.raises((FormatError, ShapeError), match=words):
        read_checkpoint(tmp_path / "o.onnx")


@pytest.mark.parametrize("form", ["right", "forward", "other", "no pairs"])
def test_edges_as_an_older_exporter_writes_them(tmp_path, form):
    """PyTorch's TorchScript exporter turns pairs of the last dimension first into ONNX's order."""
    zero = of.field(1, 1) + of.field(2, 7) + of.field(9, bytes(8))
    made = of.field(1, b"value") + of.field(5, zero) + of.field(20, 4)
    end = np.iinfo(np.int64).min + 1 if form != "forward" else 4

    def change(parts):
        yield int64s("pairs", [1, 1, 1, 0 if form == "other" else 1])
        for name, numbers in {
            "four": [4], "two columns": [-1, 2 if form != "no pairs" else 4], "row": [-1],
            "start": [-1 if form != "forward" else 0], "end": [end], "axes": [0],
            "step": [-1 if form != "forward" else 1],
        }.items():  # fmt: skip
            yield int64s(name, numbers)
        yield of.node("ConstantOfShape", ["four"], "rest")
        yield of.node("Concat", ["pairs", "rest"], "all", axis=0)
        yield of.node("Reshape", ["all", "two columns"], "rows")
        yield of.node("Slice", ["rows", "start", "end", "axes", "step"], "turned")
        yield of.node("Transpose", ["turned"], "columns", perm=[1, 0])
        yield of.node("Reshape", ["columns", "row"], "flat")
        yield of.node("Cast", ["flat"], "new", to=7)
        yield from (whole for *_, whole in parts)

    data = of.in_graph(of.onnx_file(tmp_path, BLURRED), change)

    def each(one):
        if one["op"] == b"Pad":
            one["inputs"][1] = b"new"
        if one["op"] == b"ConstantOfShape":
            one["a"]["value"] = made
        return one

    (tmp_path / "o.onnx").write_bytes(of.in_nodes(data, each))
    if form == "right":
        assert read_checkpoint(tmp_path / "o.onnx").stored.spec == BLURRED
    else:
        words = {"forward": "of height and width", "other": "not reflected", "no pairs": "expected"}
        with pytest.raises(FormatError, match=words[form]):
            read_checkpoint(tmp_path / "o.onnx")


def int64s(name, numbers):
    """A tensor of whole numbers."""
    raw = np.array(numbers, "<i8").tobytes()
    parts = of.field(1, len(numbers)) + of.field(2, 7) + of.field(8, name.encode())
    return of.field(5, parts + of.field(9, raw))


@pytest.mark.parametrize("form", ["pad", "axes", "pads", "uncounted", "other edge", "other value"])
def test_means_in_a_dilated_stage_as_others_write_them(tmp_path, form):
    """timm pads behind each line and column with zeros, and takes the mean of 2x2 values."""

    def change(parts):
        window = {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": b"NOTSET"}
        for number, value, whole in parts:
            one = of.node_parts(value) if number == 1 else {"inputs": [b"", b""]}
            if not one["inputs"][1:2] or not one["inputs"][1].startswith(b"constant"):
                yield whole
                continue
            x, y = one["inputs"][0].decode(), one["outputs"][0].decode()
            if form in ("pads", "uncounted"):
                pads = {"pads": [0, 0, 1, 1], "count_include_pad": int(form == "pads")}
                yield of.node("AveragePool", [x], y, **window, **pads)
                continue
            numbers = [0, 0, 1, 1] if form == "axes" else [0, 0, 0, 0, 0, 0, 1, 1]
            if form == "other edge":
                numbers = [0, 0, 1, 1, 0, 0, 0, 0]
            axes = ["", "axes"] if form == "axes" else []
            yield int64s("by", numbers)
            yield int64s("axes", [-2, 3])
            if form == "other value":
                yield of.node("Constant", [], "one", value_float=1.0)
                axes = ["one"]
            yield of.node("Pad", [x, "by", *axes], "padded")
            yield of.node("AveragePool", ["padded"], y, **window)

    data = of.in_graph(of.onnx_file(tmp_path, DILATED), change)
    (tmp_path / "o.onnx").write_bytes(data)
    refused = {"uncounted": "behind the map", "other edge": "here", "other value": "than 0"}
    if form in refused:
        with pytest.raises(FormatError, match=refused[form]):
            read_checkpoint(tmp_path / "o.onnx")
    else:
        assert read_checkpoint(tmp_path / "o.onnx").stored.spec == DILATED


@pytest.mark.parametrize("number", [2, 3, 7, 9, 21, 99])
def test_images_that_are_no_floats(tmp_path, number):
    """Such a graph normalises them itself, and what is assumed of it would be wrong."""

    def change(parts):
        for at, value, whole in parts:
            if at == 11:  # a name, and a tensor of float32
                assert value.count(b"\x08\x01\x12") == 1
                whole = of.field(11, value.replace(b"\x08\x01\x12", b"\x08%c\x12" % number))
            yield whole

    (tmp_path / "o.onnx").write_bytes(of.in_graph(of.onnx_file(tmp_path), change))
    with pytest.raises(FormatError, match=r"the graph takes are of type .*expected floating point"):
        read_checkpoint(tmp_path / "o.onnx")


def test_a_weight_of_many_nodes_is_read_once(tmp_path, monkeypatch):
    """A graph of a kilobyte each may name one weight over and over."""
    data, reads = of.onnx_file(tmp_path, BLURRED), []
    kernels = []
    of.in_nodes(data, lambda one: kernels.append(one) or one)
    pads = [one for one in kernels if one["op"] == b"Pad"]
    blurs = [one for one in kernels if one["inputs"][:1] == pads[0]["outputs"]]

    def change(parts):
        for i in range(50):
            for one in (pads[0], blurs[0]):
                new = one | {"inputs": [*one["inputs"]], "outputs": [b"%d%s" % (i, one["op"])]}
                if one is blurs[0]:
                    new["inputs"][0] = b"%dPad" % i
                elif i:
                    new["inputs"][0] = b"%dConv" % (i - 1)
                else:
                    new["inputs"][0] = b"images"
                yield of.field(1, of.node_bytes(new))
        yield from (whole for *_, whole in parts)

    found = values.Reading._has_only

    def counted(self, tensor, taps):
        reads.append(tensor.name)
        return found(self, tensor, taps)

    monkeypatch.setattr(values.Reading, "_has_only", counted)
    (tmp_path / "o.onnx").write_bytes(of.in_graph(data, change))
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "o.onnx")
    assert len(reads) == len(set(reads))


@pytest.mark.parametrize("number", [-(1 << 31) - 1, 1 << 31, -(1 << 63)])
def test_whole_numbers_beyond_their_type(number):
    values = np.array([0, number], np.int64).view(np.uint64)
    with pytest.raises(FormatError, match="numbers beyond its type"):
        tensor._narrowed(values, NUMBERS["I32"], "x")
    ends = np.array([(1 << 31) - 1, -(1 << 31)], np.int64).view(np.uint64)
    assert bytes(tensor._narrowed(ends, NUMBERS["I32"], "x")) == ends.astype("<i4").tobytes()


def test_a_domain_of_one_program(tmp_path):
    def each(one):
        return one | {"domain": b"com.microsoft"} if one["op"] == b"Conv" else one

    (tmp_path / "o.onnx").write_bytes(of.in_nodes(of.onnx_file(tmp_path), each))
    with pytest.raises(FormatError, match=r"conv1.*com\.microsoft"):
        read_checkpoint(tmp_path / "o.onnx")


@pytest.mark.parametrize("version", [6, 27])
def test_versions_whose_meaning_is_not_known(tmp_path, version):
    data = of.onnx_file(tmp_path)
    old, new = (of.field(8, of.field(1, b"") + of.field(2, n)) for n in (17, version))
    (tmp_path / "o.onnx").write_bytes(data.replace(old, new))
    with pytest.raises(FormatError, match=f"version {version} of ONNX's operators"):
        read_checkpoint(tmp_path / "o.onnx")


def test_options_that_contradict_the_graph(tmp_path):
    of.onnx_file(tmp_path)
    for options in (
        {"stem": "pooled"},
        {"arch": replace(of.SMALL, stride_on=1)},
        {"blur_pool": "average"},
        {"output_stride": 1},
    ):
        with pytest.raises(ShapeError, match="the graph computes"):
            read_checkpoint(tmp_path / "made.onnx", **options)
    assert read_checkpoint(tmp_path / "made.onnx", stem="cifar").stored.spec == of.SMALL
    with pytest.raises(UsageError, match="one network"):
        read_checkpoint(tmp_path / "made.onnx", key="model")
    (tmp_path / "config.json").write_text('{"architecture": "resnextaa8_8x4d"}')
    of.onnx_file(tmp_path, Spec((1, 1), 8, 4, 3, expansion=1))
    with pytest.raises(ShapeError, match=r"the graph computes.*no config\.json"):
        read_checkpoint(tmp_path / "made.onnx")


# -- numbers in another file


def outside(data, location="w.bin", **more):
    """The first weight in another file; what is to lie there."""
    taken = []

    def each(parts):
        for number, value, whole in parts:
            if number == 5 and not taken:
                taken.append(next(v for n, v, _ in of.fields(value) if n == 9))
                pairs = {"location": location, "offset": "8", "length": str(len(taken[0]))} | more
                entries = b"".join(
                    of.field(13, of.field(1, k.encode()) + of.field(2, v.encode()))
                    for k, v in pairs.items()
                )
                rest = b"".join(w for n, _, w in of.fields(value) if n != 9)
                whole = of.field(5, rest + entries + of.field(14, 1))
            yield whole

    return of.in_graph(data, each), taken[0]


def test_external_data(tmp_path):
    """Nothing but the model and this file is opened."""
    data, raw = outside(of.onnx_file(tmp_path), "a/w.bin")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w.bin").write_bytes(bytes(8) + raw)
    (tmp_path / "o.onnx").write_bytes(data)
    with watching() as events, opened_checkpoint(tmp_path / "o.onnx") as (stored, _):
        found = {name: value.tobytes() for name, value in stored.params.items()}
    opened = [str(what) for event, what in events if event == "open"]
    assert opened == [str(tmp_path / "o.onnx"), str((tmp_path / "a" / "w.bin").resolve())]
    assert found == {name: value.tobytes() for name, value in of.stored().params.items()}


@pytest.mark.parametrize(
    ("location", "error", "words"),
    [
        ("../w.bin", UnsafeError, "no path inside"),
        ("a/../../w.bin", UnsafeError, "no path inside"),
        ("/etc/hostname", UnsafeError, "no path inside"),
        ("..\\w.bin", UnsafeError, "no path inside"),
        ("C:w.bin", UnsafeError, "no path inside"),
        ("a\0b", UnsafeError, "no path inside"),
        ("", UnsafeError, "no path inside"),
        (".", UnsafeError, "no path inside"),
        ("o.onnx", UnsafeError, "the model file itself"),
        ("none.bin", FormatError, "is missing; put it"),
        ("short.bin", FormatError, "which has 16"),
        ("out.bin", UnsafeError, "leads out of"),
        ("folder", FormatError, "is a directory"),
    ],
)
def test_places_that_are_not_read(tmp_path, location, error, words):
    """Nothing is opened but the model, and files that may be."""
    folder = tmp_path / "in"
    (folder / "folder").mkdir(parents=True)
    data, raw = outside(of.onnx_file(folder), location)
    (tmp_path / "w.bin").write_bytes(bytes(8) + raw)
    (folder / "short.bin").write_bytes(bytes(16))
    os.symlink("../w.bin", folder / "out.bin")
    (folder / "o.onnx").write_bytes(data)
    with watching() as events, pytest.raises(error, match=words):
        read_checkpoint(folder / "o.onnx")
    allowed = {str(folder / name) for name in ("o.onnx", "short.bin", "folder")}
    assert {str(what) for event, what in events if event == "open"} <= allowed


def test_numbers_here_that_are_said_to_lie_elsewhere(tmp_path):
    """Other programs take those in the file itself, whatever stands in ``external_data``."""
    data, raw = outside(of.onnx_file(tmp_path))
    (tmp_path / "w.bin").write_bytes(bytes(8 + len(raw)))
    marked = of.field(14, 1)
    assert data.count(marked) == 1
    (tmp_path / "o.onnx").write_bytes(_in_first_tensor(data, marked, of.field(9, raw)))
    with pytest.raises(FormatError, match="has numbers here and elsewhere"):
        read_checkpoint(tmp_path / "o.onnx")


def _in_first_tensor(data, old, new):
    """The model in which one field of its first tensor is another."""
    taken = []

    def each(parts):
        for number, value, whole in parts:
            if number == 5 and not taken:
                taken.append(value)
                whole = of.field(5, value.replace(old, new))
            yield whole

    return of.in_graph(data, each)


@pytest.mark.parametrize(
    "more", [{"offset": "-4"}, {"offset": "four"}, {"length": "4"}, {"offset": "9" * 30}]
)
def test_ranges_that_are_not_those_of_the_tensor(tmp_path, more):
    data, raw = outside(of.onnx_file(tmp_path), **more)
    (tmp_path / "w.bin").write_bytes(bytes(8) + raw)
    (tmp_path / "o.onnx").write_bytes(data)
    with pytest.raises(FormatError):
        read_checkpoint(tmp_path / "o.onnx")


def test_the_hubs_cache(tmp_path):
    """Model and data are links from a snapshot to blobs; other links out stay refused."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "c0ffee", tmp_path / "models--a--b"
    snapshot.mkdir(parents=True)
    (blobs / "blobs").mkdir()
    data, raw = outside(of.onnx_file(tmp_path), "model.onnx.data")
    for name, content in (("model.onnx", data), ("model.onnx.data", bytes(8) + raw)):
        (blobs / "blobs" / name[-4:]).write_bytes(content)
        os.symlink(f"../../blobs/{name[-4:]}", snapshot / name)
    found = read_checkpoint(snapshot / "model.onnx").stored.params
    assert all(found[k].tobytes() == v.tobytes() for k, v in of.stored().params.items())
    assert not parts.of_the_cache(snapshot, tmp_path / "models--a--c" / "blobs" / "x")


# -- damage


def nested(depth):
    inner = b""
    for _ in range(depth):
        inner = of.field(1, of.field(5, of.field(6, inner)))
    return inner


ATTACKS = {
    "nodes": lambda d: of.in_graph(
        d, lambda p: [of.node("Relu", "a", "b")] * 1_000_000 + [w for *_, w in p]
    ),
    "fields": lambda d: b"\x08\x08" * 1_500_000 + d,
    "nested": lambda d: of.in_graph(d, lambda p: [nested(2_000), *(w for *_, w in p)]),
    "tensors": lambda d: of.in_graph(
        d,
        lambda p: [of.field(5, of.field(8, b"%d" % n)) for n in range(100_000)],
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_cost_little(tmp_path, name):
    (tmp_path / "o.onnx").write_bytes(ATTACKS[name](of.onnx_file(tmp_path)))
    found = cost(
        "from tinyresnext.checkpoints.convert import opened_checkpoint",
        "opened_checkpoint(path).__enter__()",
        tmp_path / "o.onnx",
    )
    assert_refused(found, (tmp_path / "o.onnx").stat().st_size)


DAMAGES = {
    "two graphs": lambda d: d + next(w for n, _, w in of.fields(d) if n == 7),
    "no graph": lambda d: b"".join(w for n, _, w in of.fields(d) if n != 7),
    "endless number": lambda d: d[:2] + b"\x28" + b"\xff" * 30,
    "too long": lambda d: d[:-4] + of.put(7 << 3 | 2) + of.put(1 << 40),
    "functions": lambda d: d + of.field(25, b""),
    "sparse": lambda d: of.in_graph(d, lambda p: [*(w for *_, w in p), of.field(15, b"")]),
    "twice": lambda d: of.in_graph(
        d, lambda p: [*(w for *_, w in p), next(w for n, _, w in p if n == 5)]
    ),
    "cycle": lambda d: of.in_graph(
        d, lambda p: [*(w for *_, w in p), of.node("Relu", ["z"], "z")]
    ),
    "made twice": lambda d: of.in_graph(
        d, lambda p: [*(w for *_, w in p), of.node("Relu", ["images"], "fc")]
    ),
    "in a branch": lambda d: of.in_graph(d, lambda p: [nested(2), *(w for *_, w in p)]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged(tmp_path, name):
    (tmp_path / "o.onnx").write_bytes(DAMAGES[name](of.onnx_file(tmp_path)))
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "o.onnx")


def test_cut_short(tmp_path):
    """In the middle of the numbers, in the nodes, and at every byte near the ends."""
    data = of.onnx_file(tmp_path)
    for length in {*range(1, 60), *range(90, len(data), 1999), *range(len(data) - 30, len(data))}:
        (tmp_path / "o.onnx").write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read_checkpoint(tmp_path / "o.onnx")


def mutated(data, rng):
    """A byte or a bit changed, a part left out, put in again or cut off, once or twice."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        at, size = rng.randrange(len(out)), rng.choice((1, 2, 4, 8, 300))
        kind = rng.randrange(6)
        if kind < 2:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.choice((0, 1, 2, 8, 127, 128, 255))
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size]
        elif rng.random() < 0.2:
            del out[at:]
        if not out:
            break
    return bytes(out)


@pytest.mark.parametrize("count", [30, pytest.param(10_000, marks=pytest.mark.slow, id="10000")])
@pytest.mark.parametrize("fold", [False, True])
def test_mutated(tmp_path, fold, count):
    """Refused with a typed error, or the network computes what the changed graph does."""
    data, read = of.onnx_file(tmp_path, of.TINY, fold=fold), 0
    x = images(of.SMALL, of.SIDE, 1)
    rng = random.Random(count + fold)
    damaged = (mutated(data, rng) for _ in range(count // 2))
    for changed, (stored, _) in accepted(tmp_path / "o.onnx", damaged, read_checkpoint):
        read += 1
        with np.errstate(all="ignore"):
            wanted = of.evaluate(changed, x.transpose(0, 3, 1, 2))
            found = logits(stored, x)
        scale = np.abs(wanted).max()
        assert np.allclose(found, wanted, rtol=1e-6, atol=1e-6 * scale, equal_nan=True)
    assert 0 < read < count // 2


@pytest.mark.slow
@pytest.mark.parametrize("spec", [of.SMALL, replace(DILATED, blur_pool="binomial")])
def test_mutated_structure(tmp_path, spec):
    """Mutations of the nodes alone, where the weights take no room: as above."""
    data = of.onnx_file(tmp_path, spec, opset=17)
    graph = next(value for number, value, _ in of.fields(data) if number == 7)
    nodes = b"".join(w for n, _, w in of.fields(graph) if n == 1)
    at, rng = data.index(nodes), random.Random(5)
    x, read = images(of.SMALL, of.SIDE, 1), 0

    def damaged():
        for _ in range(800):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 2))):
                place = at + rng.randrange(len(nodes))
                choices = changed[place] ^ 1 << rng.randrange(8), rng.randrange(5)
                changed[place] = rng.choice(choices)
            yield bytes(changed)

    for changed, (stored, _) in accepted(tmp_path / "o.onnx", damaged(), read_checkpoint):
        read += 1
        wanted = of.evaluate(changed, x.transpose(0, 3, 1, 2))
        assert relative_error(logits(stored, x), wanted) < 1e-6
    assert read


@pytest.mark.parametrize("kind", ["names", "floats", "whole numbers"])
def test_texts_and_numbers_of_a_graph_are_counted(tmp_path, kind):
    """Each is short, and together they take many times the file: a list of floats eight times."""
    part = {
        "names": wire.field(1, b"a" * 1020 + "\U0001f600".encode()) * 60,
        "floats": b"".join(wire.field(5, b"\n\1%c:\xf0\1" % i + b"abcd" * 60) for i in range(60)),
        "whole numbers": b"".join(
            wire.field(5, b"\n\1%cB\x3c" % i + b"\x7f" * 60) for i in range(60)
        ),
    }[kind]
    path = tmp_path / "a.onnx"
    nodes = wire.field(1, part) * (300 if kind != "whole numbers" else 1200)
    path.write_bytes(wire.field(1, 8) + wire.field(8, wire.field(2, 17)) + wire.field(7, nodes))
    with pytest.raises(
        UnsafeError, match="texts and numbers of the graph have more than 4,194,304"
    ):
        container.read(path)
