"""Quantised models as ONNX graphs with QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_files as of
import pytest
from cases import read_checkpoint
from test_quantise import OTHERS, SIDE, SPEC, images, made

import tinyresnext as tr
from tinyresnext.checkpoints.onnx.write import write_onnx
from tinyresnext.checkpoints.onnx.write.integers import filters
from tinyresnext.cli.main import main
from tinyresnext.errors import FormatError, PrecisionError, UsageError
from tinyresnext.inference.many.quantise import quantised
from tinyresnext.network.plan.quantised import Quantisation, integer_parts, joined, split
from tinyresnext.network.spec import Spec
from tinyresnext.store.contents import Stored

SPECS = {
    "plain": SPEC,
    **OTHERS,
    "stride on the first": Spec(
        (1, 1), cardinality=2, width=4, classes=5, stem="pooled", stride_on=1
    ),
    "dilated": Spec((1, 2), cardinality=2, width=2, classes=3, stem="cifar", dilated=1),
    "everything": Spec(
        (1, 1, 2), 2, 2, 3, stem="pooled", avg_down=True, se_reduction=16, blur_pool="binomial",
        dilated=1,
    ),
}  # fmt: skip


TINY_VARIANCE = np.full(6, 1e-9), 0.0


def exported(path, model, **options):
    """Write a quantised model, and return the bytes of the file."""
    stored = Stored(model.spec, model.params, model.preprocess, model.labels, model.provenance)
    write_onnx(path, stored, quantisation=model.quantisation, **options)
    return path.read_bytes()


def quantised_model(name, tiny=None):
    """Return a quantised model, and images that it has not seen, [n, h, w, c] and [n, c, h, w].

    With ``tiny``, every second factor of the norms inside of blocks is that.
    """
    spec = SPECS[name]
    side = 64 if spec.stem in ("deep", "imagenet") else 2 * SIDE if spec.stem == "pooled" else SIDE
    x = np.stack(images(spec, 2, side, 9))
    floats, found = made(spec, side=side, count=4)
    if tiny is not None:
        params = {key: array.copy() for key, array in floats.params.items()}
        for key, array in params.items():
            if key.endswith(("bn1.weight", "bn2.weight")) and key.startswith("layer"):
                array[::2] = tiny
        floats.params = params
        found = quantised(floats, images(spec, 4, side))
    model = found.model
    model.preprocess = replace(model.preprocess, resize=side, crop=side)
    return model, x, np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def nodes_of(data):
    """Return the parts of all nodes of a graph."""
    graph = next(value for number, value, _ in of.fields(data) if number == 7)
    return [of.node_parts(value) for number, value, _ in of.fields(graph) if number == 1]


BOUND = 0.001  # of the largest logit


def far(found, wanted):
    """Return the largest difference, as a part of the largest logit."""
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", SPECS)
def test_the_graph_computes_what_the_model_does(name, tmp_path):
    """ONNX's definitions in float64, against our plan on the reference.

    Both round at the same places, and all that differs is the float32 of ours. A value of 255 steps
    has an error of some 255 / 2^23 of a step, so of 10,000 values about one may be so near to a
    half that it becomes the next integer. That moves a logit by a part of 1 / 255 of a value that
    is one of hundreds: less than `BOUND`. The next test shows what a wrong scale does.
    """
    model, x, planes = quantised_model(name)
    data = exported(tmp_path / "q.onnx", model)
    assert far(of.evaluate(data, planes), model(x)) < BOUND
    ops = [node["op"] for node in nodes_of(data)]
    parts = integer_parts(model.spec)
    assert ops.count(b"QuantizeLinear") == len(parts.values)
    assert ops.count(b"DequantizeLinear") == len(parts.values) + len(parts.reads)


def test_a_scale_that_is_wrong_shows(tmp_path):
    """Of any value, and of the weights: by much more than the bound above."""
    model, x, planes = quantised_model("plain")
    scales, wanted = model.quantisation.scales, model(x)
    for name in scales:
        wrong = scales | {name: scales[name]._replace(scale=scales[name].scale / 2)}
        other = replace(model, quantisation=Quantisation(wrong, 1))
        found = of.evaluate(exported(tmp_path / "q.onnx", other), planes)
        assert far(found, wanted) > 8 * BOUND, name


def test_a_norm_joins_the_scales_of_the_filters():
    """A negative factor turns signs, one of zero leaves the bias alone; no integer is lost."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (6, 4, 3, 3)).astype(np.float32)
    gamma = np.array([1, -2, 0, 1e-30, 1e-42, -0.5], np.float32)
    mean, shift = np.zeros(6, np.float32), np.array([0.1, -0.2, 0, 0, 0, 0.3], np.float32)
    norm, x_scale = (gamma, shift, mean, np.full(6, 4, np.float32), 0.0), np.float32(0.01)
    integers, own = split(weight)
    found = filters("a", joined(integers, own), x_scale, norm)
    signs = np.sign(gamma)[:, None, None, None]
    for i in (0, 1, 3, 5):
        assert np.array_equal(found.integers[i], (signs * integers)[i]), i
        assert found.scale[i] == np.float32(abs(float(gamma[i])) / 2 * float(own[i])), i
    assert not found.integers[[2, 4]].any()
    assert found.scale[[2, 4]].tolist() == [1, 1]
    assert np.array_equal(found.bias, shift)
    with pytest.raises(PrecisionError, match="too large for float32"):
        filters("a", weight, x_scale, (np.full(6, 3e38, np.float32), *norm[1:3], *TINY_VARIANCE))


def test_a_bias_has_room_in_32_bits():
    """It may be far larger than all that its filter computes; ONNX Runtime makes an int32 of it."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (5, 16, 3, 3)).astype(np.float32)
    gamma = np.array([1, 3e-7, -1e-8, 1e-20, 0], np.float32)
    shift, zero = np.full(5, -3, np.float32), np.zeros(5, np.float32)
    x_scale = np.float32(0.01)
    found = filters("a", weight, x_scale, (gamma, shift, zero, np.ones(5, np.float32), 0.0))
    steps = np.abs(found.bias.astype(float)) / (found.scale.astype(float) * x_scale)
    assert (steps <= 2**30 * 1.000001).all()
    x = rng.integers(0, 256, (16, 3, 3)).astype(float) * x_scale
    exact = (joined(*split(weight)).astype(float) * x).sum((1, 2, 3)) * gamma
    made = (found.integers.astype(float) * x).sum((1, 2, 3)) * found.scale
    assert (np.abs(made - exact) <= 144 * 255 / 2**31 * 3 + 1e-6 * np.abs(exact)).all()
    assert np.abs(found.integers[0]).max() == 127
    assert 0 < np.abs(found.integers[1]).max() < 127
    assert not found.integers[3:].any()


def test_what_a_quantised_graph_is_not_written_for(tmp_path):
    model, *_ = quantised_model("plain")
    for options, found in (({"opset": 12}, "found 12"), ({"half": True}, "and float16")):
        with pytest.raises(UsageError, match=found):
            exported(tmp_path / "q.onnx", model, **options)
    assert not (tmp_path / "q.onnx").exists()


def test_the_command_writes_it_and_convert_refuses_it(tmp_path, capsys):
    model, x, planes = quantised_model("no classifier")
    tr.save(model, tmp_path / "m.int8.h5")
    out = tmp_path / "m.onnx"
    assert main(["export", str(tmp_path / "m.int8.h5"), str(out), "--fold"]) == 0
    assert "`convert` does not read quantised graphs" in capsys.readouterr().err
    assert {node["op"] for node in nodes_of(out.read_bytes())}.isdisjoint({b"BatchNormalization"})
    assert far(of.evaluate(out.read_bytes(), planes), model(x)) < BOUND
    with pytest.raises(FormatError, match="quantised networks are not read; convert the float32"):
        read_checkpoint(out)
    assert main(["convert", str(out), str(tmp_path / "n.h5")]) == 3
