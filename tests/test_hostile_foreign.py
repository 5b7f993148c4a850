"""Broken and malicious files of safetensors, NumPy, Torch7 and Keras: each raises its typed error.

As with ``.pth``, thousands of seeded mutations follow the attacks by hand. An ``.npz`` has a CRC
for each member, so a mutated one is refused or gives exactly the original. The other three have no
checksum: there, what the reader accepts must be what an independent reading of the same bytes
finds: ten lines of JSON for safetensors, a second walk for Torch7, and for Keras the bytes at the
known places or, where these have changed, the HDF5 library, in a process of its own because forged
files crash it.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tracemalloc

import foreign_files as ff
import hostile_keras
import hostile_npz
import hostile_safetensors
import hostile_torch7
import numpy as np
import pytest
from audit import watching
from test_hostile_checkpoints import bits, mutations
from torch_files import numbers

from tinyresnext.checkpoints.readers import container
from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

KINDS = (hostile_safetensors, hostile_npz, hostile_torch7, hostile_keras)
CASES = [(name, *case) for kind in KINDS for name, case in kind.cases().items()]
REFUSALS = {FormatError, IntegrityError, UnsafeError}
ARRAYS = {
    "a.weight": numbers((3, 4)),
    "b": numbers(5, 1, np.float16),
    "c": numbers(2, 2, np.float64),
    "n": np.array(7),
}


def test_there_are_enough_cases_and_each_has_its_name():
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names) >= 350
    assert all(sum(name.startswith(f"{kind}-") for name in names) >= 80 for kind in "SNTH")


def case(name, data, error):
    """Return a case; the one that takes seconds is for the long checks."""
    long = name == "T-million_numbers"
    return pytest.param(data, error, id=name, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize(("data", "error"), [case(*one) for one in CASES])
def test_refused(tmp_path, data, error):
    """The file is opened once, nothing is run, and memory stays at the file and 64 MiB."""
    path = tmp_path / "weights"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with watching() as events, pytest.raises(error) as caught:
            container.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [event for event in events if event != ("open", str(path))] == []
    assert len(events) == 1
    assert caught.type in REFUSALS
    assert len(str(caught.value)) < 600
    assert peak < len(data) + (64 << 20)


def test_a_function_is_passed_over(tmp_path):
    """Compiled Lua beside the weights is neither run nor understood."""
    (tmp_path / "w").write_bytes(ff.torch7_file())
    with watching() as events:
        assert container.read(tmp_path / "w").tensors
    assert [event for event, _ in events] == ["open"]


def squeezed(arrays):
    return ff.npz_file(arrays, squeeze=True)


BUILDERS = {
    "safetensors": lambda: ff.safe_file(ARRAYS),
    "npz": lambda: ff.npz_file(ARRAYS),
    "npz_deflated": lambda: squeezed(ARRAYS),
    "torch7": ff.torch7_file,
    "keras": ff.keras_file,
    "keras_varying": lambda: ff.keras_file(fixed=False),
}


@pytest.mark.parametrize("form", BUILDERS)
def test_truncated(tmp_path, form):
    """At every byte, longest first; for HDF5 at every seventh."""
    path = tmp_path / "weights"
    path.write_bytes(BUILDERS[form]())
    for length in reversed(range(0, path.stat().st_size, 7 if "keras" in form else 1)):
        os.truncate(path, length)
        with pytest.raises(WeightsError):
            container.read(path)


# -- mutations

COUNTS = [pytest.param(1, id="some"), pytest.param(5, marks=pytest.mark.slow, id="10000")]
SHARES = {
    "safetensors": 2000,
    "npz": 1000,
    "npz_deflated": 1000,
    "torch7": 2000,
    "keras": 1000,
    "keras_varying": 1000,
}


@pytest.mark.parametrize("times", COUNTS)
@pytest.mark.parametrize("form", BUILDERS)
def test_mutated(tmp_path, form, times):
    """Refused with a typed error, or what the bytes say."""
    data, path, accepted = BUILDERS[form](), tmp_path / "weights", []
    path.write_bytes(data)
    original = container.read(path)
    for changed in mutations(data, SHARES[form] * times, seed=sum(form.encode())):
        path.write_bytes(changed)
        try:
            found = container.read(path)
        except WeightsError as error:
            assert type(error) in REFUSALS  # noqa: PT017
        else:
            accepted.append((changed, found))
    assert len(accepted) < SHARES[form] * times * 2 // 3
    if form.startswith("npz"):
        assert all(bits(found.tensors) == bits(original.tensors) for _, found in accepted)
    elif form.startswith("keras"):
        compare_keras(
            tmp_path,
            data,
            original.tensors,
            [(changed, found.tensors) for changed, found in accepted],
        )
    else:
        literally = {"safetensors": literal_safetensors, "torch7": literal_torch7}[form]
        for changed, found in accepted:
            assert bits(found.tensors) == bits(narrowed(literally(changed), found.prefix))


def narrowed(tensors, prefix=""):
    """Floats as float32, names without the prefix."""
    with np.errstate(invalid="ignore", over="ignore"):
        return {
            name.removeprefix(prefix): np.asarray(
                a.astype(np.float32) if a.dtype.kind == "f" else a
            )
            for name, a in tensors.items()
        }


def literal_safetensors(data):
    """What the header says, with nothing checked; names that come twice cannot be told."""
    size = struct.unpack_from("<Q", data)[0]
    types = {name: f"<{code}" for code, name in ff.SAFE_TYPES.items()} | {
        f"U{8 * n}": f"<u{n}" for n in (2, 4, 8)
    }
    found = {}
    for name, entry in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            raw = data[8 + size + first : 8 + size + last]
            if entry["dtype"] == "BF16":
                found[name] = (
                    (np.frombuffer(raw, "<u2").astype(np.uint32) << 16)
                    .view(np.float32)
                    .reshape(entry["shape"])
                )
            else:
                found[name] = np.frombuffer(raw, types[entry["dtype"]]).reshape(entry["shape"])
    return found


def literal_torch7(data):
    """A second walk through the objects, with everything in memory and nothing checked."""
    at, known = 0, {}

    def take(form):
        nonlocal at
        values = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]

    def string():
        nonlocal at
        size = take("i")
        at += size
        return data[at - size : at].decode("latin-1")

    def value():
        nonlocal at
        tag = take("i")
        if tag in (0, 1, 2, 5):
            return {0: lambda: None, 1: lambda: take("d"), 2: string, 5: lambda: take("i")}[tag]()
        index = take("i") if tag != 6 else None
        if index in known:
            return known[index]
        if tag == 3:
            table = known[index] = {}
            for _ in range(take("i")):
                key, entry = value(), value()
                if type(key) in (str, float):
                    table[key] = entry
            return table
        if tag in (6, 7, 8):
            string()
            known[index] = None
            value()
            return None
        kind = string()
        kind = string() if kind.startswith("V ") else kind
        codes = {
            "Float": "<f4",
            "Double": "<f8",
            "Long": "<i8",
            "Byte": "<u1",
            "Half": "<f2",
            "Int": "<i4",
            "Short": "<i2",
            "Char": "<i1",
        }
        code = codes.get(
            kind.removeprefix("torch.")
            .removesuffix("Tensor")
            .removesuffix("Storage")
            .removeprefix("Cuda")
            or "Float"
        )
        if kind.endswith("Storage"):
            count = take("q")
            known[index] = np.frombuffer(data, code, count, at)
            at += known[index].nbytes
        elif kind.endswith("Tensor"):
            rank = take("i")
            size, stride = [take("q") for _ in range(rank)], [take("q") for _ in range(rank)]
            offset, storage = take("q") - 1, value()
            known[index] = None
            if rank and storage is not None:
                places = np.asarray(offset)
                for i, (n, s) in enumerate(zip(size, stride, strict=True)):
                    places = places + np.arange(n).reshape([-1] + [1] * (rank - 1 - i)) * s
                known[index] = storage[places]
        else:
            known[index] = thing = [None]
            thing[0] = value()
        return known[index]

    found = {}

    def walk(module, path):
        for name in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(module[0].get(name), np.ndarray):
                found[".".join([*path, name])] = module[0][name]
        for i in range(len(module[0].get("modules") or {})):
            walk(module[0]["modules"][float(i + 1)], [*path, str(i)])

    walk(value(), [])
    return found


LIBRARY = """
import sys, h5py, numpy
text = lambda v: v.decode() if isinstance(v, bytes) else v
found = {}
with h5py.File(sys.argv[1], "r") as file:
    for layer in file.attrs["layer_names"]:
        for name in file[text(layer)].attrs["weight_names"]:
            found[text(name)] = file[text(layer)][text(name)][()]
found = {name.replace("/", "|"): array for name, array in found.items()}
numpy.savez(sys.argv[1] + ".npz", **found)
"""


def compare_keras(folder, data, original, accepted):
    """Return the bytes at the array's old place, or what h5py reads if the structure changed."""
    starts = {name: data.index(array.tobytes()) for name, array in original.items()}
    others = []
    for changed, found in accepted:
        there = {
            name: np.frombuffer(changed, "<f4", array.size, starts[name]).reshape(array.shape)
            for name, array in original.items()
        }
        if len(changed) != len(data) or bits(found) != bits(there):
            others.append((changed, found))
    assert len(others) < len(accepted) // 10
    path = folder / "other"
    for changed, found in others:
        path.write_bytes(changed)
        subprocess.run(
            [sys.executable, "-c", LIBRARY, str(path)], check=True, capture_output=True, timeout=60
        )
        with np.load(f"{path}.npz") as arrays:
            expected = {name.replace("|", "/"): arrays[name] for name in arrays.files}
        assert bits(found) == bits(narrowed(expected))
