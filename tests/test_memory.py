"""Memory that other people's files take: at most 64 MiB and the file, or one tensor to convert.

Most of these networks is their classifier, 22,000 x 2,048: 90 MB in half precision, which as
float32 alone is more than that and 64 MiB. NumPy tells ``tracemalloc`` of all that it allocates.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import tracemalloc
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import prod
from pathlib import Path

import cases
import foreign_files as ff
import h5py
import key_schemes
import numpy as np
import pytest
import torch_files as tf

from tinyresnext import Preprocess, Spec, parameters, variant
from tinyresnext.checkpoints.convert import opened_checkpoint
from tinyresnext.checkpoints.names import layouts
from tinyresnext.checkpoints.readers.checkpoint import OnDemand
from tinyresnext.errors import FormatError, IntegrityError, WeightsError
from tinyresnext.inference.files import load_checkpoint
from tinyresnext.store import store

MIB = 1 << 20
SPEC = Spec((1, 1, 1, 1), 8, 14, classes=22_000)
SMALL = Spec((1, 1), 4, 8, 10)


def zeros(dtype=np.float16, spec=SPEC):
    """The parameters, all zero."""
    return {name: np.zeros(shape, dtype) for name, shape in parameters(spec).items()}


def state(tensors, **options):
    return tf.StateDict((name, tf.tensor(array, **options)) for name, array in tensors.items())


def damaged_zip(value):
    """The CRC of the last storage is not its own."""
    entries = tf.zip_entries(value)
    last = max(i for i, entry in enumerate(entries) if "/data/" in entry.name)
    return tf.Zip(
        [replace(entry, crc=1) if i == last else entry for i, entry in enumerate(entries)]
    ).build()


def flat(tensors):
    """All tensors are views of one storage, with a number between them that belongs to none."""
    row = np.concatenate(
        [np.append(array.reshape(-1), array.dtype.type(np.nan)) for array in tensors.values()]
    )
    one, at, views = tf.Storage(row, tf.KIND_OF[row.dtype.name]), 0, tf.StateDict()
    for name, array in tensors.items():
        views[name] = tf.View(one, at, array.shape, tf.contiguous(array.shape))
        at += array.size + 1
    return views


def keras(tensors):
    return ff.keras_file(ff.keras_layers(key_schemes.keras(tensors, SPEC)))


FORMS = {
    "zip": lambda tensors: tf.zip_file(state(tensors)),
    "zip-flat": lambda tensors: tf.zip_file(flat(tensors)),
    "legacy": lambda tensors: tf.legacy_file(state(tensors)),
    "legacy-flat": lambda tensors: tf.legacy_file(flat(tensors)),
    "safetensors": ff.safe_file,
    "npz": ff.npz_file,
    "torch7": lambda tensors: ff.torch7_tree(key_schemes.torch7_flat(tensors, SPEC)),
    "keras": keras,
}


@contextmanager
def at_most(most):
    """The block allocates no more than this."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / MIB:.1f} MiB"


def refused(path, error, says):
    """By either function that has the network in memory when all is well."""
    for read in (cases.read_checkpoint, load_checkpoint):
        with at_most(path.stat().st_size + 64 * MIB), pytest.raises(error, match=says):
            read(path)


# -- refused


@pytest.mark.parametrize("form", FORMS)
def test_refused_for_its_last_number(tmp_path, form):
    tensors = zeros()
    tensors["fc.bias"][-1] = np.inf
    (tmp_path / "w").write_bytes(FORMS[form](tensors))
    refused(tmp_path / "w", IntegrityError, "fc.bias has values that are NaN or infinite")


@pytest.mark.parametrize("views", [state, flat])
def test_refused_for_the_checksum_of_the_last_storage(tmp_path, views):
    """Also where no tensor has all of it."""
    (tmp_path / "w").write_bytes(damaged_zip(views(zeros())))
    refused(tmp_path / "w", IntegrityError, "CRC-32")


def test_refused_bfloat16(tmp_path):
    tensors = zeros(np.uint16)
    tensors["fc.bias"][-1] = 0x7FC0  # NaN
    (tmp_path / "w").write_bytes(tf.zip_file(state(tensors, kind="BFloat16")))
    refused(tmp_path / "w", IntegrityError, "fc.bias has values that are NaN or infinite")


def test_refused_for_its_type(tmp_path):
    (tmp_path / "w").write_bytes(
        tf.zip_file(state(zeros() | {"fc.bias": np.zeros(SPEC.classes, np.int8)}))
    )
    refused(tmp_path / "w", FormatError, r"fc.bias \(int8\) is not floating point")


def with_gaps(spec, last):
    """Every second number of a storage is the classifier's; those between are NaN."""
    views, (rows, columns) = state(zeros(spec=spec)), parameters(spec)["fc.weight"]
    row = np.full(2 * rows * columns, np.nan, np.float16)
    row[::2], row[-2] = 0, last
    views["fc.weight"] = tf.View(tf.Storage(row, "Half"), 0, (rows, columns), (2 * columns, 2))
    return tf.zip_file(views)


def test_refused_with_gaps(tmp_path):
    (tmp_path / "w").write_bytes(with_gaps(SPEC, np.nan))
    with (
        at_most((tmp_path / "w").stat().st_size + 64 * MIB),
        pytest.raises(IntegrityError, match=r"fc\.weight has values"),
    ):
        cases.read_checkpoint(tmp_path / "w")


def test_what_is_in_gaps_is_nobodys(tmp_path):
    (tmp_path / "w").write_bytes(with_gaps(SMALL, 1))
    found = cases.read_checkpoint(tmp_path / "w").stored.params["fc.weight"]
    assert (np.count_nonzero(found), found[-1, -1]) == (1, 1)


def test_a_model_file_refused_for_its_last_digest(tmp_path):
    params = zeros(np.float32)
    labels = tuple(map(str, range(SPEC.classes)))
    store.write(tmp_path / "m.h5", store.Stored(SPEC, params, Preprocess(), labels, {}), half=True)
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file["params/fc/bias"][-1] = 1
    size = (tmp_path / "m.h5").stat().st_size
    assert size < 110 * MIB  # the first layers are small
    with at_most(size + 64 * MIB), pytest.raises(IntegrityError, match=r"fc\.bias has the sha256"):
        store.read(tmp_path / "m.h5")


def test_the_fixed_sum_is_known_in_pieces():
    """Against the one that is written element by element; a piece may begin anywhere."""
    for channels, width in ((32, 8), (12, 3), (4, 1), (6, 6)):
        row = key_schemes.fixed_sum(channels, width).reshape(-1)
        shape = (1, 1, channels * width, channels)
        for at in range(0, row.size, 37):
            assert layouts.is_fixed_sum(shape, at, row[at : at + 37])
            if at:
                assert not layouts.is_fixed_sum(shape, at - 1, row[at : at + 2 * channels])
            changed = row[at : at + 37].copy()
            changed[-1] = 1 - changed[-1]
            assert not layouts.is_fixed_sum(shape, at, changed)


def test_refused_for_its_fixed_sum(tmp_path):
    """One of them is most of this file."""
    spec = Spec((1, 1), 96, 8, 10)
    theirs = {
        key: np.float16(value)
        for key, value in key_schemes.keras_resaved(zeros(np.float16, spec), spec).items()
    }
    theirs[next(key for key in theirs if "conv3_block1_2_gconv/kernel" in key)][0, 0, -1, 0] = 1
    (tmp_path / "w").write_bytes(ff.safe_file(theirs))
    refused(tmp_path / "w", IntegrityError, r"layer2\.0\.conv2\.weight: the sum behind")


def test_a_fixed_sum_must_be_in_c_order(tmp_path):
    theirs = key_schemes.keras(cases.weights(SMALL), SMALL, sums=True)
    key = next(key for key in theirs if "gconv/kernel" in key)
    for sums, says in ((theirs[key], None), (np.asfortranarray(theirs[key]), "not in C order")):
        arrays = {name.removesuffix(":0"): array for name, array in (theirs | {key: sums}).items()}
        (tmp_path / "w").write_bytes(ff.npz_file(arrays))
        with pytest.raises(FormatError, match=says) if says else nullcontext():
            cases.read_checkpoint(tmp_path / "w")


# -- converted


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors", "npz"])
def test_converted_tensor_by_tensor(tmp_path, form, half):
    """In memory at any time: the largest tensor, its half if wanted, and a few mebibytes."""
    spec = Spec((1, 1, 1, 1), 32, 8)
    (tmp_path / "w").write_bytes(FORMS[form](zeros(np.float32, spec)))
    sizes = [4 * prod(shape) for shape in parameters(spec).values()]
    most = max(sizes) * (1.5 if half else 1) + 12 * MIB
    assert sum(sizes) > 1.4 * most
    with at_most(most), opened_checkpoint(tmp_path / "w") as (stored, _):
        store.write(tmp_path / "m.h5", stored, half=half)
    assert store.check(tmp_path / "m.h5").passed


@pytest.mark.parametrize("form", ["zip", "zip-flat", "legacy", "legacy-flat", "safetensors", "npz"])
@pytest.mark.parametrize("cut", [False, True])
def test_changed_between_judging_and_writing(tmp_path, form, cut):
    """What was looked at is what is written, or nothing is."""
    path, params = tmp_path / "w", cases.weights(SMALL, counters=False)
    path.write_bytes(FORMS[form](params))
    data = path.read_bytes()
    at = data.index(params["layer2.0.conv2.weight"].tobytes())
    changed = data[:at] if cut else data[:at] + bytes(4) + data[at + 4 :]
    with opened_checkpoint(path) as (stored, _):
        path.write_bytes(changed)
        with pytest.raises(
            WeightsError, match="is cut short" if cut else r"was changed while|CRC-32"
        ):
            store.write(tmp_path / "m.h5", stored)
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
def test_ctrl_c_waits_for_one_tensor_at_most(tmp_path):
    """The library is in another thread, where Ctrl-C does not arrive."""
    params, asked = cases.weights(SMALL, counters=False), []

    def slow(name):
        asked.append(name)
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1.5)  # also for a busy machine
        return params[name]

    stored = store.Stored(
        SMALL, OnDemand(params, slow), Preprocess(), tuple(map(str, range(10))), {}
    )
    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path / "m.h5", stored)
    assert len(asked) < len(params) // 2
    assert [*tmp_path.iterdir()] == []


def sparse(path, spec):
    """A safetensors file of zeros, which takes no room on most file systems."""
    head, at = {}, 0
    for name, shape in parameters(spec).items():
        head[name], at = (
            {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * prod(shape)]},
            at + 4 * prod(shape),
        )
    path.write_bytes(ff.safetensors(head, b""))
    with path.open("ab") as file:
        file.truncate(file.tell() + at)


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/status").exists(),
    reason="the system does not say how much memory there was at most",
)
def test_the_command_takes_the_largest_tensor_and_64_mib(tmp_path):
    """Compare the whole process with one that has a small network; the file has 340 MiB."""
    spec = variant("resnext101_32x8d")
    code = """if True:
        import sys
        from tinyresnext.cli.main import main
        main(sys.argv[1:])
        print(open('/proc/self/status').read())"""
    peaks = []
    for name, network in (("small", SMALL), ("large", spec)):
        sparse(tmp_path / name, network)
        command = [
            sys.executable,
            "-c",
            code,
            "convert",
            str(tmp_path / name),
            str(tmp_path / f"{name}.h5"),
        ]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks.append(int(re.search(r"VmHWM:\s+(\d+) kB", told)[1]) << 10)
    largest = max(4 * prod(shape) for shape in parameters(spec).values())
    assert (tmp_path / "large").stat().st_size > 4 * (largest + 64 * MIB)
    assert peaks[1] < peaks[0] + largest + 64 * MIB
