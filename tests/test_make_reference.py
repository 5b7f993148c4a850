"""Reference files made from a model, with which `verify` compares every copy of it."""

from __future__ import annotations

import sys

import cases
import numpy as np
import pytest

from tinyresnext import Model, Preprocess, Spec, cifar, load, save
from tinyresnext.cli import main as cli
from tinyresnext.errors import IntegrityError, UsageError
from tinyresnext.inference.verify import TORCH_FLOAT32_ERROR, make_reference, verify
from tinyresnext.ops import reference

SPECS = {
    "imagenet": Spec((1, 1), 4, 8, 10),
    "deep": Spec((1, 1), 4, 8, 10, stem="deep", avg_down=True),
    "cifar, shortcuts A": cifar(11, 2, 4),
    "first convolution strides": Spec((1, 1), 2, 8, 10, stride_on=1, eps=1.001e-5),
}
# What else the definition may call.
MORE_SPECS = {
    "excitation": Spec((1, 1), 4, 8, 10, se_reduction=16),
    "blur pooling": Spec((1, 1), 4, 8, 10, blur_pool="binomial"),
    "means that stride": Spec((1, 1), 4, 8, 10, blur_pool="average"),
    "caffe": Spec((1, 1), 4, 8, 10, stem="caffe"),
    "dilated": Spec((1, 1), 4, 8, 10, avg_down=True, dilated=1),
    "shortcuts A": Spec((1, 1), 4, 8, 10, shortcut="A"),
}


def store_model(spec: Spec, path, scale: float = 1.0) -> None:
    params = {
        name: value * np.float32(scale)
        for name, value in cases.weights(spec, counters=False).items()
    }
    labels = tuple(f"class {i}" for i in range(spec.classes))
    save(Model(spec, params, Preprocess(40, 33), labels, {}, reference), path)


@pytest.fixture(params=SPECS)
def model(request, tmp_path):
    store_model((SPECS | MORE_SPECS)[request.param], tmp_path / "net.h5")
    return tmp_path / "net.h5"


def test_it_holds_the_model_and_not_another(model, tmp_path):
    error = make_reference(model, tmp_path / "r.npz")
    assert TORCH_FLOAT32_ERROR <= error < 1e-5
    with np.load(tmp_path / "r.npz") as found:
        assert (found["x"].shape, found["x"].dtype) == ((2, 33, 33, 3), np.float32)
        assert (found["logits"].shape, found["logits"].dtype) == ((2, 10), np.float64)
        assert found["float32_error"] == error
    for device in ("reference", "cpu"):
        assert verify_logits(model, tmp_path / "r.npz", device).passed
    other = load(model, "reference")
    name = "layer1.0.conv2.weight"
    other.params = {**other.params, name: other.params[name] * np.float32(1.001)}
    save(other, tmp_path / "other.h5")
    assert not verify_logits(tmp_path / "other.h5", tmp_path / "r.npz", "reference").passed


def verify_logits(model, file, device):
    return verify(model, file, device).checks[-1]


def test_a_model_without_a_classifier(tmp_path):
    """Its features are compared, and it has no classes to count."""
    store_model(Spec((1, 1), 4, 8, 0), tmp_path / "net.h5")
    make_reference(tmp_path / "net.h5", tmp_path / "r.npz", pictures=1)
    found = verify_logits(tmp_path / "net.h5", tmp_path / "r.npz", "reference")
    assert (found.passed, "first class" in found.found) == (True, False)


def test_a_single_output_is_compared_with_zero(tmp_path):
    spec = Spec((1, 1), 4, 8, 1, head="sigmoid")
    model = Model(
        spec, cases.weights(spec, counters=False), Preprocess(40, 33), ("no", "yes"), {}, reference
    )
    save(model, tmp_path / "net.h5")
    x = np.random.default_rng(0).standard_normal((2, 33, 33, 3)).astype(np.float32)
    np.savez(tmp_path / "r.npz", x=x, logits=model(x) * [[1], [-1]])
    found = verify_logits(tmp_path / "net.h5", tmp_path / "r.npz", "reference")
    assert "first class equal for 1 of 2" in found.found


def test_coarse_roundings_do_not_excuse_other_weights(tmp_path):
    store_model(SPECS["imagenet"], tmp_path / "net.h5")
    model = load(tmp_path / "net.h5", "reference")
    x = np.random.default_rng(0).standard_normal((1, 33, 33, 3)).astype(np.float32)
    for factor, right in ((1.0, True), (2.0, False)):
        np.savez(tmp_path / "r.npz", x=x, logits=model(x) * factor, float32_error=6e-6)
        found = verify(tmp_path / "net.h5", tmp_path / "r.npz", "reference", precision="bfloat16")
        assert found.passed == right
        assert "allowed 2.5e-01" in str(found)


@pytest.mark.parametrize("model", [*SPECS, *MORE_SPECS], indirect=True)
def test_pytorch_says_the_same(model, tmp_path):
    """In float64 both round thousands of products for a value; the errors stay below 1e-12."""
    pytest.importorskip("torch")
    make_reference(model, tmp_path / "ours.npz")
    error = make_reference(model, tmp_path / "theirs.npz", with_torch=True)
    with np.load(tmp_path / "ours.npz") as ours, np.load(tmp_path / "theirs.npz") as theirs:
        assert np.array_equal(ours["x"], theirs["x"])
        assert cases.relative_error(ours["logits"], theirs["logits"]) < 1e-12
        assert theirs["float32_error"] == error
    assert verify_logits(model, tmp_path / "theirs.npz", "cpu").passed


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store_model(SPECS["imagenet"], "net.h5")
    assert cli.main(["verify", "net.h5", "--make-reference", "r.npz"]) == 0
    out, err = capsys.readouterr()
    assert (out, "float32 may be off by" in err) == ("r.npz\n", True)
    assert cli.main(["verify", "net.h5", "--reference", "r.npz"]) == 0
    assert cli.main(["verify", "net.h5", "--make-reference", "r.npz"]) == 2
    assert cli.main(["verify", "net.h5", "--make-reference", "r.npz", "--force"]) == 0
    assert (
        cli.main(["verify", "net.h5", "--make-reference", "r.npz", "--force", "--threads", "1"])
        == 2
    )
    assert cli.main(["verify", "net.h5", "--make-reference", "missing/r.npz"]) == 2
    before = (tmp_path / "net.h5").read_bytes()
    assert cli.main(["verify", "net.h5", "--make-reference", "net.h5", "--force"]) == 2
    assert (tmp_path / "net.h5").read_bytes() == before
    assert cli.main(["verify", "net.h5", "--with-torch"]) == 2
    for words in (["--device", "reference"], ["--precision", "bfloat16"], ["--threads", "1"]):
        capsys.readouterr()
        assert cli.main(["verify", "net.h5", *words]) == 2  # nothing is computed
        assert "are for --reference" in capsys.readouterr().err
        assert cli.main(["verify", "net.h5", "--reference", "r.npz", *words]) == 0
    assert cli.main(["verify", "missing.h5", "--make-reference", "q.npz"]) == 3
    assert not (tmp_path / "q.npz").exists()


def test_weights_that_overflow(tmp_path):
    store_model(SPECS["imagenet"], tmp_path / "net.h5", 1e10)
    with pytest.raises(IntegrityError, match="in float32 the logits are off by"):
        make_reference(tmp_path / "net.h5", tmp_path / "r.npz")
    assert not (tmp_path / "r.npz").exists()


@pytest.mark.parametrize("pictures", [0, 257, 2.5, "2", True])
def test_numbers_of_images_that_cannot_be(tmp_path, pictures):
    with pytest.raises(UsageError, match="give a whole number from 1 to 256"):
        make_reference(tmp_path / "net.h5", tmp_path / "r.npz", pictures=pictures)


def test_what_verify_would_refuse_is_not_made(tmp_path, monkeypatch):
    """An image here takes 13,068 bytes and its logits 80: to the byte, three do not fit."""
    store_model(SPECS["imagenet"], tmp_path / "net.h5")
    most, to = 3 * 13_148, tmp_path / "r.npz"
    monkeypatch.setattr("tinyresnext.inference.verify.MOST_REFERENCE", most)
    with monkeypatch.context() as early:
        early.setattr("tinyresnext.inference.verify.forward", None)  # nothing is computed
        with pytest.raises(UsageError, match=r"pictures is 3, .* at most 2 fit"):
            make_reference(tmp_path / "net.h5", to, pictures=3)
    assert not to.exists()
    monkeypatch.setattr("tinyresnext.inference.verify.MOST_REFERENCE", most + 4096)
    make_reference(tmp_path / "net.h5", to, pictures=3)
    assert verify_logits(tmp_path / "net.h5", to, "reference").passed
    monkeypatch.setattr("tinyresnext.inference.verify.MOST_REFERENCE", most)
    with pytest.raises(UsageError, match="use fewer images"):
        verify_logits(tmp_path / "net.h5", to, "reference")


def test_without_pytorch(tmp_path, monkeypatch):
    store_model(SPECS["imagenet"], tmp_path / "net.h5")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tinyresnext.ops.torch_reference", raising=False)
    with pytest.raises(UsageError, match="PyTorch is not installed"):
        make_reference(tmp_path / "net.h5", tmp_path / "r.npz", with_torch=True)
    with pytest.raises(UsageError, match="pictures is 0"):
        make_reference(tmp_path / "net.h5", tmp_path / "r.npz", pictures=0)
