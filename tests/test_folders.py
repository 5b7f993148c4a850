"""What counts as an image, a class, a split and rubbish, in folders, archives and `classify`."""

from __future__ import annotations

import os
import zipfile

import pytest
from data_files import picture, write_files, write_zip

from tinyresnext.data import open_dataset
from tinyresnext.data.open import open_labelled
from tinyresnext.data.rules import image_kind, is_left_out, is_readable, splits_among
from tinyresnext.data.trees.sources import Images
from tinyresnext.errors import FormatError, ImageError, UnsafeError, UsageError

JPEG = picture(1, kind="JPEG")


@pytest.fixture(params=["folder", "zip"])
def put(request, tmp_path):
    """Write files as a folder or as a zip archive; a name that ends with a slash is a folder."""

    def write(*names):
        files = {name: JPEG for name in names if not name.endswith("/")}
        if request.param == "zip":
            folders = {name: b"" for name in names if name.endswith("/")}
            return write_zip(tmp_path / "data.zip", files | folders)
        for name in names:
            if name.endswith("/"):
                (tmp_path / "data" / name).mkdir(parents=True)
        return write_files(tmp_path / "data", files)

    return write


def opened(path, split="train", **more):
    """Return the data set, and the warnings."""
    lines = []
    return open_dataset(path, split, warn=lines.append, **more), lines


def trees(*folders, inside="", classes=("cat", "dog"), count=2):
    """Return the names of images: in each folder the same classes."""
    return [f"{f}/{c}/{inside}{i}.jpg" for f in folders for c in classes for i in range(count)]


# -- names


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jpg", "JPEG"),
        ("a.JFIF", "JPEG"),
        ("a.jpe", "JPEG"),
        ("a.b.PNG", "PNG"),
        ("a.dib", "BMP"),
        ("a.TIF", "TIFF"),
        ("a.tiff", "TIFF"),
        ("IMG_1.HEIC", "HEIC"),
        ("a.avif", "AVIF"),
        ("a.txt", None),
        ("jpg", None),
        (".jpg", None),
        ("a.jpg.txt", None),
    ],
)
def test_kinds_of_images(name, kind):
    assert image_kind(name) == kind
    assert is_readable(name) == (kind in ("JPEG", "PNG", "BMP", "TIFF"))


@pytest.mark.parametrize(
    "name",
    [".git", ".thumbnails", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "__pycache__", "#recycle"],
)
def test_folders_that_are_left_out(put, name):
    path = put(*trees("x"), f"{name}/1.jpg", f"x/dog/{name}/2.jpg", f"x/{name}/a/3.jpg")
    data, lines = opened(path)
    assert (data.classes, len(data), lines) == (("cat", "dog"), 4, [])
    assert data.left_out["hidden"] == 2
    assert is_left_out(name, True)


@pytest.mark.parametrize("name", ["Recycled", "recycler"])
def test_words_that_classes_are_called_by(put, name):
    data, lines = opened(put(*trees("x"), f"x/{name}/1.jpg"))
    assert (set(data.classes), len(data), lines) == ({"cat", "dog", name}, 5, [])


@pytest.mark.parametrize("name", ["._1.jpg", ".hidden.png", "Thumbs.db", ".DS_Store"])
def test_files_that_are_left_out(put, name):
    data, lines = opened(put(*trees("x"), f"x/dog/{name}"))
    assert (len(data), lines, data.left_out["hidden"]) == (4, [], 1)


@pytest.mark.parametrize("name", ["@someone.jpg", "$_57.JPG", "#1.jpe", "_1.jfif"])
def test_files_that_are_images(put, name):
    assert len(opened(put(*trees("x"), f"x/dog/{name}"))[0]) == 5


# -- splits


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Train", "Valid", "Test"),
        ("TRAIN", "VALIDATION", "TEST"),
        ("Training", "Validation", "Testing"),
        ("seg_train", "seg_val", "seg_test"),
        ("train_images", "val_images", "test_images"),
        ("training_set", "valid_set", "test_set"),
        ("TrainData", "ValData", "TestData"),
        ("train2017", "val2017", "test2017"),
        ("birds-train", "birds-validation", "birds-testing"),
        ("train", "val", "Test"),
    ],
)
@pytest.mark.parametrize("around", ["", "one/"])
def test_names_of_splits(put, train, val, test, around):
    folders = {train: 3, val: 2, test: 1}
    path = put(*(n for f, count in folders.items() for n in trees(around + f, count=count)))
    for split, folder in {"train": train, "val": val, "test": test}.items():
        for wanted in (split, folder):
            data, lines = opened(path, wanted)
            assert (data.classes, len(data)) == (("cat", "dog"), 2 * folders[folder])
            assert lines == []
    assert len(opened(path, "training")[0]) == 6
    assert len(opened(path, "Validation")[0]) == 4


def test_folders_around_the_classes_of_a_split(put):
    path = put(
        *trees("seg_train/seg_train"),
        *trees("seg_test/seg_test", count=1),
        "seg_pred/seg_pred/1.jpg",
    )
    train, lines = opened(path)
    assert (train.classes, len(train)) == (("cat", "dog"), 4)
    assert ["'seg_pred'" in line for line in lines] == [True]
    assert train.left_out == {"other folder": 1}
    assert len(opened(path, "test")[0]) == 2


@pytest.mark.parametrize("inner", [("images", "images"), ("train", "test"), ("Train", "TEST")])
def test_a_folder_in_every_split(put, inner):
    path = put(*trees(f"train/{inner[0]}"), *trees(f"test/{inner[1]}", count=1))
    assert [len(opened(path, split)[0]) for split in ("train", "test")] == [4, 2]
    assert opened(path)[0].classes == ("cat", "dog")


@pytest.mark.parametrize("names", [["bullet_train", "crash_test"], ["testing_room", "valley"]])
def test_classes_whose_names_have_such_words(put, names):
    data, lines = opened(put(*(f"{name}/1.jpg" for name in names)))
    assert (list(data.classes), lines) == (names, [])
    assert splits_among(names) == {}


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("fold1", "fold2"), ("cat", "dog")),
        (("Part A", "Part B", "Part C"), ("cat", "dog", "eel")),
        (("learn/learn", "check/check"), ("cat", "dog")),
        (("learn/images", "check/images"), ("cat", "dog")),
    ],
)
def test_folders_that_look_like_splits(put, folders, classes):
    with pytest.raises(FormatError, match="look like splits") as caught:
        open_dataset(put(*trees(*folders, classes=classes)))
    for name in (*(folder.partition("/")[0] for folder in folders), *classes):
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        trees("cat", "dog", classes=("train", "test")),
        [*trees("cat", classes=("train", "val")), "dog/train/1.jpg"],
        [*trees("data/Train", "data/Test"), "figures/1.jpg"],
        [*trees("data/my_train", "data/my_test"), "figures/a/1.jpg"],
    ],
)
def test_a_class_with_splits_in_it_is_refused(put, names):
    with pytest.raises(FormatError, match="look like splits") as caught:
        open_dataset(put(*names))
    assert repr(names[0].split("/")[0]) in str(caught.value)
    assert repr(names[0].split("/")[1]) in str(caught.value)


def test_a_folder_in_one_of_the_splits_only(put):
    path = put(*trees("train/images"), *trees("test", count=1))
    assert [len(opened(path, split)[0]) for split in ("train", "test")] == [4, 2]
    assert opened(path)[0].classes == ("cat", "dog")


def test_classes_in_other_letters_are_told_of(put):
    path = put("train/Cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    _, lines = opened(path)
    assert ["'Cat', 'cat'" in line for line in lines] == [True]


def test_folders_that_are_partly_the_same_are_told_of(put):
    data, lines = opened(put(*trees("one", "two"), "two/eel/1.jpg"))
    assert data.classes == ("one", "two")
    assert len(lines) == 1
    assert all(repr(name) in lines[0] for name in ("one", "two", "cat", "dog"))
    assert "splits" in lines[0]


@pytest.mark.parametrize("inside", ["images/", "a/b/"])
def test_classes_with_the_same_folder_in_each(put, inside):
    data, lines = opened(put(*(f"{name}/{inside}{i}.jpg" for name in "xy" for i in range(3))))
    assert (data.classes, len(data), lines) == (("x", "y"), 6, [])


def test_a_folder_called_train_makes_views_classes(put):
    """The way out that the message offers."""
    data, _ = opened(put(*trees("train/cat", "train/dog", classes=("front", "back"))))
    assert (data.classes, len(data)) == (("cat", "dog"), 8)


@pytest.mark.parametrize("inner", [{"val": "images", "test": "images"}, {"test": "test"}])
def test_a_split_whose_images_are_not_sorted(put, inner):
    """As TinyImageNet and Kaggle's competitions are published."""
    names = [f"{split}/{folder}/{i}.jpg" for split, folder in inner.items() for i in range(2)]
    path = put(*trees("train", inside="images/"), *names, "test/notes.txt")
    data, lines = opened(path)
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    assert len(lines) == 1
    assert all(repr(name) in lines[0] for pair in inner.items() for name in pair)
    for ask in (open_dataset, lambda path, split: open_labelled([str(path)], split)):
        with pytest.raises(
            FormatError,
            match=r"'cat', 'dog'\); sort .*'notes.txt'.* split, such as 'train' .*give the",
        ):
            ask(path, None)


def test_splits_that_share_a_class_or_a_folder_are_sorted(put):
    path = put(
        *trees("train"), *trees("val", classes=("dog", "emu")), "test/ant/1.jpg", "train/ant/"
    )
    for split, count in {"train": 4, "val": 4, "test": 1}.items():
        data, lines = opened(path, split)
        assert (data.classes, len(data), lines) == (("ant", "cat", "dog", "emu"), count, [])


def test_a_split_that_is_not_sorted_where_there_is_no_train(put):
    path = put(*trees("val"), "test/test/1.jpg")
    assert opened(path, "val")[0].classes == ("cat", "dog")
    with pytest.raises(FormatError, match=r"sort these images .*, such as 'val' \(--split, or"):
        opened(path, "test")


@pytest.mark.parametrize("inside", ["", "images/"])
@pytest.mark.parametrize(("one", "other"), [("cat", "Cat"), ("caf\xe9", "cafe\u0301")])
def test_classes_that_splits_write_otherwise_are_the_same_to_find_them(put, one, other, inside):
    data, lines = opened(put(f"train/{one}/1.jpg", "train/ox/1.jpg", f"val/{inside}{other}/1.jpg"))
    assert set(data.classes) == {one, other, "ox"}
    assert any("differ only in capital letters" in line for line in lines)


def test_classes_without_splits_that_differ_only_in_capital_letters_are_named(put):
    data, lines = opened(put("cat/1.jpg", "CAT/1.jpg", "ox/1.jpg"))
    assert data.classes == ("CAT", "cat", "ox")
    assert any("differ only in capital letters" in line for line in lines)


def test_a_split_that_is_not_there_is_refused_with_the_folders(put):
    path = put(*trees("train", "holdout"))
    assert any("'holdout'" in line for line in opened(path)[1])
    with pytest.raises(UsageError, match=r"no split 'test'; it has 'train', .*'holdout'"):
        open_dataset(path, "test")


def test_two_folders_of_one_split(put):
    path = put(*trees("val", "validation", "train"), *trees("testing", "Test_", count=1))
    assert len(opened(path, "val")[0]) == len(opened(path, "validation")[0]) == 4
    path = put(*trees("TRAINING", "Train_ing", "training_"))
    assert len(opened(path, "TRAINING")[0]) == 4


def test_a_class_called_as_a_split(put):
    path = put("train/1.jpg", "bus/1.jpg", "car/1.jpg")
    remedy = "called 'train', put all classes into a folder called train, which is the split train"
    with pytest.raises(FormatError, match=remedy):
        opened(path)
    for ask in (open_dataset, lambda path, split: open_labelled([str(path)], split)):
        with pytest.raises(UsageError, match=rf"no split 'test'.* 'bus', 'car'; if a .*{remedy}"):
            ask(path, "test")
    moved = put("train/train/1.jpg", "train/bus/1.jpg", "train/car/1.jpg")
    assert opened(moved, "train")[0].classes == ("bus", "car", "train")


def test_a_class_called_as_a_split_in_a_split(put):
    """The way out that the message offers."""
    assert opened(put("train/train/1.jpg", "train/bus/1.jpg"))[0].classes == ("bus", "train")


def test_a_single_class_with_folders_and_images_is_told_of(put):
    data, lines = opened(put(*trees("x"), "x/1.jpg"))
    assert data.classes == ("x",)
    assert len(lines) == 1
    assert all(repr(name) in lines[0] for name in ("x", "cat", "dog"))


def test_a_split_whose_images_lie_in_no_folder(put):
    """As ImageNet's at Kaggle: the folder of the validation images is a data set of its own."""
    images = [f"val/ILSVRC2012_val_0000000{i}.JPEG" for i in range(1, 3)]
    path = put(*trees("train"), *images, "test/ILSVRC2012_test_00000001.JPEG")
    assert opened(path)[0].classes == ("cat", "dog")
    for split in ("val", "test", None):
        for ask in (open_dataset, lambda path, split: open_labelled([str(path)], split)):
            with pytest.raises(
                FormatError, match=r"of another split \('cat', .* folder 'val' itse"
            ):
                ask(path, split)


def test_a_split_whose_images_lie_in_no_folder_and_are_not_published(put):
    path = put(*trees("train"), "test/1.jpg", "test/notes.txt")
    with pytest.raises(FormatError, match=r"'notes.txt' .* as 'train' \(--split, .* --val\)$"):
        opened(path, "test")


# -- folders that are no classes


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["images/1.jpg", "annotations/trimaps/1.png"], ["'annotations', 'images'"]),
        (["images/1.jpg", "masks/1.png"], ["'images', 'masks' may not be classes"]),
        (["part_1/1.jpg", "part_2/2.jpg", "metadata.csv"], ["'metadata.csv'"]),
        (["photos/pie/1.jpg", "photos/tea/1.jpg", "meta/train.txt"], ["'meta/train.txt'"]),
        (["Images/bar/1.jpg", "Images/gym/1.jpg", "TestImages.txt"], ["'TestImages.txt'"]),
        (["a/1.jpg", "b/1.jpg", "train_test_split.txt", "a.txt"], ["'train_test_split.txt' be"]),
        (["jpg/1.jpg", "setid.mat", "trainval.mat"], ["'jpg' may not", "'trainval.mat' beside"]),
        (["train/images/1.jpg", "val/images/2.jpg"], ["'images' may not be classes"]),
    ],
)
def test_folders_that_may_be_no_classes_are_told_of_once(put, names, said):
    path = put(*names)
    data, lines = opened(path)
    assert len(data)
    assert len(lines) == 1
    assert all(words in lines[0] for words in (*said, "give a table (.csv) with the columns image"))
    more = []
    open_labelled([str(path)], "train", warn=more.append)
    assert more == lines


@pytest.mark.parametrize(
    "names",
    [
        ["with_mask/1.jpg", "without_mask/1.jpg"],
        [*trees("x", classes=("images", "icons", "maps", "faces"))],
        ["a/1.jpg", "b/1.jpg", "latest.txt", "values.txt", "classes.txt", "train.py"],
        ["a/1.jpg", "b/1.jpg", "train_log.txt", "train_config.json", "validity.txt"],
        [*trees("train", "val"), "labels.csv"],
    ],
)
def test_folders_that_are_classes_are_not_told_of(put, names):
    assert opened(put(*names))[1] == []


@pytest.mark.parametrize("names", [["1.jpg"], ["train/1.jpg", "test/2.jpg"]])
def test_flat_images_with_a_table_beside_them(put, names):
    path = put(*names, "all.csv")
    for ask in (open_dataset, lambda path: open_labelled([str(path)])):
        with pytest.raises(
            FormatError, match=r"image,label,split; perhaps 'all.csv' says .*table$"
        ):
            ask(path)


def test_an_empty_folder_called_as_a_split_is_none(put):
    data, lines = opened(put("cat/1.jpg", "dog/1.jpg", "test/"))
    assert data.classes == ("cat", "dog")
    assert any("'test'" in line for line in lines)


# -- classes without images


def test_empty_folders_are_no_classes_and_named(put):
    data, lines = opened(put(*trees("x"), "x/docs/", "x/notes/a.txt"))
    assert (data.classes, len(data)) == (("cat", "dog"), 4)
    assert ["'docs', 'notes'" in line for line in lines] == [True]
    assert data.left_out == {"empty folder": 2}
    assert data.found() == "4 images in 2 classes; 2 files left out: 2 empty folders"


def test_a_class_in_another_split_only_is_a_class(put):
    data, lines = opened(put(*trees("train"), "test/bird/1.jpg", "train/bird/"))
    assert (data.classes, len(data), lines) == (("bird", "cat", "dog"), 4, [])


@pytest.mark.parametrize("memory", [2**30, 0])
def test_images_of_formats_that_are_not_read(tmp_path, memory):
    heic = b"\0\0\0\x18ftypheic" + bytes(50)
    files = {name: JPEG for name in trees("x")}
    files |= {"x/dog/1.HEIC": heic, "x/eel/2.heic": heic, "x/cat/3.heic": JPEG}
    path = write_files(tmp_path, files)
    with pytest.raises(ImageError, match=r"1\.HEIC.*pillow-heif"):
        opened(path, memory=memory)
    data, lines = opened(path, memory=memory, on_broken="skip")
    assert data.labels.tolist() == [0, 0, 0, 1, 1], "a JPEG under a false name is read"
    assert [data.picture(i).shape for i in range(len(data))] == [(8, 8, 3)] * 5
    assert data.found() == "5 images in 3 classes; 2 files left out: 2 HEIC"
    assert sum("skipped: " in line for line in lines) == 2
    assert ["classes 'eel'" in line for line in lines].count(True) == 1


def test_what_was_found_is_counted(tmp_path):
    files = {f"{name}/{i}.jpg": JPEG for name in ("cat", "dog") for i in range(2)}
    files |= {"1.jpg": JPEG, "labels.csv": b"a,b", "cat/._0.jpg": b"", "cat/a.txt": b""}
    files |= {"dog/b.txt": b"", "dog/9.png": b""}
    data, _ = opened(write_files(tmp_path / "many", files), on_broken="skip")
    assert data.found() == (
        "4 images in 2 classes; 6 files left out: "
        "1 broken image, 1 hidden, 1 image outside classes, 3 other files"
    )
    files |= {"cat/8.png": b""}
    data, _ = opened(write_files(tmp_path / "more", files), on_broken="skip")
    assert "7 files left out: 2 broken images, 1 hidden" in data.found()
    one, _ = opened(write_files(tmp_path / "one", {"a/1.jpg": JPEG}))
    assert one.found() == "1 image in 1 class"


def test_links_to_folders_are_counted(tmp_path):
    path = write_files(tmp_path / "d", {name: JPEG for name in ("a/1.jpg", "b/1.jpg")})
    os.symlink(path / "a", path / "b" / "again")
    os.symlink(path / "b" / "self", path / "b" / "self")
    data, _ = opened(path)
    assert (len(data), data.left_out["linked folder"], data.left_out["other file"]) == (2, 1, 1)


@pytest.mark.parametrize("around", ["", "data/", "data/x_"])
@pytest.mark.parametrize("link", ["split", "class", "both"])
def test_splits_and_classes_may_be_links(tmp_path, around, link):
    real = write_files(tmp_path / "real", {f"{c}/{i}.jpg": JPEG for c in "ab" for i in range(2)})
    write_files(tmp_path / "d" / (around + "val"), {"a/1.jpg": JPEG, "b/1.jpg": JPEG})
    test = tmp_path / "d" / (around + "test")
    if link == "class":
        test.mkdir()
        os.symlink(test, test / "loop")
    else:
        os.symlink(real if link == "split" else tmp_path / "more", test)
    if link != "split":
        inside = test if link == "class" else tmp_path / "more"
        inside.mkdir(exist_ok=True)
        for name in "ab":
            os.symlink(real / name, inside / name)
    data, _ = opened(tmp_path / "d", None)
    assert (data.classes, len(data)) == (("a", "b"), 4)
    assert str(data.names[0]).split("/")[0].endswith("test")


@pytest.mark.parametrize("inner", ["test", "images"])
def test_a_folder_around_classes_that_are_links(tmp_path, inner):
    real = write_files(tmp_path / "real", {f"{c}/1.jpg": JPEG for c in "ab"})
    path = write_files(tmp_path / "d", {f"train/{c}/1.jpg": JPEG for c in "ab"})
    (path / "test" / inner).mkdir(parents=True)
    for name in "ab":
        os.symlink(real / name, path / "test" / inner / name)
    assert (opened(path, None)[0].classes, len(opened(path, None)[0])) == (("a", "b"), 2)


@pytest.mark.parametrize("around", ["", "data/"])
def test_links_in_a_folder_that_is_no_split_change_nothing(tmp_path, around):
    deep = tmp_path / "deep"
    write_files(deep, {f"{'x/' * 40}1.jpg": JPEG})
    real = write_files(tmp_path / "real", {"1.jpg": JPEG})
    path = write_files(tmp_path / "d", dict.fromkeys(trees(around or "."), JPEG))
    for name, target in {"backup/data": real, "notes/env": deep}.items():
        (path / name).parent.mkdir()
        os.symlink(target, path / name)
    data, _ = opened(path)
    assert (data.classes, len(data)) == (("cat", "dog"), 4)


# -- archives of another system


def windows_zip(path, names):
    """Write an archive whose names have backslashes, as PowerShell does."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 0
            archive.writestr(info, b"" if name.endswith("\\") else JPEG)
    return path


def test_backslashes_are_slashes(tmp_path):
    names = [name.replace("/", "\\") for name in trees("train", "test")]
    path = windows_zip(
        tmp_path / "w.zip", [*names, "train\\", "train\\cat\\", "train\\@eaDir\\1.jpg"]
    )
    data, lines = opened(path, "test")
    assert (data.classes, len(data), lines) == (("cat", "dog"), 4, [])
    assert data.names[0] == "test/cat/0.jpg"
    assert data.picture(0).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("..\\cat\\2.jpg", "no plain relative path"),
        ("cat\\..\\2.jpg", "no plain relative path"),
        ("\\cat\\2.jpg", "no plain relative path"),
        ("\\\\server\\cat\\2.jpg", "no plain relative path"),
        ("c:\\cat\\2.jpg", "no plain relative path"),
        ("cat\\\\2.jpg", "no plain relative path"),
        (".\\cat\\2.jpg", "no plain relative path"),
        ("cat/1.jpg", "two members"),
    ],
)
def test_backslashes_do_not_hide_what_is_unsafe(tmp_path, name, words):
    path = windows_zip(tmp_path / "w.zip", ["cat\\1.jpg", "dog\\1.jpg", name])
    with pytest.raises(UnsafeError, match=words):
        open_dataset(path)


# -- classify


def test_classify_finds_what_data_sets_find(tmp_path):
    names = ["a.jpg", "b.JFIF", "sub/c.jpe", "sub/@d.jpg", "e.heic", "f.tif", "g.avif"]
    others = ["._a.jpg", ".thumbnails/a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg", "$R/a.jpg"]
    others += ["notes.txt", "Thumbs.db", "sub/.b/c/d.jpg", "__pycache__/a.png"]
    path = write_files(tmp_path / ".photos", {name: JPEG for name in names + others})
    assert [one.name for one in Images([str(path)])] == sorted(str(path / name) for name in names)


def test_classify_takes_what_is_named(tmp_path):
    path = write_files(tmp_path, {".hidden/a.jpg": JPEG, "._b.jpg": JPEG})
    named = str(path / "._b.jpg")
    assert [one.name for one in Images([str(path / ".hidden"), named])] == [
        str(path / ".hidden" / "a.jpg"),
        named,
    ]
