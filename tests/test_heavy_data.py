"""Data sets and references whose numbers ask for far more than is there: refused at little cost."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib

import numpy as np
import pytest
from data_files import write_files
from meter import MOST_MEMORY, assert_refused, cost

from tinyresnext.data import open_dataset
from tinyresnext.errors import UsageError
from tinyresnext.formats.npy import header_bytes
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.inference.verify import verify

OPEN = """
from tinyresnext.data.pixels import cifar, mnist
from tinyresnext.data.open import open_dataset
"""
VERIFY = """
import numpy
from tinyresnext.hub.bundled import shipped_model
from tinyresnext.inference.verify import verify
from tinyresnext.ops import backend
backend("cpu")
verify(shipped_model())
"""


def bomb(start: bytes, zeros: int, crc: int | None = None) -> bytes:
    """Return a gzip file of a start and so many zeros, with another checksum if one is given."""
    pack = zlib.compressobj(6, wbits=31)
    parts = [pack.compress(start)]
    parts += [pack.compress(bytes(min(1 << 20, zeros - at))) for at in range(0, zeros, 1 << 20)]
    data = b"".join([*parts, pack.flush()])
    return data if crc is None else data[:-8] + struct.pack("<I", crc) + data[-4:]


def idx(*shape: int) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


def mnist(images: bytes, labels: bytes) -> dict[str, bytes]:
    return {"train-images-idx3-ubyte.gz": images, "train-labels-idx1-ubyte.gz": labels}


def folder_cost(path, files):
    write_files(path, files)
    return cost(OPEN, "open_dataset(path)", path), sum(map(len, files.values()))


def test_images_without_labels_are_refused_by_their_headers(tmp_path):
    """Once 7.6 GB: five million images, and three labels."""
    images = bomb(idx(5_000_000, 28, 28), 64 << 20)
    images += bytes(4 << 20)  # the file could hold the rest
    found, size = folder_cost(tmp_path / "d", mnist(images, bomb(idx(3) + b"\1\2\3", 0)))
    assert_refused(found, size, "do not belong together")
    assert found.seconds < 1


@pytest.mark.parametrize(
    "fault", ["a wrong checksum", pytest.param("cut short", marks=pytest.mark.slow)]
)
def test_a_bomb_of_images_is_checked_before_memory_is_taken(tmp_path, fault):
    count = 110_000
    zeros = count * 784 - (fault == "cut short")
    crc = 5 if fault == "a wrong checksum" else None
    images, labels = bomb(idx(count, 28, 28), zeros, crc), bomb(idx(count), count)
    found, size = folder_cost(tmp_path / "d", mnist(images, labels))
    assert_refused(found, size, "train-images")


def test_many_images_of_one_pixel(tmp_path):
    """Their names are made when they are asked for."""
    count = 4_000_000
    files = mnist(bomb(idx(count, 1, 1), count), bomb(idx(count), count))
    found, size = folder_cost(tmp_path / "d", files)
    assert found.error == ""
    assert found.memory < size + MOST_MEMORY
    dataset = open_dataset(tmp_path / "d")
    assert dataset.names[-1] == f"train/{count - 1}"
    assert dataset.names[1:3] == ["train/1", "train/2"]
    with pytest.raises(IndexError):
        dataset.names[count]


def test_images_without_pixels_are_refused(tmp_path):
    found, size = folder_cost(
        tmp_path / "d", mnist(bomb(idx(1 << 24, 0, 28), 0), bomb(idx(1 << 24), 1 << 24))
    )
    assert_refused(found, size, "do not belong together")


def tar_member(name: str, size: int) -> bytes:
    header = bytearray(512)
    header[: len(name)] = name.encode()
    header[100:156] = (
        b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % size + b"0" * 11 + b"\0" + b" " * 8
    )
    header[156:157], header[257:265] = b"0", b"ustar\00000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_an_archive_of_cifar_that_is_a_bomb(tmp_path):
    """Once 1.4 GB, from 1 MiB."""
    names = [f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6)]
    pack, parts = zlib.compressobj(9, wbits=31), []
    for name in names:
        parts.append(pack.compress(tar_member(name, 160 << 20)))
        parts += [pack.compress(bytes(1 << 20)) for _ in range(160 if not parts[1:] else 2)]
    path = tmp_path / "c.tar.gz"
    path.write_bytes(b"".join([*parts, pack.flush()]))
    found = cost(OPEN, "open_dataset(path)", path)
    assert_refused(found, path.stat().st_size, "accepted from one of its length")


def reference(path, x: tuple[int, ...], logits: tuple[int, ...], x_type: str = "<f4"):
    """Write a reference of ones, in which x is as large as it says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, shape, kind in (("x", x, x_type), ("logits", logits, "<f8")):
            with zipped.open(f"{name}.npy", "w") as file:
                file.write(header_bytes(np.dtype(kind), shape))
                left = int(np.prod(shape)) * np.dtype(kind).itemsize
                ones = np.ones(1 << 17, kind).tobytes()
                while left:
                    file.write(ones[:left])
                    left -= min(left, len(ones))
    return path


REFERENCES = {
    "one long row": ((1, 1, 5_000_000, 3), (1, 10), "sides of 1 to 128"),
    "one large image": ((1, 2000, 2000, 3), (1, 10), "sides of 1 to 128"),
    "no image": ((0, 32, 32, 3), (0, 10), "logits"),
    "no side": ((1, 0, 32, 3), (1, 10), "sides of 1 to 128"),
    "another number of images": ((2, 32, 32, 3), (1, 10), "made for it"),
    "another number of classes": ((1, 32, 32, 3), (1, 5_000_000), "made for it"),
    "other channels": ((1, 32, 32, 4), (1, 10), "made for it"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_compared_with_the_model_before_they_are_read(tmp_path, name):
    x, logits, words = REFERENCES[name]
    path = reference(tmp_path / "r.npz", x, logits)
    if name != "one long row":
        with pytest.raises(UsageError, match=words):
            verify(shipped_model(), path)
        return
    found = cost(VERIFY, "verify(shipped_model(), path)", path)
    assert_refused(found, path.stat().st_size, words)
    assert found.seconds < 3


def test_a_reference_whose_checksum_is_wrong_takes_no_memory(tmp_path):
    path = reference(tmp_path / "r.npz", (7_000, 32, 32, 3), (7_000, 10))
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\3\4", 14), (b"PK\1\2", 16), (b"PK\7\x08", 4)):
        at = data.find(magic)
        if at >= 0:
            data[at + offset] ^= 1
    path.write_bytes(data)
    found = cost(VERIFY, "verify(shipped_model(), path)", path)
    assert_refused(found, len(data), "cannot be read")


def test_gzip_reads_what_the_bombs_are():
    assert gzip.decompress(bomb(b"ab", 3)) == b"ab\0\0\0"
