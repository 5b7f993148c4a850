"""Augmentation against other statements of its rules: Pillow, torchvision, single pixels."""

from __future__ import annotations

import math
import platform

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tinyresnext.errors import ImageError, UsageError
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.images.augmentation.colour import jitter
from tinyresnext.images.augmentation.crops import random_crop
from tinyresnext.images.prepare import normalise
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.images.resize import resize_and_crop

# Pillow computes in float32 as we do; only where the compiler fuses its product and sum may a level
# differ.
LEVELS = 0 if platform.machine() in ("x86_64", "AMD64") else 1
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


class Given:
    """Replaces a generator: returns these numbers one after the other."""

    def __init__(self, *numbers):
        self.numbers = [*numbers]

    def random(self, shape):
        count = math.prod(shape) if isinstance(shape, tuple) else shape
        taken, self.numbers = self.numbers[:count], self.numbers[count:]
        return np.array(taken).reshape(shape)


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.6, 0.999, 1.0, 1.001, 1.4, 2.0, 5.3])
@pytest.mark.parametrize("what", ENHANCERS)
def test_jitter_is_pillows(what, factor):
    for picture in (
        noise(32, 32, 3),
        noise(7, 50, 3, seed=1) // 4,
        np.full((3, 3, 3), 255, np.uint8),
    ):
        expected = np.asarray(ENHANCERS[what](Image.fromarray(picture)).enhance(factor)).astype(int)
        assert abs(jitter(picture, what, factor) - expected).max() <= LEVELS


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("what", ENHANCERS)
def test_jitter_of_grey(what, factor):
    picture = noise(9, 11, 1)
    found = jitter(picture, what, factor)
    if what == "saturation":
        assert (found == picture).all()
    else:
        expected = np.asarray(
            ENHANCERS[what](Image.fromarray(picture[:, :, 0])).enhance(factor)
        ).astype(int)
        assert abs(found[:, :, 0] - expected).max() <= LEVELS
    assert (jitter(picture, "hue", 0.3) == picture).all()


@pytest.mark.parametrize("shift", [-0.5, -0.3, -0.001, 0.0, 0.001, 0.25, 0.5])
def test_hue_goes_around_the_circle(shift):
    """Check torchvision's rule: hue plus the shift times 255, truncated, modulo 256."""
    picture = noise(16, 16, 3)
    hsv = np.array(Image.fromarray(picture).convert("HSV")).astype(int)
    hsv[:, :, 0] = (hsv[:, :, 0] + math.trunc(shift * 255)) % 256
    bands = [Image.fromarray(hsv[:, :, k].astype(np.uint8)) for k in range(3)]
    expected = np.asarray(Image.merge("HSV", bands).convert("RGB"))
    assert (jitter(picture, "hue", shift) == expected).all()


def test_hue_turns_red_into_green():
    red = np.zeros((1, 1, 3), np.uint8)
    red[..., 0] = 200
    assert jitter(red, "hue", 1 / 3).argmax() == 1
    assert jitter(red, "hue", -1 / 3).argmax() == 2


@pytest.mark.parametrize(
    ("order", "names"), [((0, 1, 2), "bcs"), ((2, 1, 0), "scb"), ((1, 2, 0), "csb")]
)
def test_jitter_in_a_drawn_order(order, names):
    """Four numbers sort the four changes, and four more are their amounts."""
    augment = Augment(8, brightness=0.4, contrast=0.5, saturation=0.6)
    picture = noise(8, 8, 3)
    keys = [0.0] * 4
    for place, which in enumerate((*order, 3)):
        keys[which] = place / 4
    draws = [0.25, 0.5, 0.75, 0.0]
    found = augment.finish(picture[np.newaxis], Given(*keys, *draws))
    amounts = {
        "b": ("brightness", 0.6 + 0.8 * 0.25),
        "c": ("contrast", 0.5 + 0.5),
        "s": ("saturation", 0.4 + 1.2 * 0.75),
    }
    for name in names:
        picture = jitter(picture, *amounts[name])
    assert (found[0] == normalise(picture, augment.preprocess)).all()


def test_a_random_part_by_torchvisions_rule():
    """The logarithm of the aspect is uniform.

    w = round(sqrt(area * share * aspect)), h = round(sqrt(area * share / aspect)).
    """
    draw = Given(0.5, 0.25, 0.999, 0.0)
    area = 100 * 80 * (0.08 + 0.92 * 0.5)
    aspect = math.exp(math.log(3 / 4) + 0.25 * (math.log(4 / 3) - math.log(3 / 4)))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    assert random_crop(100, 80, (0.08, 1.0), (3 / 4, 4 / 3), draw) == (0, 80 - h, w, h)


@pytest.mark.parametrize("swap", [0.4, 0.6])
def test_a_random_part_by_the_authors_rule(swap):
    """The aspect itself is uniform, and w and h are exchanged for every second crop."""
    area = 100 * 80 * (0.08 + 0.92 * 0.5)
    aspect = 3 / 4 + 0.25 * (4 / 3 - 3 / 4)
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    w, h = (h, w) if swap < 0.5 else (w, h)
    found = random_crop(
        100, 80, (0.08, 1.0), (3 / 4, 4 / 3), Given(0.5, 0.25, 0.999, 0.0, swap), even=True
    )
    assert found == (0, 80 - h, w, h)
    wide = (1.0, 1.0, 0.5, 0.5, 0.9)  # ten tries in vain, and then the middle square
    assert random_crop(70, 50, (1.0, 1.0), (3 / 4, 4 / 3), Given(*wide * 10), even=True) == (
        10,
        0,
        50,
        50,
    )


def test_lighting_moves_colours_as_those_of_imagenet_vary():
    augment = Augment(4, MEAN, STD, lighting=0.5)
    picture = np.full((20000, 4, 4, 3), 128, np.uint8)[:, :1, :1]
    moved = augment.finish(picture, np.random.default_rng(0))
    shift = (moved - Augment(4, MEAN, STD).finish(picture, np.random.default_rng(0)))[
        :, 0, 0
    ].astype(float) * STD
    # transforms.lua: the columns are the eigenvectors of the eigenvalues 0.2175, 0.0188, 0.0045
    directions = np.array(
        [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
    )
    along = shift @ np.linalg.inv(directions).T / (0.5 * np.array([0.2175, 0.0188, 0.0045]))
    # 20,000 normal numbers: mean 0 +- 4 / sqrt(n), variance 1 +- 4 sqrt(2 / n); float32 is finer
    # than 1e-3
    bound = 4 * math.sqrt(2 / len(along)) + 1e-3
    assert np.abs(along.mean(0)).max() < bound
    assert np.abs(along.T @ along / len(along) - np.eye(3)).max() < bound
    grey, still = (Augment(4, MEAN[:1], STD[:1], lighting=strength) for strength in (0.5, 0.0))
    assert (
        grey.finish(picture[:2, ..., :1], np.random.default_rng(0))
        == still.finish(picture[:2, ..., :1], None)
    ).all()


def test_lighting_is_one_colour_for_a_picture():
    block = noise(3, 5, 5, 3)
    seed = np.random.default_rng
    moved = Augment(5, lighting=0.1).finish(block, seed(1)) - Augment(5).finish(block, seed(1))
    assert np.abs(moved - moved[:, :1, :1]).max() < 1e-6
    assert np.abs(moved[0, 0, 0] - moved[1, 0, 0]).max() > 1e-3


@pytest.mark.parametrize("side", [1, 3, 4])
def test_cutout_wipes_out_a_square_around_the_pixel_that_is_drawn(side):
    """Compute it pixel by pixel: the middle is any pixel, and what lies outside is ignored."""
    block = noise(3, 6, 6, 3)
    augment = Augment(6, MEAN, STD, cutout=side)
    draws = [(0.5, 0.5), (0.0, 0.99), (0.9, 0.1)]
    middles = [(3, 3), (0, 5), (5, 0)]
    found = augment.finish(block, Given(*np.ravel(draws)))
    expected = Augment(6, MEAN, STD).finish(block, None)
    for picture, (down, right) in zip(expected, middles, strict=True):
        for y in range(6):
            for x in range(6):
                if 0 <= y - down + side // 2 < side and 0 <= x - right + side // 2 < side:
                    picture[y, x] = 0
    assert (found == expected).all()


def test_cutout_comes_after_the_window_and_the_mirror():
    block = noise(2, 5, 5, 3)
    numbers = [0.0, 0.9, 0.9, 0.0, 0.1, 0.9]  # two shifts, and which images are mirrored
    moved = Augment(5, MEAN, STD, padding=1, flip=True).finish(block, Given(*numbers))
    found = Augment(5, MEAN, STD, padding=1, flip=True, cutout=2).finish(
        block, Given(*numbers, 0.5, 0.5, 0.5, 0.5)
    )
    moved[:, 1:3, 1:3] = 0
    assert (found == moved).all()


def test_a_random_part_that_does_not_fit_is_drawn_again():
    wide = (1.0, 1.0, 0.5, 0.5)  # the whole area at 4:3 does not fit into a square
    fits = (0.0, 0.5, 0.0, 0.0)
    assert random_crop(50, 50, (0.25, 1.0), (3 / 4, 4 / 3), Given(*wide * 9, *fits)) == (
        0,
        0,
        25,
        25,
    )
    assert random_crop(50, 50, (0.25, 1.0), (3 / 4, 4 / 3), Given(*wide * 10, *fits)) == (
        0,
        0,
        50,
        50,
    )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((400, 100), (133, 0, 133, 100)),
        ((100, 400), (0, 133, 100, 133)),
        ((1, 400), (0, 199, 1, 1)),
        ((400, 1), (199, 0, 1, 1)),
    ],
)
def test_the_middle_where_no_part_fits(size, expected):
    """After ten tries at the whole area, the crop is the largest in the middle within 3:4 and 4:3.

    Its sides are rounded half to even.
    """
    assert random_crop(*size, (1.0, 1.0), (3 / 4, 4 / 3), np.random.default_rng(0)) == expected


def test_random_parts_are_spread_as_they_should_be():
    rng = np.random.default_rng(0)
    parts = np.array([random_crop(64, 48, (0.1, 0.5), (0.5, 2.0), rng) for _ in range(4000)])
    left, top, w, h = parts.T
    assert (left >= 0).all()
    assert (top >= 0).all()
    assert (left + w <= 64).all()
    assert (top + h <= 48).all()
    assert 0.09 < (w * h).min() / (64 * 48) < 0.12
    # In the middle of the room that is left, on average: 4,000 places, each uniform, give 0.5 +- 4
    # * 0.29 / 63.
    room = (64 - w) > 8
    assert abs((left[room] / (64 - w[room])).mean() - 0.5) < 0.02


def test_random_resized_crop_is_crop_and_resize():
    picture = noise(40, 60, 3)
    augment = Augment(16, scale=(0.2, 0.8))
    left, top, w, h = random_crop(60, 40, augment.scale, augment.ratio, np.random.default_rng(7))
    expected = (
        Image.fromarray(picture)
        .crop((left, top, left + w, top + h))
        .resize((16, 16), Image.Resampling.BILINEAR)
    )
    assert (augment.fit(picture, np.random.default_rng(7)) == np.asarray(expected)).all()


@pytest.mark.parametrize("fill", ["black", "mean", "mirror"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 4, 8])
def test_windows_and_flips_pixel_by_pixel(fill, flip, padding):
    augment = Augment(8, MEAN, STD, padding=padding, fill=fill, flip=flip)
    block = noise(40, 8, 8, 3)
    found = augment.finish(block, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    if padding or flip:
        shift = (rng.random((40, 2)) * (2 * padding + 1)).astype(int)
        mirror = (rng.random(40) < 0.5) & flip
    else:
        shift, mirror = np.zeros((40, 2), int), np.zeros(40, bool)
    colour = (
        normalise(np.zeros((1, 1, 3), np.uint8), augment.preprocess)[0, 0]
        if fill == "black"
        else np.zeros(3)
    )
    for i in range(40):
        wide = np.empty((8 + 2 * padding, 8 + 2 * padding, 3), np.float32)
        wide[:] = colour
        wide[padding : padding + 8, padding : padding + 8] = normalise(block[i], augment.preprocess)
        if fill == "mirror":
            wide = np.pad(
                normalise(block[i], augment.preprocess),
                ((padding,) * 2, (padding,) * 2, (0, 0)),
                mode="reflect",
            )
        window = wide[shift[i, 0] : shift[i, 0] + 8, shift[i, 1] : shift[i, 1] + 8]
        expected = window[:, ::-1] if mirror[i] else window
        assert (found[i] == expected).all()
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    if flip:
        assert 8 < mirror.sum() < 32


def test_a_single_pixel_mirrored_is_itself():
    block = noise(5, 1, 1, 3)
    augment = Augment(1, MEAN, STD, padding=1, fill="mirror")
    assert (
        augment.finish(block, np.random.default_rng(0)) == normalise(block, augment.preprocess)
    ).all()


def test_every_place_of_the_window_comes_up():
    augment = Augment(3, (0.0,), (1.0,), padding=2)
    block = np.zeros((2000, 3, 3, 1), np.uint8)
    block[:, 1, 1] = 255
    found = augment.finish(block, np.random.default_rng(0))
    places = {tuple(place) for place in np.argwhere(found[..., 0] == 1)[:, 1:]}
    assert places == {(i, j) for i in range(3) for j in range(3)}
    assert (found.sum(axis=(1, 2, 3)) == 0).mean() == pytest.approx(16 / 25, abs=0.05)


def test_evaluation_is_what_classify_does():
    picture = noise(50, 70, 3)
    evaluation = Augment(24, MEAN, STD, resize=28)
    preprocess = Preprocess(28, 24, "bilinear", MEAN, STD)
    assert evaluation.preprocess == preprocess
    found = evaluation.finish(evaluation.fit(picture, None)[np.newaxis], None)
    assert (found[0] == normalise(resize_and_crop(picture, preprocess), preprocess)).all()
    own, block = Augment(32, MEAN, STD), noise(5, 32, 32, 3)
    assert (own.finish(block, None) == normalise(block, own.preprocess)).all()


def test_nothing_is_made_of_no_pictures():
    augment = Augment(4, MEAN, STD, padding=1, flip=True, brightness=0.4, lighting=0.1, cutout=2)
    assert augment.finish(np.empty((0, 4, 4, 3), np.uint8), np.random.default_rng(0)).shape == (
        0,
        4,
        4,
        3,
    )


def test_channels():
    colour, grey = noise(8, 8, 3), noise(8, 8, 1)
    assert (Augment(8).fit(grey, None) == grey).all()
    assert Augment(8).fit(grey, None).shape == (8, 8, 3)
    expected = np.asarray(Image.fromarray(colour).convert("L"))
    assert (Augment(8, (0.5,), (0.5,)).fit(colour, None)[:, :, 0] == expected).all()
    assert Augment(4, (0.5,), (0.5,), scale=(0.5, 1)).fit(
        colour, np.random.default_rng(0)
    ).shape == (4, 4, 1)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(
        ImageError, match="9 x 8 pixels and 8 x 8 were expected; give resize or scale"
    ):
        Augment(8).fit(noise(8, 9, 3), None)


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 0},
        {"size": 8.0},
        {"resize": 0},
        {"resize": 10, "scale": (0.1, 1.0)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 0.1)},
        {"scale": (0.5, 1.5)},
        {"scale": 0.5},
        {"scale": (float("nan"), 1.0)},
        {"ratio": (0.0, 1.0)},
        {"ratio": ("a", "b")},
        {"padding": -1},
        {"padding": 9},
        {"padding": True},
        {"cutout": -1},
        {"cutout": 9},
        {"cutout": 2.0},
        {"fill": "white"},
        {"erase_count": 0},
        {"erase_count": "3"},
        {"erase_with": "noise"},
        {"policy": 5},
        {"flip": "yes"},
        {"even": 1},
        {"alternate": "no", "flip": True},
        {"alternate": True},
        {"brightness": -0.1},
        {"contrast": float("nan")},
        {"saturation": "much"},
        {"hue": 0.6},
        {"mean": (0.5, 0.5)},
        {"std": (0.0,)},
        {"interpolation": "nearest"},
        {"interpolation": "keras", "resize": 10},
    ],
)
def test_values_that_are_refused(changed):
    with pytest.raises(UsageError):
        Augment(**({"size": 8} | changed))
