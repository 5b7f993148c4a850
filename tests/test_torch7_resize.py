"""Torch7's resize: against single pixels in float32, and against properties of its curve."""

from __future__ import annotations

import math

import numpy as np
import odd_images as odd
import pytest
from PIL import Image

from tinyresnext.errors import ImageError, UsageError
from tinyresnext.images.augmentation.augment import Augment
from tinyresnext.images.augmentation.crops import random_crop
from tinyresnext.images.prepare import normalise, prepare
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.images.resize import resize_and_crop
from tinyresnext.images.torch7 import _along, scale_and_crop, scaled_size

F = np.float32
EPS = np.finfo(F).eps


def stretched(row: list[np.float32], length: int) -> list[np.float32]:
    """Resize a row of pixels as torch/image does it: one pixel and one rounding after the other."""
    n = len(row)
    if n == length or n == 1:
        return row if n == length else row * length
    step = F(n - 1) if length == 1 else F(F(n - 1) / F(length - 1))
    out = []
    for i in range(length - 1):
        where = F(F(i) * step)
        k = math.floor(where)
        t = F(where - F(k))
        b, c = row[k], row[k + 1]
        a = row[k - 1] if k > 0 else F(F(F(2) * b) - c)
        d = row[k + 2] if k + 2 < n else F(F(F(2) * c) - b)
        first = F(c - a)
        second = F(F(F(F(F(2) * a) - F(F(5) * b)) + F(F(4) * c)) - d)
        third = F(F(F(F(3) * F(b - c)) + d) - a)
        inside = F(first + F(t * F(second + F(t * third))))
        out.append(F(float(b) + 0.5 * float(t) * float(inside)))  # in double, and rounded once
    return [*out, row[-1]]


def slow(
    pixels: np.ndarray, resize: int, crop: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> np.ndarray:
    """Apply Scale, ColorNormalize and CenterCrop, in this order, with lists."""
    height, width, channels = pixels.shape
    if width < height:
        new_width, new_height = resize, math.floor(height / width * resize)
    else:
        new_width, new_height = math.floor(width / height * resize), resize
    if min(width, height) == resize:
        new_width, new_height = width, height
    planes = []
    for k in range(channels):
        plane = [[F(F(level) * F(1 / 255)) for level in row] for row in pixels[:, :, k].tolist()]
        plane = [stretched(row, new_width) for row in plane]
        columns = [stretched(list(column), new_height) for column in zip(*plane, strict=True)]
        plane = [list(row) for row in zip(*columns, strict=True)]
        planes.append([[F(F(value - F(mean[k])) / F(std[k])) for value in row] for row in plane])
    left, top = math.ceil((new_width - crop) / 2), math.ceil((new_height - crop) / 2)
    return np.array(planes)[:, top : top + crop, left : left + crop].transpose(1, 2, 0)


# height, width, shorter side, crop: smaller, larger, left alone, one pixel wide, one pixel in all,
# one pixel left.
CASES = [
    (23, 37, 16, 11),
    (37, 23, 16, 12),
    (9, 13, 20, 17),
    (13, 13, 20, 20),
    (31, 30, 7, 5),
    (16, 25, 16, 9),
    (25, 16, 16, 10),
    (16, 16, 16, 16),
    (1, 3, 6, 5),
    (4, 1, 5, 4),
    (1, 1, 6, 3),
    (2, 2, 9, 9),
    (12, 11, 1, 1),
    (3, 2, 2, 1),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "resize", "crop"), CASES)
def test_equals_one_pixel_at_a_time_to_the_bit(height, width, resize, crop, channels):
    pixels = odd.synthetic(height, width, channels)
    mean, std = (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) if channels == 3 else ((0.1307,), (0.3081,))
    )
    found = prepare(pixels, Preprocess(resize, crop, "torch7", mean, std))
    assert found.dtype == np.float32
    assert np.array_equal(found, slow(pixels, resize, crop, mean, std))


def test_the_sizes_are_those_of_lua():
    """The longer side is ``h / w * size`` in double precision, truncated.

    An image whose shorter side already fits is not resized.
    """
    assert scaled_size(500, 375, 256) == (341, 256)
    assert scaled_size(375, 500, 256) == (256, 341)
    assert scaled_size(300, 300, 256) == (256, 256)
    assert scaled_size(1, 3, 256) == (256, 768)
    assert 55 / 49 * 49 < 55  # the product of a rounded quotient falls short of what it would be
    assert scaled_size(49, 55, 98) == (98, 109)
    assert scaled_size(49, 55, 49) == (49, 55)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(20, 31, (50, 33)), (20, 31, (17, 11)), (2, 2, (9, 5)), (5, 2, (2, 9))],
)
def test_a_ramp_stays_a_ramp_and_corners_stay_where_they_are(height, width, size):
    """A cubic through points of a line is the line.

    Each axis rounds values below 1 about ten times: 2 * 10 * eps / 2.
    """
    y, x = np.ogrid[:height, :width]
    ramp = (3 * y + 5 * x).astype(np.uint8)[:, :, np.newaxis]
    whole = max(size)
    found = scale_and_crop(ramp, size, whole)[:, :, 0]
    top, left = (whole - size[1]) // 2, (whole - size[0]) // 2
    found = found[top : top + size[1], left : left + size[0]].astype(np.float64) * 255
    expected = 3 * np.linspace(0, height - 1, size[1])[:, np.newaxis] + 5 * np.linspace(
        0, width - 1, size[0]
    )
    # The place of a pixel is rounded too, by up to eps / 2 of the row's length, twice; 5 levels a
    # pixel and 3.
    assert np.abs(found - expected).max() <= 255 * 10 * EPS + 8 * max(width, height) * EPS
    corners = ramp[[0, 0, -1, -1], [0, -1, 0, -1], 0]
    assert np.allclose(found[[0, 0, -1, -1], [0, -1, 0, -1]], corners, rtol=0, atol=255 * EPS)


def test_one_colour_stays_one_colour():
    for level in (0, 1, 77, 255):
        found = scale_and_crop(np.full((7, 12, 3), level, np.uint8), (41, 24), 24)
        assert np.abs(found - level / 255).max() <= 20 * EPS


def test_nothing_is_smoothed_rounded_or_cut_off():
    """Pillow's bicubic filter averages all pixels, and this one does not."""
    stripes = np.tile(np.array([0, 0, 255, 255], np.uint8), 33)[
        :129
    ]  # from 129 pixels to 33: every fourth is looked at
    pixels = np.broadcast_to(stripes[:, np.newaxis, np.newaxis], (129, 129, 3))
    found = scale_and_crop(pixels, (33, 33), 33)
    assert np.abs(found).max() <= 8 * EPS
    assert (
        np.ptp(resize_and_crop(np.ascontiguousarray(pixels), Preprocess(33, 33, "bicubic"))[8:-8])
        < 80
    )
    edge = np.zeros((4, 9, 1), np.uint8)
    edge[:, 5:] = 255
    x = scale_and_crop(edge, (90, 40), 40)
    assert x.min() < -0.05
    assert x.max() > 1.05
    assert len(np.unique(x)) > 2 * 20
    prepared = prepare(edge, Preprocess(40, 40, "torch7", (0.0,), (1.0,)))
    assert np.array_equal(prepared, x)


@pytest.mark.parametrize(
    ("side", "crop", "first"),
    [(10, 5, 3), (10, 7, 2), (12, 9, 2), (11, 4, 4), (13, 8, 3), (5, 5, 0)],
)
def test_the_corner_of_the_crop_is_rounded_up(side, crop, first):
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8)[:, None, None], (side, side, 3))
    out = resize_and_crop(ramp, Preprocess(side, crop, "torch7"))
    assert out[:, 0, 0].tolist() == list(range(first, first + crop))


def test_a_crop_that_is_larger_has_black_padding():
    p = Preprocess(4, 7, "torch7")
    out = resize_and_crop(np.full((4, 5, 3), 9, np.uint8), p)
    assert np.array_equal(out, resize_and_crop(np.full((4, 5, 3), 9, np.uint8), Preprocess(4, 7)))
    assert np.array_equal(
        prepare(np.zeros((4, 5, 3), np.uint8), p), normalise(np.zeros((7, 7, 3), np.uint8), p)
    )


def test_pixels_of_eight_bits_are_the_nearest_ones():
    pixels, p = odd.synthetic(23, 37), Preprocess(16, 12, "torch7", (0.0,) * 3, (1.0,) * 3)
    levels, values = resize_and_crop(pixels, p), prepare(pixels, p)
    assert levels.dtype == np.uint8
    assert np.abs(levels / 255 - np.clip(values, 0, 1)).max() <= 0.5 / 255 + EPS
    square = pixels[:, :23]
    assert np.array_equal(resize_and_crop(square, Preprocess(23, 23, "torch7")), square)


def test_a_very_long_row_is_not_read_beyond_its_end():
    """Float32 has whole numbers only up to 2**24: the last place but one may round to the last."""
    rounded = 0
    for n in range(2**24, 2**24 + 8):
        row, length = np.broadcast_to(np.uint8(51), (1, n, 1)), n + 1
        rounded += F(length - 2) * F(F(n - 1) / F(length - 1)) >= n - 1
        assert abs(_along(row, 1, length, np.array([length - 2])).item() - 0.2) <= EPS
    assert rounded


def test_bad_pictures_are_refused():
    p = Preprocess(interpolation="torch7")
    for shape in ((1, 10_000), (10_000, 1)):
        with pytest.raises(ImageError, match="too narrow"):
            prepare(odd.synthetic(*shape), p)
    for nothing in (
        None,
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(ImageError):
            resize_and_crop(nothing, p)
    for name in ("Torch7", "torch", "torch7 "):
        with pytest.raises(UsageError, match="torch7"):
            Preprocess(interpolation=name)


# Training a model with this preprocessing.


def test_training_resizes_as_the_model_does():
    pixels, rng = odd.synthetic(23, 37), np.random.default_rng(0)
    augment = Augment(12, resize=16, interpolation="torch7")
    assert np.array_equal(
        augment.fit(pixels, rng), resize_and_crop(pixels, Preprocess(16, 12, "torch7"))
    )
    assert augment.preprocess == Preprocess(16, 12, "torch7")
    assert augment.finish(augment.fit(pixels, rng)[np.newaxis], rng).shape == (1, 12, 12, 3)


def test_random_parts_are_bicubic():
    picture = odd.synthetic(40, 60)
    augment = Augment(16, scale=(0.2, 0.8), interpolation="torch7")
    left, top, w, h = random_crop(60, 40, augment.scale, augment.ratio, np.random.default_rng(7))
    expected = (
        Image.fromarray(picture)
        .crop((left, top, left + w, top + h))
        .resize((16, 16), Image.Resampling.BICUBIC)
    )
    assert (augment.fit(picture, np.random.default_rng(7)) == np.asarray(expected)).all()
