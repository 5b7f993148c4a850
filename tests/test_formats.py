"""Files that other projects' own code wrote, within their systems' error, where they are at hand.

The folder ``formats`` of the references has networks of each system in float64, with weights that
are made again from names. The small ones are held to 1e-6, on which few logits are noisy.
"""

from __future__ import annotations

import json
import lzma
import pickle
from pathlib import Path

import cases
import numpy as np
import pytest
import recipe

from tinyresnext.errors import WeightsError
from tinyresnext.inference.model import Model
from tinyresnext.ops import cpu

FOLDERS = ("hf", "paddle", "quantised", "keras")
KERAS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "kernel": "weight"}
KERAS |= {"moving_variance": "running_var", "bias": "bias"}


def paddle_file(meta, path):
    """Write what ``paddle.save`` does; a classifier is [in, out]."""
    arrays = {}
    for key, shape, _ in meta["keys"]:
        name = key.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        value = recipe.tensor(name, tuple(shape[::-1] if len(shape) == 2 else shape))
        arrays[key] = np.ascontiguousarray(value.T) if len(shape) == 2 else value
    arrays["StructuredToParameterName@@"] = {key: f"p_{i}" for i, key in enumerate([*arrays])}
    path.write_bytes(pickle.dumps(arrays, 4))
    return path


def keras_weight(layer, name, shape):
    """Return a weight in Keras' orientation; it depends on the name of the layer."""
    field = name.rsplit("/", 1)[1].partition(":")[0]
    key = f"{layer}.{KERAS[field]}"
    if field == "kernel" and len(shape) == 4:
        ours = recipe.tensor(key, (shape[3], shape[2], shape[0], shape[1]))
        return ours.transpose(2, 3, 1, 0)
    if field == "kernel":
        return recipe.tensor(key, tuple(shape[::-1])).T
    value = recipe.tensor(key, tuple(shape))
    if layer == "bn_data" and field == "moving_mean":
        return np.float32(120) + np.float32(100) * value
    return np.float32(3600) * value if (layer, field) == ("bn_data", "moving_variance") else value


def keras_file(meta, base, path):
    """Put the values into the file that Keras wrote, in which they are zero."""
    data = bytearray(lzma.decompress(Path(f"{base}.h5.xz").read_bytes()))
    with np.load(f"{base}.npz") as found:
        offsets = found["offsets"].tolist()
    for (layer, name, shape), at in zip(meta["keys"], offsets, strict=True):
        raw = keras_weight(layer, name, shape).astype("<f4").tobytes()
        data[at : at + len(raw)] = raw
    path.write_bytes(data)
    return path


def files(kind, base, meta, folder):
    """Return the paths to convert: each must give the case's logits."""
    if kind == "hf":
        names = (
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "model.safetensors.index.json",
        )
        return [base, *(base / name for name in names if (base / name).exists())]
    if kind == "keras":
        return [keras_file(meta, base, folder / "w.h5")]
    if kind == "quantised":
        return [base.with_name(f"{base.name}.pth")]
    whole = sorted(base.parent.glob(f"{base.name}*.pdparams"))
    return [paddle_file(meta, folder / "w.pdparams"), *whole]


def images(meta, stored):
    """Return the input as our network takes it."""
    if meta["system"] != "classification_models":
        return recipe.pictures(meta["input_name"], tuple(meta["input_shape"]))
    n, h, w, c = meta["input_shape"]
    x = recipe.pictures(meta["input_name"], (n, c, h, w))
    if meta["input"] != "bytes":
        return x
    x = np.floor((x + np.float32(2)) * np.float32(64))
    p = stored.preprocess
    return ((x.astype(np.float64) / 255 - p.mean) / p.std).astype(np.float32)


def check(path, base, meta):
    """Compare logits, and the means of stages where there are some."""
    stored, _ = cases.read_checkpoint(path)
    model, x = Model(*stored, cpu), images(meta, stored)
    error = meta.get("torch_float32_error", meta.get("keras_float32_error"))
    bar = max(3 * error, 1e-6)
    with np.load(base.with_name(f"{base.name}.npz")) as found:
        wanted = found["logits"] if "logits" in found else found["features"]
        assert cases.relative_error(model(x), wanted) <= bar
        features = model.features(x) if meta["stages"] else {}
        for name in features:
            if f"stage_{name}" in found and len(x) == 1:
                means = features[name][0].mean((0, 1), dtype=np.float64)
                assert cases.relative_error(means, found[f"stage_{name}"]) <= bar, name


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_case(reference_dir, tmp_path, kind):
    """Within the bar."""
    folder = reference_dir / "formats" / kind
    if not folder.is_dir():
        pytest.skip("these references have no formats")
    faults, checked = [], 0
    for path in sorted(folder.glob("*.json")):
        base, meta = path.parent / path.stem, json.loads(path.read_text("utf-8"))
        if not base.with_name(f"{base.name}.npz").exists():
            continue  # only names
        if kind == "keras" and not Path(f"{base}.h5.xz").exists():
            continue
        for file in files(kind, base, meta, tmp_path):
            checked += 1
            try:
                check(file, base, meta)
            except (WeightsError, AssertionError) as error:
                faults.append(f"{path.stem} {Path(file).name}: {type(error).__name__} {error}")
    assert checked
    assert not faults, "\n".join(faults)
