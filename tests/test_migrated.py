"""What people bring from PyTorch that looks like a plain ResNeXt: taken if exact, else refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import cases
import foreign_files as ff
import key_schemes
import numpy as np
import pytest
import torch_files
from test_wrapped import OTHERS, OURS, TINY, same, state, without_head

from tinyresnext import load_checkpoint, parameters
from tinyresnext.checkpoints.names import schemes as names
from tinyresnext.cli.main import main
from tinyresnext.cli.weights.labels import read_labels
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UsageError

FC = OURS["fc.weight"]
HALF = np.float32(0.5)


@pytest.fixture
def convert(tmp_path):
    """Write a checkpoint of PyTorch, and return what is understood of it: the model, all notes."""
    return partial(cases.understood, tmp_path)


@pytest.mark.parametrize("name", ["logit_scale", "temperature", "pool_p", "scale"])
@pytest.mark.parametrize("kind", ["float32", "float16", "float64"])
def test_a_single_number_of_floating_point_may_be_a_parameter(convert, tmp_path, name, kind):
    """A file of safetensors with it was refused, and one of PyTorch was not."""
    more = {name: np.array(0.5, kind)}
    for prefix in ("", "module."):
        with pytest.raises(FormatError, match=f"1 of .* keys .*: {name!r}"):
            convert(state({**OURS, **more}, prefix))
    (tmp_path / "in.safetensors").write_bytes(ff.safe_file({**OURS, **more}))
    with pytest.raises(FormatError, match=f"1 of .* keys .*: {name!r}"):
        load_checkpoint(tmp_path / "in.safetensors")


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps_done", np.array(7)), ("flag", np.array(True)), ("best_acc", HALF), ("val_loss", HALF),
     ("lr", HALF), ("best acc", HALF)],
)  # fmt: skip
def test_a_count_or_a_result_beside_the_modules_is_left_out(convert, name, value):
    stored, notes = convert(state({**OURS, name: np.asarray(value)}))
    same(stored)
    assert f"left out: {name if name.isidentifier() else repr(name)}" in notes


@pytest.mark.parametrize(
    "top",
    [
        state(OURS, "model.") | state(OTHERS, "ema.module."),
        {"state_dict": state(OURS, "model.") | state(OTHERS, "ema.module."), "epoch": 3},
    ],
)
def test_averaged_weights_behind_a_prefix_are_named(convert, top):
    with pytest.raises(UsageError, match=r"behind 'ema.module.' .* say --prefix ema.module. and"):
        convert(top, ema=True)
    same(convert(top, prefix="ema.module.")[0], OTHERS)


def test_averaged_weights_behind_a_prefix_of_another_key_are_named(convert):
    top = {"state_dict": state(OURS), "all": state(without_head(OTHERS), "ema.")}
    with pytest.raises(UsageError, match=r"say --prefix ema. --key all and not --ema"):
        convert(top, ema=True)
    same(convert(top, prefix="ema.", key="all")[0], without_head(OTHERS))
    with pytest.raises(UsageError, match="has no averaged weights"):
        convert({"model": state(OURS)}, ema=True)


POOLED = replace(TINY, stem="pooled")
UNTOLD = {
    "imagenet": (TINY, {}, "stride 2 in the stem and in each later stage, max p"),
    "cifar": (replace(TINY, stem="cifar"), {}, "stride 1 in the stem and 2 in each later"),
    "pooled": (POOLED, {"stem": "pooled"}, "stride 1 in the stem and 2 in each later stage, max p"),
}


@pytest.mark.parametrize("stem", UNTOLD)
def test_what_has_no_trace_in_tensors_is_all_said(convert, stem):
    """A maximum at the end, or a 3x3 stem of stride 2, has the same tensors and other logits."""
    spec, options, strides = UNTOLD[stem]
    _, notes = convert(state(cases.weights(spec)), **options)
    (line,) = [line for line in notes.splitlines() if "no trace" in line]
    assert line.startswith(f"assumed: ReLU, padding with zeros, {strides}")
    assert "a mean over all positions at the end, no blur pooling (--blur-pool) and no dil" in line
    assert ("stride 1 and no pooling in the stem (--stem pooled" in notes) == (stem == "cifar")


@pytest.mark.parametrize("module", ["fc", "head", "fc.1", "classifier.1"])
@pytest.mark.parametrize("prefix", ["", "model.", "backbone."])
def test_a_classifier_without_a_bias_has_zeros(convert, module, prefix):
    there = prefix if prefix != "backbone." else ""  # beside it
    top = {**state(without_head(OURS), prefix), **state({f"{module}.weight": FC}, there)}
    stored, notes = convert(top)
    same(stored, OURS | {"fc.bias": np.zeros(10, np.float32)})
    assert "assumed: the classifier has no bias in the file: zeros" in notes
    with pytest.raises(IntegrityError, match=r"fc\.weight has values that are NaN"):
        convert({**top, **state({f"{module}.weight": FC * np.nan}, there)})


def test_a_classifier_without_a_bias_in_another_order_of_axes():
    """Keras' classifiers are [features, classes]."""
    keys = key_schemes.keras(OURS, TINY)
    (bias,) = (key for key in keys if key.startswith("probs/bias"))
    del keys[bias]
    named = names.recognise(keys)
    shapes = named.shapes({key: value.shape for key, value in keys.items()})
    assert shapes["fc.bias"] == (10,)
    assert not named.tensors(keys)["fc.bias"].any()


def convolution(norm):
    """The name of the convolution before a norm."""
    deep = {"conv1.1": "conv1.0", "conv1.4": "conv1.3", "deep bn1": "conv1.6"}
    if norm in deep:
        return deep[norm]
    module, _, number = norm.rpartition("downsample.")
    return f"{module}downsample.{int(number) - 1}" if module else norm.replace("bn", "conv")


def fused(spec, values):
    """What ``fuse_conv_bn_eval`` leaves: a bias of each convolution, and no norms."""
    norms = [n.removesuffix(".running_var") for n in parameters(spec) if n.endswith("running_var")]
    kept = {n: v for n, v in values.items() if n.rpartition(".")[0] not in norms}
    for norm in norms:
        before = convolution(f"deep {norm}" if (norm, spec.stem) == ("bn1", "deep") else norm)
        kept[f"{before}.bias"] = values[f"{norm}.bias"]
    return kept


FUSED = {
    "plain": TINY,
    "deep": replace(TINY, stem="deep", avg_down=True),
    "excited": replace(TINY, stem="deep", se_reduction=16),
    "features": replace(TINY, classes=0),
}


@pytest.mark.parametrize("spec", FUSED.values(), ids=FUSED)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_norms_that_are_folded_into_convolutions(convert, spec, prefix):
    """Each norm adds the bias of its convolution, and nothing else."""
    values = cases.weights(spec, counters=False)
    stored, notes = convert(state(fused(spec, values), prefix))
    assert replace(stored.spec, eps=spec.eps) == spec
    assert "names: torchvision, norms folded" in notes
    assert "assumed: ReLU" in notes
    assert "epsilon" not in notes
    for name, value in stored.params.items():
        if name.endswith("running_var"):
            norm = name.removesuffix("running_var")
            assert (value + np.float32(stored.spec.eps) == 1).all()
            assert (stored.params[f"{norm}weight"] == 1).all()
            assert not stored.params[f"{norm}running_mean"].any()
            np.testing.assert_array_equal(stored.params[f"{norm}bias"], values[f"{norm}bias"])
        elif name.rpartition(".")[0] + ".running_var" not in stored.params:
            np.testing.assert_array_equal(value, values[name])


def test_convolutions_that_are_fused_with_their_relu(convert):
    """``fuse_modules`` of PyTorch makes ``layer1.0.conv1.0`` of ``layer1.0.conv1``."""
    folded = fused(TINY, cases.weights(TINY, counters=False))
    named = {re.sub(r"(conv[12])\.(weight|bias)$", r"\1.0.\2", n): v for n, v in folded.items()}
    assert "conv1.0.weight" in named
    for prefix in ("", "model."):
        stored, notes = convert(state(named, prefix))
        same(stored, convert(state(folded))[0].params)
        assert "names: torchvision, norms folded" in notes
    for field in ("weight", "bias"):
        again = {f"layer1.0.conv1.0.{field}": folded[f"layer1.0.conv1.{field}"] + 7}
        with pytest.raises(FormatError, match=rf"stand twice: 'layer1.0.conv1.0.{field}'"):
            convert(state({**folded, **again}))


def test_norms_of_which_some_are_folded_are_refused(convert):
    values = {**OURS, "conv1.bias": np.zeros(64, np.float32)}
    del values["bn1.running_mean"]
    with pytest.raises(ShapeError, match=r"bn1\.running_mean \(64,\) is missing"):
        convert(state(values))


CURES = {
    "conv1.weight_g": "remove_weight_norm",
    "conv1.parametrizations.weight.original0": "remove_parametrizations",
    "conv1.parametrizations.weight.0._u": "remove_spectral_norm",
    "conv1.weight_u": "remove_spectral_norm",
    "layer1.0.conv2.weight_mask": r"prune\.remove\(layer, 'weight'\)",
    "conv1.activation_post_process.min_val": "without prepare",
    "conv1.weight_fake_quant.scale": "without prepare",
    "layer1.0.conv1.lora_A.default.weight": "merge_and_unload",
    "fc.lora_A.default.weight": "merge_and_unload",
    "fc.modules_to_save.default.weight": "merge_and_unload",
}


@pytest.mark.parametrize("key", CURES)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_weights_that_are_kept_in_parts_have_a_cure(convert, key, prefix):
    with pytest.raises(FormatError, match=CURES[key]):
        convert(state({**OURS, key: np.ones(3, np.float32)}, prefix))


@pytest.mark.parametrize("inner", ["base_layer", "original_module"])
def test_an_adapter_of_the_classifier_has_a_cure(convert, inner):
    """The advice was to delete the classifier."""
    values = {name.replace("fc.", f"fc.{inner}."): value for name, value in OURS.items()}
    more = "lora_A" if inner == "base_layer" else "modules_to_save"
    values[f"fc.{more}.default.weight"] = np.ones((2, 512), np.float32)
    with pytest.raises(FormatError, match="merge_and_unload"):
        convert(state(values, "base_model.model."))


def linear(module, outputs, inputs=512):
    return {
        f"{module}.weight": np.zeros((outputs, inputs), "f4"),
        f"{module}.bias": np.zeros(outputs, "f4"),
    }


@pytest.mark.parametrize("module", ["predictor", "dense", "proj", "top.0", "my_layer", "arcface"])
def test_a_head_of_an_unknown_name_is_not_left_out(convert, module):
    """The network became one of features, with a note."""
    top = {**state(without_head(OURS), "encoder."), **state(linear(module, 5))}
    with pytest.raises(FormatError, match=rf"{module}.weight' \(5, 512\), .* say --prefix enc"):
        convert(top)
    for options in ({"prefix": "encoder."}, {"arch": replace(TINY, classes=0)}):
        same(convert(top, **options)[0], without_head(OURS))


@pytest.mark.parametrize(
    ("module", "inputs"), [("head", 10), ("out_layer", 10), ("classifier", 512), ("mlp.0", 10)]
)
def test_a_layer_behind_the_classifier_is_not_left_out(convert, module, inputs):
    top = {**state(OURS, "backbone."), **state(linear(module, 4, inputs))}
    with pytest.raises(FormatError, match=rf"{module}.weight' .* a classifier of 10 outputs"):
        convert(top)
    same(convert(top, prefix="backbone.")[0])


@pytest.mark.parametrize("module", ["projector.0", "mlp.0", "neck.fc", "prototypes", "text.width"])
def test_other_layers_beside_a_network_are_noted(convert, module):
    wide = 512 if module != "text.width" else 300
    top = {**state(without_head(OURS), "encoder."), **state(linear(module, 5, wide))}
    stored, notes = convert(top)
    same(stored, without_head(OURS))
    assert f"not taken: 2 tensors beside the network, such as {module}.weight" in notes


BETWEEN = {
    "bottleneck": {"weight": (512,), "bias": (512,), "running_mean": (512,), "running_var": (512,)},
    "norm": {"running_mean": (512,), "running_var": (512,)},
    "embedding": {"weight": (512, 512), "bias": (512,)},
    "neck.fc": {"weight": (512, 512)},
    "reduce": {"weight": (512, 512, 1, 1)},
}


@pytest.mark.parametrize("module", BETWEEN)
@pytest.mark.parametrize("inside", [False, True])
def test_a_layer_between_features_and_classifier_is_not_left_out(convert, module, inside):
    """Logits were those of the features without it."""
    more = {f"{module}.{n}": np.ones(shape, "f4") for n, shape in BETWEEN[module].items()}
    top = {f"base.{n}" if inside or n[:2] != "fc" else n: value for n, value in OURS.items()}
    with pytest.raises(FormatError, match=rf"{module}.* may stand between .* --prefix base\."):
        convert(state({**top, **more}))
    wanted = OURS if inside else without_head(OURS)
    same(convert(state({**top, **more}), prefix="base.")[0], wanted)


@pytest.mark.parametrize("module", ["projector.1", "mlp.1", "momentum_projector.0", "decoder.norm"])
def test_layers_that_stand_beside_the_classifier_are_noted(convert, module):
    """As online training of a classifier beside a projection has them."""
    width = 512 if module != "decoder.norm" else 256
    norm = {f"{module}.{n}": np.ones(width, "f4") for n in ("weight", "bias", "running_var")}
    top = {n.replace("fc.", "classifier."): value for n, value in OURS.items()}
    top = {n if n[:2] == "cl" else f"backbone.{n}": value for n, value in top.items()}
    top |= norm | {"projector.0.weight": np.ones((512, 512), "f4")}
    stored, notes = convert(state(top))
    same(stored)
    assert "not taken: 4 tensors beside the network" in notes


def test_the_projection_in_front_of_a_queue_is_no_classifier(convert):
    """MoCo's first version: its 128 numbers of each image became 128 classes."""
    both = {**state(OURS, "module.encoder_q."), **state(OTHERS, "module.encoder_k.")}
    queue = state({"module.queue": np.zeros((10, 4), "f4"), "module.queue_ptr": np.zeros(1, "i8")})
    for options in ({}, {"prefix": "module.encoder_q."}, {"arch": replace(TINY, classes=0)}):
        stored, notes = convert({**both, **queue}, **options)
        same(stored, without_head(OURS))
        assert "left out: 2 tensors of a projection" in notes
    same(convert({**both, **queue}, arch=TINY)[0])
    queue["module.queue"] = torch_files.tensor(np.zeros((7, 4), np.float32))
    same(convert({**both, **queue})[0])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_head_of_a_segmentation_is_no_classifier(convert, prefix):
    """It was refused as an fc.weight of four dimensions, which is not in the file."""
    more = {"decoder.a.weight": np.zeros(3, "f4"), "segmentation_head.0.bias": np.zeros(1, "f4")}
    more["segmentation_head.0.weight"] = np.zeros((1, 16, 3, 3), "f4")
    values = {f"encoder.{name}": value for name, value in without_head(OURS).items()}
    stored, notes = convert(state({**values, **more}, prefix))
    same(stored, without_head(OURS))
    assert "not taken: 3 tensors beside the network, such as segmentation_head" in notes
    assert "no classifier" in notes
    wide = {"classifier.weight": np.zeros((5, 512, 1, 1), "f4")}  # of features before their mean
    with pytest.raises(FormatError, match=r"classifier\.weight' \(5, 512, 1, 1\), which may be"):
        convert(state({**values, **wide}, prefix))


CHANNELS = {
    1: "--mean and --std, one number each",
    4: r"arrays \[n, h, w, 4\] that are prepared as in its training",
    6: r"arrays \[n, h, w, 6\] that are prepared as in its training",
}


@pytest.mark.parametrize("channels", CHANNELS)
def test_images_of_other_channels_than_the_network_are_said(tmp_path, capsys, channels):
    """The conversion said nothing, and classify gave advice that 4 channels cannot follow."""
    path = tmp_path / "in.pth"
    path.write_bytes(torch_files.zip_file(state(cases.weights(replace(TINY, channels=channels)))))
    told = rf"takes {channels} channels and the preprocessing makes 3.*{CHANNELS[channels]}"
    assert main(["convert", str(path)]) == 0
    assert re.search(told, capsys.readouterr().err)
    said: list[str] = []
    model = load_checkpoint(path, device="reference", warn=said.append)
    assert re.search(told, said[-1])
    with pytest.raises(UsageError, match=told):
        model.predict(np.zeros((32, 32, 3), np.uint8))


def test_a_grey_network_that_is_told_its_mean_has_nothing_to_say(tmp_path, capsys):
    path = tmp_path / "in.pth"
    path.write_bytes(torch_files.zip_file(state(cases.weights(replace(TINY, channels=1)))))
    assert main(["convert", str(path), "--mean", "0.5", "--std", "0.25"]) == 0
    err = capsys.readouterr().err
    assert "mean (0.5), std (0.25)" in err
    assert "channels and the" not in err


PETS = ["cat", "big dog", "eel, 2 m"]
LABELS = {
    "lines": "cat\nbig dog\neel, 2 m\n",
    "list": json.dumps(PETS),
    "indented": json.dumps(PETS, indent=2) + "\n",
    "id2label": json.dumps({"1": PETS[1], "0": PETS[0], "2": PETS[2]}),
    "label2id": json.dumps({PETS[2]: 2, PETS[0]: 0, PETS[1]: 1}),
    "ids": json.dumps({str(i): [f"n{i:08}", name] for i, name in enumerate(PETS)}),
    "numbered": "0 cat\n1 big dog\n2 eel, 2 m\n",
    "from one": "1: cat\n2: big dog\n3: eel, 2 m\n",
    "dashes": "0 - cat\n1 - big dog\n2 - eel, 2 m\n",
}


@pytest.mark.parametrize("form", LABELS)
def test_forms_of_a_file_of_labels(tmp_path, capsys, form):
    (tmp_path / "labels").write_text(LABELS[form])
    assert read_labels(str(tmp_path / "labels")) == PETS
    told = "each line begins with its number" in capsys.readouterr().err
    assert told == (form in ("numbered", "from one", "dashes"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("3 wheels\n4 wheels\n", ["3 wheels", "4 wheels"]),
        ("0\n1\n2\n", ["0", "1", "2"]),
        ("1 cat\n", ["1 cat"]),
        ("[unknown]\n{other}\n", ["[unknown]", "{other}"]),
        ("n01440764 tench\nn01443537 goldfish\n", ["n01440764 tench", "n01443537 goldfish"]),
    ],
)
def test_names_that_only_look_like_another_form(tmp_path, text, names):
    (tmp_path / "labels").write_text(text)
    assert read_labels(str(tmp_path / "labels")) == names


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("labels", "index,name\n0,cat\n1,dog\n", "is a table, whose columns are not read"),
        ("labels.csv", "name\ncat\ndog\n", "is a table, whose columns are not read"),
        ("labels", "1 dog\n0 cat\n", "numbered in another order; sort them"),
        ("labels", '{"0": "cat", "2": "dog"}', "is JSON, and no list of names"),
        ("labels", '["cat", 3]', "is JSON, and no list of names"),
        ("labels", "[]", "is JSON, and no list of names"),
        ("labels.json", "5", "is JSON, and no list of names"),
        ("labels.json", "true", "is JSON, and no list of names"),
        ("labels.json", '"abc"', "is JSON, and no list of names"),
        ("labels", "0,cat\n1,dog\n", "is a table, whose columns are not read"),
        ("labels.json", '["cat", ', "no valid JSON"),
        ("labels.json", '{"0": "cat", "0": "dog"}', "a key stands twice"),
    ],
)
def test_other_forms_of_a_file_of_labels_are_refused(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words):
        read_labels(str(tmp_path / name))
