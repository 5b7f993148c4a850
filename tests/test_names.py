"""Every system's key names: recognised, and each parameter in its place, to the bit."""

from __future__ import annotations

from dataclasses import replace

import cases
import key_schemes
import numpy as np
import pytest

from tinyresnext import VARIANTS, Spec, cifar, parameters
from tinyresnext.checkpoints import convert, infer
from tinyresnext.checkpoints.names import schemes as names
from tinyresnext.checkpoints.names import table
from tinyresnext.errors import FormatError, IntegrityError, ShapeError
from tinyresnext.images.preprocess import CIFAR, Preprocess
from tinyresnext.ops import reference

PLAIN = Spec((2, 1), 4, 8, 10)
ALL = [
    PLAIN,
    Spec((1, 3, 1), 1, 64, 7, channels=1),
    Spec((2, 2), 2, 40, 10, shortcut="A"),
    Spec((2, 2), 4, 8, 10, shortcut="C"),
    cifar(20, 4, 16, widen_factor=2, classes=100),
]
POOLED = [
    Spec((2, 2), 4, 8, 10, stem="deep", avg_down=True),
    Spec((2, 2), 4, 8, 10, stem="deep"),
    Spec((2, 2), 4, 8, 10, avg_down=True),
]
WRITERS = {
    "torchvision": (lambda tensors, spec: tensors, table.TORCHVISION),
    "mmpretrain": (key_schemes.mmpretrain, table.MMPRETRAIN),
    "mmcv-averaged": (key_schemes.mmcv_averaged, table.MMPRETRAIN),
    "cadene": (key_schemes.cadene, table.CADENE),
    "cadene-10.1": (key_schemes.cadene_first, table.CADENE),
    "cadene-bare": (key_schemes.cadene_bare, table.CADENE),
    "cadene-resnet": (key_schemes.cadene_resnet, table.CADENE_RESNET),
    "torch7-flat": (key_schemes.torch7_flat, table.TORCH7),
    "torch7-nested": (key_schemes.torch7_nested, table.TORCH7),
    "torch7-wrapped": (key_schemes.torch7_wrapped, table.TORCH7),
    "torch7-paths": (key_schemes.torch7_paths, table.TORCH7),
    "prlz77": (key_schemes.prlz77, table.PRLZ77),
    "keras": (key_schemes.keras, table.KERAS),
    "keras-resaved": (key_schemes.keras_resaved, table.KERAS),
}
CASES = [(writer, spec) for writer in WRITERS for spec in ALL] + [
    ("mmpretrain", spec) for spec in POOLED
]


def understood(theirs):
    """As `convert` does it: names, shapes, architecture, tensors."""
    named = names.recognise(theirs)
    shapes = named.shapes({key: value.shape for key, value in theirs.items()})
    tensors = named.tensors(theirs)
    assert {name: array.shape for name, array in tensors.items()} == shapes
    return named, infer.infer(shapes), tensors


@pytest.mark.parametrize(
    ("writer", "spec"), CASES, ids=lambda v: v if isinstance(v, str) else f"{v.name}-{v.shortcut}"
)
def test_every_parameter_finds_its_place(writer, spec):
    write, scheme = WRITERS[writer]
    ours = cases.weights(spec)
    named, found, tensors = understood(write(ours, spec))
    assert (named.scheme, found) == (scheme, spec)
    assert set(tensors) == set(parameters(spec))
    for name in parameters(spec):
        np.testing.assert_array_equal(tensors[name], ours[name], err_msg=name)
        assert tensors[name].flags.c_contiguous


@pytest.mark.parametrize("spec", POOLED, ids=lambda spec: spec.name)
def test_variants_d(spec):
    ours = cases.weights(spec)
    named, found, tensors = understood(ours)
    assert (named.scheme, found) == (table.TIMM_D, spec)
    assert all(tensors[name] is ours[name] for name in parameters(spec))


def test_what_is_not_needed_is_said():
    theirs = key_schemes.mmcv_averaged(cases.weights(PLAIN), PLAIN)
    left_out = names.recognise(theirs).left_out["second copies"]
    assert set(left_out) == {key for key in theirs if key.startswith("ema_")}
    assert "ema_backbone_layer1_0_conv2_weight" in left_out


def test_a_copy_of_nothing_is_foreign():
    theirs = key_schemes.mmpretrain(cases.weights(PLAIN), PLAIN) | {
        "ema_backbone_conv9_weight": np.zeros(1)
    }
    with pytest.raises(FormatError, match=r"1 of .*mmpretrain.*'ema_backbone_conv9_weight'"):
        names.recognise(theirs)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_foreign_key_names_the_scheme_and_the_key(writer):
    write, scheme = WRITERS[writer]
    for foreign in (
        "layer1.0.eca.conv.weight",
        "features.4.0.5.weight",
        "bn9.num_batches_tracked",
        "conv1_conv/bias:0",
        "7.a.weight",
    ):
        theirs = write(cases.weights(PLAIN), PLAIN) | {foreign: np.zeros(3, np.float32)}
        with pytest.raises(FormatError) as caught:
            names.recognise(theirs)
        assert f"1 of {len(theirs)} keys" in str(caught.value)
        assert f"nearest scheme, {scheme}," in str(caught.value)
        assert repr(foreign) in str(caught.value)


@pytest.mark.parametrize(
    ("writer", "first", "second"),
    [
        ("torchvision", "conv1.weight", "backbone.conv1.weight"),
        ("mmpretrain", "backbone.conv1.weight", "conv1.weight"),
        ("cadene", "last_linear.bias", "10.1.bias"),
        ("cadene", "features.4.0.0.0.0.0.weight", "4.0.0.0.0.0.weight"),
        ("cadene-10.1", "10.1.bias", "10.bias"),
        ("torch7-flat", "0.weight", "0.0.weight"),
        ("keras", "conv1_conv/kernel:0", "conv1_conv/kernel"),
        ("keras", "probs/bias:0", "predictions/bias:0"),
    ],
)
def test_a_parameter_twice_is_refused(writer, first, second):
    theirs = WRITERS[writer][0](cases.weights(PLAIN), PLAIN)
    with pytest.raises(FormatError, match=r"nearest scheme.*twice"):
        names.recognise(theirs | {second: theirs[first]})


def test_two_halves_of_two_schemes_are_ambiguous():
    """Half of the modules have mmpretrain's names: the message names the first key left over."""
    ours = cases.weights(PLAIN, counters=False)
    mixed = {
        f"backbone.{key}" if key.startswith("layer2") else key: value for key, value in ours.items()
    }
    with pytest.raises(
        FormatError, match=r"nearest scheme, torchvision,.*'backbone\.layer2\.0\.conv1\.weight'"
    ):
        names.recognise(mixed)


@pytest.mark.parametrize(
    "keys", [["encoder.embed.weight"], ["a", "b"], ["", "/", ".", "0", "features.", "ema", ":0"]]
)
def test_keys_of_nobody(keys):
    said = f"{len(keys)} of {len(keys)} keys .*any scheme of torchvision, timm.*Keras"
    with pytest.raises(FormatError, match=said):
        names.recognise(keys)


@pytest.mark.parametrize(
    "lost", ["4.0.0.0.3.weight", "4.0.0.0.4.running_var", "1.bias", "8.bias", "5.0.0.1.0.weight"]
)
def test_a_tree_that_lacks_a_module(lost):
    """A leaf that is missing leaves its branch without a meaning, a field without its parameter."""
    theirs = key_schemes.torch7_flat(cases.weights(PLAIN), PLAIN)
    del theirs[lost]
    with pytest.raises((FormatError, ShapeError)):
        understood(theirs)


def test_paths_must_be_alike():
    theirs = key_schemes.torch7_paths(cases.weights(PLAIN), PLAIN)
    theirs["4.0.0.0.0.1.3.weight"] = np.zeros((8, 7, 3, 3), np.float32)
    with pytest.raises(FormatError, match=r"layer1\.0\.conv2\.weight: the paths .* must be equal"):
        understood(theirs)


@pytest.mark.parametrize("lost", ["4.0.0.0.0.2.1.bias", "4.0.0.0.0.2.3.weight"])
def test_paths_must_be_complete(lost):
    theirs = key_schemes.torch7_paths(cases.weights(PLAIN), PLAIN)
    del theirs[lost]
    with pytest.raises((FormatError, ShapeError)):
        understood(theirs)


def test_a_depthwise_convolution_and_its_sum_are_a_grouped_one():
    """Compare what keras-applications computes, layer by layer, with our one convolution."""
    theirs = key_schemes.keras_resaved(cases.weights(PLAIN), PLAIN)
    kernel = theirs["conv2_block1_2_conv/conv2_block1_2_conv/depthwise_kernel:0"].astype(np.float64)
    ones = theirs["conv2_block1_2_gconv/kernel:0"].astype(np.float64)
    weight = understood(theirs)[2]["layer1.0.conv2.weight"].astype(np.float64)
    x = np.random.default_rng(5).standard_normal((1, 6, 5, 32))
    # TensorFlow's product m of channel i is channel i * c + m; each is a group of one channel.
    products = reference.conv2d(
        x,
        kernel.reshape(3, 3, -1).transpose(2, 0, 1)[:, None].copy(),
        stride=2,
        padding=1,
        groups=32,
    )
    summed = reference.conv2d(products, ones.transpose(3, 2, 0, 1).copy())
    grouped = reference.conv2d(x, weight, stride=2, padding=1, groups=PLAIN.cardinality)
    np.testing.assert_allclose(
        summed, grouped, rtol=0, atol=100 * 2.0**-53 * np.abs(grouped).max()
    )  # 72 products a value


@pytest.mark.parametrize("shape", [(3, 3, 32), (3, 3, 32, 7), (3, 3, 32, 0), (3, 3, 30, 8), ()])
def test_a_depthwise_kernel_of_no_groups(shape):
    theirs = key_schemes.keras(cases.weights(PLAIN), PLAIN)
    theirs["conv2_block1_2_conv/depthwise_kernel:0"] = np.zeros(shape, np.float32)
    with pytest.raises(FormatError, match=r"layer1\.0\.conv2\.weight: "):
        understood(theirs)


def test_the_sum_behind_a_depthwise_kernel_must_be_the_fixed_one():
    theirs = key_schemes.keras_resaved(cases.weights(PLAIN), PLAIN)
    key = "conv2_block1_2_gconv/kernel:0"
    for changed in (
        theirs[key] * 2,
        np.roll(theirs[key], 1, axis=3),
        theirs[key] + np.eye(256, 32, dtype=np.float32),
    ):
        with pytest.raises(IntegrityError, match=r"layer1\.0\.conv2\.weight: the sum"):
            understood(theirs | {key: changed})
    with pytest.raises(FormatError, match="the sum behind"):
        understood(theirs | {key: theirs[key][..., :31]})


def test_what_a_scheme_implies():
    imagenet, ten, hundred = PLAIN, cifar(20, 4, 16), cifar(20, 4, 16, classes=100)
    assert infer.epsilon(table.KERAS) == 1.001e-5
    assert infer.epsilon(table.CADENE) == 1e-5
    assert all(infer.implied(scheme, imagenet).preprocess.crop == 224 for scheme in table.SCHEMES)
    assert infer.implied(table.TORCH7, imagenet).preprocess == Preprocess(interpolation="torch7")
    assert infer.implied(table.KERAS, imagenet).preprocess == Preprocess(224, 224, "keras")
    assert infer.implied(table.CADENE, imagenet).preprocess == Preprocess()
    assert (
        infer.implied(table.PRLZ77, hundred).preprocess
        == infer.implied(table.PRLZ77, ten).preprocess
        == CIFAR
    )
    assert infer.implied(table.TORCH7, ten).preprocess == CIFAR
    assert infer.implied(table.TORCH7, hundred).preprocess.mean == (
        129.3 / 255,
        124.1 / 255,
        112.4 / 255,
    )


@pytest.mark.parametrize("arch", [None, "resnext50_32x4d"])
def test_keras_has_an_epsilon_of_its_own(arch):
    """Whether the architecture is inferred or named."""
    spec = VARIANTS["resnext50_32x4d"]
    shapes = {key: np.broadcast_to(np.float32(0), shape) for key, shape in parameters(spec).items()}
    theirs = {key: value.shape for key, value in key_schemes.keras(shapes, spec).items()}
    found, named = convert._understood(theirs, arch, None, None)
    assert found == replace(spec, eps=1.001e-5)
    assert (found.name, named.scheme) == ("resnext50_32x4d", table.KERAS)


def test_a_network_of_caffes_has_the_names_of_another():
    """And what is said of the conversion from Torch7 is true of the numbered tree alone."""
    deep, shallow = VARIANTS["resnet101"], VARIANTS["resnet50"]
    assert "cafferesnet101 has the same names" in infer.implied(table.CADENE_RESNET, deep).note
    assert not infer.implied(table.CADENE_RESNET, shallow).note
    assert not infer.implied(table.TORCHVISION, deep).note
    assert "Torch7" in infer.implied(table.CADENE, VARIANTS["resnext101_32x4d"]).note


@pytest.mark.parametrize(
    ("writer", "prefix", "words"),
    [
        ("mmpretrain", "", ("names: mmpretrain", "Pillow")),
        ("cadene", "module.", ("names: Cadene, behind 'module.'", "bilinearly")),
        ("prlz77", "module.module.", ("names: prlz77, behind 'module.module.'", "CIFAR-10's mean")),
        ("mmcv-averaged", "", ("left out: ", "second copies, such as ema_backbone_conv1_weight")),
        ("torch7-nested", "", ("names: Torch7", "bicubically")),
    ],
)
def test_convert_says_whose_names_they_are(writer, prefix, words, tmp_path):
    spec = cifar(11, 2, 8) if writer == "prlz77" else PLAIN
    theirs = WRITERS[writer][0](cases.weights(spec), spec)
    (tmp_path / "in.pth").write_bytes(
        cases.checkpoint({prefix + key: value for key, value in theirs.items()}, legacy=False)
    )
    stored, notes = cases.read_checkpoint(tmp_path / "in.pth")
    assert stored.spec == spec
    for word in words:
        assert word in "\n".join(notes)
    for name, value in cases.weights(spec, counters=False).items():
        np.testing.assert_array_equal(stored.params[name], value)
