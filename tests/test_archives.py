"""CIFAR and MNIST as published, packed and unpacked, and messages that say what is wrong."""

from __future__ import annotations

import gzip
import io
import pickle as python_pickle
import tarfile
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from audit import watching
from data_files import (
    array2,
    batch2,
    cifar10_binary,
    cifar10_python,
    cifar100_binary,
    cifar100_python,
    dict2,
    idx,
    mnist,
    names2,
    numbers2,
    packed,
    planes,
    records,
    tar,
    tar_header,
    text2,
    upright,
    write_files,
)

from tinyresnext.data import open_dataset
from tinyresnext.errors import (
    FormatError,
    IntegrityError,
    TinyResNeXtError,
    UnsafeError,
    UsageError,
    WeightsError,
)
from tinyresnext.formats.pickle import machine as pickle
from tinyresnext.formats.pickle.arrays import uint8_arrays
from tinyresnext.formats.pickle.names import CHECKPOINT
from tinyresnext.formats.tar import MAX_PART, files_in, placed, read_tar

ARRAYS = uint8_arrays(MAX_PART)

VERSIONS = {
    f.__name__: f for f in (cifar10_python, cifar10_binary, cifar100_python, cifar100_binary)
}


def put(tmp_path, files, form):
    """The same files as they come, in four forms."""
    if form == "unpacked":
        write_files(
            tmp_path, {name: data for name, data in files.items() if not name.endswith("/")}
        )
        return tmp_path
    if form == "unpacked, the folder itself":
        return put(tmp_path, files, "unpacked") / next(iter(files)).split("/")[0]
    path = tmp_path / "archive"
    path.write_bytes(packed(tar(files)) if form == "tar.gz" else tar(files))
    return path


@pytest.mark.parametrize("form", ["tar.gz", "tar", "unpacked", "unpacked, the folder itself"])
@pytest.mark.parametrize("version", VERSIONS)
def test_cifar(tmp_path, version, form):
    path = put(tmp_path, VERSIONS[version](), form)
    train, test = open_dataset(path), open_dataset(path, "test")
    if "100" in version:
        assert train.labels.tolist() == [99, 0, 42, 7]
        assert test.labels.tolist() == [3, 98]
        assert (len(train.classes), train.classes[42]) == (100, "fine42")
        coarse = open_dataset(path, coarse=True)
        assert coarse.labels.tolist() == [19, 0, 8, 1]
        assert (len(coarse.classes), coarse.classes[8]) == (20, "coarse8")
        assert (train.pixels == upright(planes(1, 4))).all()
        assert (test.pixels == upright(planes(2, 2))).all()
    else:
        assert train.labels.tolist() == [(i + k) % 10 for i in range(1, 6) for k in range(4)]
        assert test.labels.tolist() == [9, 0, 3]
        assert train.classes[3] == test.classes[3] == "cat"
        assert (train.pixels == np.concatenate([upright(planes(i, 4)) for i in range(1, 6)])).all()
        with pytest.raises(UsageError, match="no coarse classes"):
            open_dataset(path, coarse=True)
    assert train.labels.dtype == np.int64
    assert (train.picture(2) == train.pixels[2]).all()
    assert len(train.names) == len(train) == len(train.pixels)
    if version == "cifar10_python":
        assert train.names[5] == "thing_s_002001.png"
    with pytest.raises(UsageError, match="no split 'val'; it has train and test"):
        open_dataset(path, "val")


def test_an_archive_made_by_tarfile(tmp_path):
    """Whoever packs the folder again gets headers with remarks about times."""
    write_files(tmp_path, cifar10_binary())
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        path = tmp_path / "again.tgz"
        with tarfile.open(path, "w:gz", format=form) as archive:
            archive.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
        assert open_dataset(path, "test").labels.tolist() == [9, 0, 3]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_that_python_3_writes(protocol, order):
    values = np.asarray(np.arange(24).reshape(2, 12), np.uint8, order=order)
    found = pickle.load(
        io.BytesIO(python_pickle.dumps({"data": values, "labels": [1, 2]}, protocol)), ARRAYS
    )
    assert (found["data"].values == values).all()
    assert found["labels"] == [1, 2]


def test_short_strings_are_text_and_long_ones_bytes():
    data = dict2({"a": text2("caf\xe9"), "b": b"T\x00\x01\x00\x00" + b"\xff" * 256})
    assert pickle.load(io.BytesIO(data), ARRAYS) == {"a": "caf\xe9", "b": b"\xff" * 256}


GOOD = array2(planes(1, 1))
PICKLES = {
    "a call": (
        dict2({"data": b"cos\nsystem\nU\x04true\x85R"}),
        "os.system, which no data set needs",
    ),
    "a tensor": (dict2({"data": b"ctorch._utils\n_rebuild_tensor_v2\n"}), "no data set needs"),
    "floats": (dict2({"data": array2(planes(1, 1), dtype="f4")}), "has the type 'f4'"),
    "objects": (dict2({"data": array2(planes(1, 1), dtype="O")}), "has the type 'O'"),
    "a type of many tuples": (
        dict2({"data": b"cnumpy\ndtype\nN" + b"\x85" * 5000 + b"\x85R"}),
        "has the type no name",
    ),
    "fewer bytes than the shape": (
        dict2({"data": array2(planes(1, 1), shape=(2**31 - 1, 2**31 - 1))}),
        "3,072 bytes for",
    ),
    "a negative side": (dict2({"data": array2(planes(1, 1), shape=(-1, -3072))}), "no shape"),
    "no dimension": (dict2({"data": array2(planes(1, 1), shape=())}), "no shape"),
    "nine dimensions": (
        dict2({"data": array2(planes(1, 1), shape=(3072,) + (1,) * 8)}),
        "no shape",
    ),
    "filled twice": (dict2({"data": GOOD[:-1] + b"0" + b"b"}), "discards an object"),
    "a state of another kind": (
        dict2({"data": GOOD[: GOOD.index(b"(K\x01")] + b"K\x01b"}),
        "not its five parts",
    ),
    "another class of array": (
        dict2({"data": GOOD.replace(b"cnumpy\nndarray", b"cnumpy\ndtype")}),
        "not those of an empty ndarray",
    ),
    "a dtype with fields": (
        dict2({"data": GOOD.replace(b"|NNN", b"|K\x01NN")}),
        "plain unsigned bytes",
    ),
    "a dtype with bytes swapped": (
        dict2({"data": GOOD.replace(b"U\x01|", b"U\x01>")}),
        "plain unsigned bytes",
    ),
    "a text longer than the file": (dict2({"data": b"T\0\xff\xff\x0f"}), "cut short"),
    "a text longer than allowed": (dict2({"data": b"T\xff\xff\xff\x7f"}), "it may have"),
    "a call of a name that is a type": (
        dict2({"data": b"cnumpy\nndarray\n)R"}),
        "only names a type",
    ),
    "characters that are not bytes": (
        dict2({"data": b"c_codecs\nencode\nX\x03\0\0\0\xe2\x82\xacU\x06latin1\x86R"}),
        "not bytes",
    ),
    "another codec": (
        dict2({"data": b"c_codecs\nencode\nX\x01\0\0\0aU\x03hex\x86R"}),
        "not a text and latin1",
    ),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_are_refused(name):
    data, message = PICKLES[name]
    with watching() as events, pytest.raises(WeightsError, match=message):
        pickle.load(io.BytesIO(data), ARRAYS)
    assert not events


def test_arrays_are_read_only_where_they_are_asked_for():
    found = pickle.load(io.BytesIO(dict2({"data": GOOD})), CHECKPOINT)
    assert type(found["data"]).__name__ == "Placeholder"


BATCHES = {
    "a label too large": (batch2(1, [3, 10]), "label is 10, but there are 10 classes"),
    "a label for each but one": (batch2(1, [1, 2], labels=numbers2([1])), "one whole number"),
    "a negative label": (batch2(1, [1], labels=b"](J\xff\xff\xff\xffe"), "one whole number"),
    "labels of text": (batch2(1, [1], labels=names2(["cat"])), "one whole number"),
    "labels that contain themselves": (batch2(1, [1], labels=b"]q\x63h\x63a"), "one whole number"),
    "no labels": (
        dict2({"data": array2(planes(1, 1))}),
        "expected a dict with data and labels, found 'data'",
    ),
    "no pictures": (batch2(1, [], data=array2(planes(1, 0))), r"uint8 \[0, 3072\]"),
    "other pictures": (
        batch2(1, [1], data=array2(np.zeros((1, 784), np.uint8))),
        r"uint8 \[1, 784\]",
    ),
    "pictures that are text": (batch2(1, [1], data=text2("x")), "its data are str"),
    "an array that was never filled": (
        batch2(
            1,
            [1],
            data=b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R",
        ),
        "its data are",
    ),
    "not a dict": (b"\x80\x02](K\x01e.", "found list"),
    "cut short": (batch2(1, [1])[:-200], "cut short"),
    "empty": (b"", "cut short"),
    "text": (b"<html>", "a pickle of protocol 0 to 5 was expected"),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_that_are_refused(tmp_path, name):
    data, message = BATCHES[name]
    path = put(tmp_path, cifar10_python() | {"cifar-10-batches-py/data_batch_3": data}, "tar.gz")
    with pytest.raises(WeightsError, match=message) as caught:
        open_dataset(path)
    assert "data_batch_3" in str(caught.value)
    assert str(path) in str(caught.value)


def test_records_that_are_refused(tmp_path):
    name = "cifar-10-batches-bin/data_batch_2.bin"
    good = records(1, [3, 4])
    for data, message in (
        (good[:-1], "6,145 bytes are not a whole number"),
        (b"", "0 bytes"),
        (b"\x0a" + good[1:], "is 10"),
    ):
        path = put(tmp_path, cifar10_binary() | {name: data}, "tar.gz")
        with pytest.raises(FormatError, match=message):
            open_dataset(path)


@pytest.mark.parametrize(
    "data", [b"", b"a\na\n", b"x\x1b[2J\n", b"x" * 101, b"\n".join(b"%d" % i for i in range(257))]
)
def test_class_names_that_are_refused(tmp_path, data):
    path = put(
        tmp_path, cifar10_binary() | {"cifar-10-batches-bin/batches.meta.txt": data}, "unpacked"
    )
    with pytest.raises(FormatError, match="names of 1 to 256 classes"):
        open_dataset(path)


@pytest.mark.parametrize("form", ["tar.gz", "unpacked"])
def test_a_batch_that_is_missing(tmp_path, form):
    files = cifar10_python()
    del files["cifar-10-batches-py/data_batch_4"]
    with pytest.raises(FormatError, match="no file data_batch_4"):
        open_dataset(put(tmp_path, files, form))


def test_a_tar_archive_of_something_else(tmp_path):
    with pytest.raises(FormatError, match="no CIFAR-10 or CIFAR-100 in it"):
        open_dataset(put(tmp_path, {"notes.txt": b"hello"}, "tar.gz"))


def member(name="a", data=b"", kind=b"0", **changed):
    return tar_header(name, len(data), kind, **changed) + data + bytes(-len(data) % 512)


END = bytes(1024)
TARS = {
    "empty": (b"", "cut short"),
    "text": (b"<html>" * 100, "not a tar archive|checksum"),
    "no end": (member(data=b"x"), "cut short"),
    "half a header": (member(data=b"x")[:700], "cut short"),
    "half a file": (tar_header("a", 10_000) + bytes(512), "cut short"),
    "a size beyond the file": (tar_header("a", 2**28) + END, "cut short"),
    "a size beyond the limit": (tar_header("a", 2**28 + 1) + END, "268,435,457 bytes, more than"),
    "a skipped size beyond the file": (tar_header("b", 2**32) + END, "cut short"),
    "a size that is no number": (member(size=b"0000000000z\0"), "a header has the number"),
    "a size in base 256": (member(size=b"\x80" + bytes(10) + b"\x01"), "a header has the number"),
    "a negative size": (member(size=b"-0000000010\0"), "a header has the number"),
    "a wrong checksum": (member(sum=b"001234\0 "), "checksum"),
    "a name that climbs": (member("x/../../a") + END, "not a plain relative path"),
    "an absolute name": (member("/etc/a") + END, "not a plain relative path"),
    "a name with a drive": (member("c:a") + END, "not a plain relative path"),
    "a name with a backslash": (member("..\\a") + END, "not a plain relative path"),
    "a name that moves the cursor": (member("\x1b[2Ja") + END, "not a plain relative path"),
    "a name that climbs in its prefix": (
        member("a", rest=(bytes(80) + b"..").ljust(80 + 155 + 12, b"\0")) + END,
        "not a plain relative path",
    ),
    "a symbolic link": (
        member(kind=b"2", link=b"/etc/passwd".ljust(100, b"\0")) + END,
        "a link, a device",
    ),
    "a hard link": (member(kind=b"1") + END, "a link, a device"),
    "a device": (member(kind=b"3") + END, "a link, a device"),
    "a pipe": (member(kind=b"6") + END, "a link, a device"),
    "a sparse file": (member(kind=b"S") + END, "a link, a device"),
    "a long name": (member("././@LongLink", b"x" * 300, b"L") + END, "a link, a device"),
    "another name by a remark": (
        member("x", b"10 path=a\n", b"x") + member("b", b"x") + END,
        "changes the path",
    ),
    "another size by a remark": (
        member("x", b"12 size=999\n", b"x") + member("a", b"x") + END,
        "changes the size",
    ),
    "another name by a second remark": (
        member("x", b"11 a=path=\n10 path=a\n", b"g") + member("b", b"x") + END,
        "changes the path",
    ),
    "a damaged remark": (member("x", b"99 comment=a\n", b"x") + END, "header .* is damaged"),
    "a remark of a gigabyte": (tar_header("x", 2**30, b"x") + END, "more than the 65,536"),
    "the same file twice": (member(data=b"x") + member("b/a", b"y") + END, "two files called a"),
    "something behind the end": (member(data=b"x") + END + b"PK\3\4", "something behind its end"),
    "too many members": (member("b") * 1000 + END, "more than 1000 members"),
}


@pytest.mark.parametrize("form", ["gzip", "plain"])
@pytest.mark.parametrize("name", TARS)
def test_tars_that_are_refused(name, form):
    data, message = TARS[name]
    with pytest.raises(WeightsError, match=message):
        read_tar(io.BytesIO(packed(data) if form == "gzip" else data), {"a"})


def test_a_remark_is_known_by_its_key():
    """Its text may have anything in it, and a folder of the oldest form has no mark but a slash."""
    remark = member("x", b"37 comment=x path=y size=1 linkpath=\n", b"g")
    archive = remark + member("b/", kind=b"\0") + member("b/a", b"x") + END
    assert read_tar(io.BytesIO(archive), {"a"}) == {"a": b"x"}
    assert [one.name for one in files_in(io.BytesIO(archive))] == ["b/a"]
    long = b"70000 comment=" + b"x" * (70000 - 15) + b"\n" + b"10 path=a\n"
    for read in (placed, lambda file: list(files_in(file))):
        with pytest.raises(UnsafeError, match="more than the 65,536"):
            read(io.BytesIO(member("x", long, b"g") + member("b", b"x") + END))


def test_a_tar_that_is_a_bomb():
    """Zeros without end: they are counted while they are passed over, and never held."""
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        file.write(tar_header("b", (1 << 33) - 512))
        for _ in range(17):
            file.write(bytes(1 << 20))
    bomb.seek(0)
    with pytest.raises(
        UnsafeError, match=r"unpacks to more than the [\d,]+ bytes that are accepted"
    ):
        read_tar(bomb, {"a"})


def test_gzip_that_is_damaged():
    whole = packed(tar({"a": bytes(range(256)) * 40}))
    assert read_tar(io.BytesIO(whole), {"a"}) == {"a": bytes(range(256)) * 40}
    for cut in range(2, len(whole), 7):
        with pytest.raises(FormatError):
            read_tar(io.BytesIO(whole[:cut]), {"a"})
    with pytest.raises(IntegrityError, match="CRC"):
        read_tar(io.BytesIO(whole[:-8] + b"\0\0\0\0" + whole[-4:]), {"a"})
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(10, len(whole) - 8)] ^= 1 << int(rng.integers(8))
        with suppress(
            TinyResNeXtError
        ):  # a bit may mean nothing, such as those that fill up the last byte
            assert read_tar(io.BytesIO(damaged), {"a"}) == {"a": bytes(range(256)) * 40}


# -- MNIST


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("folder", ["", "raw/"])
@pytest.mark.parametrize("dot", ["-", "."])
def test_mnist(tmp_path, zipped, folder, dot):
    files = mnist()
    for name, data in files.items():
        new = folder + name.replace("-idx", f"{dot}idx") + (".gz" if zipped else "")
        write_files(tmp_path, {new: packed(data) if zipped else data})
    train, test = open_dataset(tmp_path), open_dataset(tmp_path, "test")
    assert train.labels.tolist() == [5, 0, 4, 1, 9, 2]
    assert test.labels.tolist() == [7, 2]
    assert train.classes == test.classes == tuple("0123456789")
    assert train.pixels.shape == (6, 28, 28, 1)
    assert (
        train.pixels[3].tobytes() == files["train-images-idx3-ubyte"][16 + 3 * 784 : 16 + 4 * 784]
    )
    with pytest.raises(UsageError, match="no split 'val'"):
        open_dataset(tmp_path, "val")


VALUES = np.zeros((6, 28, 28), np.uint8)
IDX = {
    "empty": (b"", "begins with nothing"),
    "text": (b"<html><body>not found</body>", "begins with 3c 68 74 6d"),
    "another type": (idx(VALUES, kind=0x0D), "type 0x0d"),
    "labels in its place": (idx(VALUES.ravel()), "in 1 dimensions"),
    "too many dimensions": (idx(VALUES, shape=(6, 28, 28, 1)), "in 4 dimensions"),
    "sides beyond all": (idx(VALUES, shape=(2**32 - 1,) * 3), "more than its file can hold"),
    "sides beyond the file": (
        idx(VALUES, shape=(6_000_000, 28, 28)),
        "more than its file can hold",
    ),
    "cut short": (idx(VALUES)[:-1], "more than its file can hold|should have 4,704 values"),
    "cut short in the header": (idx(VALUES)[:9], "no idx file"),
    "too long": (idx(VALUES) + b"\0", "and has more"),
    "fewer pictures than labels": (idx(VALUES[:5]), "5 x 28 x 28 values and .* 6 labels"),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", IDX)
def test_idx_files_that_are_refused(tmp_path, name, zipped):
    data, message = IDX[name]
    files = mnist()
    del files["train-images-idx3-ubyte"]
    files["train-images-idx3-ubyte" + (".gz" if zipped else "")] = packed(data) if zipped else data
    if zipped and name == "sides beyond the file":
        message = "more than its file can hold|do not belong together"
    with pytest.raises(WeightsError, match=message):
        open_dataset(write_files(tmp_path, files))


def test_idx_in_damaged_gzip(tmp_path):
    data = packed(mnist()["train-images-idx3-ubyte"])
    for bad, error in (
        (data[:-9], FormatError),
        (data[:-8] + b"\0\0\0\0" + data[-4:], IntegrityError),
        (data[:5], FormatError),
    ):
        files = mnist() | {"train-images-idx3-ubyte": bad}
        with pytest.raises(error, match="train-images"):
            open_dataset(write_files(tmp_path, files))


def test_a_pair_of_idx_files_that_is_not_whole(tmp_path):
    files = mnist()
    del files["train-labels-idx1-ubyte"]
    with pytest.raises(FormatError, match="no train-labels-idx1-ubyte"):
        open_dataset(write_files(tmp_path, files))


def test_mnist_in_archives_is_refused_with_what_to_do(tmp_path):
    """It is read from folders only."""
    write_files(tmp_path, {f"raw/{name}.gz": packed(data) for name, data in mnist().items()})
    with (
        zipfile.ZipFile(tmp_path / "m.zip", "w") as archive,
        tarfile.open(tmp_path / "m.tar", "w") as other,
    ):
        for file in (tmp_path / "raw").iterdir():
            archive.write(file, f"raw/{file.name}")
            other.add(file, f"raw/{file.name}")
    for name, words in (
        ("m.zip", "read from a folder only: give the folder with these files"),
        ("m.tar", "for MNIST, the folder that its archive unpacks to"),
        ("raw/train-images-idx3-ubyte.gz", "give the folder that has all of them"),
    ):
        with pytest.raises(FormatError, match=words):
            open_dataset(tmp_path / name)
    assert len(open_dataset(tmp_path)) == 6
