"""What a config.json beside a checkpoint names must be what is computed."""

from __future__ import annotations

import json
from dataclasses import replace

import cases
import pytest
import torch_files

from tinyresnext import Spec
from tinyresnext.checkpoints.beside.architecture import decided
from tinyresnext.checkpoints.beside.config import Config
from tinyresnext.errors import FormatError, ShapeError, UsageError
from tinyresnext.network.spec import variant

TINY = Spec((1, 1), 8, 4, 10, expansion=1)
D = Spec((1, 1), 8, 4, 10, expansion=1, stem="deep", avg_down=True)
PLAIN = ["resnext8_8x4d", "gluon_resnext8_8x4d", "swsl_resnext8_8x4d"]
OTHER = ["skresnext8_8x4d", "resnext26ts", "vit_base", "x\x1b"]


@pytest.fixture
def convert(tmp_path):
    """Write a checkpoint with a config.json beside it, and return what is understood."""

    def go(config, spec=TINY, **options):
        (tmp_path / "in.pth").write_bytes(cases.checkpoint(cases.weights(spec), legacy=False))
        text = config if isinstance(config, str) else json.dumps(config)
        (tmp_path / "config.json").write_text(text, "utf-8")
        return cases.read_checkpoint(tmp_path / "in.pth", **options)

    return go


@pytest.mark.parametrize("name", PLAIN)
def test_the_same_network(convert, name):
    assert convert({"architecture": name}).stored.spec == TINY
    arguments = {"in_chans": 3, "aa_layer": None, "act_layer": ""}
    assert convert({"architecture": name, "model_args": arguments}).stored.spec == TINY
    assert convert({"architecture": "resnext8d_8x4d"}, D).stored.spec == D
    assert convert({"architecture": "resnet8"}, Spec((1, 1), 1, 16, 3)).stored.spec.width == 16


@pytest.fixture
def called(tmp_path):
    """Write a checkpoint as training scripts do, with a name, and return what is understood."""

    def go(name, spec=TINY, **options):
        state = {key: torch_files.tensor(value) for key, value in cases.weights(spec).items()}
        top = {"epoch": 3, "arch": name, "state_dict": state}
        (tmp_path / "in.pth").write_bytes(torch_files.zip_file(top))
        return cases.read_checkpoint(tmp_path / "in.pth", **options)

    return go


ANY = [*PLAIN, "resnext50_32x4d", "resnet", "vit_base", "resnext", "x\x1b", "a" * 256]


@pytest.mark.parametrize("name", ANY)
def test_the_name_of_a_script_may_be_anything(called, name):
    """Who trains may have changed the network, and called it anything: tensors tell what it is."""
    stored, notes = called(name)
    assert stored.spec == TINY
    assert [note for note in notes if ascii(name)[:80] in note and "(arch)" in note]


@pytest.mark.parametrize("name", [None, 3, "", "a" * 257, ["resnetblur50"]])
def test_what_is_no_name_of_a_script(called, name):
    stored, notes = called(name)
    assert stored.spec == TINY
    assert not [note for note in notes if "arch" in note and "--arch" not in note]


def test_the_name_of_a_script_tells_blur_pooling(called):
    blurred = replace(TINY, blur_pool="binomial")
    assert called("resnextblur8_8x4d").stored.spec == blurred
    assert called("resnextblur8_8x4d.a1_in1k").stored.spec == blurred
    assert called("resnextblur8_8x4d", blur_pool="none").stored.spec == TINY
    assert called("resnextblur8_8x4d", arch=TINY).stored.spec == TINY
    with pytest.raises(ShapeError, match=r"resnextblur50_32x4d.*--blur-pool"):
        called("resnextblur50_32x4d")
    assert called("resnextblur50_32x4d", blur_pool="binomial").stored.spec == blurred


@pytest.mark.parametrize("name", ["skresnext50_32x4d", "ecaresnext50t_32x4d", "resnext26ts.a"])
def test_the_name_of_a_script_that_is_of_another_network(called, name):
    with pytest.raises(FormatError, match=r"cannot compute.*--arch"):
        called(name)
    assert called(name, arch=TINY).stored.spec == TINY


@pytest.mark.parametrize("name", OTHER)
def test_what_cannot_be_computed(convert, name):
    for arch in (None, TINY):
        with pytest.raises(FormatError, match="cannot compute") as caught:
            convert({"architecture": name}, arch=arch)
        assert ascii(name) in str(caught.value)


REFUSED = {
    "aa_layer": ["blurpc", "blur_pc", "max", 3, ["avg"], "<class 'timm.layers.BlurPool3d'>"],
    "output_stride": [4, 64, "16", 16.0, True, None],
    "block_args": [{"a": 1}, {"attn_layer": "eca"}, {"attn_layer": "se", "rd": 8}, [], "se"],
    "act_layer": ["silu", 1],
    "norm_layer": ["groupnorm", "frozenbatchnorm2d"],
    "global_pool": ["max", "avgmax", "fastmax", ""],
    "replace_stem_pool": [True, 1],
    "block_reduce_first": [2, True],
    "down_kernel_size": [3],
    "channels": [[64, 96], [32, 64], 64, []],
    "stem_type": ["deeper", 1],
    "stem_width": [0, "64", 2],
    "features_only": [True],
    "avg_down": [1, "yes"],
    "layers": [3, ["a"], [1, True], [], [1] * 9],
    "cardinality": [0, 8.0],
    "num_classes": ["10"],
    "in_chans": [0],
    "new_word": [False, 0, "a"],
    "x\x1b\n": [1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_are_not_understood_are_named(name):
    for value in REFUSED[name]:
        config = Config("resnext8_8x4d", {name: value}, None, None, None, "", ())
        if value is None:  # it says nothing
            assert decided("x.pth", config, TINY, (False, False), None, None) == ("none", 8)
            continue
        for given in (False, True):
            with pytest.raises(FormatError, match="cannot compute") as caught:
                decided("x.pth", config, TINY, (given, False), None, None)
            said = f"'resnext8_8x4d' with {ascii(name)[1:-1]}={ascii(value)[:40]}"
            assert said in str(caught.value)
    old = Config("legacy_seresnext8_8x4d", {"aa_layer": "avg"}, None, None, None, "", ())
    with pytest.raises(FormatError, match="with aa_layer='avg'"):
        decided("x.pth", old, replace(TINY, se_reduction=16), (False, True), None, None)


@pytest.mark.parametrize(
    "name",
    [
        "resnext50_32x4d", "resnext8_4x8d", "resnet8", "resnext8d_8x4d", "resnext11_8x4d",
        "resnetblur50", "seresnext8_8x4d", "seresnextaa101d_32x8d", "resnet50t",
        "legacy_seresnext50_32x4d",
    ],
)  # fmt: skip
def test_another_network(convert, name):
    with pytest.raises(ShapeError, match=f"'{name}', and the tensors are resnext8_8x4d.*--arch"):
        convert({"architecture": name})
    found = convert({"architecture": name}, arch=TINY, blur_pool="none")
    assert found.stored.spec == TINY


def test_a_stem_for_small_images_is_not_timms(convert):
    """Whether it pools leaves no trace, and the name says that it does."""
    small = replace(TINY, stem="cifar")
    with pytest.raises(ShapeError, match=r"and the tensors are resnext8_8x4d.*3x3 stem"):
        convert({"architecture": "resnext8_8x4d"}, small)
    found = convert({"architecture": "resnext8_8x4d"}, small, stem="pooled")
    assert found.stored.spec == replace(TINY, stem="pooled")


def test_a_blur_pooling_is_known_by_the_name_alone(convert):
    """timm's own names with aa are averages; others, as this one, have the binomial filter."""
    blurred = replace(TINY, blur_pool="binomial")
    config = {"architecture": "resnextaa8_8x4d"}
    stored, notes = convert(config)
    assert stored.spec == blurred
    assert "blur pooling (binomial)" in "\n".join(notes)
    with pytest.raises(UsageError, match=r"has the blur pooling 'none'.*'binomial'.*--blur-pool"):
        convert(config, arch=TINY)
    assert convert(config, arch=TINY, blur_pool="none").stored.spec == TINY
    assert convert(config, arch=blurred).stored.spec == blurred
    named = Config("seresnextaa101d_32x8d", {}, None, None, None, "", ())
    own = variant("seresnextaa101d_32x8d")
    assert decided("x.pth", named, own, (False, False), None, None) == ("average", 32)


@pytest.mark.parametrize(
    ("word", "told"),
    {
        "avg": "average", "AvgPool2d": "average", "<class 'torch.nn.AvgPool2d'>": "average",
        "blur": "binomial", "blur_pool": "binomial", "timm.layers.BlurPool2d": "binomial",
        None: "none", "": "none",
    }.items(),
)  # fmt: skip
def test_an_argument_stands_in_place_of_the_name(convert, word, told):
    for name in ("resnext8_8x4d", "resnextaa8_8x4d"):
        found = convert({"architecture": name, "model_args": {"aa_layer": word}})
        assert found.stored.spec == replace(TINY, blur_pool=told)


LONG = Spec(
    (1, 1, 1, 2), 4, 4, 10, stem="deep", avg_down=True, stem_channels=(24, 32, 64), expansion=1
)
ARGUMENTS = {
    "layers": [1, 1, 1, 2], "cardinality": 4, "base_width": 4, "stem_type": "deep_tiered",
    "stem_width": 32, "avg_down": True, "channels": [64, 128, 256, 512], "num_classes": 10,
    "in_chans": 3, "drop_path_rate": 0.1, "zero_init_last": False, "norm_layer": "BatchNorm2d",
}  # fmt: skip


def test_arguments_make_another_network_of_the_same_name(convert):
    """As ``create_model("resnext50_32x4d", layers=...)`` of timm does."""
    config = {"architecture": "resnext50_32x4d", "model_args": ARGUMENTS}
    assert convert(config, LONG).stored.spec == LONG
    excited = replace(LONG, se_reduction=16)
    more = {"block_args": {"attn_layer": "se"}, "output_stride": 8}
    found = convert(config | {"model_args": ARGUMENTS | more}, excited)
    assert found.stored.spec == replace(excited, dilated=2)
    for name, value in {
        "layers": [1, 1, 2, 1], "cardinality": 8, "base_width": 8, "stem_type": "deep",
        "stem_width": 64, "avg_down": False, "num_classes": 9, "in_chans": 1,
    }.items():  # fmt: skip
        other = Config("resnext50_32x4d", ARGUMENTS | {name: value}, None, None, None, "", ())
        with pytest.raises(ShapeError, match=r"and the tensors (are|have)"):
            decided("x.pth", other, LONG, (False, False), None, None)


@pytest.mark.parametrize(("stride", "dilated"), [(32, 0), (16, 1), (8, 2), (None, 0)])
def test_the_output_stride_is_known_by_the_arguments_alone(convert, stride, dilated):
    config = {"architecture": "resnext17t_4x4d", "model_args": {"output_stride": stride}}
    stored, notes = convert(config, LONG)
    assert stored.spec == replace(LONG, dilated=dilated)
    assert ("by its name" in "".join(notes)) == (("dilated" in "".join(notes)) == (dilated > 0))
    assert convert(config, LONG, output_stride=16).stored.spec.dilated == 1
    if dilated:
        said = f"has the output stride 32, .* which has {stride}; say which with --output-stride"
        with pytest.raises(UsageError, match=said):
            convert(config, LONG, arch=LONG)
    assert convert(config, LONG, arch=LONG, output_stride=32).stored.spec == LONG


@pytest.mark.parametrize(
    "config",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        {},
        {"architecture": 3},
        {"architectures": ["Vit"]},
        {"a": 1},
    ],
    ids=lambda config: str(config)[:12],
)
def test_other_files_of_that_name_are_not_looked_at(convert, config):
    stored, notes = convert(config)
    assert stored.spec == TINY
    assert "no blur pooling (--blur-pool) and no dilation" in "\n".join(notes)


def test_a_part_of_a_checkpoint_is_no_network(tmp_path):
    """The first part of a network may look like a smaller one without a classifier."""
    data = cases.checkpoint(cases.weights(TINY), legacy=False)
    for name, part in (("model-00001-of-00003.pth", True), ("model-00001-of-00001.pth", False)):
        (tmp_path / name).write_bytes(data)
        if part:
            with pytest.raises(FormatError, match="one of 3 parts"):
                cases.read_checkpoint(tmp_path / name)
        else:
            assert cases.read_checkpoint(tmp_path / name).stored.spec == TINY
