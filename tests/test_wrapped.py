"""Where people keep a state dict, and what stands before its names: found, taken, and said."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import cases
import numpy as np
import pytest
import torch_files
from test_names import PLAIN, POOLED, WRITERS
from torch_files import Raw, call, glob, text

from tinyresnext import Preprocess, Spec, load_checkpoint
from tinyresnext.checkpoints.names import schemes as names
from tinyresnext.errors import FormatError, ShapeError, UnsafeError, UsageError
from tinyresnext.system.files import shown

TINY = Spec((1, 1), 4, 8, 10)
OURS = cases.weights(TINY)
OTHERS = {name: value + 1 for name, value in OURS.items()}


def state(values, prefix=""):
    """A state dict of these tensors, with something before each name."""
    return torch_files.StateDict(
        (prefix + name, torch_files.tensor(value)) for name, value in values.items()
    )


def without_head(values):
    return {name: value for name, value in values.items() if not name.startswith("fc.")}


def head(module, values=OURS):
    """The same tensors, with another name of the classifier."""
    return {name.replace("fc.", f"{module}."): value for name, value in values.items()}


@pytest.fixture
def convert(tmp_path):
    """Write a checkpoint, and return what is understood of it: the model, and all notes."""
    return partial(cases.understood, tmp_path)


def same(stored, values=OURS):
    """Check that a model has these weights, and no others."""
    expected = {n: value for n, value in values.items() if not n.endswith("batches_tracked")}
    assert stored.params.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(stored.params[name], value, err_msg=name)


MOMENTUM = {"state": {0: {"momentum_buffer": torch_files.tensor(np.ones(3, np.float32))}}}
LOSS = torch_files.tensor(np.array(0.4, np.float32))
S, SECOND = state(OURS), state(OTHERS)
KEYS = {
    "model_state_dict": {"epoch": 5, "model_state_dict": S, "optimizer": MOMENTUM, "loss": LOSS},
    "net": {"net": S, "acc": 95.0, "epoch": 3},
    "params": {"params": S},
    "weights": {"weights": S},
    "module": {"module": S, "ds_config": {"lr": 0.1}},
    "ema_state_dict": {"ema_state_dict": S, "step": LOSS},
    "model.state_dict": {"model": {"state_dict": S, "config": {}}},
    "a.b.c": {"a": {"b": {"c": S}}},
    "my model": {"my model": S},
    "1": ({"lr": 0.1}, S),
    "state_dict": {
        "state_dict": S,
        "optimizer_states": [MOMENTUM],
        "callbacks": {"x": {"y": LOSS}},
    },
    "student": {"teacher": SECOND, "student": S},
    "online": {"target": SECOND, "online": S},
    "model": {"state_dict_ema": SECOND, "ema": {"shadow": SECOND}, "model": S},
}


@pytest.mark.parametrize("key", KEYS)
def test_a_state_dict_is_found_and_its_key_is_said(convert, key):
    top = KEYS[key] if key != "1" else [{"lr": 0.1}, S]
    stored, notes = convert(top)
    same(stored)
    assert f"weights under {key!r}" in notes


def test_a_key_that_only_looks_like_another_thing_has_the_network(convert):
    stored, notes = convert({"gradual_net": state(OURS)})
    same(stored)
    assert "gradual_net" in notes


@pytest.mark.parametrize("key", ["gradients", "last.grad", "optimizer_state_dict", "val_loss"])
def test_what_has_the_shapes_of_weights_is_not_taken_for_them(convert, key):
    with pytest.raises(FormatError):
        convert({key: state(OTHERS)})


def test_two_ways_to_the_same_key_are_refused(convert):
    with pytest.raises(FormatError, match="two state dicts have the same key"):
        convert({"a.net": state(OURS), "a": {"net": state(OTHERS)}})


def test_a_key_says_which_weights_to_take(convert):
    top = {"model": SECOND, "ema": {"shadow": S, "decay": 0.9}, "best.pth": S}
    for key in ("ema.shadow", "best.pth"):
        stored, notes = convert(top, key=key)
        same(stored)
        assert f"weights under {key!r}" in notes
        assert "not taken: model" in notes
    same(convert(top, key="model")[0], OTHERS)
    with pytest.raises(
        UsageError, match=r"under 'ema'; there is 'model', 'best.pth', 'ema.shadow'"
    ):
        convert(top, key="ema")
    with pytest.raises(UsageError, match="under 'nothing'"):
        convert(top, key="nothing")
    with pytest.raises(UsageError, match="both say which weights to take"):
        convert(top, key="model", ema=True)


def test_weights_that_were_not_looked_at_are_named_in_an_error(convert):
    vgg = {"features.0.weight": torch_files.tensor(np.zeros((8, 3, 3, 3), np.float32))}
    top = {"model": vgg, "classifier": S}
    with pytest.raises(FormatError, match=r"under 'model', .* under 'classifier' \(--key"):
        convert(top)
    same(convert({"generator": vgg, "classifier": S})[0])  # the one with more tensors
    same(convert(top, key="classifier")[0])


@pytest.mark.parametrize("layer", ["linear", "norm"])
def test_a_layer_beside_the_state_dict_is_not_left_out(convert, layer):
    """Its names have no dots; the network kept its own classifier without a word."""
    values = {"weight": np.zeros((3, 512), np.float32), "bias": np.zeros(3, np.float32)}
    if layer == "norm":
        values |= {"weight": values["bias"], "running_mean": values["bias"], "running_var": LOSS}
        values["num_batches_tracked"] = np.array(3)
    parts = {n: v if v is LOSS else torch_files.tensor(v) for n, v in values.items()}
    for top in ({"backbone": S, "top": parts}, {"a": {"top": parts, "net": S}, "epoch": LOSS}):
        key, beside = ("backbone", "top") if "top" in top else ("a.net", "a.top")
        with pytest.raises(FormatError, match=rf"{beside}' a layer .* --key {key} to have"):
            convert(top)
        stored, notes = convert(top, key=key)
        same(stored)
        assert f"not taken: {beside}" in notes
    behind = {f"fc.{name}": part for name, part in parts.items()}  # a module with that layer alone
    with pytest.raises(FormatError, match=r"'top' a layer .* --key backbone to have"):
        convert({"backbone": S, "top": behind})


def test_other_tensors_without_dots_beside_the_state_dict_are_named(convert):
    queue = {"queue": torch_files.tensor(np.zeros((4, 4), np.float32))}
    state_of_rng = torch_files.tensor(np.zeros(9, np.uint8))
    more = {"results": {"weighted": LOSS}, "top": LOSS, "rng": state_of_rng, "rngs": [state_of_rng]}
    stored, notes = convert({"net": S, "memory": queue, **more, "fc_weight": queue["queue"]})
    same(stored)
    assert "not taken: fc_weight, memory (--ema" in notes
    stored, notes = convert({"net": S, **more})
    assert "not taken" not in notes


PREFIXES = [
    "model.",
    "net.",
    "encoder.",
    "backbone.",
    "model.module.",
    "module.encoder_q.",
    "model._orig_mod.",
    "_forward_module.model.",
    "module.base_encoder.",
    "online_encoder.net.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_common_prefix(convert, prefix):
    stored, notes = convert({"state_dict": state(OURS, prefix)})
    same(stored)
    assert f"behind '{prefix.replace('_orig_mod.', '')}'" in notes


@pytest.mark.parametrize("writer", ["mmpretrain", "cadene", "prlz77", "torch7-flat"])
def test_a_prefix_before_the_names_of_any_system(convert, writer):
    write, scheme = WRITERS[writer]
    theirs = write(cases.weights(PLAIN), PLAIN)
    more = {"criterion.weight": np.zeros(3, np.float32)}
    stored, notes = convert({**state(theirs, "model."), **state(more)})
    assert stored.spec == PLAIN
    same(stored, cases.weights(PLAIN))
    assert f"names: {scheme}, behind 'model.'" in notes
    assert "not taken: 1 tensors beside the network, such as criterion.weight" in notes


def test_variants_d_behind_a_prefix(convert):
    for spec in POOLED:
        ours = cases.weights(spec)
        same(convert(state(ours, "encoder."))[0], ours)
        theirs = WRITERS["mmpretrain"][0](ours, spec)
        alone = {name: value for name, value in theirs.items() if "head." not in name}
        assert convert(state(alone))[0].spec == replace(spec, classes=0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("student.", "teacher."),
        ("online_model.", "ema_model."),
        ("", "ema."),
        ("raw.", "ema."),
        ("model.", "model_ema.module."),
        ("a.", "b."),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_of_several_networks_one_is_taken_and_the_other_named(convert, first, second, swapped):
    queue = {"module.queue": np.zeros((4, 4), np.float32)} if "q" in first else {}
    both = [state(OURS, first), state(OTHERS, second)]
    top = {**both[swapped], **both[not swapped], **state(queue)}
    stored, notes = convert(top)
    same(stored, OTHERS if (first, swapped) == ("a.", True) else OURS)
    taken, other = (second, first) if (first, swapped) == ("a.", True) else (first, second)
    assert f"not taken: other networks, behind {other!r} (--prefix takes one)" in notes
    assert not taken or f"behind {taken!r}" in notes
    assert not queue or "such as queue" in notes
    same(convert(top, prefix=second)[0], OTHERS)
    same(convert(top, prefix=second.removesuffix("."))[0], OTHERS)
    if first:
        same(convert(top, prefix=first)[0])


def test_a_prefix_that_no_name_has(convert):
    with pytest.raises(UsageError, match=r"begins with 'decoder.'; there is 'encoder.'"):
        convert(state(OURS, "encoder."), prefix="decoder.")


def test_parts_of_names_that_wrappers_add(convert):
    """torch.compile of a stage, FSDP, activations that are computed again."""
    for part in ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"):
        changed = {n.replace("layer1.0.", f"layer1.{part}.0."): v for n, v in OURS.items()}
        same(convert(state(changed))[0])


def test_counters_of_a_profiler(convert):
    """``thop.profile`` leaves two numbers in each module."""
    modules = {name.rpartition(".")[0] for name in OURS} | {"", "layer1", "relu"}
    counters = {
        f"{module}.{kind}".removeprefix("."): np.zeros(1, np.float64)
        for module in modules
        for kind in ("total_ops", "total_params")
    }
    stored, notes = convert(state({**counters, **OURS}))
    same(stored)
    assert f"left out: {len(counters)} counters of a profiler" in notes


@pytest.mark.parametrize(
    "module", ["fc.1", "fc.2", "fc.0", "fc.fc", "fc.linear", "head", "head.fc", "classifier.1"]
)
def test_a_classifier_of_another_name(convert, module):
    stored, notes = convert(state(head(module)))
    same(stored)
    assert f"the classifier is {module!r}" in notes


@pytest.mark.parametrize("module", ["fc", "head", "classifier.1", "head.fc"])
def test_a_classifier_beside_the_backbone(convert, module):
    names = {
        (f"backbone.{name}" if not name.startswith("fc.") else name.replace("fc", module)): value
        for name, value in OURS.items()
    }
    for prefix in ("", "model.", "module."):
        same(convert(state(names, prefix))[0])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"fc.0": (64, 512), "fc.3": (10, 64)}, "other layers than one"),
        ({"classifier.0": (64, 512), "classifier.2": (10, 64)}, "other layers than one"),
        ({"fc": (10, 512), "head": (10, 512)}, "nearest scheme"),
    ],
)
def test_a_head_of_two_layers_is_refused(convert, more, words):
    layers = {f"{m}.weight": np.zeros(shape, np.float32) for m, shape in more.items()}
    layers |= {f"{m}.bias": np.zeros(shape[0], np.float32) for m, shape in more.items()}
    with pytest.raises(FormatError, match=words):
        convert(state({**without_head(OURS), **layers}))
    with pytest.raises(FormatError, match=words):
        convert(state({**without_head(OURS), **layers}, "model."))


def test_a_head_of_two_layers_beside_the_backbone(convert):
    two = {"head.0.weight": np.zeros((64, 512), np.float32), "head.0.bias": np.zeros(64, "f4")}
    two |= {"head.2.weight": np.zeros((10, 64), np.float32), "head.2.bias": np.zeros(10, "f4")}
    top = {**state(without_head(OURS), "backbone."), **state(two)}
    with pytest.raises(FormatError, match=r"delete these .* or say --prefix backbone\."):
        convert(top)
    stored, _ = convert(top, prefix="backbone.")
    same(stored, without_head(OURS))


def test_the_heads_of_self_supervised_training_are_no_classifiers(convert):
    names = [
        "projector.0",
        "predictor.0",
        "neck.fc0",
        "head.mlp.0",
        "head.last_layer",
        "prototypes",
    ]
    more = {f"{name}.weight": np.zeros((8, 512), np.float32) for name in names}
    stored, notes = convert({**state(without_head(OURS), "backbone."), **state(more)})
    assert stored.spec.classes == 0
    assert "not taken: 6 tensors beside the network" in notes
    assert "no classifier" in notes


def test_a_network_inside_of_others_is_refused(convert):
    sk = {"layer1.0.conv2.attn.fc_select.weight": np.zeros((4, 64, 1, 1), np.float32)}
    for prefix in ("", "model."):
        with pytest.raises(FormatError, match="selective kernels"):
            convert(state({**OURS, **sk}, prefix))
    with pytest.raises(FormatError, match=r"1 of .* keys"):
        convert(state({**OURS, "attention.weight": np.zeros(3, np.float32)}))


def test_a_backbone_computes_features_only(convert, tmp_path):
    stored, notes = convert(state(without_head(OURS)))
    assert stored.spec == replace(TINY, classes=0)
    assert stored.labels == ()
    assert "no classifier" in notes
    model = load_checkpoint(tmp_path / "in.pth", device="reference")
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    pooled = model.features(x)["pooled"]
    # the plan folds norms into convolutions, which changes the last bits
    np.testing.assert_allclose(model(x), pooled, rtol=0, atol=1e-5 * np.abs(pooled).max())
    assert model(x[:0]).shape == (0, 512)
    (tmp_path / "whole.pth").write_bytes(torch_files.zip_file(S))
    whole = load_checkpoint(tmp_path / "whole.pth", device="reference")
    np.testing.assert_array_equal(pooled, whole.features(x)["pooled"])
    with pytest.raises(UsageError, match="no classifier"):
        model.predict(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UsageError, match="no classifier"):
        model.rank(model(x))
    assert convert(state(without_head(OURS)), arch=replace(TINY, classes=0))[0].spec.classes == 0


def test_half_a_classifier_is_refused(convert):
    """One without a bias is whole: see `test_migrated`."""
    with pytest.raises((ShapeError, FormatError), match=r"fc\."):
        convert(state({name: value for name, value in OURS.items() if name != "fc.weight"}))


def test_what_lies_flat_beside_the_tensors_is_left_out(convert):
    options = Raw(glob("argparse", "Namespace") + b")\x81}" + text("lr") + b"K\1sb")
    beside = {
        "epoch": 3,
        "best": LOSS,
        "best acc": 0.9,
        "args": options,
        "classes": ["cat", "dog"],
        "history": {"loss": [0.1, 0.2]},
        "optimizer": MOMENTUM,
        "ema": SECOND,
        "bn1._extra_state": {"scale": LOSS},
    }
    stored, notes = convert({**S, **beside})
    same(stored)
    assert (
        "left out: epoch, best, 'best acc', args, classes, history, optimizer, ema, bn1._extra"
        in notes
    )
    with pytest.raises(UnsafeError, match=r"trainer\.Tensor"):
        convert({**S, "extra": Raw(call("trainer", "Tensor"))})
    for inside in (options, ["a"], {"loss": 1}):
        with pytest.raises(FormatError, match=r"layer1.0.scale is an? .*not a tensor"):
            convert({**S, "layer1.0.scale": inside})
    with pytest.raises(FormatError, match="part is a dict, not a tensor"):
        convert({**S, "part": {"weight": LOSS}})


def test_a_whole_network_under_a_key_is_said(convert):
    network = Raw(call("models", "Net"))
    with pytest.raises(FormatError, match=r"model is a whole object of the class models\.Net"):
        convert({"epoch": 3, "model": network})


def test_many_names_are_recognised_quickly():
    """Prefixes are tried for networks only, and for a bounded number of these."""
    keys = [f"model{i}.{key}" for i in range(300) for key in without_head(OURS)]
    assert len(names.recognise(keys).others) == 31


def test_load_checkpoint_warns_of_what_it_chooses_and_assumes(tmp_path, capsys):
    path = tmp_path / "in.pth"
    path.write_bytes(torch_files.zip_file({"model": S, "model_ema": SECOND, "epoch": 3}))
    said: list[str] = []
    model = load_checkpoint(path, device="reference", warn=said.append)
    np.testing.assert_array_equal(model.params["fc.bias"], OURS["fc.bias"])
    told, beginnings = cases.read_checkpoint(path)[1], ("not taken", "assumed", "one output")
    notes = [note for note in told if note.startswith(beginnings)]
    assert said[:-1] == [f"{shown(path)}: {note}" for note in notes]
    assert "not taken: model_ema (--ema takes averaged weights" in said[0]
    assert re.search(r": assumed: resized to \d+ \(bilinear\), cropped to", said[-1])
    assert not capsys.readouterr().err
    load_checkpoint(path, device="reference")
    assert capsys.readouterr().err.splitlines() == [f"warning: {line}" for line in said]


def test_load_checkpoint_is_told_what_convert_is_told(tmp_path):
    path = tmp_path / "in.pth"
    path.write_bytes(torch_files.zip_file({"model": S, "model_ema": SECOND}))
    prepared, names = Preprocess(40, 32), [f"name {i}" for i in range(TINY.classes)]
    said: list[str] = []
    model = load_checkpoint(
        path, precision="bfloat16", threads=1, ema=True, preprocess=prepared, labels=names,
        warn=said.append,
    )  # fmt: skip
    np.testing.assert_array_equal(model.params["fc.bias"], OTHERS["fc.bias"])
    assert (model.preprocess, model.labels) == (prepared, tuple(names))
    assert (model.precision, model.threads) == ("bfloat16", 1)
    assert not any("resized" in line for line in said)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prefix": 0}, "prefix is 0; give a text"),
        ({"key": 0}, "key is 0; give a text"),
        ({"key": ""}, "key is ''; give a text"),
        ({"labels": range(3)}, "labels is range"),
        ({"labels": "abc"}, "labels is 'abc'; give a list"),
        ({"preprocess": 224}, r"preprocess is 224; give a tinyresnext\.Preprocess"),
        ({"preprocess": Preprocess(8, 8, mean=(0,), std=(1,))}, "makes 1 channels and the network"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_load_checkpoint_refuses_what_it_cannot_be_told(tmp_path, options, text):
    (tmp_path / "in.pth").write_bytes(torch_files.zip_file(S))
    with pytest.raises(UsageError, match=text):
        load_checkpoint(tmp_path / "in.pth", **options)


def test_a_norm_that_has_lost_its_weight_still_has_its_counter(convert):
    """The counter is not to blame."""
    counter = {"layer1.0.bn2.num_batches_tracked": np.array(3)}
    lost = {name: value for name, value in OURS.items() if name != "layer1.0.bn2.weight"}
    with pytest.raises(ShapeError, match=r"layer1\.0\.bn2\.weight \(\d+,\) is missing"):
        convert(state(lost | counter))
