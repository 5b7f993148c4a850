"""From images to inputs: torchvision's pixels, unusual files, and typed errors for bad input."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import odd_images as odd
import pytest
from PIL import Image

from tinyresnext.errors import FormatError, ImageError, UsageError
from tinyresnext.images.decode import decode
from tinyresnext.images.prepare import normalise, prepare
from tinyresnext.images.preprocess import Preprocess
from tinyresnext.images.resize import resize_and_crop

# Made with torchvision 0.28 on Pillow 13: Resize(r), CenterCrop(c), and those pixels through
# ToTensor and Normalize. height, width, resize, crop, interpolation, the first half of
# sha256(pixels, then little-endian float32), channels last.
TORCHVISION = [
    (375, 500, 256, 224, "bilinear", "128d258df79ebd0f994edfb3d05fe6d7"),
    (500, 375, 232, 224, "bilinear", "eaef2623d7f91b8e406d549a02b174b7"),
    (375, 500, 235, 224, "bicubic", "cf93db835e2fb39e85c44bdbeb6fde6f"),
    (256, 300, 256, 224, "bilinear", "849197793aa721b3cc5583659272f598"),
    (300, 256, 256, 224, "bicubic", "88c12b5c451a8aead9130ddf86cb8e2c"),
    (224, 224, 256, 224, "bilinear", "d189ef0114c25cd45a32965936801add"),
    (31, 47, 256, 224, "bicubic", "5f38071a11815b02cdb07c9eff6b72f7"),
    (31, 47, 256, 224, "bilinear", "605eb8dd6a625fcea0bc2795cbe1c774"),
    (601, 600, 235, 224, "bicubic", "473e82066085527e89f56cb7a622dab6"),
    (257, 256, 231, 224, "bilinear", "16d2e5795b66f26756a16d8ee9465f42"),
    (256, 257, 233, 224, "bilinear", "390de9c89e316acea3789deb18019ee4"),
    (777, 100, 232, 224, "bilinear", "6af35300c4a6cfc20a61de970950577b"),
    (1, 1, 8, 8, "bicubic", "2442ca1df44c558bedcacc024fc65370"),
    (1, 40, 32, 32, "bilinear", "c8be7c52634c82f9bcac1347fee9d927"),
    (40, 1, 32, 32, "bicubic", "28915c2e1964d4436ca37172875068be"),
    (225, 1000, 256, 224, "bilinear", "140a994aaf155752747f1bf2847d8146"),
    (32, 32, 32, 32, "bilinear", "50c613a9bbda16ce87ea9ea427a49235"),
    (50, 60, 64, 80, "bilinear", "ea4a19eb209cb3d22b36b7a7356295e9"),
    (60, 50, 64, 81, "bicubic", "cbc7227f828c06170a0d56a49042fdb3"),
    (50, 90, 64, 81, "bilinear", "7ffda11b812b5893d5f0a4ce5efd8560"),
    (333, 334, 300, 299, "bicubic", "2dc12f3deca515fb37e9855fe391bbd9"),
    (1200, 900, 168, 160, "bicubic", "0436c1f412631dd025662afe5ad33fe0"),
]
PIPELINES = {
    "torchvision_v1_256_bilinear": Preprocess(),
    "torchvision_v2_232_bilinear": Preprocess(resize=232),
    "timm_a1h_095_bicubic": Preprocess(resize=math.floor(224 / 0.95), interpolation="bicubic"),
    "mmpretrain_256_pillow": Preprocess(),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "picture.jpg"


# Resize, crop and normalise against torchvision and against the published formula.


@pytest.mark.parametrize(
    ("height", "width", "resize", "crop", "interpolation", "digest"), TORCHVISION
)
def test_equals_torchvision_to_the_bit(height, width, resize, crop, interpolation, digest):
    preprocess = Preprocess(resize, crop, interpolation)
    pixels = resize_and_crop(odd.synthetic(height, width), preprocess)
    x = prepare(odd.synthetic(height, width), preprocess)
    assert pixels.shape == x.shape == (crop, crop, 3)
    assert hashlib.sha256(pixels.tobytes() + x.astype("<f4").tobytes()).hexdigest()[:32] == digest


def test_grey_equals_torchvision_to_the_bit():
    x = prepare(odd.synthetic(90, 70, 1), Preprocess(48, 40, mean=(0.1307,), std=(0.3081,)))
    assert x.shape == (40, 40, 1)
    assert (
        hashlib.sha256(x.astype("<f4").tobytes()).hexdigest()[:32]
        == "dec64c39eff77f5c277014448f26111f"
    )


def resample_weights(size_in: int, size_out: int, interpolation: str) -> np.ndarray:
    """Return a filter's weights as integers [size_out, size_in], in units of 2**-22.

    The filter is sampled at pixel centres and stretched by the reduction.
    """
    reach = 1.0 if interpolation == "bilinear" else 2.0
    scale = size_in / size_out
    stretch = max(scale, 1.0)
    weights = np.zeros((size_out, size_in), np.int64)
    for i in range(size_out):
        centre = (i + 0.5) * scale
        first = max(int(centre - reach * stretch + 0.5), 0)
        last = min(int(centre + reach * stretch + 0.5), size_in)
        t = np.abs(np.arange(first, last) - centre + 0.5) * (1 / stretch)
        if interpolation == "bilinear":
            w = np.maximum(1 - t, 0)
        else:  # Keys 1981, a = -1/2
            inner, outer = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
            w = np.where(t < 1, inner, np.where(t < 2, outer, 0))
        w = w / w.sum() * 2**22
        weights[i, first:last] = np.where(w < 0, np.trunc(w - 0.5), np.trunc(w + 0.5))
    return weights


def resample(
    pixels: np.ndarray, height: int, width: int, interpolation: str, order: str
) -> np.ndarray:
    """Resize one axis, then the other, rounded to 8 bits after each."""
    x = pixels.astype(np.int64)
    for axis in order:
        if axis == "w":
            x = np.einsum("ow,hwc->hoc", resample_weights(x.shape[1], width, interpolation), x)
        else:
            x = np.einsum("oh,hwc->owc", resample_weights(x.shape[0], height, interpolation), x)
        x = np.clip((x + 2**21) >> 22, 0, 255)
    return x.astype(np.uint8)


RESIZES = [
    (37, 53, 16),
    (53, 37, 97),
    (40, 41, 40),
    (3, 200, 7),
    (200, 3, 2),
    (1, 9, 5),
]  # height, width, shorter side


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "side"), RESIZES)
def test_resize_equals_the_published_formula(height, width, side, channels, interpolation):
    pixels = odd.synthetic(height, width, channels)
    long = int(side * max(height, width) / min(height, width))
    size = (side, long) if height <= width else (long, side)
    middle = slice(round((long - side) / 2), round((long - side) / 2) + side)
    mean, std = (0.5,) * channels, (0.5,) * channels
    out = resize_and_crop(pixels, Preprocess(side, side, interpolation, mean, std))
    orders = (
        ["wh", "hw"] if height > 2 * width else ["wh"]
    )  # Pillow 13 shrinks tall pictures vertically first
    whole = [resample(pixels, *size, interpolation, order) for order in orders]
    assert any(np.array_equal(out, x[:, middle] if height <= width else x[middle]) for x in whole)


@pytest.mark.parametrize(
    ("side", "crop", "first"),
    [(10, 5, 2), (10, 7, 2), (12, 9, 2), (11, 4, 4), (13, 8, 2), (5, 5, 0)],
)
def test_crop_corner_is_rounded_half_to_even(side, crop, first):
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8)[:, None, None], (side, side, 3))
    out = resize_and_crop(ramp, Preprocess(side, crop))
    assert out[:, 0, 0].tolist() == list(range(first, first + crop))


def test_crop_larger_than_the_picture_is_padded_with_zeros():
    out = resize_and_crop(np.full((4, 4, 3), 9, np.uint8), Preprocess(4, 7))
    assert np.array_equal(out[1:5, 1:5], np.full((4, 4, 3), 9))
    assert out.sum() == 4 * 4 * 3 * 9


def test_normalise_rounds_each_step_in_float32():
    levels = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    p = Preprocess()
    out = normalise(levels, p)
    for c in range(3):
        for v in range(256):
            step = np.float32(np.float32(v) / np.float32(255)) - np.float32(p.mean[c])
            assert out[v, c] == np.float32(step) / np.float32(p.std[c])
    assert out.dtype == np.float32
    assert levels[7, 0] == 7


def test_normalise_equals_torch():
    torch = pytest.importorskip("torch")
    p = Preprocess()
    levels = odd.synthetic(19, 23)
    x = torch.from_numpy(levels).to(torch.float32).div(255)
    x = x.sub(torch.tensor(p.mean)).div(torch.tensor(p.std))
    assert np.array_equal(normalise(levels, p), x.numpy())


@pytest.mark.parametrize(
    "shape", [(375, 500), (500, 375), (224, 224), (31, 47), (1, 40), (700, 1), (1, 1), (1, 10_000)]
)
@pytest.mark.parametrize("side", [224, 33])
def test_equals_keras_to_the_bit(shape, side, tmp_path):
    """Do as Keras: ``load_img(path, target_size=...)``, ``preprocess_input`` in mode 'torch'."""
    pixels = odd.synthetic(*shape)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        x = np.asarray(
            image.convert("RGB").resize((side, side), Image.Resampling.NEAREST), dtype="float32"
        ).copy()
    p = Preprocess(side, side, "keras")
    assert np.array_equal(resize_and_crop(pixels, p), x)
    x /= 255.0
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        x[..., channel] -= mean
        x[..., channel] /= std
    assert np.array_equal(prepare(tmp_path / "picture.png", p), x)


def test_keras_shows_the_whole_picture():
    """Pixel i of n is the pixel at (i + 1/2) m / n of the m pixels of a row."""
    height, width, side = 20, 30, 12
    pixels = odd.synthetic(height, width, 1)
    down, across = (
        [int((i + 0.5) * length / side) for i in range(side)] for length in (height, width)
    )
    found = resize_and_crop(pixels, Preprocess(side, side, "keras", (0.5,), (0.5,)))
    assert np.array_equal(found, pixels[down][:, across])


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_photographs_equal_each_pipeline_to_the_pixel(reference_dir, pipeline):
    photographs = sorted((reference_dir / "images").glob("*.jpg"))
    assert photographs
    for photograph in photographs:
        with Image.open(photograph.with_suffix(f".{pipeline}.png")) as expected:
            assert np.array_equal(
                resize_and_crop(decode(photograph), PIPELINES[pipeline]), np.array(expected)
            ), photograph.name


@pytest.mark.parametrize("shape", [(1, 10_000), (10_000, 1), (2, 10_000)])
def test_extremely_narrow_pictures_are_refused_before_they_are_resized(shape):
    with pytest.raises(ImageError, match="too narrow"):
        resize_and_crop(odd.synthetic(*shape), Preprocess())


# Preprocess.

BAD_FIELDS = [
    *[
        {name: value}
        for name in ("resize", "crop")
        for value in (0, -1, 4097, 10**5000, 224.0, True, "224", None, math.nan)
    ],
    *[{"interpolation": value} for value in ("nearest", "Bilinear", "", None, 2, ["bilinear"])],
    *[
        {"mean": value}
        for value in (
            (),
            (0.5, 0.5),
            (0.5,) * 4,
            "abc",
            None,
            0.5,
            (math.nan,) * 3,
            (math.inf,) * 3,
            ("a",) * 3,
            (123.675, 116.28, 103.53),
        )
    ],
    *[
        {"std": value}
        for value in (
            (0.0,) * 3,
            (-1.0,) * 3,
            (math.nan,) * 3,
            (1e-300,) * 3,
            (1, 1, True),
            (58.395, 57.12, 57.375),
            (10**400,) * 3,
        )
    ],
    {"mean": (0.5,)},
    {"interpolation": "keras"},
    {"interpolation": "keras", "crop": 256.0},
    {"interpolation": "keras", "resize": 256, "crop": 255},
]


@pytest.mark.parametrize(
    "fields", BAD_FIELDS, ids=lambda f: "-".join(f) + f"-{type(next(iter(f.values()))).__name__}"
)
def test_bad_preprocess_is_refused(fields):
    with pytest.raises(UsageError):
        Preprocess(**fields)
    document = {**Preprocess().to_json(), **fields}
    with pytest.raises(FormatError):
        Preprocess.from_json(document)


def test_numbers_for_pixels_up_to_255_are_refused_with_what_to_do():
    with pytest.raises(UsageError, match=r"mean holds 123\.675; .* to 255 by 255"):
        Preprocess(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    with pytest.raises(UsageError, match=r"std holds 58\.395; .* to 255 by 255"):
        Preprocess(std=(58.395, 57.12, 57.375))


def test_what_is_no_preprocessing_is_said():
    pixels = np.zeros((64, 64, 3), np.uint8)
    words = r"expected a Preprocess; give .*model\.preprocess"
    for wrong in (224, None, "photo.jpg", Preprocess().to_json()):
        for source in (pixels, Preprocess()):
            with pytest.raises(UsageError, match=words):
                prepare(source, wrong)


def test_preprocess_survives_json():
    odd_types = Preprocess(
        np.int64(235), 224, "bicubic", mean=[0.1, 1 / 3, 0], std=(1, np.float32(0.5), 2)
    )
    for p in (
        Preprocess(),
        Preprocess(interpolation="torch7"),
        Preprocess(9, 9, "keras"),
        odd_types,
    ):
        back = Preprocess.from_json(json.loads(json.dumps(p.to_json())))
        assert back == p
        assert hash(back) == hash(p)
        assert {type(v) for v in (*back.mean, *back.std)} == {float}
        assert back.channels == 3


@pytest.mark.parametrize(
    "document", [None, [], "x", 3, {}, {"resize": 256}, {**Preprocess().to_json(), "x": 1}, {1: 2}]
)
def test_bad_preprocess_documents_are_refused(document):
    with pytest.raises(FormatError, match="expected an object"):
        Preprocess.from_json(document)


# Pillow images and arrays.


def test_every_pillow_mode(tmp_path):
    rgb, alpha = odd.synthetic(9, 11), odd.synthetic(9, 11, 1)[..., 0]
    image, mono = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    premultiplied = Image.fromarray(np.dstack([rgb, np.full_like(alpha, 255)])).convert("RGBa")
    palette = Image.fromarray((rgb[..., 0] % 2) * 200).convert("P")
    with_alpha = palette.copy().convert("PA")
    deep = Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
    expected = [
        (image, rgb),
        (mono, odd.grey(rgb[..., 0])),
        (Image.fromarray(rgb[..., 0] >= 128), odd.grey((rgb[..., 0] >= 128) * 255)),
        (Image.fromarray(np.dstack([rgb, alpha])), odd.over_white(rgb, alpha)),
        (
            Image.merge("LA", [mono, Image.fromarray(alpha)]),
            odd.over_white(odd.grey(rgb[..., 0]), alpha),
        ),
        (
            Image.merge("LA", [mono, Image.new("L", mono.size, 255)]).convert("La"),
            odd.grey(rgb[..., 0]),
        ),
        (premultiplied, rgb),
        (palette, np.array(palette.convert("RGB"))),
        (with_alpha, np.array(palette.convert("RGB"))),
        (deep, odd.grey(rgb[..., 0])),
        (Image.fromarray(rgb[..., 0].astype(np.int32) * 257), odd.grey(rgb[..., 0])),
        (image.convert("CMYK"), np.array(image.convert("CMYK").convert("RGB"))),
        (image.convert("YCbCr"), np.array(image.convert("YCbCr").convert("RGB"))),
        (image.convert("HSV"), np.array(image.convert("HSV").convert("RGB"))),
        (image.convert("RGBX"), rgb),
    ]
    for picture, pixels in expected:
        before = picture.tobytes()
        assert np.array_equal(decode(picture), pixels), picture.mode
        assert picture.tobytes() == before


def test_lab_gives_its_colours_back():
    from PIL import ImageCms

    colours = np.array([[[255, 0, 0], [0, 255, 0], [20, 40, 200], [128, 128, 128]]], np.uint8)
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(colours), to_lab)
    assert np.abs(decode(lab).astype(int) - colours).max() <= 16  # eight bits of LAB are coarse


def test_65535_is_white_and_not_everything_above_255():
    deep = np.array([[0, 255, 256, 32768, 65280, 65535]], np.uint16)
    assert decode(Image.fromarray(deep))[0, :, 0].tolist() == [0, 0, 1, 128, 255, 255]


@pytest.mark.parametrize(
    ("picture", "says"),
    [
        (Image.new("F", (3, 3), 0.5), "floating point"),
        (Image.fromarray(np.full((2, 2), 70_000, np.int32)), "70000"),
        (Image.fromarray(np.full((2, 2), -1, np.int32)), "-1"),
        (Image.new("L", (2, 2), 200).convert("I"), "of 8 or of 16 bits"),
        (Image.new("RGB", (0, 4)), "empty"),
        (Image.new("I;16", (0, 0)), "empty"),
    ],
)
def test_pillow_pictures_that_cannot_be_meant_are_refused(picture, says):
    with pytest.raises(ImageError, match=says):
        decode(picture)


def test_pillow_pictures_of_files(file):
    file.write_bytes(odd.saved(odd.synthetic(9, 7), "PNG", exif=odd.exif(6)))
    with Image.open(file) as lazy:
        upright = decode(lazy)
    assert np.array_equal(upright, odd.turned(odd.synthetic(9, 7), 6))
    file.write_bytes(odd.saved(odd.synthetic(90, 70), "JPEG")[:-300])
    with Image.open(file) as lazy, pytest.raises(ImageError, match="truncated"):
        decode(lazy)
    closed = Image.open(file)
    closed.close()
    with pytest.raises(ImageError):
        decode(closed)


def test_arrays_of_every_layout():
    rgb = odd.synthetic(8, 10)
    frozen = rgb.copy()
    frozen.flags.writeable = False
    planar = rgb.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    layouts = [rgb, frozen, np.asfortranarray(rgb), planar, np.repeat(rgb, 2, 1)[:, ::2]]
    for pixels in layouts:
        out = decode(pixels)
        assert np.array_equal(out, rgb)
        assert not np.shares_memory(out, pixels)
    assert np.array_equal(decode(rgb[::-1, ::-1, ::-1]), rgb[::-1, ::-1, ::-1])
    assert np.array_equal(decode(rgb[..., 0]), odd.grey(rgb[..., 0]))
    assert np.array_equal(decode(rgb[..., :1]), odd.grey(rgb[..., 0]))
    assert np.array_equal(decode(np.dstack([rgb, rgb[..., 1]])), odd.over_white(rgb, rgb[..., 1]))
    for strided in (rgb[::-1, ::2], np.asfortranarray(rgb)):
        p = Preprocess(6, 4)
        assert np.array_equal(
            resize_and_crop(strided, p), resize_and_crop(strided.copy(order="C"), p)
        )


def test_decode_to_grey():
    rgb = odd.synthetic(8, 10)
    expected = (rgb.astype(np.int64) @ [19595, 38470, 7471] + 2**15) >> 16
    assert np.array_equal(decode(rgb, channels=1)[..., 0], expected)
    assert np.array_equal(decode(rgb[..., 0], channels=1)[..., 0], rgb[..., 0])


BAD_ARRAYS = [
    (np.zeros((4, 4, 3), np.float32), "astype"),
    (np.full((4, 4, 3), np.nan), "astype"),
    (np.full((4, 4, 3), 200.0), "astype"),
    (np.zeros((4, 4, 3), np.int64), "int64"),
    (np.zeros((4, 4, 3), np.uint16), "uint16"),
    (np.zeros((4, 4), bool), "bool"),
    (np.zeros((4, 4, 3), object), "object"),
    (np.zeros((4, 4, 3), "U1"), "U1"),
    (np.zeros((3, 32, 32), np.uint8), "transpose"),
    (np.zeros((2, 4, 4, 3), np.uint8), "one image"),
    (np.zeros((4, 4, 2), np.uint8), "channels"),
    (np.zeros((4, 4, 5), np.uint8), "channels"),
    (np.zeros(4, np.uint8), "uint8"),
    (np.zeros((), np.uint8), "uint8"),
    (np.zeros((0, 4, 3), np.uint8), "empty"),
    (np.broadcast_to(np.uint8(0), (100_000, 1000, 3)), "more than"),
]


@pytest.mark.parametrize(
    ("pixels", "says"),
    BAD_ARRAYS,
    ids=lambda a: f"{a.dtype}{a.shape}" if isinstance(a, np.ndarray) else a,
)
def test_bad_arrays_are_refused(pixels, says):
    with pytest.raises(ImageError, match=says):
        decode(pixels)
    with pytest.raises(ImageError):
        resize_and_crop(pixels, Preprocess())


def test_wrong_arguments():
    for nothing in (None, 3, [1, 2], object()):
        with pytest.raises(UsageError, match="no image"):
            decode(nothing)
        with pytest.raises(ImageError):
            resize_and_crop(nothing, Preprocess())
        with pytest.raises(ImageError):
            normalise(nothing, Preprocess())
    with pytest.raises(ImageError, match="unknown kind"):
        decode(b"picture.png")
    for channels in (0, 2, 4, None, "3"):
        with pytest.raises(UsageError, match="channels"):
            decode(odd.synthetic(4, 4), channels)
    with pytest.raises(ImageError, match="uint8"):
        normalise(odd.synthetic(4, 4, 1), Preprocess())


def test_importing_loads_no_numba():
    code = (
        "import sys, tinyresnext.images.prepare; "
        "assert 'numba' not in sys.modules and 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
