"""The command `features`: an HDF5 file of what a stage computes of images."""

from __future__ import annotations

import errno
import json
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from child import child

import tinyresnext as tr
from tinyresnext.cli.main import main
from tinyresnext.errors import UsageError
from tinyresnext.inference.many import batches
from tinyresnext.inference.many.features import save_features
from tinyresnext.inference.many.rows.journal import Journal

DATA = Path(__file__).parent / "data"
PHOTOGRAPHS = sorted(map(str, (DATA / "photographs").rglob("*.jpg")))


@pytest.fixture(scope="module")
def model() -> tr.Model:
    return tr.load()


@pytest.mark.parametrize("stage", ["pooled", "layer2"])
def test_the_file(model, stage, tmp_path):
    """Mini-batches of four, of which the last is smaller, and an image that cannot be read."""
    file, broken = tmp_path / "features.h5", str(DATA / "README.md")
    paths = [*PHOTOGRAPHS[:2], broken, *PHOTOGRAPHS[2:]]
    rows = list(save_features(model, paths, file, stage, batch=4))
    assert [path for path, _ in rows] == paths
    assert [path for path, error in rows if error is not None] == [broken]
    with h5py.File(file) as found:
        assert found["paths"].asstr()[:].tolist() == PHOTOGRAPHS
        assert found.attrs["stage"] == stage
        assert found.attrs["architecture"] == model.spec.name
        values = found["features"][:]
    assert values.dtype == np.float32
    for path, row in zip(PHOTOGRAPHS, values, strict=True):
        x = tr.prepare(path, model.preprocess)[None]
        np.testing.assert_allclose(row, model.features(x)[stage][0], rtol=1e-4, atol=1e-5)


def test_the_command(tmp_path, capsys):
    file = tmp_path / "f.h5"
    words = ["features", str(DATA / "photographs"), "-o", str(file)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"{file}: pooled of {len(PHOTOGRAPHS)} images\n"
    with h5py.File(file) as found:
        assert found["features"].shape == (len(PHOTOGRAPHS), 512)
        before = found["features"][:]
    assert main(words) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--stage", "layer4"]) == 2
    assert "no stage 'layer4': expected one of stem, layer1" in capsys.readouterr().err
    with h5py.File(file) as found:  # what could not be done has changed nothing
        np.testing.assert_array_equal(found["features"][:], before)
    assert main(["features", str(DATA / "README.md"), *words[1:], "--force"]) == 1
    assert "README.md" in capsys.readouterr().err
    image = tmp_path / "cat.jpg"
    image.write_bytes((DATA / "chelsea.jpg").read_bytes())
    assert main(["features", str(image), "-o", str(image), "--force"]) == 2
    assert image.read_bytes() == (DATA / "chelsea.jpg").read_bytes()
    image.unlink()
    assert main(["features", str(tmp_path), "-o", str(tmp_path / "g.h5")]) == 2
    assert not (tmp_path / "g.h5").exists()


def test_no_file_before_the_end(model, tmp_path):
    file = tmp_path / "f.h5"
    rows = save_features(model, PHOTOGRAPHS, file, batch=1)
    next(rows)
    assert not file.exists()
    rows.close()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="cannot write"):
        list(save_features(model, PHOTOGRAPHS, tmp_path / "no" / "f.h5"))


def test_a_whole_file_is_of_its_model(model, tmp_path):
    file = tmp_path / "f.h5"
    list(save_features(model, PHOTOGRAPHS[:1], file))
    assert list(save_features(model, PHOTOGRAPHS[:1], file, resume=True)) == []
    bias = model.params["bn1.bias"] + 1
    other = replace(model, params={**model.params, "bn1.bias": bias})
    with pytest.raises(UsageError, match="with other settings"):
        list(save_features(other, PHOTOGRAPHS[:1], file, resume=True))


def test_a_whole_file_is_of_its_computation(model, tmp_path):
    """The output stride, the precision and the device leave no trace in the weights."""
    file = tmp_path / "f.h5"
    list(save_features(model, PHOTOGRAPHS[:1], file))
    dilated = replace(model, spec=replace(model.spec, dilated=1))
    for other in (dilated, tr.load(device="reference"), tr.load(precision="bfloat16")):
        with pytest.raises(UsageError, match="with other settings"):
            list(save_features(other, PHOTOGRAPHS[:1], file, resume=True))
    with h5py.File(file, "r+") as found:  # as it was written before they were in it
        settings = json.loads(found.attrs["settings"])
        found.attrs["settings"] = json.dumps({k: settings[k] for k in settings if k != "spec"})
    with pytest.raises(UsageError, match="with other settings"):
        list(save_features(model, PHOTOGRAPHS[:1], file, resume=True))


LIMITED = """if True:
    import resource, signal, sys
    import tinyresnext as tr
    from tinyresnext.errors import UsageError
    from tinyresnext.inference.many import features
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    most, assemble = resource.getrlimit(resource.RLIMIT_FSIZE), features.assemble

    def limited(*given):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most[1]))
        try:
            assemble(*given)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, most)

    features.assemble = limited
    model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
    file, image, *limits = sys.argv[1:]
    for limit in map(int, limits):
        try:
            list(features.save_features(model, [image] * 20, file, "stem", resume=True))
        except UsageError as error:
            print(error)"""


GO_ON = "with the run (--resume, resume=True)"


@pytest.mark.skipif(sys.platform == "win32", reason="the system cannot limit the size of files")
def test_no_room_for_the_file(tmp_path):
    """The HDF5 library would end the process, some time after a write that failed."""
    file, limits = tmp_path / "f.h5", [0, 1000, 3000, 300_000, 2_000_000]
    done = child(LIMITED, file, DATA / "chelsea.jpg", *limits, 1 << 30, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == len(limits)
    for line in lines:
        assert line.startswith(f"cannot write {file}: File too large")
        assert line.endswith("f.h5.part has the rows so far: make room, and go on " + GO_ON)
    with h5py.File(file) as found:
        assert len(found["paths"]) == len(found["features"]) == 20


def test_a_full_disk_is_one_error(model, tmp_path, monkeypatch):
    def no_room(self):
        with self.writing():
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "flush", no_room)
    with pytest.raises(UsageError, match="No space left on device; make room, and begin anew"):
        list(save_features(model, PHOTOGRAPHS[:1], tmp_path / "f.h5"))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match=r"No space left .*part has the rows so far: make room"):
        list(save_features(model, PHOTOGRAPHS[:1], tmp_path / "f.h5", resume=True))


def test_what_the_paths_raise_is_not_said_to_be_of_the_file(model, tmp_path):
    """They may come from anywhere. The run goes on all the same."""
    file = tmp_path / "f.h5"

    def paths():
        yield PHOTOGRAPHS[0]
        raise FileNotFoundError(errno.ENOENT, "no such list", "list.txt")

    with pytest.raises(FileNotFoundError, match="no such list"):
        list(save_features(model, paths(), file, batch=1, resume=True))
    assert (tmp_path / "f.h5.part").exists()
    list(save_features(model, PHOTOGRAPHS[:1], file, batch=1, resume=True))
    assert list(tmp_path.iterdir()) == [file]


FULL = """
import resource, sys
import tinyresnext as tr
from tinyresnext.errors import UsageError
from tinyresnext.inference.many import batches
from tinyresnext.inference.many.features import save_features

model = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference")
file, image, limit = sys.argv[1:]
most = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), most[1]))
try:
    list(save_features(model, [image] * 20, file, batch=1, resume=True))
except UsageError as error:
    print(error)"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system cannot limit the size of files")
def test_no_room_for_the_rows(tmp_path):
    """What could not be written fails again when the file is closed, and is the same error."""
    done = child(FULL, file := tmp_path / "f.h5", DATA / "chelsea.jpg", 1000, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    said = "the results cannot be written: File too large; "
    assert done.stdout == f"{said}{file}.part has the rows so far: make room, and go on {GO_ON}\n"


def test_off_the_processor_mini_batches_that_are_found_are_the_same(tmp_path, monkeypatch):
    """Of no size, too: values may depend on it, and only whole mini-batches are kept."""
    monkeypatch.setattr(batches, "_GOES_ON", 2)
    other, sizes = tr.random_model(tr.cifar(11, 1, 4, classes=2), 0, "reference"), []
    real = tr.Model.features

    def features(self, x, stages):
        sizes.append(len(x))
        return real(self, x, stages)

    monkeypatch.setattr(tr.Model, "features", features)
    paths, file = PHOTOGRAPHS[:5], tmp_path / "f.h5"
    rows = save_features(other, paths, file, batch=None, resume=True)
    next(rows)
    rows.close()
    part = tmp_path / "f.h5.part"
    part.write_bytes(part.read_bytes().splitlines(keepends=True)[0])
    sizes.clear()
    list(save_features(other, paths, file, batch=None, resume=True))
    assert sizes == [1, 2, 2, 1]  # the first shows the shape


def test_a_mistake_leaves_the_rows_of_a_run(model, tmp_path):
    file = tmp_path / "f.h5"
    rows = save_features(model, PHOTOGRAPHS, file, batch=2, resume=True)
    next(rows)
    rows.close()
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(kept["f.h5.part"].splitlines()) == 2
    mistakes = [
        (PHOTOGRAPHS[1:], {}),
        (PHOTOGRAPHS, {"batch": 0}),
        (PHOTOGRAPHS, {"fast": True}),
        (PHOTOGRAPHS[0], {}),
        (PHOTOGRAPHS, {"settings": {"size": np.float32(1)}}),
        ([1], {}),
    ]
    for paths, words in mistakes:
        with pytest.raises(UsageError):
            list(save_features(model, paths, file, **words, resume=True))
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept
    paths = [Path(one) for one in PHOTOGRAPHS]
    assert len(list(save_features(model, paths, file, resume=True))) == len(paths) - 2
    assert list(tmp_path.iterdir()) == [file]


def test_settings_that_json_cannot_say(model, tmp_path):
    """The rows of the run before are not dropped for it."""
    file = tmp_path / "f.h5"
    rows = save_features(model, PHOTOGRAPHS, file, batch=2, settings={})
    next(rows)
    rows.close()
    before = (tmp_path / "f.h5.part").read_bytes()
    with pytest.raises(UsageError, match="which JSON cannot say"):
        list(save_features(model, PHOTOGRAPHS, file, settings={"size": np.float32(1)}))
    assert (tmp_path / "f.h5.part").read_bytes() == before
