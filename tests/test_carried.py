"""A model comes back whole from its export, and a false description beside the tensors does not."""

from __future__ import annotations

import json
import shlex
import shutil
import struct
import zipfile
from dataclasses import replace

import cases
import numpy as np
import pytest

from tinyresnext import Preprocess, Spec, load, load_checkpoint
from tinyresnext.checkpoints import carried, export
from tinyresnext.checkpoints.readers.checkpoint import MAX_CARRIED
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UnsafeError, WeightsError
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.network.spec import variant
from tinyresnext.store import store
from tinyresnext.store.contents import json_text

SPEC = Spec((1, 1), 4, 8, 3, stem="pooled", avg_down=True, eps=1e-3, stride_on=1)
WRITERS = {
    ".pth": export.write_pth,
    ".npz": export.write_npz,
    ".safetensors": export.write_safetensors,
}
SUFFIXES = list(WRITERS)


def model(spec=SPEC, **changes):
    """Return a model in which nothing is what `convert` assumes."""
    stored = store.Stored(
        spec,
        cases.weights(spec, counters=False),
        Preprocess(40, 36, "bicubic", (0.1, 0.2, 1 / 3), (0.4, 0.5, 0.7)),
        ("caf\u00e9", 'a "b"', "\u732b"),
        {"source": "a net", "sha256": "0" * 64, "licence": "CC0-1.0", "page": "x"},
    )
    return stored._replace(**changes)


def described(stored=None, **changes):
    """Return the text that is carried, with some of its fields changed."""
    return json_text(json.loads(carried.written(stored or model())) | changes)


def same(found, expected):
    """All that decides a prediction is the same, to the bit."""
    assert (found.spec, found.preprocess) == (expected.spec, expected.preprocess)
    assert tuple(found.labels) == tuple(expected.labels)
    assert list(found.params) == list(expected.params)
    for name, array in expected.params.items():
        assert found.params[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_model_comes_back(run, suffix, half):
    store.write("a.h5", model(), half=half)
    assert run("export", "a.h5", f"a{suffix}")[0] == 0
    options = ["--half"] if half else []
    code, _, err = run("convert", f"a{suffix}", "b.h5", *options)
    assert (code, err.count("found: ")) == (0, 3)
    assert carried.FOUND in err
    assert "assumed" not in err
    before, after = store.read("a.h5"), store.read("b.h5")
    same(after, before)
    assert store.digests("a.h5").model == store.digests("b.h5").model
    assert after.provenance["licence"] == "CC0-1.0"
    assert after.provenance["page"] == "x"
    assert after.provenance["original_source"] == "a net"
    assert after.provenance["source"] == f"a{suffix}"
    x = np.random.default_rng(0).random((2, 36, 36, 3), np.float32)
    logits = [load(name, device="reference")(x) for name in ("a.h5", "b.h5")]
    assert logits[0].tobytes() == logits[1].tobytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_bundled_model_comes_back(run, suffix):
    assert run("export", f"x{suffix}")[0] == 0
    assert run("convert", f"x{suffix}", "back.h5", "--half")[0] == 0
    same(store.read("back.h5"), store.read(shipped_model()))
    assert store.digests("back.h5").model == store.digests(shipped_model()).model
    assert load_checkpoint(f"x{suffix}").labels == load("back.h5").labels


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_second_journey_keeps_the_first_origin(run, suffix):
    store.write("a.h5", model())
    for _ in range(2):
        assert run("export", "a.h5", f"a{suffix}", "--force")[0] == 0
        assert run("convert", f"a{suffix}", "a.h5", "--force")[0] == 0
    assert store.read("a.h5").provenance["original_source"] == "a net"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_models_make_equal_files(run, suffix):
    store.write("a.h5", model())
    for name in ("a", "b"):
        run("export", "a.h5", f"{name}{suffix}")
    with open(f"a{suffix}", "rb") as one, open(f"b{suffix}", "rb") as other:
        assert one.read() == other.read()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_options_override(run, tmp_path, suffix):
    store.write("a.h5", model())
    run("export", "a.h5", f"a{suffix}")
    (tmp_path / "names").write_text("x\ny\nz\n")
    options = ["--stem", "cifar", "--labels", "names", "--resize", "48"]
    options += ["--mean", "0,0,0", "--licence", "MIT"]
    code, _, err = run("convert", f"a{suffix}", "b.h5", *options)
    assert code == 0
    assert "found, but for the stem: " in err
    found = store.read("b.h5")
    assert found.spec == replace(SPEC, stem="cifar")
    assert found.labels == ("x", "y", "z")
    assert found.preprocess == replace(model().preprocess, resize=48, mean=(0.0, 0.0, 0.0))
    assert found.provenance["licence"] == "MIT"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_the_description_the_command_restores_it(run, tmp_path, suffix):
    stored = model(replace(SPEC, eps=1e-5, stride_on=2))
    images = replace(stored.preprocess, mean=(-0.05, 0.2, 1.5), std=(1.2, 0.5, 10))
    provenance = stored.provenance | {"licence": "-"}
    stored = stored._replace(preprocess=images, provenance=provenance)
    store.write("a.h5", stored)
    _, _, err = run("export", "a.h5", f"a{suffix}")
    assert "the tensors do not record that stem is 'pooled'" in err
    WRITERS[suffix](f"a{suffix}", stored.params)  # as another program would
    (tmp_path / "FILE").write_text("\n".join(stored.labels), "utf-8")
    command = shlex.split(err.splitlines()[-1].partition("one a line: ")[2])
    assert command[:3] == ["tinyresnext", "convert", f"a{suffix}"]
    code, _, err = run(*command[1:], "--force")
    assert (code, carried.FOUND in err) == (0, False)
    same(store.read("a.h5"), stored)
    assert store.read("a.h5").provenance["licence"] == "-"


@pytest.mark.parametrize("untold", [{"dilated": 1}, {"stride_on": 1}])
def test_a_name_keeps_what_it_does_not_say(run, untold):
    """No name says an epsilon, a dilation, or strides on the first 1x1."""
    spec = replace(variant("resnext29_32x4d"), classes=3, eps=1e-3, **untold)
    stored = model(spec, params=cases.weights(spec, counters=False))
    store.write("a.h5", stored)
    run("export", "a.h5", "a.npz")
    code, _, err = run("convert", "a.npz", "b.h5", "--arch", "resnext29_32x4d")
    assert (code, carried.FOUND_BESIDE in err, carried.FOUND in err) == (0, True, False)
    first = "3x3" if spec.stride_on == 2 else "first 1x1"
    assert f"found: batch norm epsilon 0.001, the {first} convolutions stride" in err
    same(store.read("b.h5"), stored)
    if not spec.dilated:
        return
    assert (
        run("convert", "a.npz", "c.h5", "--arch", "resnext29_32x4d", "--output-stride", "4")[0] == 0
    )
    assert store.read("c.h5").spec == replace(spec, dilated=0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arch_of_other_classes_takes_nothing(tmp_path, suffix):
    """Another program replaced the classifier and kept the description."""
    path = tmp_path / f"a{suffix}"
    other = replace(SPEC, classes=5)
    WRITERS[suffix](path, cases.weights(other, counters=False), carried=described())
    with pytest.raises(ShapeError, match=r"fc\.weight .*--arch NAME"):
        cases.read_checkpoint(path)
    stored, notes = cases.read_checkpoint(path, arch=other)
    assert any(note.startswith(carried.NOT_TAKEN) for note in notes)
    assert carried.FOUND not in notes
    assert stored.labels[0] == "class 0"
    assert "page" not in stored.provenance


def test_a_long_description_is_left_out_and_said(run, tmp_path):
    labels = tuple(f"{i:0250}" for i in range(4000))
    spec = Spec((1,), 1, 8, 4000)
    store.write("a.h5", model(spec, params=cases.weights(spec, counters=False), labels=labels))
    code, _, err = run("export", "a.h5", "a.npz")
    assert code == 0
    assert f"only the tensors are in it, the rest has over {MAX_CARRIED:,} bytes" in err
    assert carried.FOUND not in run("convert", "a.npz", "b.h5")[2]


def test_a_missing_description_is_said_where_no_option_restores_anything():
    spec = Spec((1,), 1, 8, 3)
    usual = store.Stored(spec, {}, Preprocess(), ("class 0", "class 1", "class 2"), {})
    says = f"only the tensors are in it, the rest has over {MAX_CARRIED:,} bytes"
    for graph, quantised in ((False, False), (True, False), (True, True)):
        notes = carried.export_notes(usual, "a", "", graph, quantised=quantised)
        assert (says in notes, "metadata" in "".join(notes)) == (True, False)
        assert says not in carried.export_notes(usual, "a", "{}", graph, quantised=quantised)


@pytest.mark.parametrize(("graph", "quantised"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, ""),
        ({"classes": 0, "head": "sigmoid"}, ""),
        ({"head": "sigmoid"}, "outputs are logits for a sigmoid: each label"),
        ({"classes": 1, "head": "sigmoid"}, "a logit, whose sigmoid is the probability of the sec"),
    ],
)
def test_every_format_says_how_images_are_prepared_and_what_outputs_are(
    graph, quantised, changes, says
):
    spec = replace(SPEC, **changes)
    stored = model(spec, labels=tuple(f"class {i}" for i in range(spec.labels)))
    notes = carried.export_notes(stored, "a", "{}", graph, quantised=quantised)
    assert sum(stored.preprocess.described() in note for note in notes) == 1
    assert sum("sigmoid" in note and "--head" not in note for note in notes) == bool(says)
    assert says in "".join(notes)
    other = stored._replace(spec=replace(spec, channels=5))  # arrays, and no pictures
    notes = carried.export_notes(other, "a", "{}", graph, quantised=quantised)
    assert "resized" not in "".join(notes)


# -- other readers


def test_numpy_reads_it(tmp_path):
    export.write_npz(tmp_path / "a.npz", model().params, carried=described())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert found.files == [*model().params, "__tinyresnext__"]
        assert json.loads(found["__tinyresnext__"].tobytes())["labels"] == list(model().labels)
        np.savez_compressed(tmp_path / "b.npz", **dict(found))
    same(cases.read_checkpoint(tmp_path / "b.npz").stored, model())


def test_torch_passes_over_it(tmp_path):
    torch = pytest.importorskip("torch")
    export.write_pth(tmp_path / "a.pth", model().params, carried=described())
    for options in ({}, {"mmap": True}):
        found = torch.load(tmp_path / "a.pth", weights_only=True, **options)
        assert list(found) == list(model().params)


def test_the_safetensors_library_reads_it(tmp_path):
    library = pytest.importorskip("safetensors")
    export.write_safetensors(
        tmp_path / "a.safetensors", model().params, {"format": "pt"}, carried=described()
    )
    with library.safe_open(tmp_path / "a.safetensors", "np") as found:
        assert found.metadata() == {"format": "pt", "tinyresnext": described()}
        assert set(found.keys()) == set(model().params)


# -- false descriptions


def _with(document, **changes):
    return json.loads(described())[document] | changes


FALSE = {
    "not-json": ("{", FormatError),
    "nothing-but-space": (" ", FormatError),
    "a-list": ("[]", FormatError),
    "text": ('"tinyresnext"', FormatError),
    "null": ("null", FormatError),
    "deep": ("[" * 100_000, FormatError),
    "spaces": (described() + " ", FormatError),
    "twice": (described()[:-1] + ',"spec":{}}', FormatError),
    "nan": (described()[:-1] + ',"z":NaN}', FormatError),
    "digits": ("1" * 10_000, FormatError),
    "version-2": (described(format_version="2"), FormatError),
    "version-number": (described(format_version=1), FormatError),
    "version-list": (described(format_version=["1"]), FormatError),
    "no-version": (described().replace("format_version", "format_revision"), FormatError),
    "another-field": (described(more=1), FormatError),
    "a-field-less": (described().replace('"labels"', '"lapels"'), FormatError),
    "spec-text": (described(spec="resnext50_32x4d"), FormatError),
    "spec-field": (described(spec=_with("spec", more=1)), FormatError),
    "spec-stem": (described(spec=_with("spec", stem="other")), FormatError),
    "spec-stem-list": (described(spec=_with("spec", stem=["pooled"])), FormatError),
    "spec-eps": (described(spec=_with("spec", eps=0.0)), FormatError),
    "spec-bool": (described(spec=_with("spec", cardinality=True)), FormatError),
    "spec-width": (described(spec=_with("spec", width=16)), ShapeError),
    "spec-deep-stem": (described(spec=_with("spec", stem="deep")), ShapeError),
    "spec-7x7": (described(spec=_with("spec", stem="imagenet")), ShapeError),
    "spec-channels": (described(spec=_with("spec", channels=1)), ShapeError),
    "spec-endless": (described(spec=_with("spec", blocks=[1000] * 8)), ShapeError),
    "spec-classes": (
        described(spec=_with("spec", classes=4), labels=["a", "b", "c", "d"]),
        ShapeError,
    ),
    "labels-few": (described(labels=["a", "b"]), ShapeError),
    "labels-many": (described(labels=["a"] * 4), ShapeError),
    "labels-numbers": (described(labels=[1, 2, 3]), FormatError),
    "labels-terminal": (described(labels=["a", "b", "\x1b[2J"]), FormatError),
    "labels-surrogate": (described(labels=["a", "b", "\ud800"]), FormatError),
    "labels-reversed": (described(labels=["a", "b", "\u202e"]), FormatError),
    "preprocess-crop": (described(preprocess=_with("preprocess", crop=0)), FormatError),
    "preprocess-side": (described(preprocess=_with("preprocess", crop=10**6)), FormatError),
    "preprocess-mean": (described(preprocess=_with("preprocess", mean=[1])), FormatError),
    "preprocess-field": (described(preprocess={}), FormatError),
    "provenance-list": (described(provenance=[]), FormatError),
    "provenance-number": (described(provenance={"licence": 1}), FormatError),
    "provenance-terminal": (described(provenance={"licence": "\x1b"}), FormatError),
    "provenance-long": (described(provenance={"licence": "x" * (1 << 16)}), UnsafeError),
    "long": ("[" + "0," * MAX_CARRIED + "0]", UnsafeError),
    "longer-than-allowed": ('"' + "x" * (MAX_CARRIED - 1) + '"', UnsafeError),
    "as-long-as-allowed": ('"' + "x" * (MAX_CARRIED - 2) + '"', FormatError),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("text", "error"), FALSE.values(), ids=FALSE)
def test_false_descriptions_are_refused(tmp_path, suffix, text, error):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, model().params, carried=text)
    with pytest.raises(error) as caught:
        cases.read_checkpoint(path)
    assert caught.type is error
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_checks_are_those_of_a_true_description(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, model().params, carried=described())
    same(cases.read_checkpoint(path).stored, model())


@pytest.mark.parametrize(
    "array",
    [np.zeros(4, np.float32), np.zeros((2, 2), np.uint8), np.zeros(4, np.int8), np.uint8(1)],
)
def test_an_array_that_is_no_text(tmp_path, array):
    np.savez(tmp_path / "a.npz", **model().params, __tinyresnext__=array)
    with pytest.raises(FormatError, match="row of bytes"):
        cases.read_checkpoint(tmp_path / "a.npz")


def test_text_that_is_not_ascii(tmp_path):
    raw = np.frombuffer("caf\u00e9".encode(), np.uint8)
    np.savez(tmp_path / "a.npz", **model().params, __tinyresnext__=raw)
    with pytest.raises(FormatError, match="not ASCII"):
        cases.read_checkpoint(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".pth", ".npz"])
def test_a_flipped_bit_is_found(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](path, model().params, carried=described())
    data = path.read_bytes()
    assert data.count(b"CC0-1.0") == 1
    path.write_bytes(data.replace(b"CC0-1.0", b"CC0-1.1"))
    with pytest.raises(IntegrityError, match="CRC"):
        cases.read_checkpoint(path)


def test_every_flipped_byte_of_a_header_is_refused_or_another_model(tmp_path):
    """Safetensors has no checksum: what is read is what the file says, or an error of ours."""
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    export.write_safetensors(path, model().params, carried=described())
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    draws = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        changed = bytearray(data)
        changed[8 + draws.integers(min(length, len(described())))] ^= 1 << draws.integers(8)
        other.write_bytes(changed)
        try:
            cases.read_checkpoint(other)
        except WeightsError:
            refused += 1
    assert refused > 50


def test_a_second_member_elsewhere_is_refused(tmp_path):
    export.write_pth(tmp_path / "a.pth", model().params, carried=described())
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "a") as archive:
        archive.writestr("archive/more/tinyresnext.json", described())
    with pytest.raises(FormatError, match="it holds"):
        cases.read_checkpoint(tmp_path / "b.pth")
