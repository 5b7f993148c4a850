"""Names, architecture and defaults of a checkpoint: understood, said back, or asked for by name."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import cases
import numpy as np
import pytest
import torch_files

from tinyresnext import VARIANTS, Preprocess, Spec, cifar, load_checkpoint, parameters
from tinyresnext.checkpoints import export, imagenet, infer
from tinyresnext.checkpoints.names import schemes as names
from tinyresnext.checkpoints.names.table import CADENE_SE
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UsageError
from tinyresnext.store import store

TINY = Spec((1, 1), 4, 8, 10)
MORE = [
    TINY,
    Spec((1, 2, 1), 2, 40, 7, channels=1),
    Spec((2, 2), 4, 8, 10, stem="deep", avg_down=True),
    Spec((2, 2), 4, 8, 10, stem="deep"),
    Spec((2, 2), 4, 8, 10, avg_down=True),
    Spec((2, 2), 4, 8, 10, shortcut="A"),
    Spec((2, 2), 4, 8, 10, shortcut="C"),
    Spec((2, 2), 4, 8, 10, shortcut="C", avg_down=True),
    Spec((1,), 1, 64, 2, stem="cifar"),
    # only layer1.0 says which type this is
    Spec((1, 1), 2, 8, 3, stem="cifar", shortcut="C", expansion=1),
    Spec((1, 1), 2, 8, 3, stem="deep", shortcut="C", avg_down=True, expansion=1),
    cifar(20, 8, 16, widen_factor=2, classes=100),
]


@pytest.mark.parametrize("spec", [*VARIANTS.values(), *MORE], ids=lambda spec: spec.name)
def test_architecture_is_inferred(spec):
    inferred = infer.infer(parameters(spec))
    if spec.stem == "pooled":  # a pooling leaves no trace, so this stem must be named
        assert inferred.stem == "cifar"
        inferred = replace(inferred, stem="pooled")
    # Nor do these: the names of keys say the first, and nothing in a checkpoint the second.
    if spec.stem == "caffe":
        assert inferred.stem == "imagenet"
        inferred = infer.by_names(CADENE_SE, inferred)
    inferred = replace(inferred, blur_pool=spec.blur_pool)
    assert inferred == spec


def test_what_leaves_no_trace_is_assumed():
    """The epsilon and the convolution that strides are not in the tensors."""
    assert infer.infer(parameters(replace(TINY, eps=1e-3, stride_on=1))) == TINY


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"stem": "cifar"}, []),
        ({"stem": "deep", "avg_down": True}, []),
        ({"stem": "pooled"}, ["stem is 'pooled'"]),
        (
            {"stem": "pooled", "eps": 1e-3, "stride_on": 1},
            ["stem is 'pooled'", "stride_on is 1", "eps is 0.001"],
        ),
    ],
)
def test_what_a_checkpoint_would_not_tell(changes, words):
    assert infer.untold(replace(TINY, **changes)) == words


def without(shapes, *keys):
    """The shapes but for some."""
    return {key: shape for key, shape in shapes.items() if key not in keys}


SHAPES = parameters(TINY)
WRONG = {
    "empty": ({}, "stages and blocks"),
    "no-classifier": (without(SHAPES, "fc.weight"), "fc.weight"),
    "no-stem": (without(SHAPES, "conv1.weight"), "conv1.weight"),
    "no-bias": (without(SHAPES, "fc.bias"), "fc.bias .* is missing"),
    "basic-blocks": ({k: v for k, v in SHAPES.items() if "conv3" not in k}, "ResNet-18"),
    "gap-in-stages": ({k.replace("layer2", "layer3"): v for k, v in SHAPES.items()}, "layer3"),
    "gap-in-blocks": (
        {k.replace("layer2.0", "layer2.1"): v for k, v in SHAPES.items()},
        "blocks 0, 1, 2",
    ),
    "stage-0": (SHAPES | {"layer0.0.conv1.weight": (1, 1, 1, 1)}, "layer0"),
    "stem-5x5": (SHAPES | {"conv1.weight": (64, 3, 5, 5)}, "5x5"),
    "flat-stem": (SHAPES | {"conv1.weight": (64, 147)}, "4 dimensions"),
    "no-whole-groups": (SHAPES | {"layer1.0.conv2.weight": (32, 7, 3, 3)}, "groups of 7"),
    "no-channels-in-groups": (SHAPES | {"layer1.0.conv2.weight": (32, 0, 3, 3)}, "groups of 0"),
    "no-channels": (SHAPES | {"layer1.0.conv2.weight": (0, 8, 3, 3)}, "cannot be built"),
    "expansion": (SHAPES | {"layer1.0.conv3.weight": (100, 32, 1, 1)}, "multiple of 64"),
    "width-of-one-stage": (SHAPES | {"layer2.0.conv2.weight": (72, 18, 3, 3)}, "should be"),
    "classes": (SHAPES | {"fc.weight": (10, 100)}, r"fc.weight is \(10, 100\)"),
    "no-classes": (SHAPES | {"fc.weight": (0, 512)}, "cannot be built"),
    "endless": (SHAPES | {f"layer1.{i}.x": (1,) for i in range(1001)}, "cannot be built"),
    "extra": (SHAPES | {"layer1.0.bn4.weight": (1,)}, "unexpected"),
}


@pytest.mark.parametrize(("shapes", "words"), WRONG.values(), ids=WRONG)
def test_other_networks_are_refused(shapes, words):
    with pytest.raises(ShapeError, match=words):
        infer.infer(shapes)


def test_foreign_names_are_refused_with_the_first_of_them():
    with pytest.raises(
        FormatError, match=r"2 of 3 keys .*'features.0.weight', 'layer1.0.eca.conv.weight'"
    ):
        names.recognise(["conv1.weight", "features.0.weight", "layer1.0.eca.conv.weight"])


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint and give its path."""

    def write(tensors, legacy=True, name="in.pth"):
        path = tmp_path / name
        path.write_bytes(cases.checkpoint(tensors, legacy=legacy))
        return path

    return write


def test_what_was_understood_is_said(checkpoint):
    stored, notes = cases.read_checkpoint(checkpoint(cases.weights(TINY)), licence="CC0-1.0")
    assert stored.spec == TINY
    said = "\n".join(notes)
    for words in (
        "legacy format",
        "inferred",
        "cardinality 4, width 8",
        "10 classes",
        "epsilon 1e-05",
    ):
        assert words in said
    assert stored.labels == tuple(f"class {i}" for i in range(10))
    assert stored.provenance["licence"] == "CC0-1.0"
    assert len(stored.provenance["sha256"]) == 64


def test_defaults_for_imagenet_and_cifar(checkpoint):
    thousand = cases.read_checkpoint(checkpoint(cases.weights(replace(TINY, classes=1000)))).stored
    assert thousand.labels[281] == "tabby"
    assert thousand.preprocess == Preprocess()
    small = cases.read_checkpoint(checkpoint(cases.weights(cifar(11, 2, 8)))).stored
    assert (small.preprocess.resize, small.preprocess.crop) == (32, 32)


def test_imagenet_labels():
    labels = imagenet.imagenet_labels()
    assert len(labels) == len(set(labels)) == 1000
    assert [labels[i] for i in (0, 207, 281, 999)] == [
        "tench",
        "golden retriever",
        "tabby",
        "toilet tissue",
    ]


def test_arch_is_checked_and_keeps_its_classes(checkpoint):
    path = checkpoint(cases.weights(replace(VARIANTS["resnext29_1x64d"], classes=7, channels=1)))
    grey = Preprocess(mean=(0.5,), std=(0.25,))
    found = cases.read_checkpoint(path, arch="resnext29_1x64d", preprocess=grey)
    assert found.stored.spec.classes == 7
    with pytest.raises(ShapeError, match="resnext29_32x4d"):
        cases.read_checkpoint(path, arch="resnext29_32x4d")
    with pytest.raises(UsageError, match="did you mean"):
        cases.read_checkpoint(path, arch="resnext29")
    with pytest.raises(
        ShapeError, match=r"should be \(128, 64, 1, 1\).* more; name another architecture, or none"
    ):
        cases.read_checkpoint(path, arch="resnext50d_32x4d")


def test_arch_as_a_spec_says_what_leaves_no_trace(checkpoint):
    caffe = replace(TINY, stride_on=1, eps=1e-3)
    assert load_checkpoint(checkpoint(cases.weights(TINY)), arch=caffe).spec == caffe


def test_labels_must_be_as_many_as_classes(checkpoint):
    path = checkpoint(cases.weights(TINY))
    assert cases.read_checkpoint(path, labels=list("abcdefghij")).stored.labels[9] == "j"
    with pytest.raises(UsageError, match="3 labels and the network has 10"):
        cases.read_checkpoint(path, labels=["a", "b", "c"])


def test_quantised_weights_are_refused(checkpoint):
    tensors = cases.weights(TINY) | {"fc.weight": np.zeros((10, 512), np.int8)}
    with pytest.raises(FormatError, match=r"fc.weight \(int8\)"):
        cases.read_checkpoint(checkpoint(tensors))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(checkpoint, bad):
    tensors = cases.weights(TINY)
    tensors["layer1.0.conv2.weight"][3, 2, 1, 0] = bad
    with pytest.raises(IntegrityError, match=r"layer1\.0\.conv2\.weight"):
        load_checkpoint(checkpoint(tensors))


def test_negative_variances_are_refused(checkpoint):
    tensors = cases.weights(TINY)
    tensors["bn1.running_var"][7] = -1e-3
    with pytest.raises(IntegrityError, match=r"bn1\.running_var"):
        cases.read_checkpoint(checkpoint(tensors))


@pytest.mark.parametrize("shape", [(), (5,), (0, 64), (64, 0)])
@pytest.mark.parametrize("name", ["fc.weight", "conv1.weight"])
def test_arch_with_tensors_of_other_ranks(checkpoint, name, shape):
    with pytest.raises(ShapeError, match="not those of resnext50_32x4d"):
        cases.read_checkpoint(
            checkpoint(cases.weights(TINY) | {name: np.zeros(shape, np.float32)}),
            arch="resnext50_32x4d",
        )


def test_other_tensors_are_refused_before_a_number_is_read(checkpoint):
    """A hundred half tensors of a megabyte would be two hundred as float32."""
    path = checkpoint(
        {f"other.{i}": np.zeros(500_000, np.float16) for i in range(100)}, legacy=False
    )
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="100 of 100 keys"):
            cases.read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_legacy_and_zip_give_the_same_digests(checkpoint, tmp_path):
    tensors = cases.weights(TINY)
    found = []
    for legacy in (True, False):
        path = checkpoint(tensors, legacy, f"{legacy}.pth")
        store.write(tmp_path / f"{legacy}.h5", cases.read_checkpoint(path).stored)
        found.append(store.digests(tmp_path / f"{legacy}.h5"))
    assert found[0].model == found[1].model
    assert found[0].tensors == found[1].tensors


def test_wrapped_prefixed_and_without_counters(checkpoint, tmp_path):
    plain = cases.weights(TINY, counters=False)
    state = torch_files.StateDict(
        (f"module.{key}", torch_files.tensor(value)) for key, value in plain.items()
    )
    path = tmp_path / "wrapped.pth"
    path.write_bytes(torch_files.zip_file({"epoch": 3, "state_dict": state}))
    stored, notes = cases.read_checkpoint(path)
    assert "state_dict" in notes[0]
    for key, value in stored.params.items():
        np.testing.assert_array_equal(value, plain[key])


@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
def test_export_keeps_every_weight(checkpoint, tmp_path, suffix):
    params = cases.read_checkpoint(checkpoint(cases.weights(TINY))).stored.params
    path = tmp_path / f"out{suffix}"
    {".pth": export.write_pth, ".npz": export.write_npz, ".safetensors": export.write_safetensors}[
        suffix
    ](path, params)
    if suffix == ".pth":
        again = cases.read_checkpoint(path).stored.params
    elif suffix == ".npz":
        with np.load(path) as found:
            again = dict(found)
    else:  # eight bytes of length, a JSON header, and the numbers
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
        header.pop("__metadata__", None)
        again = {
            key: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
            for key, entry in header.items()
        }
    assert list(again) == list(params)
    assert all(np.array_equal(again[key], value) for key, value in params.items())


def test_export_loads_in_pytorch_and_gives_the_same_logits(tmp_path):
    torch = pytest.importorskip("torch")
    import torch_network

    case = cases.load("torchvision.resnext14_32x4d")
    (tmp_path / "in.pth").write_bytes(cases.checkpoint(case.tensors, legacy=True))
    params = cases.read_checkpoint(tmp_path / "in.pth").stored.params
    export.write_pth(tmp_path / "out.pth", params)
    network = torch_network.Network(Spec((1, 1, 1, 1), 32, 4, 10))
    network.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True), strict=True)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(case.x.transpose(0, 3, 1, 2).copy())).numpy()
    assert cases.relative_error(logits, case.logits) <= 3 * case.torch_float32_error
