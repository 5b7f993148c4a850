"""What people bring from PyTorch that looks like a plain ResNeXt: taken if exact, else refused."""

from __future__ import annotations

from dataclasses import replace

import cases
import foreign_files as ff
import numpy as np
import pytest
import torch_files
from test_wrapped import OTHERS, OURS, TINY, same, state, without_head

from tinyresnext import load_checkpoint
from tinyresnext.errors import FormatError, UsageError

HALF = np.float32(0.5)


@pytest.fixture
def convert(tmp_path):
    """Write a checkpoint of PyTorch, and return what is understood of it: the model, all notes."""

    def go(top, **options):
        (tmp_path / "in.pth").write_bytes(torch_files.zip_file(top))
        stored, notes = cases.read_checkpoint(tmp_path / "in.pth", **options)
        return stored, "\n".join(notes)

    return go


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
