"""Tables of images and labels: what is read, and what is refused with the line it is in."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from tinyresnext.cli import main as cli
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.dataset import ALL, held_out
from tinyresnext.data.tables import lines, table
from tinyresnext.errors import FormatError, ImageError, UnsafeError, UsageError


@pytest.fixture
def folder(tmp_path):
    """Six images, whose first pixel is their number."""
    for i in range(6):
        path = tmp_path / "images" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
    return tmp_path


def write(folder, text, name="labels.csv", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


TEXT = """image,sea,sky,split
images/0.png,1,0,train
images/1.png,0,1,val
images/2.png,1,1,training
images\\3.png,0,0,TEST
"""


@pytest.mark.parametrize("form", ["plain", "tabs", "spaces", "windows", "empty lines", "quotes"])
def test_forms_of_a_table(folder, form):
    text, name, encoding = TEXT, "labels.csv", "utf-8"
    if form == "tabs":
        text, name = text.replace(",", "\t"), "labels.TSV"
    elif form == "spaces":
        text = text.replace(",", " , ")
    elif form == "windows":
        text, encoding = text.replace("\n", "\r\n"), "utf-8-sig"
    elif form == "empty lines":
        text = text.replace("\n", "\n\n")
    elif form == "quotes":
        text = text.replace("sea", '"sea"').replace("images/0.png", '"images/0.png"')
    found = open_dataset(write(folder, text, name, encoding))
    assert found.classes == ("sea", "sky")
    assert found.labels.tolist() == [[1, 0], [1, 1]]
    assert found.names == ["images/0.png", "images/2.png"]
    assert [int(found.picture(i)[0, 0, 0]) for i in range(2)] == [0, 2]
    assert found.found() == "2 images with any of 2 labels"
    test = open_dataset(folder / name, "test")
    assert (test.names, test.labels.tolist()) == (["images/3.png"], [[0, 0]])
    later = open_dataset(folder / name, "val", memory=0)
    assert (later.pixels, int(later.picture(0)[0, 0, 0])) == (None, 1)


def test_one_label_makes_two_classes(folder):
    found = open_dataset(write(folder, "image,sea\nimages/0.png,1\nimages/1.png,0\n"))
    assert (found.classes, found.labels.tolist()) == (("not sea", "sea"), [1, 0])


def test_a_table_has_no_other_classes(folder):
    table = write(folder, "image,sea\nimages/0.png,1\nimages/1.png,0\n")
    with pytest.raises(UsageError, match="says which classes its images have"):
        open_dataset(table, truth="val.txt")
    with pytest.raises(UsageError, match="is not CIFAR-100"):
        open_dataset(table, coarse=True)


def test_part_of_a_table_is_held_out(folder):
    rows = "".join(f"images/{i}.png,{i % 2},1\n" for i in range(6))
    training, validation = held_out(open_dataset(write(folder, "image,a,b\n" + rows)), 0.3, 0)
    assert (len(training), len(validation)) == (4, 2)
    assert sorted([*training.names, *validation.names]) == [f"images/{i}.png" for i in range(6)]


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", FormatError, "begins with the columns ''; expected a first line"),
        ("image\nimages/0.png\n", FormatError, "begins with the columns 'image'"),
        ("image,split\nimages/0.png,val\n", FormatError, "expected a first line"),
        ("image,a,a\nimages/0.png,1,1\n", FormatError, "column called 'a', which is empty, occurs"),
        ("image,a,\nimages/0.png,1,1\n", FormatError, "column called ''"),
        ("image,a\x1b[2J,b\nimages/0.png,1,1\n", FormatError, r"called 'a\\x1b\[2J'"),
        ("image,a,b\nimages/0.png,1\n", FormatError, "line 2 has 2 values, and the first line 3"),
        ("image,a,b\nimages/0.png,1,2\n", FormatError, "line 2 has '2' for 'b'; expected 1 if"),
        ("image,a,b\nimages/0.png,1,\n", FormatError, "line 2 has '' for 'b'"),
        ("image,a,b\nimages/0.png,1,0.0\n", FormatError, "line 2 has '0.0' for 'b'"),
        (
            "image,a,b\nimages/0.png,1,0\nimages/0.png,1,0\n",
            FormatError,
            "line 3 names 'images/0.png', as line 2 does",
        ),
        (
            "image,a,b\nimages/0.png,1,0\n./images\\\\./0.png,0,1\n",
            FormatError,
            "line 3 names 'images/0.png', as line 2 does",
        ),
        ("image,a,b,split\nimages/0.png,1,0,dev\n", FormatError, "line 2 is of the split 'dev'"),
        ('image,a,b\n"images/0.png,1,0\n', FormatError, "is no line of a table"),
        ("image,a,b\n/etc/passwd,1,0\n", UnsafeError, "line 2 names the image '/etc/passwd'"),
        ("image,a,b\n../secret.png,1,0\n", UnsafeError, "nothing outside it"),
        ("image,a,b\nimages\\..\\..\\x.png,1,0\n", UnsafeError, "nothing outside it"),
        ("image,a,b\nC:\\x.png,1,0\n", UnsafeError, "nothing outside it"),
        ("image,a,b\n,1,0\n", UnsafeError, "names the image ''"),
        ("image,a,b\n", FormatError, "has no train images below its first line; it has none"),
        ("images/0.png,1\nimages/1.png,0\n", FormatError, "begins with the image 'images/0.png'"),
        ("labels.csv,1\nimages/1.png,0\n", FormatError, "a first line that names the columns"),
        (",image,label\n0,images/0.png,cat\n", FormatError, "has no name, like an index of pan"),
        ("label,image\ncat,images/0.png\n", FormatError, "first column of .* is called 'label'"),
        ("image,label,is_valid\nimages/0.png,1,0\n", FormatError, "'label', which is .*'is_valid'"),
        ("image,Label,Class\nimages/0.png,1,0\n", FormatError, "'Label', .* beside it 'Class'"),
        ("id,breed\nimages/0.png,pug\n", FormatError, "'pug' for 'breed'.*the columns image,label"),
        ("image,a,Split,split\nimages/0.png,1,val,val\n", FormatError, "expected a first line"),
        ("image,a,b\nimages/9.png,1,0\n", ImageError, "line 2 names the image 'images/9.png', w"),
        ("image,a\nimages/0.png,1\n0,0\n", ImageError, "line 3 .* such as 'images/0.png' for th"),
        ("image,a\n0.png,1\n", ImageError, "which does not exist.* such as 'images/0.png' for th"),
        ("image,a,b\nlabels.csv,1,0\n", ImageError, "labels.csv"),
    ],
)
def test_what_is_no_table(folder, text, error, words):
    with pytest.raises(error, match=words):
        open_dataset(write(folder, text))


@pytest.mark.parametrize("label", ["label", "Label", "CLASS"])
@pytest.mark.parametrize("split", ["split", "Split"])
def test_capital_letters_of_columns_do_not_matter(folder, label, split):
    rows = "images/0.png,cat,train\nimages/1.png,dog,Val\n"
    path = write(folder, f"Image,{label},{split}\n{rows}")
    assert open_dataset(path).classes == ("cat", "dog")
    assert open_dataset(path, "val").names == ["images/1.png"]


@pytest.mark.parametrize("broken", ["refuse", "skip", "wrong"])
def test_images_of_a_table_that_do_not_exist(folder, broken):
    """Where broken images are taken, some may be missing; but if all are, the paths are wrong."""
    asked = (
        lambda path: open_dataset(path, on_broken=broken, warn=list),
        lambda path: open_labelled([str(path)], on_broken=broken, warn=list),
    )
    gone = write(folder, "image,label\n0,cat\n1,dog\n", "gone.csv")
    some = write(folder, "image,label\nimages/0.png,cat\n1,dog\n", "some.csv")
    for ask in asked:
        with pytest.raises(ImageError, match=r"line 2 .* '0'.* 'images/0.png' for this"):
            ask(gone)
        if broken == "refuse":
            with pytest.raises(ImageError, match="line 3 names the image '1'"):
                ask(some)
        else:
            assert len(ask(some)) in (1, 2)


def test_odd_bytes(folder):
    (folder / "labels.csv").write_bytes(b"image,a,b\n\xff,1,0\n")
    with pytest.raises(FormatError, match="is not UTF-8"):
        open_dataset(folder / "labels.csv")
    (folder / "labels.csv").write_bytes(b"image,a,b\n" + b"x" * 200_000 + b",1,0\n")
    with pytest.raises(FormatError, match="is no line of a table"):
        open_dataset(folder / "labels.csv")
    with open(folder / "labels.csv", "wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(UnsafeError, match="more than 67,108,864 bytes"):
        open_dataset(folder / "labels.csv")


def test_heavy_tables(folder, monkeypatch):
    """A name is looked for once, not once for each label; a quotation takes no more than a line."""
    begin = time.process_time()
    wide = "image" + "".join(f",{i:x}" for i in range(150_000))
    for text, words in (
        (f"{wide},0\n", "column called '0'"),
        (wide * 2 + "\n", "line 1 has more than 1,048,576 characters"),
        ('image,"a\n' + "a.png,0\n" * 9, "line 1 is no line of a table: unexpected end of data"),
    ):
        with pytest.raises((FormatError, UnsafeError), match=words):
            open_dataset(write(folder, text))
    monkeypatch.setattr(lines, "MOST_LINES", 5)
    with pytest.raises(UnsafeError, match="more than 5 lines"):
        open_dataset(write(folder, "image,a\n\n\n\n\n\n"))
    assert time.process_time() - begin < 5


def test_splits_that_are_not_there(folder):
    plain = write(folder, "image,a,b\nimages/0.png,1,0\n")
    with pytest.raises(UsageError, match="train only: it has no column called split"):
        open_dataset(plain, "test")
    with pytest.raises(UsageError, match="no split 'dev'; it has train, val and test"):
        open_dataset(write(folder, TEXT), "dev")
    path = write(folder, "image,a,b,split\nimages/0.png,1,0,val\nimages/1.png,1,0,train\n")
    for ask in (open_dataset, lambda path, split: open_labelled([str(path)], split)):
        with pytest.raises(
            UsageError, match="no test images below its first line; it has train, val"
        ):
            ask(path, "test")


def test_a_table_is_read_once_to_check_it_and_once_for_its_images(folder, monkeypatch):
    passes, rows = [], table._rows
    monkeypatch.setattr(table, "_rows", lambda *more: passes.append(more) or rows(*more))
    found = table.Table.of(write(folder, TEXT), "train")
    assert len(passes) == 1
    assert list(found)
    assert len(passes) == 2


@pytest.mark.parametrize("split", ["val", "validation"])
def test_what_is_taken_where_no_split_is_asked_for(folder, split):
    """As of folders: the test images, or val if there is no test, or all images."""
    rows = [f"images/{i}.png,{i % 2},1" for i in range(4)]
    plain = write(folder, "\n".join(["image,a,b", *rows]))
    only = write(folder, "\n".join(["image,a,b,split", *(f"{r},{split}" for r in rows)]), "v.csv")
    both = write(folder, f"image,a,b,split\n{rows[0]},{split}\n{rows[1]},test\n", "b.csv")
    trained = write(folder, f"image,a,b,split\n{rows[0]},{split}\n{rows[1]},train\n", "t.csv")
    every = ((plain, ALL, 4), (only, "val", 4), (both, "test", 1), (trained, "val", 1))
    for path, part, count in every:
        for found in (open_dataset(path, None), open_labelled([str(path)])):
            assert (found.part, len(found)) == (part, count)
    assert open_dataset(both, None, first="val").labels.tolist() == [[0, 1]]


def test_broken_images_are_skipped_and_lost_labels_are_named(folder):
    (folder / "images" / "0.png").write_bytes(b"no image")
    said = []
    text = "image,a,b\nimages/0.png,1,0\nimages/1.png,0,1\n"
    found = open_dataset(write(folder, text), on_broken="skip", warn=said.append)
    assert (found.names, found.labels.tolist()) == (["images/1.png"], [[0, 1]])
    assert any("no image that can be used of the classes 'a'" in line for line in said)


@pytest.mark.parametrize(("one", "other"), [("CAT", "cat"), ("cafe\u0301", "caf\xe9")])
def test_classes_that_differ_only_in_how_they_are_written_are_named(folder, one, other):
    rows, said = f"images/0.png,{one}\nimages/1.png,{other}\nimages/2.png,ox\n", []
    found = open_dataset(write(folder, f"image,label\n{rows}"), warn=said.append)
    assert (len(found.classes), len(said)) == (3, 1)
    assert (
        f"differ only in capital letters, or in how Unicode writes their accents: {one!r}, "
        in (said[0])
    )
    assert f", {other!r}; if they are the same" in said[0]


def test_images_elsewhere_are_linked_into_the_folder_of_a_table(folder, tmp_path_factory):
    """Their paths cannot lead there; the message says what does."""
    other = tmp_path_factory.mktemp("tables")
    absolute = write(other, f"image,label\n{folder}/images/0.png,a\n")
    with pytest.raises(UnsafeError, match=r"\(ln -s FOLDER images\) .* such as 'images/0\.png'"):
        open_dataset(absolute)
    (other / "images").symlink_to(folder / "images")
    table = write(other, "image,label\nimages/0.png,a\nimages/1.png,b\n")
    assert open_dataset(table).picture(1)[0, 0, 0] == 1


def test_a_table_is_trained_on_as_it_is_typed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    rows = "".join(f"images/{i}.png,{i % 2},{i // 3}\n" for i in range(6))
    write(folder, "image,odd,late\n" + rows)
    network = ["--blocks", "1,1", "--cardinality", "2", "--width", "8", "--widen", "1"]
    network += ["--stem", "cifar", "--size", "8"]
    words = ["labels.csv", *network, "--epochs", "2", "--padding", "0", "--device", "reference"]
    assert cli.main(["train", *words, "--val-part", "0.4", "--out", "run"]) == 0
    assert "average precision" in capsys.readouterr().err
    model = ["--model", "run/model.h5", "--device", "reference"]
    assert cli.main(["evaluate", "labels.csv", "--split", "train", *model]) == 0
    assert "mean average precision" in capsys.readouterr().out
    assert cli.main(["train", *words, "--head", "softmax", "--out", "b"]) == 2
    assert "give --head sigmoid" in capsys.readouterr().err
    assert cli.main(["evaluate", "labels.csv", "--split", "train", "--device", "reference"]) == 2
