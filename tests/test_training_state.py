"""The state of a run: it is stored and read exactly, and other files are refused."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import training_cases as small

from tinyresnext import Spec
from tinyresnext.errors import FormatError, IntegrityError, ShapeError, UsageError, WeightsError
from tinyresnext.training.record import state as training_state
from tinyresnext.training.record.folder import TrainingFolder
from tinyresnext.training.record.state import State
from tinyresnext.training.weights import size


@pytest.fixture
def state():
    """In the middle of a run."""
    values = np.abs(np.random.default_rng(0).standard_normal(size(small.SPEC))).astype(np.float32)
    made = training_state.new(small.SPEC, small.RECIPE, values)
    made.velocity[...] = 2
    made.run = {"images": "70 of them", "frozen": "conv1 bn1"}
    made.origin = {"command": "tinyresnext train a --out b", "place": "/home/c"}
    return replace(
        made,
        epoch=2,
        step=3,
        loss=0.1 + 0.2,
        correct=17,
        seconds=1.5,
        top1=0.25,
        best=0.5,
        tried=8,
        waited=1,
        threads=2,
        log_bytes=123,
    )


def parts(path):
    """The members of the zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def npy(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def with_meta(members, **changes):
    meta = json.loads(np.load(io.BytesIO(members["meta.npy"])).tobytes()) | changes
    return members | {"meta.npy": npy(np.frombuffer(json.dumps(meta).encode(), np.uint8))}


def test_journey(tmp_path, state):
    training_state.write(tmp_path / "state.npz", state)
    found = training_state.read(tmp_path / "state.npz")
    for name in State.__dataclass_fields__:
        a, b = getattr(state, name), getattr(found, name)
        assert (a.tobytes() == b.tobytes()) if isinstance(a, np.ndarray) else a == b, name
    found.values += 1  # it can be trained on
    assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]


def test_a_loss_that_rounding_brought_below_zero_is_read(tmp_path, state):
    state.loss = -1e-7
    training_state.write(tmp_path / "state.npz", state)
    assert training_state.read(tmp_path / "state.npz").loss == -1e-7


def test_any_damaged_byte_is_found_or_harmless(tmp_path, state):
    path = tmp_path / "state.npz"
    training_state.write(path, state)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for place in [
        *range(0, 200),
        *rng.integers(0, len(whole), 200).tolist(),
        *range(len(whole) - 300, len(whole)),
    ]:
        broken = bytearray(whole)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        try:
            found = training_state.read(path)
        except WeightsError:
            continue
        # A date, a flag or a version in the zip's own directory: what was read is what was written.
        assert found.values.tobytes() == state.values.tobytes()
        assert (found.epoch, found.step, found.loss, found.run) == (
            state.epoch,
            state.step,
            state.loss,
            state.run,
        )


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -1, -22, -100])
def test_cut_short(tmp_path, state, kept):
    path = tmp_path / "state.npz"
    training_state.write(path, state)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match=r"state\.npz"):
        training_state.read(path)


HOSTILE = {
    "pickled": lambda m, s: m | {"values.npy": npy(np.array([{}], object), allow_pickle=True)},
    "a part too much": lambda m, s: m | {"more.npy": m["values.npy"]},
    "a part missing": lambda m, s: {
        name: data for name, data in m.items() if name != "velocity.npy"
    },
    "no average": lambda m, s: {name: data for name, data in m.items() if name != "average.npy"},
    "no meta": lambda m, s: {name: data for name, data in m.items() if name != "meta.npy"},
    "another length": lambda m, s: m | {"values.npy": npy(s.values[:-1])},
    "another type": lambda m, s: (
        m | {"values.npy": npy(s.values.astype(np.float64)[: len(s.values) // 2])}
    ),
    "integers": lambda m, s: m | {"values.npy": npy(s.values.astype(np.int32))},
    "two dimensions": lambda m, s: m | {"values.npy": npy(s.values[None])},
    "not finite": lambda m, s: (
        m | {"values.npy": npy(np.where(np.arange(len(s.values)) == 7, np.nan, s.values))}
    ),
    "infinite momentum": lambda m, s: m | {"velocity.npy": npy(np.full_like(s.values, np.inf))},
    "negative variances": lambda m, s: m | {"average.npy": npy(-s.values)},
    "says more than it has": lambda m, s: m | {"values.npy": npy(s.values)[:-4]},
    "no array": lambda m, s: m | {"values.npy": b"\x93NUMPY\x01\x00"},
    "a header that is no Python": lambda m, s: (
        m | {"values.npy": m["values.npy"].replace(b"}", b"|", 1)}
    ),
    "the header of another length": lambda m, s: m | {"values.npy": npy(s.values[:-1]) + bytes(4)},
    "version 2": lambda m, s: m | {"values.npy": npy(s.values, version=(2, 0))},
    "a huge header": lambda m, s: (
        m | {"values.npy": npy(s.values).replace(b"(", b"(" + b"9" * 12, 1)}
    ),
    "meta no JSON": lambda m, s: m | {"meta.npy": npy(np.frombuffer(b"{", np.uint8))},
    "meta no object": lambda m, s: m | {"meta.npy": npy(np.frombuffer(b"[]", np.uint8))},
    "meta not UTF-8": lambda m, s: m | {"meta.npy": npy(np.frombuffer(b"\xff\xfe\x00", np.uint8))},
    "meta deep": lambda m, s: m | {"meta.npy": npy(np.frombuffer(b"[" * 100_000, np.uint8))},
    "meta long": lambda m, s: m | {"meta.npy": npy(np.zeros(2 << 20, np.uint8))},
    "another format": lambda m, s: with_meta(m, format="x"),
    "epoch a text": lambda m, s: with_meta(m, epoch="1"),
    "step below zero": lambda m, s: with_meta(m, step=-1),
    "epoch beyond the recipe": lambda m, s: with_meta(m, epoch=99),
    "waited beyond the recipe": lambda m, s: with_meta(m, waited=99),
    "accuracy beyond one": lambda m, s: with_meta(m, best=2.0),
    "endless loss": lambda m, s: with_meta(m, loss=float("inf")),
    "loss a text": lambda m, s: with_meta(m, loss="1"),
    "run a list": lambda m, s: with_meta(m, run=[]),
    "origin a text": lambda m, s: with_meta(m, origin="train"),
    "origin of lists": lambda m, s: with_meta(m, origin={"command": ["train"]}),
    "run of numbers": lambda m, s: with_meta(m, run={"images": 1}),
    "another recipe": lambda m, s: with_meta(m, recipe={"epochs": 1}),
    "a recipe out of range": lambda m, s: with_meta(m, recipe=small.RECIPE.to_json() | {"lr": -1}),
    "another network": lambda m, s: with_meta(
        m, spec=Spec((2, 1), 2, 8, 4, stem="cifar").to_json()
    ),
    "an endless network": lambda m, s: with_meta(m, spec=Spec((1000,) * 8, 4096, 4096).to_json()),
    "no network": lambda m, s: with_meta(m, spec={"blocks": 3}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path, state, name):
    path = tmp_path / "state.npz"
    training_state.write(path, state)
    write(path, HOSTILE[name](parts(path), state))
    with pytest.raises((FormatError, ShapeError, IntegrityError), match=r"state\.npz"):
        training_state.read(path)


def test_compressed_or_foreign(tmp_path, state):
    path = tmp_path / "state.npz"
    training_state.write(path, state)
    write(path, parts(path), zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="compressed"):
        training_state.read(path)
    for content in (b"", b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            training_state.read(path)
    with pytest.raises(FormatError, match="directory"):
        training_state.read(tmp_path)


def test_members_of_the_same_name(tmp_path, state):
    path = tmp_path / "state.npz"
    training_state.write(path, state)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("values.npy", npy(state.values))
    with pytest.raises(FormatError, match="two members"):
        training_state.read(path)


def test_a_folder_has_one_run(tmp_path, state):
    folder = TrainingFolder(tmp_path / "deep" / "run")
    with pytest.raises(UsageError, match=r"no .*state\.npz to resume"):
        folder.resume(state)
    assert not folder.path.exists()
    folder.path.mkdir(parents=True)
    other = folder.path / ".0123456789abcdef.tmp"  # another process may be writing it
    other.touch()
    folder.begin(state)
    assert other.exists()
    with pytest.raises(UsageError, match="--resume"):
        folder.begin(state)
    assert folder.resume(state).epoch == 2


def test_one_process_at_a_time(tmp_path, state):
    folder = TrainingFolder(tmp_path / "run")
    with folder.run(state, resume=False):
        before = folder.state.read_bytes()
        for resume in (True, False):
            with (
                pytest.raises(UsageError, match="another process trains"),
                TrainingFolder(tmp_path / "run").run(state, resume),
            ):
                pass
        assert folder.state.read_bytes() == before
    with folder.run(state, resume=True) as found:
        assert found.epoch == 2
    nowhere = TrainingFolder(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="to resume"), nowhere.run(state, resume=True):
        pass
    assert not nowhere.path.exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda s: replace(s, recipe=s.recipe.changed({"lr": 0.5})), r"has lr 0\.1, and not 0\.5"),
        (
            lambda s: replace(s, recipe=s.recipe.changed({"lr": 0.5, "epochs": 9})),
            r"epochs 3, and not 9 \(and so differ: lr\)",
        ),
        (
            lambda s: replace(s, run=s.run | {"images": "other"}),
            "images '70 of them', and not 'other'",
        ),
        (lambda s: replace(s, run=s.run | {"frozen": ""}), "frozen"),
    ],
)
def test_another_run_is_not_resumed(tmp_path, state, change, text):
    folder = TrainingFolder(tmp_path)
    folder.begin(state)
    with pytest.raises(UsageError, match=text):
        folder.resume(change(state))


def test_another_network_is_not_resumed(tmp_path, state):
    folder = TrainingFolder(tmp_path)
    folder.begin(state)
    other = Spec((2, 1), 2, 8, 4, stem="cifar", expansion=1)
    with pytest.raises(UsageError, match="network"):
        folder.resume(training_state.new(other, small.RECIPE, np.zeros(size(other), np.float32)))


def test_a_folder_that_cannot_be(tmp_path, state):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made"):
        TrainingFolder(tmp_path / "file" / "run").begin(state)
    with pytest.raises(UsageError, match="cannot be made"):
        TrainingFolder("a\0b").begin(state)


def test_a_run_that_does_not_say_the_initial_model_is_given_it(tmp_path, state):
    """All ranks compare the state with what they would begin with."""
    folder, now = TrainingFolder(tmp_path), replace(state, run=state.run | {"initial model": "abc"})
    folder.begin(state)
    assert folder.resume(now).run == now.run
