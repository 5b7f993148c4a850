"""Image files: unusual, hostile, cut short and mutated ones, and things that are no file."""

from __future__ import annotations

import contextlib
import os
import random
import re
import struct
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import odd_images as odd
import pytest
from PIL import Image

from tinyresnext.errors import ImageError
from tinyresnext.formats.image import png, tiff, webp
from tinyresnext.formats.image.orientation import orientation
from tinyresnext.images import files as image_file
from tinyresnext.images.decode import decode

ODD = odd.all_odd_images()
ROWS = struct.pack("<HHII", 278, 4, 1, 2)  # in `odd.tiff_by_hand`: the rows of a strip
FUZZ_SEEDS = [case.data for case in ODD if case.pixels is not None and len(case.data) < 3000]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "picture.jpg"


@pytest.mark.parametrize("case", ODD, ids=lambda case: case.name)
def test_odd_file(case, file):
    file.write_bytes(case.data)
    start = time.perf_counter()
    if case.pixels is None:
        with pytest.raises(ImageError, match=case.says) as caught:
            decode(file)
        assert repr(str(file)) in str(caught.value)
    else:
        pixels = decode(file)
        assert pixels.dtype == np.uint8
        assert pixels.shape == case.pixels.shape
        assert np.abs(pixels.astype(int) - case.pixels).max() <= case.tolerance
        pixels[:] = 0  # the caller's own
    assert time.perf_counter() - start < 60


def test_there_are_enough_odd_files_and_their_names_differ():
    assert len({case.name for case in ODD}) == len(ODD) >= 150


def truncated() -> list[tuple[str, bytes]]:
    big = odd.synthetic(60, 80)
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("GIF", {}), ("BMP", {})]
    kinds += [("WEBP", {}), ("WEBP", {"lossless": True})]
    kinds += [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
    return [
        (f"{kind}-{number}", odd.saved(big, kind, **options))
        for number, (kind, options) in enumerate(kinds)
    ]


@pytest.mark.parametrize(("name", "data"), truncated(), ids=[name for name, _ in truncated()])
def test_truncated_files_are_refused_unless_all_pixels_are_there(name, data, file):
    file.write_bytes(data)
    whole = decode(file)
    assert whole.shape == (60, 80, 3)
    for length in [
        *range(0, len(data), 1024),
        len(data) * 9 // 10,
        *range(len(data) - 20, len(data)),
    ]:
        file.write_bytes(data[:length])
        if length <= len(data) * 9 // 10:
            with pytest.raises(ImageError):
                decode(file)
        else:  # what closes a PNG or a GIF may be missing
            with contextlib.suppress(ImageError):
                assert np.array_equal(decode(file), whole)


def test_warnings_and_their_filters_are_left_alone(file):
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for case in ODD:
            file.write_bytes(case.data)
            if case.pixels is None:
                with pytest.raises(ImageError):
                    decode(file)
            else:
                decode(file)
    assert [str(w.message) for w in heard] == []
    assert list(warnings.filters) == before


@pytest.mark.parametrize("limit", [None, 1])
def test_pillows_limit_touches_only_webp_tiff_and_gif_frames_beyond_their_screen(
    limit, file, monkeypatch
):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for case in ODD:
        file.write_bytes(case.data)
        if case.pixels is None:
            with pytest.raises(ImageError, match=case.says):
                decode(file)
        elif limit and (
            case.data.startswith((b"RIFF", b"II*\0", b"MM\0*")) or "beyond_screen" in case.name
        ):  # asked inside these three classes
            with contextlib.suppress(ImageError):
                decode(file)
        else:
            assert decode(file).shape == case.pixels.shape
    assert limit == Image.MAX_IMAGE_PIXELS


def test_pillow_warns_of_a_huge_gif_frame_beyond_its_screen_before_it_is_refused(file):
    file.write_bytes(
        b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b"\x2c"
        + struct.pack("<4HB", 0, 0, 10_000, 9000, 0)
        + b"\2\0;"
    )
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(ImageError, match="10000 x 9000"),
    ):
        decode(file)


def test_a_large_picture_within_the_limit_is_decoded_without_a_warning(file, monkeypatch):
    monkeypatch.setattr(image_file, "MAX_PIXELS", 4000)
    for width, fits in ((80, True), (81, False)):
        file.write_bytes(odd.saved(odd.synthetic(50, width), "PNG"))
        if fits:
            assert decode(file).shape == (50, width, 3)
        else:
            with pytest.raises(ImageError, match="4,000"):
                decode(file)


def test_file_size_limit_holds_before_reading(file):
    with open(file, "wb") as out:
        out.truncate(image_file.MAX_FILE_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(ImageError, match="67,108,865 bytes"):
        decode(file)


ENDLESS = {  # how such a file begins, and what then fills 4 MiB of it
    "jpeg_fill_bytes": (b"\xff\xd8", b"\xff"),
    "jpeg_restart_markers": (b"\xff\xd8", b"\xff\xd0"),
    "jpeg_empty_comments": (b"\xff\xd8", b"\xff\xfe\x00\x02"),
    "jpeg_EXIF_blocks": (b"\xff\xd8", b"\xff\xe1\x00\x12Exif\0\0" + bytes(10)),
    "png_empty_chunks": (odd.PNG, odd.chunk(b"tEXt", b"")),
    "png_empty_chunks_of_an_animation": (
        odd.PNG + odd.chunk(b"acTL", bytes(8)),
        odd.chunk(b"abCd", b""),
    ),
    "gif_short_blocks": (b"GIF89a\1\0\1\0\0\0\0\x2c\0\0\0\0\1\0\1\0\0\2", b"\1\1"),
    "gif_empty_extensions": (b"GIF89a\1\0\1\0\0\0\0", b"\x21\xf9\0"),
    "webp_empty_chunks": (b"RIFF" + struct.pack("<I", 2**22) + b"WEBP", b"abcd\0\0\0\0"),
    "tiff_entries": (b"II*\0\x08\0\0\0\xff\xff", b"\x11\1\4\0\xff\xff\1\0\x08\0\0\0"),
    "bmp_short": (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 8000, 8000, 1, 24, 0), bytes(1)),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_structures_end_soon(name, file):
    start, part = ENDLESS[name]
    file.write_bytes(start + part * (2**22 // len(part)))
    begin = time.process_time()
    with contextlib.suppress(ImageError):
        assert decode(file).shape == (1, 1, 3)  # the GIF has its one pixel
    assert time.process_time() - begin < 5


def costly_scans() -> bytes:
    """Return a progressive JPEG of 9400 x 9400 equal pixels that repeats its last scan 300 times.

    Decoding its 400 kB takes 20 seconds.
    """
    data = odd.saved(Image.new("L", (9400, 9400), 128), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xc4") : -2] * 300 + b"\xff\xd9"


def costly_rows() -> bytes:
    """Return a run-length coded BMP of 8000 x 10000 pixels, 4 bytes a row: 10 s for 40 kB."""
    info = struct.pack("<IiiHHIIiiII", 40, 8000, 10_000, 1, 8, 1, 4, 0, 0, 1, 0)
    return b"BM" + struct.pack("<IHHI", 80, 0, 0, 58) + info + bytes(4) + b"\1\1\0\0" * 10_000


@pytest.mark.parametrize("make", [costly_scans, costly_rows])
def test_small_files_that_cost_much_are_refused_at_once(make, file):
    file.write_bytes(make())
    begin = time.process_time()
    with pytest.raises(ImageError):
        decode(file)
    assert time.process_time() - begin < 2


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file once to four times: bits, bytes, extreme numbers, cuts, insertions, repeats.

    Most PNG checksums are corrected afterwards.
    """
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(out)), rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice([0, 1, 127, 128, 254, 255])
        elif kind == 2:
            out[at : at + 4] = struct.pack(
                rng.choice("<>") + "I",
                rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 65536]),
            )
        elif kind == 3 and len(out) > 20:
            del out[at : at + rng.randint(1, 40)]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randint(1, 20))
        elif kind == 5:
            out[at:at] = out[at : at + rng.randint(1, 60)]
        elif kind == 6 and rng.random() < 0.3:
            del out[max(at, 10) :]
    at = 8
    while out.startswith(odd.PNG) and rng.random() < 0.9 and at + 12 <= len(out):
        end = at + 12 + int.from_bytes(out[at : at + 4], "big")
        if end > len(out):
            break
        out[end - 4 : end] = struct.pack(">I", zlib.crc32(out[at + 4 : end - 4]))
        at = end
    return bytes(out)


@pytest.mark.parametrize("rounds", [2000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_give_pixels_or_an_image_error(rounds, file):
    rng = random.Random(rounds)
    outcomes = {"pixels": 0, "refused": 0}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        for number in range(rounds):
            data = mutate(FUZZ_SEEDS[number % len(FUZZ_SEEDS)], rng)
            file.write_bytes(data)
            start = time.perf_counter()
            try:
                pixels = decode(file)
            except ImageError:
                outcomes["refused"] += 1
            else:
                outcomes["pixels"] += 1
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                assert 0 < pixels.shape[0] * pixels.shape[1] <= image_file.MAX_PIXELS
            assert time.perf_counter() - start < 60, f"mutation {number} took too long"
    assert [str(w.message) for w in heard] == []
    assert min(outcomes.values()) > rounds // 10, outcomes  # both ways were really taken


# Names of files.

NAMES = [
    "é漢字🐈.png",
    "two\nlines.png",
    "-rf.png",
    "--help",
    "a b.png",
    "no_extension",
    "wrong.gif",
    "%s.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_every_kind_are_read(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = odd.synthetic(5, 6)
    try:
        Path(name).write_bytes(odd.saved(pixels, "PNG"))
    except OSError:
        pytest.skip("this file system does not allow the name")
    assert np.array_equal(decode(name), pixels)
    assert np.array_equal(decode(Path(name)), pixels)
    Path(name).write_bytes(b"no picture")
    with pytest.raises(ImageError, match=re.escape(repr(name))) as caught:
        decode(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["missing.png", "", "a\0b.png", "\udcff.png", "x" * 5000, "missing/../x.png"]
)
def test_names_of_nothing_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImageError, match="cannot be read"):
        decode(name)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ImageError, match=re.escape(repr(str(tmp_path)))):
        decode(tmp_path)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files here")
def test_refused_files_are_closed(tmp_path, file):
    file.write_bytes(b"no picture")
    before = len(os.listdir("/proc/self/fd"))
    for name in [tmp_path, file, tmp_path / "missing"] * 5:
        with pytest.raises(ImageError):
            decode(name)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    heard: list[Exception] = []

    def attempt() -> None:
        try:
            decode(tmp_path / "pipe.jpg")
        except Exception as error:
            heard.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(5)
    assert [type(e) for e in heard] == [ImageError]
    assert "pipe" in str(heard[0])


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no device files here")
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused(device):
    with pytest.raises(ImageError, match="device"):
        decode(device)


def test_a_loop_of_links_is_refused(tmp_path):
    link = tmp_path / "loop.png"
    try:
        link.symlink_to(link)
    except OSError:
        pytest.skip("no symbolic links here")
    with pytest.raises(ImageError, match="cannot be read"):
        decode(link)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="this user may read everything"
)
def test_an_unreadable_file_is_refused(file):
    file.write_bytes(b"x")
    file.chmod(0)
    with pytest.raises(ImageError, match="cannot be read"):
        decode(file)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (png, odd.PNG + struct.pack(">I", 0) + b"tRNS" + bytes(4)),
        (webp, b"RIFF" + struct.pack("<I", 12) + b"WEBPVP8X" + bytes(4)),
        (tiff, odd.tiff_by_hand({}).replace(ROWS, ROWS[:4] + bytes(8))),
    ],
)
def test_parts_that_are_shorter_than_what_is_read_of_them(kind, data, file):
    with contextlib.suppress(ImageError):
        kind.bare(data)
    file.write_bytes(data)
    with pytest.raises(ImageError):
        decode(file)


def test_orientation_of_damaged_blocks_is_upright():
    for value in range(1, 9):
        assert orientation(odd.exif(value)) == orientation(odd.exif(value, ">")[6:]) == value
    block = odd.exif(6)
    for length in range(len(block) - 6):
        assert orientation(block[:length]) == 1
    for nothing in (
        None,
        6,
        "6",
        b"",
        bytes(100),
        odd.exif(0),
        odd.exif(9),
        odd.exif(6, kind=2),
        odd.exif(6, kind=5),
        odd.exif(6, kind=11),
        odd.exif(9, kind=4),
        odd.exif(-1, kind=8),
        odd.exif(6, offset=2**31),
    ):
        assert orientation(nothing) == 1


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 13])
def test_orientation_of_any_whole_number(order, kind):
    for value in (*range(1, 9), 0, 9, 127):
        expected = value if 1 <= value <= 8 else 1
        assert orientation(odd.exif(value, order, kind)) == expected
    if kind in (6, 8, 9):
        assert orientation(odd.exif(-6, order, kind)) == 1
    if kind in (4, 9, 13):
        assert orientation(odd.exif(6 << 16 | 6, order, kind)) == 1


def test_orientation_in_xmp_counts_where_exif_has_none():
    for value in range(1, 9):
        for packet in (odd.xmp(value), odd.xmp(value, False), odd.xmp(value).decode()):
            assert orientation(None, packet) == orientation(b"Exif\0\0", packet) == value
    assert orientation(None, b"<tiff:Orientation>\n 6 </tiff:Orientation>") == 6
    assert orientation(None, b"tiff:Orientation = '6'") == 6
    assert orientation(odd.exif(3), odd.xmp(6)) == 3
    assert orientation(odd.exif(9), odd.xmp(6)) == 1, "other values of EXIF mean upright"
    for packet in (odd.xmp(0), odd.xmp(9), odd.xmp(66), b"tiff:Orientation", 6, None):
        assert orientation(None, packet) == 1
    assert orientation(None, b"tiff:Orientation>" + b"1" * 10**6) == 1
    assert orientation(None, b"tiff:Orientation" + b" " * 10**6) == 1


def test_pillow_images_are_turned_as_their_files_are(tmp_path):
    pixels = odd.synthetic(9, 14)
    plain = odd.saved(pixels, "PNG")
    for data in (
        odd.with_chunk(plain, b"iTXt", odd.XMP_KEY + b"\0\0\0\0\0" + odd.xmp(6)),
        odd.with_chunk(plain, b"eXIf", odd.exif(6, kind=4)[6:]),
    ):
        (tmp_path / "a.png").write_bytes(data)
        with Image.open(tmp_path / "a.png") as image:
            assert np.array_equal(decode(image), odd.turned(pixels, 6))
