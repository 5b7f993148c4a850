"""Broken and malicious checkpoints: each raises its typed error, and nothing else happens.

Three kinds: attacks by hand (`hostile_pickles`, `hostile_containers`), every truncation, and
thousands of seeded mutations, for which the two formats can promise different things:

* A zip member carries a CRC-32, and everything else in the archive is checked against something. A
  mutated file is
  refused or gives exactly the original tensors.
* The legacy format has no checksum. A flipped bit in a weight, or in a name, is another valid file,
  and no reader can tell.
  What can be promised is that the reader takes the file at its word: whatever it accepts, an
  independent reading (`torch_oracle`, Python's own unpickler) accepts too, with the same names,
  shapes and bits. Names and shapes that belong to no ResNeXt are refused later, when the
  architecture is inferred, and published files have a SHA-256.
"""

from __future__ import annotations

import os
import tracemalloc

import hostile_containers
import hostile_pickles
import numpy as np
import pytest
from audit import watching
from hostile_pickles import FOUR, in_zip, ints, rebuilt
from torch_files import (
    Legacy,
    Raw,
    StateDict,
    Storage,
    View,
    call,
    glob,
    legacy_file,
    numbers,
    small_state,
    tensor,
    text,
    zip_file,
)
from torch_oracle import read_legacy

from tinyresnext.checkpoints.readers import container
from tinyresnext.errors import FormatError, IntegrityError, UnsafeError, WeightsError

CASES = [*hostile_pickles.cases(), *hostile_containers.cases()]
REFUSALS = {FormatError, IntegrityError, UnsafeError}


@pytest.fixture
def read(tmp_path):
    """Write bytes to a file and read them as a checkpoint; only that file may be opened, once."""
    path = tmp_path / "model.pth"

    def go(data):
        path.write_bytes(data)
        with watching() as events:
            try:
                return container.read(path)
            finally:
                assert [e for e in events if e[0] != "open"] == []
                assert events[0] == ("open", str(path))
                assert all(isinstance(argument, int) for _, argument in events[1:])

    return go


def test_there_are_enough_cases_and_each_has_its_name():
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names) >= 150
    kinds = {name.split("-")[0] for name in names}
    assert kinds >= {f"P{n:02d}" for n in range(1, 46)} | {"L", "Z"}


def case(name, data, error):
    """Return a case; the large ones are for the long checks, but for one of them."""
    long = name.startswith("P36-") and name != "P36-million_none-zip"
    return pytest.param(data, error, id=name, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize(("data", "error"), [case(*one) for one in CASES])
def test_refused(read, data, error):
    with pytest.raises(error) as caught:
        read(data)
    assert caught.type in REFUSALS
    assert len(str(caught.value)) < 600  # a file cannot fill the screen


@pytest.mark.parametrize(
    "code",
    {
        "tensor": rebuilt(b"K\0", ints(4), ints(1)),
        "tensor_v1": rebuilt(b"K\0", ints(4), ints(1), name="_rebuild_tensor", tail=()),
        "parameter": call(
            "torch._utils",
            "_rebuild_parameter",
            rebuilt(b"K\0", ints(4), ints(1)),
            b"\x88",
            glob("collections", "OrderedDict") + b")R",
        ),
        "strided": rebuilt(b"K\1", ints(2), ints(2)),
    }.items(),
    ids=lambda item: item[0],
)
def test_the_attacks_fail_for_their_own_reason(read, code):
    """The same file with an honest tensor is accepted, so the false tensor is what is refused."""
    assert "layer1.extra" in read(in_zip(code[1])).tensors


def test_the_legacy_attacks_fail_for_their_own_reason(read):
    assert read(hostile_containers.view(FOUR, FOUR)).tensors["w1"].shape == (4,)
    assert list(read(Legacy(small_state()).build()).tensors) == list(small_state())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("million_none", marks=pytest.mark.slow),
        pytest.param("million_dicts", marks=pytest.mark.slow),
        pytest.param("million_memoize", marks=pytest.mark.slow),
        pytest.param("million_tuples", marks=pytest.mark.slow),
        pytest.param("ordered_dicts", marks=pytest.mark.slow),
    ],
)
def test_bombs_stay_small(tmp_path, name):
    _bounded(tmp_path, f"P36-{name}-legacy")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("P36-one_item_dicts-zip", marks=pytest.mark.slow),
        "P36-many_wide_texts-zip",
        "P37-laughs_by_ordered_dict-zip",
        "P33-expand_bomb-legacy",
        "P33-many_views_bomb-zip",
        "P35-binunicode_4g-legacy",
        "L-storage_of_1_TB",
        "L-keys_million",
        "Z-25000_entries",
        "Z-declared_4_GB",
        "Z-deflate_bomb",
        "Z-pickle_of_9_MB",
    ],
)
def test_other_bombs_stay_small(tmp_path, name):
    _bounded(tmp_path, name)


def _bounded(tmp_path, case):
    """Refusing costs at most the file's size and 64 MiB."""
    data = next(data for name, data, _ in CASES if name == case)
    path = tmp_path / "bomb.pth"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError):
            container.read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < len(data) + (64 << 20)


# -- truncations


@pytest.mark.parametrize("build", [legacy_file, zip_file])
def test_truncated_at_every_byte(tmp_path, build):
    """Cut one file shorter and shorter; the lengths include every section's boundary."""
    path = tmp_path / "model.pth"
    path.write_bytes(build(small_state()))
    for length in reversed(range(path.stat().st_size)):
        os.truncate(path, length)
        with pytest.raises(WeightsError):
            container.read(path)


@pytest.mark.parametrize("build", [legacy_file, zip_file])
def test_truncated_every_4_KB(tmp_path, build):
    path = tmp_path / "model.pth"
    path.write_bytes(build({f"layer.{i}": tensor(numbers((50, 100), i)) for i in range(20)}))
    assert path.stat().st_size > 400_000
    for length in reversed(range(0, path.stat().st_size, 4096)):
        os.truncate(path, length)
        with pytest.raises(WeightsError):
            container.read(path)


def test_every_section_of_the_legacy_format_removed_doubled_or_swapped(read):
    """Five pickles, lengths and data: each matters, and so does the order of unequal neighbours."""
    sections = [data for name, data in Legacy(small_state()).sections() if data]
    for i in range(len(sections)):
        for changed in (
            sections[:i] + sections[i + 1 :],
            sections[: i + 1] + sections[i:],
            sections[:i] + sections[i + 1 : i + 2] + sections[i : i + 1] + sections[i + 2 :],
        ):
            if changed != sections:
                with pytest.raises(WeightsError):
                    read(b"".join(changed))


# -- mutations


def variety():
    """Small files that together use everything a reader has to understand."""
    store = Storage(numbers(24), "Float")
    views = {
        "a": View(store, 0, (4, 6), (6, 1)),
        "b": View(store, 6, (6, 3), (1, 6)),
        "c": View(store, 1, (3, 4), (8, 2)),
    }
    types = {
        "half": tensor(numbers((2, 3), 1, np.float16)),
        "bfloat": tensor(np.array([0x3F80, 0xBF00, 0x4000], np.uint16), kind="BFloat16"),
        "double": tensor(numbers(3, 2, np.float64), parameter=True),
        "flags": tensor(np.array([True, False, True])),
        "bytes": tensor(np.arange(5, dtype=np.uint8)),
    }
    options = Raw(glob("argparse", "Namespace") + b")\x81}" + text("lr") + b"K\1sb")
    wrapped = {
        "state_dict": StateDict({f"module.{k}": v for k, v in small_state().items()}),
        "epoch": 3,
        "args": options,
    }
    return [small_state(), views, types, wrapped]


def mutations(data, count, seed):
    """Yield damaged copies: bits flipped, bytes smashed, blocks zeroed, removed or moved, cut."""
    rng = np.random.default_rng(seed)
    n = len(data)
    made = 0
    while made < count:
        kind = rng.integers(8)
        at, length = (
            int(rng.integers(n)),
            int(rng.integers(1, 1 + (16 if rng.integers(2) else 256))),
        )
        block = data[at : at + length]
        if kind <= 1:
            changed = bytearray(data)
            for position in rng.integers(n, size=1 if kind == 0 else rng.integers(1, 9)):
                changed[position] ^= 1 << rng.integers(8)
        elif kind == 2:
            noise = rng.bytes(min(length, 8))
            changed = data[:at] + noise + data[at + len(noise) :]
        elif kind == 3:
            changed = data[:at] + bytes(len(block)) + data[at + length :]
        elif kind == 4:
            changed = data[:at] + data[at + length :]
        elif kind == 5:
            changed = data[: at + length] + block + data[at + length :]
        elif kind == 6:
            rest = data[:at] + data[at + length :]
            to = int(rng.integers(len(rest) + 1))
            changed = rest[:to] + block + rest[to:]
        else:
            changed = data[:at]
        if bytes(changed) != data:
            made += 1
            yield bytes(changed)


def accepted(path, damaged, read=container.read):
    """Yield each damaged file that is read, and what is found; others end in a typed error.

    The file stays open, since opening it for each takes as long as refusing it.
    """
    with open(path, "wb", buffering=0) as file:
        for data in damaged:
            file.truncate(0)
            file.seek(0)
            file.write(data)
            try:
                found = read(path)
            except WeightsError:
                continue
            yield data, found


def bits(tensors):
    """Everything that distinguishes two results."""
    return [
        (name, array.dtype.str, array.shape, array.tobytes()) for name, array in tensors.items()
    ]


COUNTS = [pytest.param(500, id="500"), pytest.param(2500, marks=pytest.mark.slow, id="2500")]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("index", range(4))
def test_mutated_zip(tmp_path, index, count):
    """A typed error, or exactly the original: no bit of a weight can change unnoticed."""
    data = zip_file(variety()[index])
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    original = bits(container.read(path).tensors)
    accepted = 0
    for changed in mutations(data, count, seed=index):
        path.write_bytes(changed)
        try:
            found = container.read(path)
        except WeightsError as error:
            assert type(error) in REFUSALS  # noqa: PT017
        else:
            accepted += 1
            assert bits(found.tensors) == original
    assert accepted < count // 2  # what remains are dates, versions and padding


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("index", range(4))
def test_mutated_legacy(tmp_path, index, count):
    """Refused with a typed error, or read as the file now literally says."""
    value = variety()[index]
    data = legacy_file(value)
    path = tmp_path / "model.pth"
    accepted = 0
    for changed in mutations(data, count, seed=100 + index):
        path.write_bytes(changed)
        try:
            found = container.read(path)
        except WeightsError as error:
            assert type(error) in REFUSALS  # noqa: PT017
        else:
            accepted += 1
            assert bits(found.tensors) == literally(changed, found)
    assert 0 < accepted < count


def literally(data, found):
    """What `torch_oracle` reads under the wrapper and prefix that the reader reports."""
    top = read_legacy(data)
    mapping = top[found.wrapper] if found.wrapper else top
    # A name that has other letters than names of tensors is left out under what is shown of it.
    left_out = {name for name in mapping if {name, ascii(name)[:40]} & {*found.skipped}}
    expected = {
        name.removeprefix(found.prefix): value.array()
        for name, value in mapping.items()
        if name not in left_out
    }
    assert all(name.startswith(found.prefix) for name in mapping if name not in left_out)
    return bits(expected)


def test_a_flipped_bit_in_a_weight(tmp_path):
    """The limit of the legacy format and the strength of the zip format: every bit of a number."""
    state = {"w": tensor(numbers(3)), "n": tensor(np.array(5, np.int64))}
    path = tmp_path / "model.pth"
    sections = list(Legacy(state).sections())
    legacy, zipped = legacy_file(state), zip_file(state)
    raw = [data for name, data in sections if name.startswith("data")]
    for block, name in zip(raw, state, strict=True):
        for bit in range(8 * len(block)):
            flipped = bytearray(block)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(zipped.replace(block, flipped))
            with pytest.raises(IntegrityError, match="damaged"):
                container.read(path)
            path.write_bytes(legacy.replace(block, flipped))
            assert container.read(path).tensors[name].tobytes() == flipped
