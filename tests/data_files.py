"""Data sets as published, written byte by byte, and their parts, to build wrong ones."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, side: int = 8, kind: str = "PNG", channels: int = 3) -> bytes:
    """Return a small image file of uniform noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(file, kind)
    return file.getvalue()


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


# -- tar


def tar_header(called: str, length: int, flag: bytes = b"0", **changed: bytes) -> bytes:
    """Return one header block of 512 bytes (ustar)."""
    fields = {
        "name": called.encode().ljust(100, b"\0"),
        "mode": b"0000644\0",
        "uid": b"0000000\0",
        "gid": b"0000000\0",
        "size": b"%011o\0" % length,
        "time": b"00000000000\0",
        "sum": b" " * 8,
        "kind": flag,
        "link": bytes(100),
        "magic": b"ustar\x0000",
        "rest": bytes(32 + 32 + 8 + 8 + 155 + 12),
    }
    fields |= changed
    block = b"".join(fields.values())
    assert len(block) == 512
    total = sum(block)
    return block if "sum" in changed else block.replace(b" " * 8, b"%06o\0 " % total, 1)


def tar(files: dict[str, bytes], end: bytes = bytes(1024)) -> bytes:
    parts = []
    for name, data in files.items():
        kind = b"5" if name.endswith("/") else b"0"
        parts += [tar_header(name, len(data), kind), data, bytes(-len(data) % 512)]
    return b"".join(parts) + end


def packed(data: bytes) -> bytes:
    return gzip.compress(data, 1)


# -- pickles as Python 2 wrote them


def text2(value: str) -> bytes:
    """Return a short string as the opcode SHORT_BINSTRING."""
    return b"U" + bytes([len(value)]) + value.encode("latin-1")


def list2(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dict2(items: dict[str, bytes]) -> bytes:
    return b"\x80\x02}q\x01(" + b"".join(text2(key) + value for key, value in items.items()) + b"u."


def array2(
    values: np.ndarray, dtype: str = "u1", shape: tuple | None = None, data: bytes | None = None
) -> bytes:
    """Return what cPickle wrote for a NumPy 1.3 array of bytes: _reconstruct, dtype, state."""
    data = values.tobytes() if data is None else data
    sides = b"".join(
        b"J" + struct.pack("<i", side) for side in (values.shape if shape is None else shape)
    )
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R"
        b"(K\x01(" + sides + b"tcnumpy\ndtype\n" + text2(dtype) + b"K\0K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89"
        b"T" + struct.pack("<i", len(data)) + data + b"tb"
    )


def numbers2(values) -> bytes:
    return list2([b"K" + bytes([value]) for value in values])


def names2(values) -> bytes:
    return list2([text2(value) for value in values])


# -- CIFAR

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def planes(seed: int, n: int) -> np.ndarray:
    """Return uint8 [n, 3072], a red, a green and a blue plane for each image."""
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def upright(values: np.ndarray) -> np.ndarray:
    """Return the same as [n, 32, 32, 3], pixel by pixel, as the publication describes it."""
    out = np.empty((len(values), 32, 32, 3), np.uint8)
    for channel in range(3):
        for row in range(32):
            start = 1024 * channel + 32 * row
            out[:, row, :, channel] = values[:, start : start + 32]
    return out


def batch2(seed: int, values, **changed: bytes) -> bytes:
    names = [f"thing_s_{seed:03d}{i:03d}.png" for i in range(len(values))]
    items = {"batch_label": text2("training batch"), "labels": numbers2(values)}
    items |= {"data": array2(planes(seed, len(values))), "filenames": names2(names)}
    return dict2(items | changed)


def cifar10_python(n: int = 4) -> dict[str, bytes]:
    root = "cifar-10-batches-py/"
    files = {root: b"", f"{root}readme.html": b"<meta>"}
    files[f"{root}batches.meta"] = dict2(
        {"num_cases_per_batch": b"M\x10\x27", "label_names": names2(TEN), "num_vis": b"M\x00\x0c"}
    )
    for i in range(1, 6):
        files[f"{root}data_batch_{i}"] = batch2(i, [(i + k) % 10 for k in range(n)])
    files[f"{root}test_batch"] = batch2(9, [9, 0, 3])
    return files


def records(seed: int, *labels) -> bytes:
    """Return binary records with one or more label bytes each."""
    values = planes(seed, len(labels[0]))
    return b"".join(
        bytes(row) + pixels.tobytes()
        for row, pixels in zip(zip(*labels, strict=True), values, strict=True)
    )


def cifar10_binary(n: int = 4) -> dict[str, bytes]:
    root = "cifar-10-batches-bin/"
    files = {f"{root}batches.meta.txt": "\n".join([*TEN, "", ""]).encode()}
    for i in range(1, 6):
        files[f"{root}data_batch_{i}.bin"] = records(i, [(i + k) % 10 for k in range(n)])
    files[f"{root}test_batch.bin"] = records(9, [9, 0, 3])
    return files


def cifar100_python() -> dict[str, bytes]:
    root = "cifar-100-python/"
    fine, coarse = [f"fine{i}" for i in range(100)], [f"coarse{i}" for i in range(20)]

    def batch(seed, labels):
        return dict2(
            {
                "filenames": names2([f"{i}.png" for i in range(len(labels))]),
                "batch_label": text2("training batch 1 of 1"),
                "fine_labels": numbers2(labels),
                "coarse_labels": numbers2([label // 5 for label in labels]),
                "data": array2(planes(seed, len(labels))),
            }
        )

    return {
        f"{root}file.txt~": b"",
        f"{root}train": batch(1, [99, 0, 42, 7]),
        f"{root}test": batch(2, [3, 98]),
        f"{root}meta": dict2(
            {"fine_label_names": names2(fine), "coarse_label_names": names2(coarse)}
        ),
    }


def cifar100_binary() -> dict[str, bytes]:
    root = "cifar-100-binary/"
    return {
        f"{root}train.bin": records(1, [19, 0, 8, 1], [99, 0, 42, 7]),
        f"{root}test.bin": records(2, [0, 19], [3, 98]),
        f"{root}fine_label_names.txt": "".join(f"fine{i}\n" for i in range(100)).encode(),
        f"{root}coarse_label_names.txt": "".join(f"coarse{i}\n" for i in range(20)).encode(),
    }


# -- MNIST


def idx(values: np.ndarray, shape: tuple | None = None, kind: int = 8) -> bytes:
    shape = values.shape if shape is None else shape
    return (
        bytes([0, 0, kind, len(shape)])
        + b"".join(struct.pack(">I", side) for side in shape)
        + values.tobytes()
    )


def mnist() -> dict[str, bytes]:
    rng = np.random.default_rng(5)
    return {
        "train-images-idx3-ubyte": idx(rng.integers(0, 256, (6, 28, 28), dtype=np.uint8)),
        "train-labels-idx1-ubyte": idx(np.array([5, 0, 4, 1, 9, 2], np.uint8)),
        "t10k-images-idx3-ubyte": idx(rng.integers(0, 256, (2, 28, 28), dtype=np.uint8)),
        "t10k-labels-idx1-ubyte": idx(np.array([7, 2], np.uint8)),
    }
