"""Policies of augmentation and random erasing, against what torchvision and timm compute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image
from policy_cases import (
    COUNT,
    ERASED,
    MEAN,
    TIMM,
    TORCHVISION,
    Stream,
    checksum,
    images,
    noise,
)

from tinyresnext.data.dataset import Dataset
from tinyresnext.data.loader import Loader
from tinyresnext.errors import UsageError
from tinyresnext.images.augmentation import erase as erasing
from tinyresnext.images.augmentation import torchvision
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.images.augmentation.names import NAMES
from tinyresnext.images.augmentation.operations import How, apply
from tinyresnext.images.augmentation.policy import policy, vary

EXPECTED = json.loads((Path(__file__).parent / "data" / "policies.json").read_text("utf-8"))
PILLOW_13 = pytest.mark.skipif(
    PIL.__version__.split(".")[0] != "13", reason="the checksums are of images by Pillow 13"
)


@pytest.fixture(scope="module")
def pictures():
    return [np.asarray(image) for image in images()]


@PILLOW_13
@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_a_policy_is_the_other_librarys(name, pictures):
    """With the same random numbers, all pixels of all 200 images are the same."""
    changes = policy(name, "bilinear", MEAN)
    found = [checksum(vary(image, changes, Stream(i))) for i, image in enumerate(pictures)]
    assert found == EXPECTED[name]


def erased(seed: int, mode: str, most: int = 1) -> np.ndarray:
    x = np.ones((1, *ERASED), np.float32)
    erasing.erase(x, 0.7, mode, [Stream(seed)] * len(x), most)
    return x[0]


def test_torchvision_erases_the_same():
    assert [checksum(erased(i, "zero")) for i in range(COUNT)] == EXPECTED["erase zero"]


def test_timm_erases_the_same_with_the_same_noise(monkeypatch):
    monkeypatch.setattr(erasing, "_normal", noise)
    assert [checksum(erased(i, "pixel")) for i in range(COUNT)] == EXPECTED["erase pixel"]
    assert [checksum(erased(i, "pixel", 3)) for i in range(COUNT)] == EXPECTED["erase three"]


def test_the_noise_in_a_rectangle_is_normal():
    noise = erasing._normal((300, 300), Stream(0))
    n = noise.size
    assert abs(noise.mean()) < 5 / np.sqrt(n)  # five standard deviations of each
    assert abs(noise.var() - 1) < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize("name", [*NAMES, "rand-m9-mstd0.5", "augmix-m9-w2"])
def test_grey_images_and_single_pixels(name):
    changes = policy(name, "bicubic", (0.5,))
    for shape in ((9, 14, 1), (1, 1, 1)):
        for seed in range(60):
            picture = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
            found = vary(picture, changes, Stream(seed))
            assert found.shape == shape
            assert found.dtype == np.uint8


def test_augmix_is_a_mixture(monkeypatch):
    """Its shares have the sum 1: where no operation changes anything, the image stays."""
    changes = policy("augmix", "bilinear", MEAN)
    differs = [vary(np.asarray(image), changes, Stream(i)) for i, image in enumerate(images()[:9])]
    assert len({checksum(found) for found in differs}) == 9
    monkeypatch.setattr(torchvision, "_applied", lambda image, *_: image)
    for i, image in enumerate(images()[:9]):
        same = vary(np.asarray(image), changes, Stream(i))
        lost = np.asarray(image, int) - same
        assert lost.min() >= 0
        assert lost.max() <= 1  # a fraction is cut off


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("rond", "rond"),
        ("rand-q3", "q3"),
        ("rand-m", "'m'"),
        ("rand-tweights", "tweights"),
        ("rand-m7.5", r"m7\.5"),
        ("rand-n100000", "number of operations, once and from 1 to 16"),
        ("rand-p2", "probability"),
        ("rand-m3-m4", "once"),
        ("augmix-n3", "expected m, w, d or mstd"),
        ("augmix-m5-w0", "number of chains, once and from 1 to 16"),
        ("augmix-b1", "such as augmix-m5-w4-d2"),
        ("RA", "expected one of imagenet"),
    ],
)
def test_what_is_no_policy_is_named(wrong, named):
    with pytest.raises(UsageError, match=named):
        Augment(32, policy=wrong)


def test_posterize_below_one_bit_is_black():
    """Pillow refuses less than one bit, which timm's magnitude 10 asks for."""
    image = Image.fromarray(np.full((2, 2, 3), 255, np.uint8))
    how = How(Image.Resampling.BILINEAR, 0)
    assert [np.asarray(apply(image, "posterize", bits, how)).max() for bits in (-2, 0, 1, 8)] == [
        0,
        0,
        128,
        255,
    ]


def test_images_that_repeat_are_augmented_anew():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    dataset = Dataset(tuple("abcdefghijkl"), np.arange(12), range(12), pixels.__getitem__, pixels)
    augment = Augment(16, policy="ta_wide", erase=0.5, erase_with="pixel")
    with Loader(dataset, augment, 6, seed=1, repeats=3) as loader:
        assert len(loader) == 2
        batches = list(loader.epoch(0))
        again = list(loader.epoch(0, 1))
    for _, labels in batches:  # two images, in turn, so that neighbours differ
        assert labels.tolist() == labels[:2].tolist() * 3
    assert len({*batches[0][1].tolist(), *batches[1][1].tolist()}) == 4
    assert len({checksum(image) for x, _ in batches for image in x}) == 12
    assert all((a == b).all() for a, b in zip(batches[1], again[0], strict=True))
