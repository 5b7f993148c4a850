"""Published test sets in their own forms: 20 of ImageNet's classes by real ids, counted by hand.

The network sees colours. Of 40 images, two for each class, 36 show the colour of their class, two
that of another of the 20, and two that of a class beyond the 20 which is nearest to their own.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_files import tar, tar_header, write_files, write_zip
from PIL import Image

from tinyresnext import Model, Preprocess, evaluate, load, save
from tinyresnext.checkpoints.imagenet import imagenet_labels, imagenet_wnids
from tinyresnext.cli import main as cli
from tinyresnext.cli.output.results import published, results, sentence
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.published import matlab
from tinyresnext.data.published.truth import GROUND_TRUTH, read_truth
from tinyresnext.errors import FormatError, UnsafeError, UsageError
from tinyresnext.hub.catalogue import find
from tinyresnext.inference.scores.answers import AnswerEvaluation
from tinyresnext.inference.scores.classes import match_classes, match_numbers
from tinyresnext.network.resnext import parameters
from tinyresnext.network.spec import Spec
from tinyresnext.ops import reference

# What `random` chose; `data/published/meta.mat` has their ids.
CLASSES = (0, 42, 266, 311, 367, 395, 415, 431, 489, 498,
           524, 598, 777, 803, 850, 865, 912, 941, 989, 992)  # fmt: skip
META = Path(__file__).parent / "data" / "published" / "meta.mat"
LEVELS = (20, 128, 236)
WRONG = {3: 4, 17: 0}  # image: the class of the 20 whose colour it shows
BEYOND = {5: 100, 9: 900}  # image: the class beyond the 20 whose colour it shows
SPEC = Spec((1,), 2, 2, 1000, stem="cifar")


def colour(place: int) -> np.ndarray:
    """Return the colour of one of the 20 classes."""
    return np.array([LEVELS[place // 9], LEVELS[place // 3 % 3], LEVELS[place % 3]])


def own(image: int) -> int:
    """Return the place of an image's class: in the order of the images, no class repeats."""
    return image * 7 % 20


def jpeg(image: int) -> bytes:
    shown = colour(WRONG.get(image, own(image)))
    if image in BEYOND:
        shown = colour(own(image)) + np.array([0, 0, 30 if own(image) % 3 < 2 else -30])
    file = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), shown, np.uint8)).save(file, "JPEG", quality=95)
    return file.getvalue()


def called(image: int) -> str:
    return f"ILSVRC2012_val_{image + 1:08}.JPEG"


@pytest.fixture(scope="module")
def model() -> Model:
    """Return a network of ImageNet's classes that names the nearest colour."""
    params = {name: np.zeros(shape, np.float32) for name, shape in parameters(SPEC).items()}
    for name in params:
        if name.endswith("running_var") or (name.startswith("bn1") and name.endswith("weight")):
            params[name][:] = 1
    for channel in range(3):  # relu(x) - relu(-x) = x
        params["conv1.weight"][channel, channel, 1, 1] = 1
        params["conv1.weight"][3 + channel, channel, 1, 1] = -1
    params["layer1.0.downsample.0.weight"][:6, :6, 0, 0] = np.eye(6)
    params["layer1.0.downsample.1.weight"][:] = 1
    params["fc.bias"][:] = -1e3
    colours = dict(zip(CLASSES, map(colour, range(20)), strict=True))
    for image, number in BEYOND.items():
        colours[number] = np.array(Image.open(io.BytesIO(jpeg(image))))[5, 5]
    for number, shown in colours.items():
        x = (shown / 255 - 0.5) / 0.25
        params["fc.weight"][number, :3], params["fc.weight"][number, 3:6] = x, -x
        params["fc.bias"][number] = -(x @ x) / 2
    grey = Preprocess(resize=16, crop=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    return Model(SPEC, params, grey, imagenet_labels(), {}, reference)


def by_hand(model: Model, data) -> None:
    """Compare an evaluation with what was counted by hand."""
    found = evaluate(model, data, batch=16)
    assert (found.pictures, found.confusion.trace()) == (40, 36)
    counts = {CLASSES[place]: 2 for place in range(20)}
    assert {i: n for i, n in enumerate(found.confusion.sum(1).tolist()) if n} == counts
    for image, place in WRONG.items():
        assert found.confusion[CLASSES[own(image)], CLASSES[place]] == 1
    for image, number in BEYOND.items():
        assert found.confusion[CLASSES[own(image)], number] == 1
    if len(data.classes) == 20:
        assert found.within.classes == 20
        assert found.within.top1 == 38 / 40  # the nearest of the 20 is the right one
        assert "95.00%  among the 20 classes of the data" in str(found)


# -- layouts


FORMS = {
    "wnid": lambda c: imagenet_wnids()[c],
    "wnid-name": lambda c: f"{imagenet_wnids()[c]}-{imagenet_labels()[c]}".replace("/", " "),
    "name": lambda c: imagenet_labels()[c].replace("/", " "),
    "number": str,  # ImageNetV2
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_folders_of_classes(model, tmp_path, form, kind):
    files = {f"val/{FORMS[form](CLASSES[own(i)])}/{called(i)}": jpeg(i) for i in range(40)}
    if kind == "tar.gz":  # in the order in which Python lists a folder, as ImageNetV2 was packed
        name = "imagenetv2-matched-frequency-format-val"
        inner = [f"{name}/{FORMS[form](CLASSES[own(i)])}/{i:x}.jpeg" for i in range(40)]
        place = tmp_path / "imagenetv2-matched-frequency.tar.gz"
        with tarfile.open(place, "w:gz", format=tarfile.GNU_FORMAT) as archive:
            for folder in dict.fromkeys(name.rpartition("/")[0] for name in inner):
                member = tarfile.TarInfo(folder)
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            for i in reversed(range(40)):
                member, data = tarfile.TarInfo(inner[i]), jpeg(i)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        for data in (open_dataset(place, None, forwards=True), open_labelled([str(place)])):
            assert data.part == "all images"
            by_hand(model, data)
        return
    if kind == "folder":
        place = write_files(tmp_path, files) / "val"
    elif kind == "zip":
        place = write_zip(tmp_path / "val.zip", files)
    else:
        place = tmp_path / "val.tar"
        place.write_bytes(tar(files | {"val/README.txt": b"read me"}))
    for data in (open_dataset(place, None), open_labelled([str(place)])):
        assert data.part == ("all images" if kind == "folder" else "val")  # the only split
        assert data.validation
        by_hand(model, data)


def ids() -> list[int]:
    """Return the id of each image's class, which the devkit orders in its own way."""
    known = {wnid: number for number, wnid in matlab.synsets(io.BytesIO(META.read_bytes())).items()}
    return [known[imagenet_wnids()[CLASSES[own(i)]]] for i in range(40)]


def lines(values) -> bytes:
    return "".join(f"{value}\n" for value in values).encode()


def devkit(folder: Path) -> None:
    write_files(folder / "data", {GROUND_TRUTH: lines(ids()), "meta.mat": META.read_bytes()})


def put_truth(kind: str, folder: Path) -> Path:
    """Write the classes of the images in one of the published forms."""
    if kind == "devkit":
        devkit(folder / "ILSVRC2012_devkit_t12")
        return folder / "ILSVRC2012_devkit_t12"
    if kind == "devkit.tar.gz":
        devkit(folder / "packed")
        with tarfile.open(folder / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
            archive.add(folder / "packed", "ILSVRC2012_devkit_t12")
        shutil.rmtree(folder / "packed")
        return folder / "ILSVRC2012_devkit_t12.tar.gz"
    if kind == "ground truth":
        write_files(folder, {GROUND_TRUTH: lines(ids()), "meta.mat": META.read_bytes()})
        return folder / GROUND_TRUTH
    number = [CLASSES[own(i)] for i in range(40)]
    if kind == "kaggle":  # in any order; an image may have several boxes
        boxes = [
            f"{imagenet_wnids()[one]} 1 2 30 40 " * (1 + i % 2) for i, one in enumerate(number)
        ]
        rows = [f"{called(i).removesuffix('.JPEG')},{boxes[i]}" for i in reversed(range(40))]
        name = "LOC_val_solution.csv"
        write_files(folder, {name: lines(["ImageId,PredictionString", *rows])})
        return folder / name
    if kind == "val.txt":  # in any order: the names say which image it is
        text = lines(f"{called(i)} {number[i]}" for i in reversed(range(40)))
    else:
        text = lines(number)
    write_files(folder, {"val.txt": text})
    return folder / "val.txt"


TRUTHS = ["devkit", "devkit.tar.gz", "ground truth", "val.txt", "numbers", "kaggle"]


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("place", ["folder", "tar", "wnid"])
def test_classes_in_a_file(model, tmp_path, kind, place):
    """The file is found beside flat images, and taken for images in folders if it is named."""
    truth, said = put_truth(kind, tmp_path), []
    if place == "wnid":  # other folders than those of the classes: the file that is named decides
        files = {f"{imagenet_wnids()[i]}/{called(i)}": jpeg(i) for i in range(40)}
        images = write_files(tmp_path / "val", files)
        named = {"truth": truth}
    else:
        files = {called(i): jpeg(i) for i in range(40)}
        if place == "folder":
            images = write_files(tmp_path / "val", files)
        else:
            images = tmp_path / "ILSVRC2012_img_val.tar"
            images.write_bytes(tar(files))
        named = {"warn": said.append}
    kept, later = open_dataset(images, None, **named), open_labelled([str(images)], **named)
    assert [str(truth) in line for line in said] == ([] if place == "wnid" else [True, True])
    for data in (kept, later):
        by_hand(model, data)
    assert [one.name for one in later] == [one.name for one in kept]


@pytest.mark.parametrize("place", ["val", "val/images", "named"])
def test_tiny_imagenet(model, tmp_path, place):
    """Its validation images are in one folder, and a list above it has classes and boxes."""
    rows = [f"val_{i}.JPEG\t{imagenet_wnids()[CLASSES[own(i)]]}\t0\t1\t22\t19" for i in range(40)]
    write_files(tmp_path / "val" / "images", {f"val_{i}.JPEG": jpeg(i) for i in range(40)})
    truth, said = tmp_path / "val" / "val_annotations.txt", []
    if place == "named":  # elsewhere and called as nobody calls it
        truth = tmp_path / "boxes.tsv"
    truth.write_bytes(lines(rows))
    options = {"warn": said.append} | ({"truth": truth} if place == "named" else {})
    images = tmp_path / ("val" if place == "named" else place)
    for data in (open_dataset(images, None, **options), open_labelled([str(images)], **options)):
        by_hand(model, data)
    assert [str(truth) in line for line in said] == ([] if place == "named" else [True, True])


def test_a_folder_called_images_is_a_class_like_any_other(tmp_path):
    files = {"images/a.jpg": jpeg(0), "icons/b.jpg": jpeg(1), "val_annotations.txt": b"a"}
    write_files(tmp_path / "photos", files)
    assert open_dataset(tmp_path / "photos").classes == ("icons", "images")


def test_half_of_the_images(model, tmp_path):
    """The number in a name says which image it is, not its place among those that are there."""
    put_truth("numbers", tmp_path)
    few = write_files(tmp_path / "val", {called(i): jpeg(i) for i in range(1, 40, 2)})
    found = evaluate(model, open_dataset(few, None))
    assert (found.pictures, found.top1) == (20, 16 / 20)  # all four that mislead are odd


def test_real(model, tmp_path):
    """Several answers are right; images with none are left out, and said."""
    answers = [[CLASSES[own(i)]] for i in range(40)]
    answers[3] = [CLASSES[own(3)], CLASSES[WRONG[3]]]  # what the network sees is right too
    answers[5] = [BEYOND[5]]
    answers[10], answers[11], answers[9] = [], [], []
    write_files(tmp_path, {"real.json": json.dumps(answers).encode()})
    images = write_files(tmp_path / "val", {called(i): jpeg(i) for i in range(40)})
    truth = tmp_path / "real.json"
    for data in (open_dataset(images, None, truth=truth), open_labelled([images], truth=truth)):
        assert "3 left out: 3 images without a right answer" in data.found().replace("files ", "")
        found = evaluate(model, data, batch=8)
        assert (found.pictures, found.first) == (37, 36)
        assert "97.30%  is a right answer" in str(found)
        assert found.to_json()["top1"] == 36 / 37


# -- what is refused


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("val.txt", b"1\n2\n", "no 0, so they may be ILSVRC2012 ids"),
        ("val.txt", b"a.JPEG 0\nb.JPEG x\n", "the line 'x'"),
        ("val.txt", b"a.JPEG 0\na.JPEG 1\n", "'a.JPEG' twice"),
        ("val.txt", b"", "empty"),
        ("val.txt", b"\xff\xfe", "no text"),
        (GROUND_TRUTH, b"1\n2\n", "there is no .*meta.mat"),
        (
            "a.csv",
            b"ImageId,PredictionString\na,n01440764 1 2 3 4 n01443537 1 2 3 4\n",
            "line 'a,n",
        ),
        ("a.csv", b"ImageId,PredictionString\na,fish 1 2 3 4\n", "expected the name of an image"),
        ("a.csv", b"ImageId,PredictionString\na,n01440764 1\na,n01443537 1\n", "'a' twice"),
        ("b.txt", b"a.JPEG\tn01440764\t1\t2\t3\t4\nb.JPEG 5\n", "line 'b.JPEG 5'; .* with tabs"),
        ("b.txt", b"a.JPEG\tn01440764\t1\t2\t3\t4\n" * 2, "'a.JPEG' twice"),
        ("real.json", b"[[0], [1000]]", "1000.* for image 2"),
        ("real.json", b"[0]", "0 for image 1"),
        ("real.json", b"[[0]", "no JSON"),
        ("devkit.tar.gz", b"\x1f\x8bno", "archive"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, name, text, words):
    write_files(tmp_path, {name: text})
    with pytest.raises((UsageError, FormatError), match=words):
        read_truth(tmp_path / name)


def test_what_is_ambiguous_is_refused(model, tmp_path):
    images = write_files(tmp_path / "val", {called(i): jpeg(i) for i in range(3)})
    with pytest.raises(
        UsageError, match=r"nothing beside them says .*; put one of .* beside it: .* val\.txt"
    ):
        open_dataset(images, None)
    put_truth("val.txt", tmp_path)
    put_truth("devkit", tmp_path)
    with pytest.raises(UsageError, match=r"ILSVRC2012_devkit_t12.*val\.txt, .*leave one of them"):
        open_dataset(images, None)
    with pytest.raises(UsageError, match="no split 'val'"):
        open_dataset(images, "val")
    write_files(images, {called(40): jpeg(0)})
    with pytest.raises(FormatError, match="up to 40"):
        open_dataset(images, None, truth=tmp_path / "ILSVRC2012_devkit_t12")
    with pytest.raises(FormatError, match="list of classes does not"):
        open_dataset(images, None, truth=tmp_path / "val.txt")
    write_files(tmp_path / "ILSVRC2012_devkit_t12" / "data", {GROUND_TRUTH: b"999\n"})
    with pytest.raises(FormatError, match="id 999"):
        read_truth(tmp_path / "ILSVRC2012_devkit_t12")


@pytest.mark.parametrize("numbers", [range(1, 1001), (1, 5, 7), (0, 1000)])
def test_numbers_that_may_mean_something_else(numbers):
    with pytest.raises(UsageError, match="may begin at 1"):
        match_classes(imagenet_labels(), tuple(sorted(map(str, numbers))))


def test_numbers_are_no_texts():
    names = tuple(sorted(map(str, range(1000))))
    assert names[:3] == ("0", "1", "10")
    assert match_classes(imagenet_labels(), names) == tuple(map(int, names))
    mixed = tuple(f"{w} x" for w in reversed(imagenet_wnids()))  # a model in another order
    assert match_classes(mixed, names) == tuple(999 - int(name) for name in names)
    for first in (0, 1):
        names = tuple(sorted(map(str, range(first, first + 12))))
        assert match_numbers(tuple("abcdefghijkl"), names) == tuple(int(n) - first for n in names)
    own = tuple(sorted(map(str, range(12))))  # labels of a model that was trained on such folders
    assert match_numbers(own, own) == tuple(range(12))
    in_order = tuple(map(str, range(12)))  # labels of a model that was converted
    assert match_numbers(in_order, own) == tuple(map(int, own))
    assert match_numbers(own, in_order) == tuple(map(own.index, in_order))
    with pytest.raises(UsageError, match="expected all numbers"):
        match_numbers(("a", "b"), ("0", "2"))
    with pytest.raises(UsageError, match="7 and 07"):
        match_classes(imagenet_labels(), ("0", "07", "7"))
    assert match_classes(("1", "0"), ("0", "1")) == (1, 0)  # labels of these very names


# -- meta.mat


def plain_meta() -> bytes:
    data, at, plain = META.read_bytes(), 128, META.read_bytes()[:128]
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert kind == 15
        plain += zlib.decompress(data[at + 8 : at + 8 + size])
        at += 8 + size
    return plain


def test_meta_mat_packed_or_not():
    """As SciPy wrote it, compressed; and with its variables unpacked."""
    found = matlab.synsets(io.BytesIO(plain_meta()))
    assert found == matlab.synsets(io.BytesIO(META.read_bytes()))
    assert (len(found), found[1], found[300]) == (22, "n02641379", "n00001930")
    assert {found[i] for i in range(1, 21)} == {imagenet_wnids()[c] for c in CLASSES}


def test_damaged_meta_mat():
    """Whatever byte is changed or missing: an error of ours, or ids."""
    data = META.read_bytes()
    packed = struct.unpack_from("<II", data, 128)[1]
    start = 128 + 8 + packed
    plain = data[:128] + zlib.decompress(data[start + 8 :])
    rng = np.random.default_rng(0)
    for whole in (data, plain):
        for _ in range(150):
            place = int(rng.integers(len(whole)))
            changed = bytearray(whole)
            changed[place] ^= 1 << int(rng.integers(8))
            for wrong in (bytes(changed), whole[:place]):
                try:
                    found = matlab.synsets(io.BytesIO(wrong))
                except FormatError:
                    continue
                assert all(isinstance(one, int) for one in found)


def test_an_id_that_is_no_number():
    """An infinite one is a number for `struct`, and none for `int`."""
    plain = plain_meta()
    one = bytes([2, 0, 1, 0, 1, 0, 0, 0])  # a short element: one byte, 1
    assert one in plain
    wrong = plain.replace(one, struct.pack("<HHf", 7, 4, float("inf")), 1)
    with pytest.raises(FormatError, match="is damaged"):
        matlab.synsets(io.BytesIO(wrong))


# -- the command


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, model):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    labelled = replace(model, provenance={"licence": "none"})
    save(labelled, tmp_path / "home" / "models" / "resnext50_32x4d.tv_in1k.h5")
    write_files(tmp_path / "val", {called(i): jpeg(i) for i in range(40)})
    put_truth("devkit", tmp_path)

    def command(*words):
        code = cli.main(["evaluate", *words, "--device", "reference"])
        return code, *capsys.readouterr()

    return command


@pytest.mark.parametrize("more", [["--mirror"], ["--crops", "10"]])
def test_results_that_timm_has_no_columns_for_are_refused_before_work(run, more, monkeypatch):
    monkeypatch.setattr("tinyresnext.data.open.open_dataset", None)
    code, out, err = run("val", "--results", "r.csv", *more)
    assert (code, out) == (2, "")
    assert "leave out --results, or the other models, --crops and --mirror" in err


def test_the_command(run):
    name = "resnext50_32x4d.tv_in1k"
    code, out, err = run("val", "--model", name, "--results", "r.csv")
    assert code == 0
    assert "val, all images: 40 images in 20 classes" in err
    # sqrt(77.62 * 22.38 / 40) = 6.59 points
    top1 = find(name).top1
    assert f"published: top-1 {top1:.2f}% for {name}, by " in out
    away = 90 - top1
    error = (top1 * (100 - top1) / 40) ** 0.5
    few = "here are 20 of its classes only\n"
    assert f"here {away:+.2f} points, {away / error:+.1f} standard errors; {few}" in out
    out = run("val", "--model", name, "--fast-decode")[1]
    assert out.endswith("of its classes only; JPEGs were decoded at a reduced size here\n")
    _, out, err = run("val", "--model", name, "--precision", "bfloat16")
    assert "the model computes in bfloat16\n" in err
    assert out.endswith("of its classes only; the model computed in bfloat16 here\n")
    few_bits = json.loads(run("val", "--model", name, "--precision", "bfloat16", "--json")[1])
    assert few_bits["precisions"] == ["bfloat16"]
    assert few_bits["published"]["precision"] == "bfloat16"
    heading = "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation"
    head, row = Path("r.csv").read_text().splitlines()
    assert head == heading
    assert row.startswith(f"{name},95.0,5.0,")  # among the 20 classes, as timm's files have it
    assert row.endswith(",16,1.0,bilinear")
    code, out, _ = run("val", "--model", name, "--json")
    found = json.loads(out)
    assert (found["results"]["top1"], found["top1"]) == (95.0, 0.9)
    assert found["published"]["standard_errors"] == round(away / error, 2)
    assert found["published"]["classes"] == 20
    assert "precisions" not in found
    assert "precision" not in found["published"]
    assert found["within"] == {"classes": 20, "top1": 0.95, "top5": found["within"]["top5"]}
    answers = [[CLASSES[own(i)]] for i in range(40)]
    write_files(Path("real"), {"real.json": json.dumps(answers).encode()})
    code, out, _ = run("val", "--model", name, "--truth", "real/real.json")
    assert (code, "90.00%  is a right answer" in out, "published" in out) == (0, True, False)
    code, out, err = run("val", "--model", name, "--truth", "real/real.json", "--picture", "p.png")
    assert (code, out, "there is no confusion matrix" in err) == (2, "", True)
    code, _, err = run("val", "--model", name, "--truth", "none")
    assert (code, "cannot be read" in err) == (3, True)


def test_parameters_are_counted_as_timm_counts():
    """Without running statistics, of which there are several thousand."""
    made = load()
    sizes = {name: value.size for name, value in made.params.items()}
    learned = sum(size for name, size in sizes.items() if "running" not in name)
    assert round(learned / 1e6, 2) != round(sum(sizes.values()) / 1e6, 2)
    row = results("mine.h5", made, AnswerEvaluation(2, 1, 2))
    wanted = round(learned / 1e6, 2)
    assert (row["param_count"], row["top1"], row["top5"]) == (wanted, 50.0, 100.0)


def test_only_its_own_images_are_beside_the_published_accuracy(model, tmp_path):
    images = write_files(tmp_path / "v2", {f"{c}/a.jpeg": jpeg(0) for c in CLASSES})
    data = open_dataset(images, None)
    assert published("resnext50_32x4d.tv_in1k", data, evaluate(model, data)) is None
    assert published("mine.h5", data, evaluate(model, data)) is None
    says = {"top1": 81.1, "model": "m", "by": "x", "difference": -0.5, "standard_errors": -2.87}
    assert sentence(says).endswith("-0.50 points, -2.9 standard errors")


def test_what_forbids_to_compare_is_said(model, tmp_path):
    """Images were prepared otherwise for the published accuracy, or only the names are the same."""
    images = write_files(tmp_path / "val", {called(i): jpeg(i) for i in range(4)})
    put_truth("devkit", tmp_path)
    data = open_dataset(images, None)
    found = evaluate(model, data)
    says = published("resnext50_32x4d.keras_in1k", data, found, fast=True)
    assert says["measured"] == "a resize to 256 by OpenCV's INTER_CUBIC and a centre crop"
    assert says["fast_decode"]
    assert "for images after a resize to 256 by OpenCV's INTER_CUBIC" in sentence(says)
    plain = published("resnext50_32x4d.tv_in1k", data, found)
    assert not {"measured", "fast_decode"} & set(plain)
    assert "published for" not in sentence(plain)
    far = plain | {"difference": -41.0, "standard_errors": -220.0}
    assert "may be other images" not in sentence(far)  # it is of some classes only
    del far["classes"]
    assert "may be other images of the same names" in sentence(far)
    assert "may be other images" not in sentence(far | {"standard_errors": -19.9})


def test_a_tar_that_is_no_data_set(tmp_path):
    file = tmp_path / "a.tar"
    file.write_bytes(tar_header("a.jpg", 0, b"2") + bytes(1024))
    with pytest.raises(UnsafeError, match="a link"):
        open_dataset(file, None)
    twice = tar_header("c/a.jpg", 0) + tar_header("./c/a.jpg", 0) + bytes(1024)
    file.write_bytes(twice)
    with pytest.raises(FormatError, match="twice"):
        open_dataset(file, None)
