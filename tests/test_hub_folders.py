"""Folders of a hub: what config.json says goes into the model, and parts are read as one file."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import cases
import foreign_files as ff
import numpy as np
import pytest
from audit import watching
from test_hostile_checkpoints import accepted, bits, mutations

from tinyresnext import Preprocess, Spec
from tinyresnext.checkpoints.imagenet import imagenet_labels
from tinyresnext.checkpoints.readers import container
from tinyresnext.cli.main import main
from tinyresnext.errors import FormatError, ShapeError, UnsafeError, UsageError, WeightsError
from tinyresnext.store import store

TINY = Spec((1, 1), 8, 4, 3, expansion=1)
WEIGHTS = cases.weights(TINY)
CONFIG = {
    "architecture": "resnext8_8x4d",
    "num_classes": 3,
    "global_pool": "avg",
    "label_names": ["cat", "dog", "eel"],
    "model_args": {"in_chans": 3, "num_classes": 3, "global_pool": "avg"},
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.5, 0.25, 0.125],
        "std": [0.25, 0.5, 1],
        "license": "apache-2.0",
    },
}
PREPARED = Preprocess(67, 64, "bicubic", (0.5, 0.25, 0.125), (0.25, 0.5, 1.0))
INDEX = "model.safetensors.index.json"


def parts(folder, tensors=WEIGHTS, count=3, pack=ff.safe_file, suffix="safetensors"):
    """Write a checkpoint in parts with its index, and return the index as an object."""
    names, found = list(tensors), {}
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for i in range(count):
        some = names[i * len(names) // count : (i + 1) * len(names) // count]
        part = f"{stem}-{i + 1:05}-of-{count:05}.{suffix}"
        (folder / part).write_bytes(pack({name: tensors[name] for name in some}))
        found |= dict.fromkeys(some, part)
    index = {"metadata": {"total_size": 9}, "weight_map": found}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index, indent=2))
    return index


def torch_part(tensors):
    return cases.checkpoint(tensors, legacy=False)


@pytest.fixture
def hub(tmp_path):
    """Return a function that writes a folder with a config.json, and returns it."""

    def make(config=CONFIG, name="hub", **changes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(ff.safe_file(WEIGHTS))
        if config is not None:
            (folder / "config.json").write_text(json.dumps(config | changes))
        return folder

    return make


def prepared(**changes):
    """Return a config whose preprocessing differs in some values; None removes one."""
    inner = CONFIG["pretrained_cfg"] | changes
    return CONFIG | {"pretrained_cfg": {k: v for k, v in inner.items() if v is not None}}


@pytest.mark.parametrize("named", ["", "config.json", "model.safetensors"])
def test_what_it_says_goes_into_the_model(hub, named):
    stored, notes = cases.read_checkpoint(hub() / named)
    assert (stored.spec, stored.labels) == (TINY, ("cat", "dog", "eel"))
    assert (stored.preprocess, stored.provenance["licence"]) == (PREPARED, "Apache-2.0")
    assert stored.provenance["source"] == ("" if named[:1] == "m" else "hub/") + "model.safetensors"
    said = "\n".join(notes)
    assert "architecture resnext8_8x4d, 3 labels, preprocessing, licence Apache-2.0" in said
    assert "assumed" not in said
    assert "by its name: ReLU, padding with zeros, stride 2 in the stem and in each" in said


def test_options_win(hub):
    options = {"labels": ("a", "b", "c"), "licence": "MIT", "preprocess": Preprocess()}
    stored, _ = cases.read_checkpoint(hub(), **options)
    assert (stored.labels, stored.preprocess) == (("a", "b", "c"), Preprocess())
    assert stored.provenance["licence"] == "MIT"


def test_what_the_outputs_mean(hub):
    """As transformers saves one of timm's networks; it became one of a softmax."""
    folder = hub(problem_type="multi_label_classification")
    stored, notes = cases.read_checkpoint(folder)
    assert stored.spec == replace(TINY, head="sigmoid")
    assert "3 labels, labels of which any may be right, preproc" in "\n".join(notes)
    asked = cases.read_checkpoint(folder, head="softmax").stored
    assert (asked.spec, asked.labels) == (TINY, ("cat", "dog", "eel"))
    for name, kind in (("none", None), ("single", "single_label_classification")):
        assert cases.read_checkpoint(hub(name=name, problem_type=kind)).stored.spec == TINY
    notes = cases.read_checkpoint(hub(name="odd", problem_type=["x"])).notes
    assert "not taken from config.json: problem_type ['x']: it is not known here" in notes
    with pytest.raises(FormatError, match="problem_type 'regression': the outputs are measures"):
        cases.read_checkpoint(hub(name="measures", problem_type="regression"))


def test_the_command(hub, capsys, monkeypatch):
    monkeypatch.chdir(hub().parent)
    for src, dst in (("hub", "hub.h5"), ("hub/", "hub.h5"), ("hub/config.json", "hub/model.h5")):
        assert main(["convert", src, "--force"]) == 0
        out, err = capsys.readouterr()
        assert out == f"{dst}\n"
        assert "found: resized to 67 (bicubic), cropped to 64" in err
        assert store.read(dst).preprocess == PREPARED
    monkeypatch.chdir("hub")
    assert main(["convert", ".", "--force"]) == 0
    assert capsys.readouterr()[0] == f"{os.path.abspath('.')}.h5\n"


def test_an_older_form_and_other_values(hub):
    """Everything in one object; numbered labels; WordNet ids with what they mean."""
    old = {"architecture": "resnext8_8x4d", **CONFIG["pretrained_cfg"], "labels": list("abc")}
    stored, _ = cases.read_checkpoint(hub(old))
    assert (stored.labels, stored.preprocess) == (("a", "b", "c"), PREPARED)
    numbered = {"label_names": {"1": "b", "0": "a", "2": "c"}}
    assert cases.read_checkpoint(hub(name="numbered", **numbered)).stored.labels == ("a", "b", "c")
    ids = ["n00000001", "n00000002", "n00000003"]
    words = {"label_names": ids, "label_descriptions": dict(zip(ids, "xyz", strict=True))}
    assert cases.read_checkpoint(hub(name="ids", **words)).stored.labels == ("x", "y", "z")
    bare = {"architecture": "resnext8_8x4d"}
    stored, _ = cases.read_checkpoint(hub(bare, "bare"))
    assert (stored.preprocess, stored.labels[0]) == (Preprocess(), "class 0")
    usual = prepared(crop_pct=None, interpolation=None, mean=None, std=None)
    assert cases.read_checkpoint(hub(usual, "usual")).stored.preprocess == Preprocess(
        73, 64, "bicubic"
    )  # timm's defaults: 64 / 0.875


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"crop_mode": "squash"}, "crop_mode 'squash'"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos'"),
        ({"input_size": [3, 64, 32]}, "input_size"),
        ({"input_size": [3, 64, 1e9]}, "input_size"),
        ({"input_size": [3, 5000, 5000]}, "input_size"),
        ({"crop_pct": -1}, "crop_pct -1"),
        ({"mean": [0.5]}, r"mean \[0.5\]"),
        ({"mean": "abc"}, "mean 'abc'"),
        ({"std": [0, 0, 0]}, "std"),
        ({"mean": [0.5, 0.5, 10**400]}, "mean"),
    ],
)
def test_what_cannot_be_done_is_said_and_not_taken(hub, changes, says):
    stored, notes = cases.read_checkpoint(hub(prepared(**changes)))
    assert stored.preprocess == Preprocess()
    (note,) = [note for note in notes if note.startswith("not taken from config.json: ")]
    assert f"all that it says of images, because of {says}".replace("\\", "") in note


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"architecture": "skresnext8_8x4d"}, FormatError, "cannot compute"),
        ({"global_pool": "max", "model_args": {}}, FormatError, "with global_pool"),
        ({"model_args": {"global_pool": ""}}, FormatError, "with global_pool"),
        ({"model_args": {"output_stride": 4}}, FormatError, "with output_stride"),
        ({"model_args": {"unheard_of": 1}}, FormatError, "with unheard_of"),
        ({"num_classes": 4}, ShapeError, "says 4 classes, and the tensors have 3"),
        ({"label_names": ["a", "b"]}, Exception, "2 labels, and the tensors have 3"),
        ({"label_names": [1, 2, 3]}, FormatError, "--labels FILE"),
        ({"label_names": "abc"}, FormatError, "--labels FILE"),
        ({"label_names": {"0": "a", "2": "b"}}, FormatError, "without gaps"),
    ],
)
def test_refused(hub, changes, error, says):
    with pytest.raises(error, match=says):
        cases.read_checkpoint(hub(**changes))


@pytest.mark.parametrize("labels", ["abc", [1, 2, 3], {"0": "a", "2": "b"}])
def test_labels_that_are_given_stand_for_those_that_cannot_be_read(hub, labels):
    assert (
        cases.read_checkpoint(hub(label_names=labels), labels=tuple("xyz")).stored.labels[0] == "x"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"architecture": "resnextaa8_8x4d"'])
def test_a_damaged_config_of_a_folder_that_was_named(hub, text):
    """It may have named a network with the same tensors, which computes something else."""
    folder = hub()
    (folder / "config.json").write_text(text)
    for path in (folder, folder / "config.json"):
        with pytest.raises(FormatError, match=r"config\.json is no JSON object"):
            cases.read_checkpoint(path)
    assert cases.read_checkpoint(folder / "model.safetensors").stored.spec == TINY


def test_numbers_and_licences_of_another_kind_are_named(hub):
    _, notes = cases.read_checkpoint(hub(prepared(license=["mit"]), num_classes="4"))
    said = "\n".join(notes)
    assert "not taken from config.json: num_classes '4'" in said
    assert "not taken from config.json: license ['mit']" in said


def test_a_label_that_cannot_be_shown(hub, tmp_path):
    stored, _ = cases.read_checkpoint(hub(label_names=["a", "b\x1b[2J", "c"]))
    with pytest.raises(FormatError, match="without control characters"):
        store.write(tmp_path / "m.h5", stored)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(FormatError, match="a folder without model"):
        cases.read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FormatError, match="a folder without"):
        cases.read_checkpoint(tmp_path / "config.json")


# -- parts


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize(
    ("pack", "suffix"), [(ff.safe_file, "safetensors"), (torch_part, "bin")], ids=["safe", "torch"]
)
def test_parts_are_one_checkpoint(tmp_path, pack, suffix, count):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    parts(tmp_path, count=count, pack=pack, suffix=suffix)
    stored, _ = cases.read_checkpoint(tmp_path)
    (tmp_path / "whole.safetensors").write_bytes(ff.safe_file(WEIGHTS))
    whole, _ = cases.read_checkpoint(tmp_path / "whole.safetensors")
    assert bits(stored.params) == bits(whole.params)
    assert (stored.spec, stored.labels, stored.preprocess) == (
        TINY,
        ("cat", "dog", "eel"),
        PREPARED,
    )
    assert len(stored.provenance["sha256"]) == 64


def test_parts_behind_a_prefix(tmp_path):
    parts(tmp_path, {f"module.{name}": array for name, array in WEIGHTS.items()}, pack=torch_part)
    found = container.read(tmp_path / INDEX)
    assert (found.prefix, bits(found.tensors)) == ("module.", bits(WEIGHTS))


def test_imagenets_labels(tmp_path):
    """timm's own folders for ImageNet have no names of classes."""
    spec = Spec((1, 1), 8, 4, 1000, expansion=1)
    parts(tmp_path, cases.weights(spec))
    stored, _ = cases.read_checkpoint(tmp_path)
    assert stored.labels == imagenet_labels()


def changed(index, **changes):
    """Return the text of an index with other files for some tensors; None leaves one out."""
    found = index["weight_map"] | {name.replace("__", "."): to for name, to in changes.items()}
    return json.dumps({"weight_map": {name: to for name, to in found.items() if to is not None}})


LAST = [name.replace(".", "__") for name in list(WEIGHTS)[2 * len(WEIGHTS) // 3 :]]
PART = "model-00001-of-00003.safetensors"
WRONG = {
    "of-another-part": ({"fc__bias": PART}, FormatError, "fc.bias"),
    "left-out": ({"fc__bias": None}, FormatError, "'fc.bias' is in it, which the index"),
    "not-there": ({"other__bias": PART}, FormatError, "'other.bias' is not in it"),
    "missing": ({"fc__bias": "model.safetensors"}, FormatError, "there is no model"),
    "fewer": (dict.fromkeys(LAST), FormatError, "names 2 parts, and by their names there are 3"),
    "lost": ({"fc__bias": "model-00004-of-00004.safetensors"}, FormatError, "there is no model"),
    "parent": ({"fc__bias": "../secret"}, UnsafeError, "not the name of a file in the same folder"),
    "dots": ({"fc__bias": ".."}, UnsafeError, "same folder"),
    "absolute": ({"fc__bias": "/etc/hostname"}, UnsafeError, "same folder"),
    "windows": ({"fc__bias": "..\\secret"}, UnsafeError, "same folder"),
    "drive": ({"fc__bias": "c:secret"}, UnsafeError, "same folder"),
    "nul": ({"fc__bias": "a\0b"}, UnsafeError, "same folder"),
    "empty": ({"fc__bias": ""}, UnsafeError, "same folder"),
    "itself": ({"fc__bias": INDEX}, FormatError, "JSON text without weights"),
    "folder": ({"fc__bias": "sub"}, FormatError, "is a directory"),
    "pipe": ({"fc__bias": "pipe"}, FormatError, "a pipe, a device or a socket"),
    "link": ({"fc__bias": "link"}, UnsafeError, "a link that leads out of its folder"),
    "device": ({"fc__bias": "zero"}, UnsafeError, "a link that leads out of its folder"),
    "text": ({"fc__bias": 3}, FormatError, "does not say the file of each tensor"),
    "name": ({"fc__bias/..//x": PART}, FormatError, "is not a name that a network's tensors"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_index(tmp_path, case):
    """Nothing outside the folder is opened, and nothing but what the index and the folder name."""
    folder, (changes, error, says) = tmp_path / "hub", WRONG[case]
    folder.mkdir()
    (tmp_path / "secret").write_bytes(ff.safe_file(WEIGHTS))
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("../secret")
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe")
    (folder / INDEX).write_text(changed(parts(folder), **changes))
    with watching() as events, pytest.raises(error, match=says):
        container.read(folder / INDEX)
    assert all(kind == "open" and os.path.dirname(path) == str(folder) for kind, path in events)
    assert not {str(folder / "link"), str(folder / "zero")} & {path for _, path in events}
    assert len(str(events)) < 2000


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", FormatError),
        ('{"weight_map": {}}', FormatError),
        ('{"weight_map": 3}', FormatError),
        ('{"weight_map": {"a.b": "x", "a.b": "y"}}', UnsafeError),
        ('{"weight_map": {"a.b": "x"}, "n": 1.5}', FormatError),
        ('{"weight_map": {"a": "x"}, "b": ' + "[" * 50_000, FormatError),
        ('{"weight_map": {"a": "x"}, "b": "' + "x" * (3 << 20), UnsafeError),
        (json.dumps({"weight_map": {f"a.b{i}": f"p{i}" for i in range(500)}}), UnsafeError),
    ],
    ids=lambda text: str(text)[:24],
)
def test_what_is_no_index(tmp_path, text, error):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(error):
        container.read(tmp_path / INDEX)


def test_the_cache_of_the_hub(tmp_path):
    """Its files are links to blobs, and from there to blobs of the whole cache."""
    model = tmp_path / "hub" / "models--timm--x"
    folder, blobs, shared = model / "snapshots" / "1", model / "blobs", tmp_path / "hub" / "blobs"
    for place in (folder, blobs, shared / "ab"):
        place.mkdir(parents=True)
    index = parts(tmp_path)
    for i, name in enumerate(sorted(set(index["weight_map"].values()))):
        (tmp_path / name).rename((shared / "ab" if i else blobs) / f"{i}")
        if i:
            (blobs / f"{i}").symlink_to(f"../../blobs/ab/{i}")
        (folder / name).symlink_to(f"../../blobs/{i}")
    (blobs / "index").write_text((tmp_path / INDEX).read_text())
    (blobs / "config").write_text(json.dumps(CONFIG))
    (folder / INDEX).symlink_to("../../blobs/index")
    (folder / "config.json").symlink_to("../../blobs/config")
    assert cases.read_checkpoint(folder).stored.labels == ("cat", "dog", "eel")
    other = tmp_path / "other"
    (other / "snapshots" / "1").mkdir(parents=True)
    (other / "blobs").mkdir()
    for path in folder.iterdir():
        (other / "snapshots" / "1" / path.name).symlink_to(os.path.realpath(path))
    with pytest.raises(UnsafeError, match="a link that leads out of its folder"):
        cases.read_checkpoint(other / "snapshots" / "1")


def test_a_config_that_is_a_link(hub, tmp_path):
    folder = hub(None)
    (tmp_path / "secret").write_text(json.dumps(CONFIG))
    (folder / "config.json").symlink_to(tmp_path / "secret")
    with watching() as events, pytest.raises(UnsafeError, match="is a link that leads out"):
        cases.read_checkpoint(folder)
    assert [path for kind, path in events if kind == "open"] == [str(folder / "model.safetensors")]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow, id="10000")])
def test_mutated_index(tmp_path, count):
    """A typed error, or exactly the original tensors."""
    small = {name: WEIGHTS[name] for name in ("conv1.weight", "bn1.weight", "fc.bias")}
    parts(tmp_path, small, count=2)
    data = (tmp_path / INDEX).read_bytes()
    original, read = container.read(tmp_path / INDEX).tensors, 0
    for _, found in accepted(tmp_path / INDEX, mutations(data, count, seed=19)):
        read += 1
        assert bits(found.tensors) == bits({name: original[name] for name in found.tensors})
        assert set(found.tensors) == set(small)
    assert 0 < read < count


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.slow)])
def test_mutated_config(hub, count):
    """A typed error, or a model whose weights are the same; the rest is passed over."""
    folder = hub()
    data = (folder / "config.json").read_bytes()
    for text in mutations(data, count, seed=20):
        (folder / "config.json").write_bytes(text)
        try:
            stored, _ = cases.read_checkpoint(folder)
        except (WeightsError, UsageError):
            continue
        assert stored.spec == TINY
        assert np.array_equal(stored.params["fc.bias"], WEIGHTS["fc.bias"])
