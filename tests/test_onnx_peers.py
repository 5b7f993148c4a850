"""Our ONNX files in ONNX's own checker, ONNX Runtime and OpenVINO; and theirs, read by us."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx_files as of
import pytest
import recipe
from cases import read_checkpoint, relative_error
from test_onnx import SPECS, images, logits
from test_onnx_quantised import BOUND, exported, far, quantised_model
from test_onnx_quantised import SPECS as SPECS_IN_8_BITS

from tinyresnext.checkpoints import carried
from tinyresnext.checkpoints.onnx.write import OPSETS, write_onnx
from tinyresnext.checkpoints.onnx.write.integers import filters
from tinyresnext.errors import WeightsError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.store import store

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def session(path):
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("fold", [False, True])
def test_the_checker_accepts_every_version(tmp_path, opset, fold):
    spec = SPECS["binomial" if opset == 9 else "everything"]
    of.onnx_file(tmp_path, spec, opset=opset, fold=fold, plain=False, batch=2)
    model = onnx.load(tmp_path / "made.onnx")
    onnx.checker.check_model(model, full_check=True)
    helper = onnx.helper.VERSION_TABLE
    newest = max(row[1] for row in helper if row[2] <= opset and row[0] != "1.0")
    assert model.ir_version <= max(newest, 4)
    entry = {one.key: one.value for one in model.metadata_props}["tinyresnext"]
    assert json.loads(entry)["labels"] == ["label 0", "label 1", "label 2"]


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", SPECS)
def test_onnx_runtime_computes_our_logits(tmp_path, name, fold):
    """One of float32's errors is 6e-8; a network of 11 layers adds some of them."""
    spec = SPECS[name]
    of.onnx_file(tmp_path, spec, fold=fold)
    x = images(spec, of.SIDE)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
    (found,) = session(tmp_path / "made.onnx").run(None, {"images": planes})
    assert relative_error(found, logits(of.stored(spec), x)) < 3e-6


@pytest.mark.parametrize("name", ["small", "deep", "average", "averaged", "everything"])
def test_openvino_computes_our_logits(tmp_path, name):
    openvino = pytest.importorskip("openvino")
    spec = SPECS[name]
    of.onnx_file(tmp_path, spec)
    x = images(spec, of.SIDE)
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "made.onnx"), "CPU", precise)
    found = compiled(planes)[0]
    assert relative_error(found, logits(of.stored(spec), x)) < 3e-6


@pytest.mark.parametrize("half", [False, True])
def test_the_bundled_model_goes_there_and_back(tmp_path, half):
    """Saved by ONNX Runtime or ONNX on the way, it has the same weights to the bit."""
    stored = store.read(shipped_model())
    write_onnx(tmp_path / "o.onnx", stored, carried.written(stored), half=half)
    x = recipe.pictures("onnx", (4, 3, 32, 32))
    planes = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
    (found,) = session(tmp_path / "o.onnx").run(None, {"images": planes})
    assert relative_error(found, logits(stored, x)) < (2e-2 if half else 3e-6)
    onnx.save(onnx.load(tmp_path / "o.onnx"), tmp_path / "again.onnx")
    back = read_checkpoint(tmp_path / "again.onnx").stored
    assert (back.spec, back.labels, back.preprocess) == (
        stored.spec, stored.labels, stored.preprocess,
    )  # fmt: skip
    for name, value in stored.params.items():
        wanted = value.astype(np.float16).astype(np.float32) if half else value
        assert back.params[name].tobytes() == wanted.tobytes(), name


def test_what_onnx_runtime_optimised(tmp_path):
    """At its basic level it folds norms and writes convolutions in another order."""
    runtime = pytest.importorskip("onnxruntime")
    spec = SPECS["imagenet"]
    of.onnx_file(tmp_path, spec)
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "basic.onnx")
    runtime.InferenceSession(str(tmp_path / "made.onnx"), options)
    found = read_checkpoint(tmp_path / "basic.onnx").stored
    x = images(spec, of.SIDE)
    assert relative_error(logits(found, x), logits(of.stored(spec), x)) < 1e-6


def test_what_onnx_saved_with_external_data(tmp_path):
    of.onnx_file(tmp_path)
    onnx.save(
        onnx.load(tmp_path / "made.onnx"), tmp_path / "o.onnx", save_as_external_data=True,
        location="o.onnx.data", size_threshold=64,
    )  # fmt: skip
    found = read_checkpoint(tmp_path / "o.onnx").stored.params
    assert all(found[k].tobytes() == v.tobytes() for k, v in of.stored().params.items())


# -- complete files of other programs, where they are


@pytest.fixture
def formats(reference_dir, monkeypatch):
    """The folder with files of many exporters, and the scripts that complete them."""
    folder = reference_dir / "formats"
    if not (folder / "onnx").is_dir():
        pytest.skip("there is no folder with ONNX files")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_every_exporter(formats, tmp_path):
    """Logits within three times PyTorch's own float32 error, or 1e-6."""
    import fill

    cases = sorted((formats / "onnx").glob("*.json"))
    assert cases
    for meta_file in cases:
        meta, name = json.loads(meta_file.read_text()), meta_file.stem
        path = formats / "onnx" / f"{name}.onnx"
        if not path.exists():
            path = tmp_path / f"{name}.onnx"
            fill.fill(formats / "onnx" / f"{name}.graph.onnx", path)
        x = recipe.pictures(meta["input_name"], tuple(meta["input_shape"]))
        if meta["input_note"] == "rounded to float16 first":
            x = x.astype(np.float16)
        found = logits(read_checkpoint(path).stored, x)
        with np.load(formats / "onnx" / f"{name}.npz") as wanted:
            bar = max(3 * meta["torch_float32_error"], 1e-6)
            assert relative_error(found, wanted["logits"]) < bar, name


def test_every_other_network_is_refused(formats):
    others = sorted((formats / "onnx-refuse").glob("*.onnx"))
    assert others
    for path in others:
        with pytest.raises(WeightsError, match="node '"):
            read_checkpoint(path)


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes")
def test_every_damaged_file_is_refused(formats, tmp_path):
    import broken

    for name in ("tiny8_8x4d-legacy17", "tiny8_1x16d-legacy13-preserve"):
        broken.main(formats / "onnx" / f"onnx.{name}.onnx", tmp_path / name)
        files = sorted((tmp_path / name).glob("*.onnx"))
        assert len(files) == 41
        for path in files:
            with pytest.raises(WeightsError):
                read_checkpoint(path)


# -- quantised models


@pytest.mark.parametrize("name", SPECS_IN_8_BITS)
def test_onnx_runtime_computes_with_integers(tmp_path, name):
    """It rounds biases to steps of a sum, so values nearer than that to a half may differ by one.

    A sum has at least some hundred steps for each of the next value, so these are fewer than one in
    a hundred. A wrong scale of one value moves the logits by more than twice this bound.
    """
    model, x, planes = quantised_model(name)
    exported(tmp_path / "q.onnx", model)
    onnx.checker.check_model(onnx.load(tmp_path / "q.onnx"), full_check=True)
    assert far(in_8_bits(tmp_path / "q.onnx", planes), model(x)) < 4 * BOUND


def test_onnx_runtime_has_room_for_every_bias(tmp_path):
    """Filters that compute nearly nothing, with biases that do something."""
    model, x, planes = quantised_model("plain", tiny=1e-9)
    exported(tmp_path / "q.onnx", model)
    assert far(in_8_bits(tmp_path / "q.onnx", planes), model(x)) < 4 * BOUND


def in_8_bits(path, planes):
    """What ONNX Runtime computes, exactly also where the processor has no VNNI."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": planes})[0]


@pytest.mark.parametrize("name", ["plain", "squeeze and excitation", "dilated", "no classifier"])
def test_openvino_computes_with_integers(tmp_path, name, monkeypatch):
    """With weights of 7 bits: without VNNI, OpenVINO adds two products in 16 bits."""
    openvino = pytest.importorskip("openvino")

    def narrow(*args):
        found = filters(*args)
        return found._replace(integers=found.integers // 2, scale=2 * found.scale)

    monkeypatch.setattr("tinyresnext.checkpoints.onnx.write.graph.filters", narrow)
    model, _, planes = quantised_model(name)
    data = exported(tmp_path / "q.onnx", model)
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(tmp_path / "q.onnx"), "CPU", precise)
    assert far(compiled(planes)[0], of.evaluate(data, planes)) < BOUND
