"""Squeeze and excitation, blur pooling and dilation: whole networks, run, trained and converted."""

from __future__ import annotations

from dataclasses import replace

import cases
import numpy as np
import pytest
import recipe

import tinyresnext
from tinyresnext.errors import FormatError, ShapeError, UsageError
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.inference.model import Model
from tinyresnext.network.count import layers, totals
from tinyresnext.network.plan import Plan, program
from tinyresnext.network.resnext import blocks, concatenated, forward, parameters, summed
from tinyresnext.network.spec import VARIANTS, Spec, dilated, projection, variant
from tinyresnext.network.step import Step
from tinyresnext.network.tape import Tape, gradients
from tinyresnext.ops import reference
from tinyresnext.store import store
from tinyresnext.training.optimisers.muon import matrices

SMALL = {"expansion": 1, "classes": 7}
SPECS = {
    "excited": Spec((2, 1), 4, 8, se_reduction=16, **SMALL),
    "excited, rounded": Spec((1, 1), 4, 8, stem="caffe", se_reduction=16, se_divisor=8, **SMALL),
    "binomial": Spec((1, 2), 4, 8, blur_pool="binomial", **SMALL),
    "average": Spec((1, 1), 4, 8, blur_pool="average", stem="pooled", **SMALL),
    "dilated": Spec((1, 2, 2), 4, 8, dilated=2, **SMALL),
    "dilated, averaged": Spec((1, 1), 4, 8, avg_down=True, dilated=1, **SMALL),
    "everything": Spec(
        (1, 1, 2), 4, 8, stem="deep", stem_channels=(8, 12, 24), se_reduction=8,
        blur_pool="binomial", dilated=1, **SMALL,
    ),
}  # fmt: skip


def network(spec: Spec) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return weights and two images: their sides are even only where they have to be."""
    params = {name: recipe.tensor(name, shape) for name, shape in parameters(spec).items()}
    sides = (32, 48) if spec.blur_pool == "average" else (37, 45)
    return params, recipe.pictures("excited", (2, 3, *sides))


def wide(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a.astype(np.float64) for name, a in arrays.items()}


def near(found: np.ndarray, wanted: np.ndarray, most: float) -> bool:
    return float(np.linalg.norm(found - wanted)) <= most * float(np.linalg.norm(wanted))


# --- values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_a_plan_computes_what_the_network_does(ops, name):
    spec = SPECS[name]
    params, x = network(spec)
    want = forward(wide(params), spec, x.astype(np.float64), reference)
    backend = getattr(ops, "backend", ops)
    made = program(params, spec, backend)
    assert near(Plan(made, x.shape, backend)(x), want, 3e-6)
    fused = [call.fused for call in made.calls if call.op == "excite"]
    assert fused == [("add", "relu")] * (sum(spec.blocks) if spec.se_reduction else 0)
    assert not [call for call in made.calls if call.op in ("batch_norm", "add", "relu")]
    assert near(forward(params, spec, x, ops), want, 3e-6)


@pytest.mark.parametrize("name", SPECS)
def test_a_step_computes_the_gradients_of_the_tape(ops, name):
    """The tape differentiates op by op; the step in place, with fused calls.

    On the reference both are in float64. In float32, rounding opens one ReLU or another, which
    moves the gradients of all layers before it by some thousandths.
    """
    spec, labels = SPECS[name], np.array([1, 5])
    params, x = network(spec)
    tape, exact = Tape(reference), wide(params)
    logits = forward(exact, spec, x.astype(np.float64), tape, training=True)
    loss = tape.softmax_cross_entropy(logits, labels=labels)
    trained = [n for n in params if ".running_" not in n]
    wanted = gradients(tape, np.ones(()), [exact[n] for n in trained])
    backend = getattr(ops, "backend", ops)
    given, most = (exact, 1e-11) if ops is reference else (params, 2e-2)
    step = Step({n: backend.upload(a) for n, a in given.items()}, spec, x.shape, backend)
    found, _ = step(x, labels)
    assert found == pytest.approx(float(loss), rel=1e-5 if ops is not reference else 1e-12)
    assert [*step.gradients] == trained
    largest = max(float(np.linalg.norm(g)) for g in wanted)
    for n, want in zip(trained, wanted, strict=True):
        gradient = backend.download(step.gradients[n])
        error = float(np.linalg.norm(gradient - want))
        assert error <= most * max(float(np.linalg.norm(want)), largest / 100), n


@pytest.mark.parametrize("name", SPECS)
def test_the_three_forms_of_a_block_are_equal(name):
    spec = SPECS[name]
    params, x = network(spec)
    want = forward(wide(params), spec, x.astype(np.float64), reference)
    for form in (concatenated, summed):
        found = forward(wide(params), spec, x.astype(np.float64), reference, block=form)
        assert near(found, want, 1e-13)


def test_the_reference_case(tmp_path, ops):
    """timm's own code computed it in float64: at most three times its error in float32."""
    case = cases.load("timm.seresnextaa14d_32x8d")
    (tmp_path / "x.pth").write_bytes(cases.wrapped(case, legacy=False))
    read = cases.read_checkpoint(tmp_path / "x.pth", blur_pool="binomial")
    assert read.stored.spec == Spec(
        (1,) * 4, 32, 8, 10, stem="deep", avg_down=True, se_reduction=16, blur_pool="binomial"
    )
    backend = getattr(ops, "backend", ops)
    for planned in (False,) if ops is reference else (True, False):
        model = Model(*read.stored, backend)
        y = model(case.x) if planned else forward(model.params, model.spec, case.x, ops)
        assert cases.relative_error(y, case.logits) <= 3 * case.torch_float32_error
    plain = cases.read_checkpoint(tmp_path / "x.pth")
    assert any("no blur pooling (--blur-pool)" in note for note in plain.notes)


FULL = {
    "timm.resnextaa14_32x4d": {"blur_pool": "binomial"},
    "timm.seresnext14d_32x4d": {},
    "timm.seresnext26d_32x4d": {},
    "timm.seresnext50_32x4d": {},
    "cadene.se_resnext50_32x4d": {},
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_cases(name, reference_dir, tmp_path):
    case = cases.load(name, reference_dir / "formats" / "reference")
    (tmp_path / "x.pth").write_bytes(cases.wrapped(case, legacy=False))
    read = cases.read_checkpoint(tmp_path / "x.pth", **FULL[name])
    legacy = name.startswith("cadene")
    assert read.stored.spec.stem == ("caffe" if legacy else read.stored.spec.stem)
    store.write(tmp_path / "x.h5", read.stored)
    model = tinyresnext.load(tmp_path / "x.h5")
    assert cases.relative_error(model(case.x), case.logits) <= 3 * case.torch_float32_error
    eager = forward(model.params, model.spec, case.x, model.ops)
    assert cases.relative_error(eager, case.logits) <= 3 * case.torch_float32_error


def test_selective_kernels_are_refused(tmp_path):
    spec = Spec((1, 1), 4, 8, **SMALL)
    tensors = {n.replace(".conv2.", ".conv2.paths.0.conv."): a for n, a in network(spec)[0].items()}
    (tmp_path / "x.pth").write_bytes(cases.checkpoint(tensors, legacy=False))
    with pytest.raises(FormatError, match=r"selective kernels \(SK\) are not supported"):
        cases.read_checkpoint(tmp_path / "x.pth")


def test_a_size_that_does_not_halve_is_refused_with_one_that_does():
    spec = Spec((1, 1, 1), 4, 8, blur_pool="average", **SMALL)
    params, _ = network(spec)
    model = Model(spec, params, Preprocess(), tuple("abcdefg"), {}, reference)
    for x in np.zeros((1, 20, 32, 3), np.float32), np.zeros((1, 32, 20, 3), np.float32):
        with pytest.raises(UsageError, match="use images whose sides are multiples of 16"):
            model(x)
    assert model(np.zeros((1, 16, 48, 3), np.float32)).shape == (1, 7)


# --- against PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_gradients_are_torchs(name):
    """Values and gradients of the same network, written with PyTorch's functions, in float64."""
    torch = pytest.importorskip("torch")
    spec = SPECS[name]
    params, x = network(spec)
    exact, tape = wide(params), Tape(reference)
    trained = [n for n in params if ".running_" not in n]
    logits = forward(exact, spec, x.astype(np.float64), tape)
    v = np.random.default_rng(0).standard_normal(logits.shape)
    wanted = gradients(tape, v, [exact[n] for n in trained])
    p = {n: torch.tensor(a, requires_grad=n in trained) for n, a in exact.items()}
    y = in_torch(torch, p, spec, torch.tensor(x.astype(np.float64)).permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits, y.detach().numpy(), rtol=1e-10, atol=1e-10)
    y.backward(torch.tensor(v))
    for n, want in zip(trained, wanted, strict=True):
        found = p[n].grad.numpy()
        np.testing.assert_allclose(want, found, rtol=1e-8, atol=1e-10 * max(1, np.abs(found).max()))


def in_torch(torch, p, spec, x):
    """Return the logits; shortcuts are of type B."""
    f = torch.nn.functional

    def norm(x, n):
        statistics = p[f"{n}.running_mean"], p[f"{n}.running_var"]
        return f.batch_norm(x, *statistics, p[f"{n}.weight"], p[f"{n}.bias"], eps=spec.eps)

    def blur(x, stride):
        if spec.blur_pool == "average":
            return f.avg_pool2d(x, stride)
        taps = torch.tensor([1.0, 2.0, 1.0], dtype=x.dtype)
        kernel = (taps[:, None] * taps / 16).expand(x.shape[1], 1, 3, 3)
        return f.conv2d(
            f.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=stride, groups=x.shape[1]
        )

    if spec.stem == "deep":
        for conv, bn, stride in (("0", "conv1.1", 2), ("3", "conv1.4", 1), ("6", "bn1", 1)):
            weight = p[f"conv1.{conv}.weight"]
            x = norm(f.conv2d(x, weight, stride=stride, padding=1), bn).relu()
    else:
        stride, padding = (1, 1) if spec.small else (2, 3)
        x = norm(f.conv2d(x, p["conv1.weight"], stride=stride, padding=padding), "bn1").relu()
    if spec.stem == "caffe":
        x = f.max_pool2d(x, 3, 2, ceil_mode=True)
    elif spec.blur_pool == "average":
        x = blur(x, 2)
    elif spec.blur_pool == "binomial":
        x = blur(f.max_pool2d(x, 3, 1, 1), 2)
    else:
        x = f.max_pool2d(x, 3, 2, 1)
    for b in blocks(spec):
        n, d = b.name, b.dilation
        y = norm(f.conv2d(x, p[f"{n}.conv1.weight"]), f"{n}.bn1").relu()
        stride = 1 if b.blur else b.stride
        y = f.conv2d(
            y, p[f"{n}.conv2.weight"], None, stride, d, dilation=d, groups=spec.cardinality
        )
        y = norm(y, f"{n}.bn2").relu()
        y = blur(y, b.stride) if b.blur else y
        y = norm(f.conv2d(y, p[f"{n}.conv3.weight"]), f"{n}.bn3")
        if spec.se_reduction:
            s = y.mean((2, 3), keepdim=True)
            s = f.conv2d(s, p[f"{n}.se.fc1.weight"], p[f"{n}.se.fc1.bias"]).relu()
            y = y * f.conv2d(s, p[f"{n}.se.fc2.weight"], p[f"{n}.se.fc2.bias"]).sigmoid()
        if b.shortcut == "projection":
            stride, (conv, bn) = b.stride, projection(spec, b)
            if spec.avg_down and stride > 1:
                x, stride = f.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False), 1
            elif b.smooth:  # timm's AvgPool2dSame
                x = f.avg_pool2d(f.pad(x, (0, 1, 0, 1)), 2, 1)
            x = norm(f.conv2d(x, p[f"{conv}.weight"], stride=stride), bn)
        x = (y + x).relu()
    return f.linear(x.mean((2, 3)), p["fc.weight"], p["fc.bias"])


# --- the specification ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_a_model_file_keeps_them(name, tmp_path):
    spec = SPECS[name]
    stored = store.Stored(spec, network(spec)[0], Preprocess(), ("a",) * 7, {})
    store.write(tmp_path / "x.h5", stored)
    assert tinyresnext.load(tmp_path / "x.h5").spec == spec


def test_a_usual_network_says_nothing_of_them():
    assert Spec().to_json().keys() == {
        "blocks", "cardinality", "width", "classes", "channels", "stem", "shortcut", "avg_down",
        "stride_on", "expansion", "eps",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "words"),
    {
        "reduction": ({"se_reduction": -1}, "se_reduction is -1"),
        "true": ({"se_reduction": True}, "se_reduction is True"),
        "divisor": ({"se_divisor": 8}, "se_reduction is 0: expected both"),
        "blur": ({"blur_pool": "mean"}, "blur_pool is 'mean': expected one of 'none'"),
        "stride": ({"blur_pool": "binomial", "stride_on": 1}, "expected stride_on 2"),
        "caffe": ({"blur_pool": "average", "stem": "caffe"}, "no network has both"),
        "all": ({"dilated": 4}, "dilated is 4: expected a whole number from 0 to 3"),
        "first": ({"dilated": 1, "stride_on": 1}, "stride_on is 1: systems differ"),
        "widths": ({"stem_channels": (24, 32, 64)}, "only the stem 'deep'"),
        "two": ({"stem_channels": (24, 32), "stem": "deep"}, "expected three numbers"),
        "none": ({"stem_channels": (0, 32, 64), "stem": "deep"}, r"stem_channels\[0\] is 0"),
    }.values(),
)
def test_what_cannot_be_built(fields, words):
    with pytest.raises(UsageError, match=words):
        Spec(**fields)


def test_squeezed_layers_are_rounded_as_their_systems_do():
    """timm: ``make_divisible(c / 16, 8, round_limit=0)``; Cadene: ``c // 16``."""
    timm, cadene = Spec(se_reduction=16, se_divisor=8), Spec(se_reduction=16)
    assert [timm.squeezed(c) for c in (64, 128, 192, 256, 320, 2048)] == [8, 8, 16, 16, 24, 128]
    assert [cadene.squeezed(c) for c in (8, 64, 128, 192, 256, 2048)] == [1, 4, 8, 12, 16, 128]


def test_output_strides():
    spec = variant("resnext50_32x4d")
    assert [dilated(spec, s).dilated for s in (32, 16, 8)] == [0, 1, 2]
    assert dilated(spec, 8).output_stride == 8
    by_stage = {}
    for b in blocks(dilated(spec, 8)):
        by_stage.setdefault(b.name[:6], []).append((b.stride, b.dilation))
    assert by_stage["layer2"] == [(2, 1)] + [(1, 1)] * 3  # as torchvision and timm have them
    assert by_stage["layer3"] == [(1, 1)] + [(1, 2)] * 5
    assert by_stage["layer4"] == [(1, 2)] + [(1, 4)] * 2
    with pytest.raises(UsageError, match="the output stride is 12: expected one of 32, 16, 8, 4"):
        dilated(spec, 12)


def test_parameters_of_published_networks():
    """As timm counts them, in millions."""
    for name, millions in {
        "seresnext50_32x4d": 27.56,
        "seresnext26t_32x4d": 16.81,
        "seresnext101_32x8d": 93.57,
        "seresnextaa101d_32x8d": 93.59,
        "legacy_seresnext101_32x4d": 48.96,
    }.items():
        found = totals(layers(variant(name)))["params"]
        assert found == pytest.approx(millions * 1e6, abs=5001), name
        assert VARIANTS[name].name == name


def test_muon_leaves_squeeze_and_excitation_to_sgd():
    assert not [name for name in matrices(SPECS["excited"]) if ".se." in name]


# --- checkpoints ----------------------------------------------------------------------------------


def cadenes(tensors):
    names = {"conv1.": "layer0.conv1.", "bn1.": "layer0.bn1.", "fc.": "last_linear."}
    for name, a in tensors.items():
        start = name.partition(".")[0] + "."
        yield names.get(start, start) + name.removeprefix(start).replace("se.fc", "se_module.fc"), a


def mmpretrains(tensors):
    for name, a in tensors.items():
        name = name.replace("se.fc1", "se_layer.conv1.conv").replace(
            "se.fc2", "se_layer.conv2.conv"
        )
        yield ("head." if name.startswith("fc.") else "backbone.") + name, a


def read(tmp_path, tensors, **options):
    (tmp_path / "x.pth").write_bytes(cases.checkpoint(dict(tensors), legacy=False))
    return cases.read_checkpoint(tmp_path / "x.pth", **options)


@pytest.mark.parametrize("divisor", [1, 8])
def test_names_of_other_systems(tmp_path, divisor):
    spec = replace(SPECS["excited"], se_divisor=divisor)
    params, _ = network(spec)
    assert read(tmp_path, params.items()).stored.spec == spec
    assert read(tmp_path, mmpretrains(params)).stored.spec == spec
    found = read(tmp_path, cadenes(params)).stored
    assert found.spec == replace(spec, stem="caffe")
    assert all(np.array_equal(found.params[name], a) for name, a in params.items())


@pytest.mark.parametrize("prefix", ["model.", "encoder.net."])
def test_cadenes_names_behind_a_prefix(tmp_path, prefix):
    spec = SPECS["excited"]
    params, _ = network(spec)
    found, notes = read(tmp_path, {prefix + name: a for name, a in cadenes(params)})
    assert found.spec == replace(spec, stem="caffe", stride_on=found.spec.stride_on)
    assert all(np.array_equal(found.params[name], a) for name, a in params.items())
    assert f"names: Cadene's SE networks, behind '{prefix}'" in notes


def test_an_architecture_that_the_names_contradict(tmp_path):
    spec = SPECS["excited"]
    params, _ = network(spec)
    with pytest.raises(UsageError, match="whose stem is 'caffe'"):
        read(tmp_path, cadenes(params), arch=spec)
    assert read(tmp_path, cadenes(params), arch=spec, stem="imagenet").stored.spec == spec
    wrong = {n: a for n, a in params.items() if n != "layer1.1.se.fc2.bias"}
    with pytest.raises(ShapeError, match=r"layer1\.1\.se\.fc2\.bias \(64,\) is missing"):
        read(tmp_path, wrong.items())


def test_what_no_tensor_tells_can_be_said(tmp_path):
    spec = Spec((1, 2, 2), 4, 8, **SMALL)
    params, _ = network(spec)
    found = read(tmp_path, params.items(), blur_pool="average", output_stride=8)
    assert found.stored.spec == replace(spec, blur_pool="average", dilated=1)
    with pytest.raises(UsageError, match="the output stride is 32: expected one of 16, 8, 4"):
        read(tmp_path, params.items(), output_stride=32)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("excited, rounded", "safetensors"), ("average", "npz"), ("everything", "pth")],
)
def test_export_and_convert(name, suffix, tmp_path, capsys):
    from tinyresnext.cli.main import main

    spec = SPECS[name]
    params, _ = network(spec)
    labels = tuple(f"class {i}" for i in range(7))
    store.write(tmp_path / "x.h5", store.Stored(spec, params, Preprocess(), labels, {}))
    out, back = tmp_path / f"x.{suffix}", tmp_path / "y.h5"
    assert main(["export", str(tmp_path / "x.h5"), str(out)]) == 0
    said = capsys.readouterr().err
    assert ("blur_pool is" in said) == (spec.blur_pool != "none")
    assert ("--output-stride" in said) == (spec.dilated > 0)
    assert main(["convert", str(out), str(back)]) == 0
    model = tinyresnext.load(back)
    assert model.spec == spec
    assert all(np.array_equal(model.params[key], a) for key, a in params.items())
