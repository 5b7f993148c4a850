"""What a config.json beside a checkpoint names must be what is computed."""

from __future__ import annotations

import json
from dataclasses import replace

import cases
import pytest

from tinyresnext import Spec
from tinyresnext.checkpoints.beside import architecture
from tinyresnext.checkpoints.beside.config import Config
from tinyresnext.errors import FormatError, ShapeError, UsageError

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


@pytest.mark.parametrize("name", OTHER)
def test_what_cannot_be_computed(convert, name):
    for arch in (None, TINY):
        with pytest.raises(FormatError, match="cannot compute") as caught:
            convert({"architecture": name}, arch=arch)
        assert ascii(name) in str(caught.value)
    for change in ({"aa_layer": "blurpool"}, {"output_stride": 16}, {"block_args": {"a": 1}}):
        with pytest.raises(FormatError, match=f"with {next(iter(change))}"):
            convert({"architecture": "resnext8_8x4d", "model_args": change})


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
    assert architecture.blur_pool("x.pth", named, None) == "average"


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
