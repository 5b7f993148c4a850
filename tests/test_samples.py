"""What becomes of images on their way to a step, against what torchvision and timm compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import sample_cases as cases
from policy_cases import MEAN, STD, Stream, checksum, images

from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.images.prepare import normalise
from tinyresnext.training.recipes.parts import Loss
from tinyresnext.training.samples.mixing import mixed

EXPECTED = json.loads((Path(__file__).parent / "data" / "samples.json").read_text("utf-8"))
PILLOW_13 = pytest.mark.skipif(
    PIL.__version__.split(".")[0] != "13", reason="the checksums are of images by Pillow 13"
)


def pixels(x: np.ndarray) -> np.ndarray:
    """Return the levels that were normalised."""
    return np.rint((x * np.float32(STD) + np.float32(MEAN)) * 255).astype(np.uint8)


@PILLOW_13
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_random_crop_that_may_be_mirrored_is_torchvisions(interpolation):
    how = {"interpolation": interpolation, "scale": (0.08, 1.0), "flip": True}
    augment = Augment(cases.CROP, MEAN, STD, **how)
    found = []
    for i, image in enumerate(images()):
        crop = augment.fit(np.asarray(image), Stream(i))
        found.append(checksum(pixels(augment.finish(crop[None], Stream(1000 + i)))[0]))
    assert found == EXPECTED[f"crop {interpolation}"]


def test_a_window_in_a_padded_image_is_torchvisions():
    augment = Augment(cases.SIDE, MEAN, STD, padding=cases.PADDING, flip=True)
    found = [
        checksum(pixels(augment.finish(image[None], Stream(i)))[0])
        for i, image in enumerate(cases.squares())
    ]
    assert found == EXPECTED["window"]


@PILLOW_13
def test_jittered_colours_are_torchvisions():
    brightness, contrast, saturation, hue = cases.JITTER
    amounts = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    augment = Augment(32, **amounts, hue=hue)
    found = [
        checksum(augment._jittered(np.asarray(image), Stream(i)))
        for i, image in enumerate(images())
    ]
    assert found == EXPECTED["jitter"]


def test_every_level_is_normalised_as_torchvision_does_it():
    """All pixels of all images are among these 768; not a bit differs."""
    levels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    found = normalise(levels, Augment(8, MEAN, STD).preprocess)
    assert np.array_equal(found, np.array(EXPECTED["normalised"], np.float32))


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("mixup", Loss(mixup=0.2)),
        ("cutmix", Loss(cutmix=1.0)),
        ("either", Loss(mixup=0.2, cutmix=1.0)),
    ],
)
def test_mixtures_are_torchvisions(name, loss):
    """Images and targets have the same bits; a mini-batch has one draw."""
    found = [
        list(map(checksum, mixed(x, rows, loss, cases.Drawn(i))))
        for i, (x, rows) in enumerate(cases.batches())
    ]
    assert found == EXPECTED[name]


@pytest.mark.parametrize("batch", [12, 32, 128])
def test_repeated_images_come_in_the_mini_batches_of_timm(monkeypatch, batch):
    """Those of all ranks together; inside a mini-batch, copies of an image stand apart."""
    names = range(cases.REPEATED)
    blank = np.zeros((1, 1, 3), np.uint8)
    dataset = Dataset(("a",), np.zeros(cases.REPEATED, np.int64), names, lambda _: blank)
    monkeypatch.setattr(Loader, "_drawn", lambda *_: cases.permutation())
    with Loader(dataset, Augment(1), batch, repeats=cases.REPEATS) as loader:
        found = loader.order(0)
    theirs = np.array(EXPECTED["repeated"])
    for first in range(0, cases.REPEATED, batch):
        ours, others = found[first : first + batch], theirs[first : first + batch]
        assert sorted(ours.tolist()) == sorted(others.tolist())
        assert (ours != np.roll(ours, 1)).all()
