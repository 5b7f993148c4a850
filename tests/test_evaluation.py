"""Evaluation: counts by hand, the loss by PyTorch, and the command as a user types it."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyresnext
from tinyresnext import Model, Preprocess, Spec, save
from tinyresnext.checkpoints.imagenet import imagenet_labels, imagenet_wnids
from tinyresnext.cli import main as cli
from tinyresnext.data import open_dataset
from tinyresnext.errors import ImageError, IntegrityError, UsageError
from tinyresnext.inference.evaluate import evaluate, score
from tinyresnext.inference.scores import confusion, lettering
from tinyresnext.inference.scores.classes import match_classes, match_numbers
from tinyresnext.network.resnext import parameters
from tinyresnext.ops import reference

ABC = ("a", "b", "c")
LOGITS = np.array(
    [[3, 1, 2], [0, 5, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1], [0, 2, 2], [9, 0, 4]], np.float32
)
LABELS = np.array([0, 0, 0, 1, 2, 2, 2])


def counted(
    logits: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], size: int = 3, **options
):
    """Score given logits, which come in mini-batches of some size."""
    batches = [(logits[i : i + size], labels[i : i + size]) for i in range(0, len(labels), size)]
    return score(lambda x: x, batches, classes, **options)


def test_a_case_counted_by_hand():
    found = counted(LOGITS, LABELS, ABC)
    # Rows of equal logits are answered with the class of the smallest number.
    assert found.confusion.tolist() == [[2, 1, 0], [1, 0, 0], [2, 1, 0]]
    assert (found.pictures, found.top1, found.top5) == (7, 2 / 7, 1.0)
    assert found.among.tolist() == [3, 1, 3]
    assert [tuple(one) for one in found.per_class] == [
        ("a", 3, 2 / 3, 1.0),
        ("b", 1, 0.0, 1.0),
        ("c", 3, 0.0, 1.0),
    ]
    rows = [
        math.log(sum(math.exp(v) for v in row)) - row[label]
        for row, label in zip(LOGITS.tolist(), LABELS, strict=True)
    ]
    assert found.loss == pytest.approx(sum(rows) / 7, rel=1e-14)


def test_calibration_by_hand():
    """Two classes; probabilities of the first: 0.7, 0.72 (one bin of 15), 0.9, and 0.5."""
    parts = np.array([0.7, 0.72, 0.9, 0.5])
    logits = np.log(np.stack([parts, 1 - parts], 1))
    found = counted(logits, np.array([0, 1, 1, 0]), ("a", "b"))
    assert found.calibration.confidence == pytest.approx(parts.mean(), rel=1e-6)
    # In the bin of 0.667 to 0.733 the half is right: 0.71 - 0.5, for two images.
    by_hand = (2 * 0.21 + 0.9 + 0.5) / 4
    assert found.calibration.error == pytest.approx(by_hand, rel=1e-6)
    said = found.to_json()
    assert (said["confidence"], said["calibration_error"]) == tuple(found.calibration)
    assert "confidence     70.50%  mean probability of what is named; calibration error 45.50%" in (
        str(found)
    )


def test_a_sure_and_right_network_is_calibrated():
    found = counted(1000 * np.eye(3, dtype=np.float32), np.arange(3), ABC)
    assert tuple(found.calibration) == (1.0, 0.0)
    wrong = counted(1000 * np.eye(3, dtype=np.float32), np.array([1, 2, 0]), ABC)
    assert tuple(wrong.calibration) == (1.0, 1.0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_change_nothing(size):
    whole, parts = counted(LOGITS, LABELS, ABC, 7), counted(LOGITS, LABELS, ABC, size)
    assert parts.to_json() == whole.to_json()


def test_ties_at_the_fifth_place():
    """With eight equal logits, the right classes 0 to 4 are among the first five."""
    classes = tuple("abcdefgh")
    found = counted(np.zeros((8, 8), np.float32), np.arange(8), classes)
    assert found.among.tolist() == [1] * 5 + [0] * 3
    assert found.confusion[:, 0].tolist() == [1] * 8
    model = Model(Spec(classes=8), {}, Preprocess(), classes, {}, reference)
    assert [p.index for p in model.rank(np.zeros((1, 8), np.float32))[0]] == [
        0,
        1,
        2,
        3,
        4,
    ]  # as it predicts


def test_order_is_that_of_predictions():
    rng = np.random.default_rng(0)
    logits = rng.integers(-3, 4, (400, 9)).astype(np.float32)  # full of ties
    labels = rng.integers(0, 9, 400)
    model = Model(Spec(classes=9), {}, Preprocess(), tuple("abcdefghi"), {}, reference)
    ranked = [[p.index for p in row] for row in model.rank(logits)]
    found = counted(logits, labels, model.labels, 64)
    assert found.top1 == np.mean(
        [row[0] == label for row, label in zip(ranked, labels, strict=True)]
    )
    assert found.top5 == np.mean([label in row for row, label in zip(ranked, labels, strict=True)])
    for truth, answer in np.ndindex(9, 9):
        pairs = [(label, row[0]) for row, label in zip(ranked, labels, strict=True)]
        assert found.confusion[truth, answer] == pairs.count((truth, answer))


def test_the_loss_is_pytorchs():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    logits, labels = (
        (rng.standard_normal((500, 11)) * 30).astype(np.float32),
        rng.integers(0, 11, 500),
    )
    wanted = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits).double(), torch.from_numpy(labels)
    ).item()
    assert counted(logits, labels, tuple("abcdefghijk"), 64).loss == pytest.approx(
        wanted, rel=1e-13
    )


def test_logits_far_apart():
    found = counted(np.array([[1e30, 0, -1e30]], np.float32), np.array([1]), ABC)
    assert found.loss == pytest.approx(float(np.float32(1e30)))


def test_one_class():
    with pytest.raises(UsageError, match="one class means nothing under a softmax"):
        counted(np.zeros((4, 1), np.float32), np.zeros(4, int), ("only",))


def test_two_classes():
    found = counted(np.zeros((4, 2), np.float32), np.zeros(4, int), ("first", "second"))
    assert (found.top1, found.top5, found.loss) == (1.0, 1.0, pytest.approx(math.log(2)))
    assert "top-5" not in str(found)


def test_labels_that_mean_other_classes():
    found = counted(LOGITS, LABELS, ABC, numbers=(2, 0, 1))
    assert found.confusion.sum(1).tolist() == [1, 3, 3]
    assert found.confusion.tolist() == [[1, 0, 0], [2, 1, 0], [2, 1, 0]]


@pytest.mark.parametrize(
    ("logits", "labels", "error", "words"),
    [
        (np.zeros((0, 3), np.float32), np.zeros(0, int), UsageError, "no images"),
        (np.array([[0, np.nan, 0]], np.float32), np.array([0]), IntegrityError, "not finite"),
        (np.zeros((2, 4), np.float32), np.array([0, 1]), UsageError, "logits are"),
        (np.zeros((2, 3), np.float32), np.array([0, 3]), UsageError, "labels run from 0 to 3"),
        (np.zeros((2, 3), np.float32), np.array([-1, 1]), UsageError, "labels run from -1"),
    ],
    ids=["nothing", "nan", "classes", "label-too-large", "label-negative"],
)
def test_what_cannot_be_counted(logits, labels, error, words):
    with pytest.raises(error, match=words):
        counted(logits, labels, ABC)


@pytest.mark.parametrize(
    ("labels", "threshold", "words"),
    [
        (np.eye(4, 3, dtype=int), None, r"the labels are int64 \(4, 3\), expected a list of whole"),
        (np.array([0.0, 1, 2, 0]), None, "the labels are float64"),
        (None, None, r"the labels are object \(\)"),
        ([0, 1, 2, 0], 0.5, "decides between two classes, and there are 3"),
    ],
)
def test_labels_that_cannot_be(labels, threshold, words):
    with pytest.raises(UsageError, match=words):
        score(lambda x: x, [(np.zeros((4, 3)), labels)], "abc", threshold=threshold)


def test_thresholds_of_two_classes():
    for threshold in (-0.1, 1.1, True, math.nan):
        with pytest.raises(UsageError, match="expected a probability from 0 to 1"):
            score(lambda x: x, [(np.zeros((4, 2)), [0, 1, 1, 0])], "ab", threshold=threshold)
    found = score(lambda x: x, [(np.zeros((4, 2)), [0, 1, 1, 1])], "ab", threshold=0.5)
    assert found.confusion.tolist() == [[0, 1], [0, 3]]


def test_an_evaluation_stays_as_it_is():
    found = counted(LOGITS, LABELS, ABC)
    with pytest.raises(ValueError, match="read-only"):
        found.confusion[0, 0] = 9
    with pytest.raises(AttributeError):
        found.loss = 0.0


def test_text_of_an_evaluation():
    found = counted(LOGITS, LABELS, ABC)
    assert "28.57%" in str(found)
    assert "c                   3    0.00%  a 2, b 1" in str(found).splitlines()
    assert list(found.table())[3] == ["c", 3, 0.0, 1.0, 2, 1, 0]


# Classes by name


def test_classes_are_matched_by_name():
    assert match_classes(("cat", "dog", "snow leopard"), ("dog", "cat")) == (1, 0)
    assert match_classes(("cat", "dog", "snow leopard"), ("Snow_Leopard", "DOG")) == (2, 1)
    assert match_classes(("a-b", "a b"), ("a b", "a-b")) == (
        1,
        0,
    )  # a name that is there is taken as it is
    assert match_classes(("crane", "crane"), ("crane", "crane")) == (0, 1)  # as in ImageNet


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        (("0", "1"), ("cat", "dog"), "class 'cat', and the model has no such label"),
        (("crane", "crane", "dog"), ("crane",), "2 labels of the model have"),
        (("cat", "dog"), ("cat", "Cat"), "two classes of the data set match"),
        (tuple(map(str, range(1000))), ("x" * 5000,), "no such label"),
    ],
    ids=["numbers", "ambiguous", "twice", "endless"],
)
def test_classes_that_cannot_be_matched(labels, classes, words):
    with pytest.raises(UsageError, match=words):
        match_classes(labels, classes)


WNIDS = {"n01440764": 0, "n02102040": 217, "n02979186": 482, "n15075141": 999}
TIMM = tuple(f"{name}, or so" for name in imagenet_labels())


@pytest.mark.parametrize("labels", [imagenet_labels(), TIMM, ("own", *imagenet_labels()[1:])])
@pytest.mark.parametrize("form", ["{}", "{}-name", "{}_name", "{} a name"])
def test_wordnet_ids_are_understood(labels, form):
    classes = [form.format(wnid) for wnid in WNIDS]
    assert match_classes(labels, classes) == tuple(WNIDS.values())
    assert match_classes(labels, ["N02102040", labels[1]]) == (217, 1)


def test_wordnet_ids_of_other_classes_and_models_are_refused():
    for labels, name in (
        (imagenet_labels(), "n00000001"),
        (imagenet_labels(), "n014407640"),
        (imagenet_labels(), "n01440764x"),
        (tuple(map(str, range(1000))), "n01440764"),
        (imagenet_labels()[::-1], "n01440764"),
        (imagenet_labels()[:999], "n01440764"),
    ):
        with pytest.raises(UsageError, match="no such label"):
            match_classes(labels, [name])
    assert match_classes(("n01440764", "dog"), ["n01440764"]) == (0,)
    synsets = ("dog", "n01440764 tench, Tinca tinca", "N01443537")
    assert match_classes(synsets, ["n01443537_goldfish", "n01440764"]) == (2, 1)
    with pytest.raises(UsageError, match="match the same label"):
        match_classes(imagenet_labels(), ["n01440764", "tench"])


def test_wordnet_ids_are_in_order():
    assert len(imagenet_wnids()) == len(set(imagenet_wnids())) == 1000
    assert list(imagenet_wnids()) == sorted(imagenet_wnids())
    assert [imagenet_wnids()[i] for i in (1, 207, 281)] == ["n01443537", "n02099601", "n02123045"]


@pytest.mark.parametrize(("labels", "classes"), [(1000, 3), (3, 1000), (2, 1)])
def test_classes_are_matched_by_number_if_there_are_as_many(labels, classes):
    names = [f"c{i}" for i in range(1000)]
    with pytest.raises(UsageError, match=f"{classes} classes, and the model {labels}"):
        match_numbers(names[:labels], names[:classes])
    assert match_numbers(names[:3], ["x", "y", "z"]) == (0, 1, 2)


# On a data set

SPEC = Spec((1,), 2, 2, 4, stem="cifar")
COLOURS = {
    "blue": (20, 30, 220),
    "green": (20, 220, 30),
    "grey": (128, 128, 128),
    "red": (220, 30, 20),
}


def by_colour(labels: tuple[str, ...]) -> Model:
    """Return a network whose classifier compares colours: its stem passes them on unchanged.

    Its block adds nothing.
    """
    params = {name: np.zeros(shape, np.float32) for name, shape in parameters(SPEC).items()}
    for name in params:
        if name.endswith("running_var") or (name.startswith("bn1") and name.endswith("weight")):
            params[name][:] = 1
    for channel in range(3):
        params["conv1.weight"][channel, channel, 1, 1] = 1
        params["conv1.weight"][
            3 + channel, channel, 1, 1
        ] = -1  # relu(-x), as relu(x) - relu(-x) = x
    params["layer1.0.downsample.0.weight"][:6, :6, 0, 0] = np.eye(6)
    params["layer1.0.downsample.1.weight"][:] = 1
    for row, label in enumerate(labels):
        x = (np.array(COLOURS[label]) / 255 - 0.5) / 0.25
        params["fc.weight"][row, :3], params["fc.weight"][row, 3:6], params["fc.bias"][row] = (
            x,
            -x,
            -(x @ x) / 2,
        )
    grey = Preprocess(resize=16, crop=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Model(SPEC, params, grey, labels, {}, reference)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Write five images of each colour, of many sizes; one green image is among the red ones."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "colours" / "test" / name).mkdir(parents=True)
        for i in range(5):
            meant = COLOURS["green"] if (name, i) == ("red", 2) else colour
            pixels = np.clip(rng.normal(meant, 8, (20 + 3 * i, 40 - 4 * i, 3)), 0, 255).astype(
                np.uint8
            )
            Image.fromarray(pixels).save(tmp_path / "colours" / "test" / name / f"{i}.png")
    return tmp_path / "colours"


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_a_data_set_whose_classes_are_in_another_order(folder, batch):
    model, told = by_colour(("red", "grey", "green", "blue")), []
    data = open_dataset(folder, "test")
    found = evaluate(model, data, batch=batch, progress=told.append)
    assert found.classes == model.labels
    assert found.confusion.tolist() == [[4, 0, 1, 0], [0, 5, 0, 0], [0, 0, 5, 0], [0, 0, 0, 5]]
    assert told == [*range(batch, 20, batch), 20]
    assert evaluate(model, data, by_number=True).confusion.diagonal().sum() < 10
    assert tinyresnext.evaluate is evaluate


def test_fewer_classes_than_the_network_has(folder):
    shutil.rmtree(folder / "test" / "grey")
    found = evaluate(by_colour(("red", "grey", "green", "blue")), open_dataset(folder, "test"))
    assert found.per_class[1] == ("grey", 0, None, None)
    assert list(found.table())[2][:4] == ["grey", 0, "", ""]
    assert json.loads(json.dumps(found.to_json()))["classes"][1]["top1"] is None
    assert "grey" not in str(found)


def test_more_classes_than_the_network_has(folder):
    (folder / "test" / "violet").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "test" / "violet" / "0.png")
    data = open_dataset(folder, "test")
    for by_number, words in ((False, "'violet'"), (True, "5 classes, and the model 4")):
        with pytest.raises(UsageError, match=words):
            evaluate(by_colour(tuple(COLOURS)), data, by_number=by_number)


@pytest.mark.parametrize("memory", [0, 2**30], ids=["read-late", "read-early"])
def test_broken_pictures(folder, memory, capsys):
    (folder / "test" / "red" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    model = by_colour(tuple(COLOURS))
    found = evaluate(model, open_dataset(folder, "test", "skip", memory=memory))
    assert found.pictures == 19
    assert "0.png" in capsys.readouterr().err
    with pytest.raises(ImageError, match=r"0\.png"):
        evaluate(model, open_dataset(folder, "test", memory=memory))


# As a user types it


@pytest.fixture
def run(capsys, monkeypatch, folder):
    """Run ``evaluate`` on the folder with a model in it.

    Return exit code, standard output and standard error.
    """
    monkeypatch.chdir(folder.parent)
    save(by_colour(("red", "grey", "green", "blue")), "m.h5")

    def command(*options):
        code = cli.main(
            ["evaluate", "colours", "--model", "m.h5", "--device", "reference", *map(str, options)]
        )
        return code, *capsys.readouterr()

    return command


def test_command(run):
    code, out, err = run("--csv", "t.csv", "--picture", "p.png")
    assert (code, err) == (0, "tinyresnext: colours, test: 20 images in 4 classes\n")
    assert "95.00%" in out
    assert "green 1" in out
    rows = list(csv.DictReader(io.StringIO(Path("t.csv").read_text("utf-8"))))
    assert [row["class"] for row in rows] == ["red", "grey", "green", "blue"]
    assert (rows[0]["pictures"], rows[0]["top1"], rows[0]["green"]) == ("5", "0.8", "1")
    with Image.open("p.png") as picture:
        assert picture.format == "PNG"


def test_command_with_json(run):
    code, out, _ = run("--json", "--picture", "p.png")
    found = json.loads(out)
    assert (code, found["schema"], found["split"], found["model"]) == (0, 1, "test", "m.h5")
    assert (found["top1"], found["pictures"], found["confusion"][0]) == (0.95, 20, [4, 0, 1, 0])
    code, out, _ = run("--csv", "-")
    assert [row[0] for row in csv.reader(io.StringIO(out))] == [
        "class",
        "red",
        "grey",
        "green",
        "blue",
    ]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--picture", "p.jpg"], 2, "does not end in .png"),
        (["--picture", "m.png/p.png"], 2, "cannot write"),
        (["--csv", "old.csv"], 2, "--force"),
        (["--picture", "old.png"], 2, "--force"),
        (["--split", "val"], 2, "val"),
        (["--model", "missing.h5"], 3, "missing.h5"),
    ],
    ids=["suffix", "no-directory", "table-exists", "picture-exists", "split", "model"],
)
def test_command_refuses(run, options, code, words):
    for name in ("old.png", "old.csv"):
        Path(name).write_bytes(b"precious")
    found, _, err = run(*options)
    assert found == code
    message = err.removeprefix("tinyresnext: colours, test: 20 images in 4 classes\n")
    assert words in message
    assert len(message.splitlines()) == 1
    assert Path("old.png").read_bytes() == b"precious"


def test_command_with_labels_by_number(run):
    shutil.move("colours/test/red", "colours/test/rouge")
    code, _, err = run()
    assert (code, "--labels-by-number" in err) == (2, True)
    code, out, _ = run("--labels-by-number", "--json")
    assert (code, json.loads(out)["pictures"]) == (0, 20)


# The image of the confusion matrix


def test_colours_say_which_part_of_a_row():
    picture = np.asarray(confusion.draw(np.array([[90, 10], [0, 40]]), ("a", "b"), "title")[0])
    shades = confusion._colours(np.array([[0.9, 0.1], [0.0, 1.0]])).reshape(-1, 3)
    seen = [int((picture == shade).all(-1).sum()) for shade in shades]
    assert min(seen) > 46 * 46 / 2  # each cell, less what is written in it
    assert shades[0].sum() < shades[1].sum() < shades[2].sum() == 3 * 255


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 21, 100, 128, 129, 500])
def test_any_number_of_classes(tmp_path, classes):
    rng = np.random.default_rng(0)
    matrix = np.diag(rng.integers(50, 100, classes)) + rng.integers(0, 3, (classes, classes))
    matrix[-1] = 0  # a class without images
    names = [
        f"class {i} of a very long name, longer than there is room for" for i in range(classes)
    ]
    confusion.write(tmp_path / "p.png", matrix, names, "title")
    with Image.open(tmp_path / "p.png") as picture:
        assert max(picture.size) < 5000
        columns = (np.asarray(picture.convert("L")) < 250).any(0)
    assert not columns[0]
    assert not columns[-1], "something is cut off"


def test_counts_are_written_where_there_is_room():
    one, many = (
        np.asarray(confusion.draw(np.array([[count, 0], [0, 1]]), ("a", "b"), "")[0])
        for count in (1, 10**9)
    )
    full = confusion._colours(np.array([1.0]))[0]
    assert (one == full).all(-1).sum() < (many == full).all(-1).sum()
    assert (one != many).any(-1).sum() < 46 * 46  # and nothing else differs


WORDS = ("Žluťoučký", "日本", "Straße", "Ελλάδα", "año", "Zlutoucky")


def test_every_letter_of_a_class_is_drawn_or_escaped(monkeypatch, tmp_path):
    def well_drawn(found):
        boxes = [
            one
            for one in found.text
            if not one.isascii()
            and lettering._shape(found.font, one) == lettering._shape(found.font, "\U0010ffff")
        ]
        return boxes == []

    here = [lettering.Letters(15).of(word) for word in WORDS]
    assert all(well_drawn(found) for found in here)
    assert [found.text == word for found, word in zip(here, WORDS, strict=True)] == [
        not found.escaped for found in here
    ]
    damaged = tmp_path / "DejaVuSans.ttf"
    damaged.write_bytes(b"no font")
    monkeypatch.setattr(lettering, "installed", lambda: [damaged])
    letters = lettering.Letters(15)
    none = [letters.of(word) for word in WORDS]
    assert all(well_drawn(found) for found in none)
    assert none[0].text == r"\u017dlu\u0165ou\u010dk\xfd"
    assert none[0].escaped == "Žťčý"
    assert (none[1].text, none[1].escaped) == (r"\u65e5\u672c", "日本")
    assert (none[5].text, none[5].escaped) == ("Zlutoucky", "")
    assert letters.of("an\u0303o").text == r"a\xf1o"  # the accent apart, as macOS names files


def test_classes_that_differ_in_one_letter_look_different(monkeypatch):
    monkeypatch.setattr(lettering, "installed", lambda: [])
    first, second = (
        confusion.draw(np.eye(2, dtype=int), (f"{letter}eny", "b"), "") for letter in "ďť"
    )
    assert (first[1], second[1]) == ("ď", "ť")
    assert not np.array_equal(np.asarray(first[0]), np.asarray(second[0]))


def test_fonts_are_looked_for_in_the_folders_of_the_system(monkeypatch, tmp_path):
    (tmp_path / "fonts" / "deep").mkdir(parents=True)
    for name in ("other.ttf", "deep/unifont.ttf", "DejaVuSans.ttf"):
        (tmp_path / "fonts" / name).touch()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path}/nowhere:{tmp_path}")
    monkeypatch.chdir(tmp_path / "fonts")  # not there: that folder is the data's, or anybody's
    assert [path.name for path in lettering.installed()] == ["DejaVuSans.ttf", "unifont.ttf"]
    monkeypatch.setenv("XDG_DATA_DIRS", "/nowhere")
    assert lettering.installed() == []


def test_the_command_says_which_letters_are_escaped(run, monkeypatch):
    monkeypatch.setattr(lettering, "installed", lambda: [])
    code, _, err = run("--picture", "p.png")
    assert (code, "no font" in err) == (0, False)
    monkeypatch.setattr(confusion, "write", lambda *a: "日本")
    code, _, err = run("--picture", "q.png")
    assert code == 0
    assert "q.png: no font on this computer has '日本', so they are escaped there" in err


def test_the_name_of_a_data_set_is_none():
    with pytest.raises(UsageError, match=r"'photos' is the name .*open_dataset"):
        evaluate(tinyresnext.random_model("resnext20_2x64d", device="reference"), "photos")
