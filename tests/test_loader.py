"""Mini-batches: independent of threads and of where an epoch begins; errors; ends of threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from data_files import picture, write_files, write_zip

from tinyresnext.data import open_dataset
from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader
from tinyresnext.errors import ImageError, MachineError, UsageError
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.images.prepare import normalise

RANDOM = Augment(8, padding=2, flip=True, brightness=0.3)
PARTS = Augment(6, scale=(0.2, 1.0), flip=True)
PLAIN = Augment(8)
SAME = Augment(8, resize=8, padding=2, flip=True)


def in_memory(n=50, read=None, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(n) % 7
    kept = pixels if read is None else None
    return Dataset(
        tuple("abcdefg"),
        labels,
        [f"p{i}" for i in range(n)],
        read or pixels.__getitem__,
        kept,
        **options,
    ), pixels


def batches(dataset, augment=RANDOM, epoch=0, first=0, **options):
    with Loader(dataset, augment, **({"batch": 8, "seed": 5} | options)) as loader:
        return list(loader.epoch(epoch, first))


def same(found, expected):
    assert len(found) == len(expected)
    for (x, labels), (y, others) in zip(found, expected, strict=True):
        assert x.dtype == y.dtype == np.float32
        assert labels.dtype == others.dtype == np.int64
        assert x.tobytes() == y.tobytes()
        assert labels.tolist() == others.tolist()


def different(found, expected):
    return any(x.tobytes() != y.tobytes() for (x, _), (y, _) in zip(found, expected, strict=True))


@pytest.mark.parametrize("augment", [RANDOM, PARTS, PLAIN, SAME])
def test_threads_and_timing_do_not_matter(augment):
    dataset, pixels = in_memory()
    one = batches(dataset, augment)
    same(batches(dataset, augment, threads=1), one)
    same(batches(dataset, augment, threads=5), one)
    rng = np.random.default_rng(1)

    def slowly(i):
        time.sleep(rng.random() / 2000)
        return pixels[i]

    same(batches(in_memory(read=slowly)[0], augment, threads=5), one)


def test_seeds_and_epochs_matter():
    dataset, _ = in_memory()
    first = batches(dataset)
    assert different(batches(dataset, seed=6), first)
    assert different(batches(dataset, epoch=1), first)
    same(batches(dataset, epoch=1), batches(dataset, epoch=1))
    plain = batches(dataset, shuffle=False)
    assert different(batches(dataset, shuffle=False, epoch=1), plain), (
        "the same order, other windows"
    )


def test_every_batch_has_numbers_of_its_own():
    pixels = np.tile(np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1), (64, 1, 1, 3))
    alike = Dataset(("a",), np.zeros(64, np.int64), range(64), pixels.__getitem__, pixels)
    found = {x.tobytes() for epoch in range(3) for x, _ in batches(alike, epoch=epoch)}
    assert len(found) == 24


@pytest.mark.parametrize("read", [False, True])
def test_sides_alternate(read):
    """An image is mirrored in every other epoch, whatever the order; about half begin mirrored."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    dataset, _ = in_memory(400, pixels.__getitem__ if read else None)
    ways = np.concatenate(
        [normalise(pixels, PLAIN.preprocess), normalise(pixels[:, :, ::-1], PLAIN.preprocess)]
    )
    numbers = {way.tobytes(): i for i, way in enumerate(ways)}
    epochs = []
    for epoch in range(3):
        found = batches(dataset, Augment(8, flip=True, alternate=True), epoch=epoch)
        shown = [numbers[x.tobytes()] for xs, _ in found for x in xs]
        assert sorted(i % 400 for i in shown) == list(range(400))
        epochs.append(sorted(i % 400 for i in shown if i >= 400))
    assert sorted(epochs[0] + epochs[1]) == list(range(400))
    assert epochs[2] == epochs[0]
    assert abs(len(epochs[0]) - 200) < 40  # four standard deviations


def test_sides_alternate_where_broken_pictures_are_replaced(tmp_path):
    files = {f"{'ab'[i // 8]}/{i:02}.png": picture(i) for i in range(16)} | {"a/03.png": b"x"}
    dataset = open_dataset(
        write_files(tmp_path, files), on_broken="skip", memory=0, warn=lambda line: None
    )
    one, two = (
        batches(dataset, Augment(8, flip=True, alternate=True), epoch=e, shuffle=False, batch=16)[
            0
        ][0]
        for e in (0, 1)
    )
    assert (one == two[:, :, ::-1]).all()
    assert (one[3] == one[4]).all(), "the same picture from the same side"


@pytest.mark.parametrize("first", [0, 1, 3, 5, 6])
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_from_the_middle_is_the_tail_of_the_whole(first, drop_last):
    dataset, _ = in_memory()
    whole = batches(dataset, epoch=2, drop_last=drop_last)
    same(batches(dataset, epoch=2, first=first, drop_last=drop_last, threads=3), whole[first:])


def test_an_epoch_is_every_picture_once():
    dataset, pixels = in_memory()
    found = batches(dataset, PLAIN, drop_last=False)
    assert [len(x) for x, _ in found] == [8] * 6 + [2]
    rows = {row.tobytes(): i for i, row in enumerate(normalise(pixels, PLAIN.preprocess))}
    taken = [rows[row.tobytes()] for x, _ in found for row in x]
    assert sorted(taken) == list(range(50))
    assert taken != sorted(taken)
    assert [label for _, labels in found for label in labels] == [i % 7 for i in taken]
    with Loader(dataset, PLAIN, 8) as loader:
        assert len(loader) == 6
        assert len(list(loader.epoch(0))) == 6


def test_without_shuffling_it_is_the_order_of_the_data_set():
    dataset, pixels = in_memory()
    found = batches(dataset, PLAIN, shuffle=False, drop_last=False)
    assert (np.concatenate([x for x, _ in found]) == normalise(pixels, PLAIN.preprocess)).all()
    assert np.concatenate([labels for _, labels in found]).tolist() == dataset.labels.tolist()


def test_orders_are_spread():
    """Each of 10 images comes first equally often: 2,000 epochs give 200 +- 5 * 13.4."""
    dataset, _ = in_memory(10)
    with Loader(dataset, PLAIN, 10) as loader:
        firsts = np.bincount([loader.order(epoch)[0] for epoch in range(2000)], minlength=10)
    assert abs(firsts - 200).max() < 67


def test_the_numbers_of_this_generator():
    """The order is fixed, so that a later version can resume a run."""
    dataset, _ = in_memory(8)
    with Loader(dataset, PLAIN, 8, seed=1) as loader:
        assert loader.order(0).tolist() == [2, 3, 0, 7, 4, 1, 5, 6]
        assert loader.order(0).dtype == np.int64


def test_pixels_in_memory_and_files_give_the_same(tmp_path):
    files = {f"{'ab'[i % 2]}/{i:02}.png": picture(i) for i in range(30)}
    folder, archive = write_files(tmp_path / "d", files), write_zip(tmp_path / "d.zip", files)
    expected = batches(open_dataset(folder))
    same(batches(open_dataset(archive)), expected)
    same(batches(open_dataset(folder, memory=0), threads=3), expected)
    same(batches(open_dataset(archive, memory=0), threads=3), expected)


def test_errors_arrive_where_batches_are_taken(tmp_path):
    files = {f"a/{i:02}.png": picture(i) for i in range(30)} | {"a/17.png": b"<html>"}
    dataset = open_dataset(write_zip(tmp_path / "d.zip", files), memory=0)
    with Loader(dataset, RANDOM, 8, shuffle=False, drop_last=False) as loader:
        taken = loader.epoch(0)
        assert len([next(taken), next(taken)]) == 2
        with pytest.raises(ImageError, match=r"a/17.png seems to be text with tags"):
            next(taken)
        assert len(list(loader.epoch(0, 3))) == 1, "the loader is good for more"


def test_broken_pictures_are_replaced_or_left_out(tmp_path):
    files = {f"{'abc'[i // 10]}/{i:02}.png": picture(i) for i in range(30)}
    files |= dict.fromkeys(["b/17.png", "b/18.png", "c/29.png"], b"x")
    lines = []
    dataset = open_dataset(
        write_files(tmp_path, files), on_broken="skip", memory=0, warn=lines.append
    )
    full = batches(dataset, PLAIN, shuffle=False, batch=10)
    assert [len(x) for x, _ in full] == [10] * 3
    expected = normalise(np.stack([dataset.picture(i) for i in (16, 19, 19, 19)]), PLAIN.preprocess)
    assert (full[1][0][6:] == expected).all()
    assert (full[2][0][9] == normalise(dataset.picture(0), PLAIN.preprocess)).all(), (
        "after the last comes the first"
    )
    assert full[2][1][9] == 0, "with its label"
    assert len(lines) == 3
    short = batches(dataset, PLAIN, shuffle=False, batch=10, drop_last=False)
    assert [len(x) for x, _ in short] == [10, 8, 9]
    assert short[1][1].tolist() == [1] * 8
    same(batches(dataset, RANDOM, threads=4), batches(dataset, RANDOM))


def test_nothing_but_broken_pictures_found_late():
    def broken(i):
        raise ImageError("it is empty")

    dataset, _ = in_memory(read=broken, skips=True, warn=lambda line: None)
    with pytest.raises(
        ImageError, match="none of the 50 images can be used; the error of the last is: it is empty"
    ):
        batches(dataset, PLAIN)
    assert batches(dataset, PLAIN, drop_last=False) == []


def test_no_picture_takes_the_place_of_one_that_the_machine_cannot_read():
    """A run that goes on would see other images than one that was not stopped."""

    def failing(i):
        raise MachineError("'p1' cannot be read: Input/output error")

    dataset, _ = in_memory(read=failing, skips=True, warn=pytest.fail)
    for drop_last in (True, False):
        with pytest.raises(MachineError, match="Input/output error"):
            batches(dataset, PLAIN, drop_last=drop_last)


def test_a_picture_of_the_wrong_size_is_named(tmp_path):
    dataset = open_dataset(write_files(tmp_path, {"a/1.png": picture(1), "a/2.png": picture(2, 9)}))
    with pytest.raises(ImageError, match=r"a/2.png: an image is 9 x 9 pixels and 8 x 8"):
        batches(dataset, PLAIN, batch=2)


def threads_of_loaders():
    return [
        thread for thread in threading.enumerate() if thread.name.startswith("tinyresnext-loader")
    ]


def test_leaving_stops_the_threads_at_once():
    _, pixels = in_memory()

    def slowly(i):
        time.sleep(0.05)
        return pixels[i % 50]

    dataset, _ = in_memory(4000, read=slowly)
    with Loader(dataset, RANDOM, 4000, threads=3, drop_last=False) as loader:  # a minute a batch
        taken = loader.epoch(0)
        timer = threading.Timer(0.2, loader.close)
        timer.start()
        start = time.monotonic()
        with pytest.raises(UsageError, match="closed"):
            next(taken)
        timer.join()
    assert time.monotonic() - start < 30
    assert not threads_of_loaders()
    with pytest.raises(UsageError, match="closed"):
        loader.epoch(0)


def test_few_batches_wait():
    """Only as many mini-batches as threads, and two more, are computed before they are taken."""
    read = []
    _, pixels = in_memory(400)
    dataset, _ = in_memory(400, read=lambda i: (read.append(i), pixels[i])[1])
    with Loader(dataset, RANDOM, 10, threads=2) as loader:
        taken = loader.epoch(0)
        next(taken)
        time.sleep(0.3)
        assert len(read) <= 10 * (1 + 2 + 2)
        assert len(read) >= 10 * (1 + 2)


def test_an_epoch_that_is_given_up():
    dataset, _ = in_memory(400)
    with Loader(dataset, RANDOM, 10) as loader:
        for _ in loader.epoch(0):
            break
        same([next(loader.epoch(0))], [next(loader.epoch(0))])
    assert not threads_of_loaders()


SCRIPT = """
import sys, time
import numpy as np
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader

def slowly(i):
    time.sleep(0.05)
    return np.zeros((8, 8, 3), np.uint8)

dataset = Dataset(("a",), np.zeros(4000, np.int64), range(4000), slowly)
{}
"""
WITH = """
try:
    with Loader(dataset, Augment(8), 2400, threads=2) as loader:
        print("ready", flush=True)
        for batch in loader.epoch(0):
            pass
except KeyboardInterrupt:
    print("interrupted")
"""
WITHOUT = """
loader = Loader(dataset, Augment(8), 2, threads=2)
taken = loader.epoch(0)
next(taken)
print("ready", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent in another way")
@pytest.mark.parametrize("script", [WITH, WITHOUT])
def test_no_process_is_left_hanging(script):
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT.format(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        start = time.monotonic()
        if script is WITH:
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=50)
    finally:
        child.kill()
    assert time.monotonic() - start < 30, "a mini-batch takes a minute"
    assert (child.returncode, err) == (0, "")
    assert out == ("interrupted\n" if script is WITH else "")


@pytest.mark.parametrize(
    "changed",
    [
        {"batch": 0},
        {"batch": 1.5},
        {"batch": 51},
        {"seed": -1},
        {"seed": None},
        {"threads": 0},
        {"threads": True},
    ],
)
def test_values_that_are_refused(changed):
    dataset, _ = in_memory()
    with pytest.raises(UsageError):
        Loader(dataset, RANDOM, **({"batch": 8} | changed))


@pytest.mark.parametrize(
    ("epoch", "first"), [(-1, 0), (0, -1), (0, 7), (0.5, 0), (0, None), (2**32, 0)]
)
def test_epochs_that_are_refused(epoch, first):
    dataset, _ = in_memory()
    with Loader(dataset, RANDOM, 8) as loader, pytest.raises(UsageError):
        loader.epoch(epoch, first)
