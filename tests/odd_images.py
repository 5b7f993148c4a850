"""Unusual image files, made from formulas, each with its pixels or the reason for its refusal."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Odd:
    """A file, and its RGB pixels to within `tolerance`, or None and a word of its error."""

    name: str
    data: bytes
    pixels: np.ndarray | None
    says: str = ""
    tolerance: int = 0


def synthetic(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return an image with ramps, edges and noise, from whole numbers, the same everywhere."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return (((x * (7 + c) + y * (3 + 2 * c)) ^ ((x * y * (c + 1)) >> 3)) & 255).astype(np.uint8)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return a smooth ramp, which JPEG and WebP change little."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return (40 + 3 * y + 2 * x + 17 * c).astype(np.uint8)


def saved(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(
        out, kind, **options
    )
    return out.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    depth: int,
    colour: int,
    rows: bytes,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Return a PNG from its header fields and unfiltered rows (each begins with a zero byte)."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        PNG
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + after
        + chunk(b"IEND", b"")
    )


def with_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Insert a chunk right after the header of a PNG."""
    return data[:33] + chunk(kind, body) + data[33:]


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    """Insert a segment right after the first marker of a JPEG."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]


def exif(value: int, order: str = "<", kind: int = 3, offset: int = 8, entries: int = 1) -> bytes:
    """Return an EXIF block with an orientation and any bytes in its other fields."""
    start = b"II*\x00" if order == "<" else b"MM\x00*"
    form = {1: "B3x", 4: "I", 6: "b3x", 8: "h2x", 9: "i", 13: "I"}.get(kind, "HH")
    values = (value, 0) if form == "HH" else (value,)
    body = struct.pack(order + "IHHHI", offset, entries, 0x0112, kind, 1)
    body += struct.pack(order + form, *values)
    return b"Exif\x00\x00" + start + body + bytes(4)


XMP_KEY = b"XML:com.adobe.xmp"
SHORT_KINDS = b"gAMA cHRM sRGB pHYs tIME bKGD iTXt zTXt tEXt eXIf".split()


def with_profile(data: bytes, parts: int, missing: int = 0) -> bytes:
    """Insert a colour profile of so many segments into a JPEG, all but one of them."""
    for i in range(parts, 0, -1):
        if i != missing:
            body = b"ICC_PROFILE\0" + bytes([i, parts]) + bytes(65_519)
            data = with_segment(data, 0xE2, body)
    return data


def short(kind: bytes) -> bytes:
    """Return a chunk that is shorter than it has to be."""
    return chunk(kind, b"")


def xmp(value: int, attribute: bool = True) -> bytes:
    """Return an XMP packet with an orientation."""
    inner = f'tiff:Orientation="{value}">' if attribute else f"><tiff:Orientation>{value}</"
    return f"<x:xmpmeta><rdf:Description {inner}".encode()


def raw_profile(block: bytes) -> bytes:
    """Return the text in which ImageMagick keeps an EXIF block."""
    lines = b"\n".join(block.hex().encode()[i : i + 72] for i in range(0, 2 * len(block), 72))
    return b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(block), lines)


def squeezed(text: bytes) -> bytes:
    """Return the body of a tEXt chunk as that of a zTXt chunk."""
    keyword, _, value = text.partition(b"\0")
    return keyword + b"\0\0" + zlib.compress(value)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels as a viewer does, by the EXIF standard's table of row 0 and column 0."""
    flip = {1: "", 2: "h", 3: "hv", 4: "v", 5: "t", 6: "vt", 7: "hvt", 8: "ht"}[orientation]
    pixels = pixels[:, ::-1] if "h" in flip else pixels
    pixels = pixels[::-1] if "v" in flip else pixels
    return pixels.swapaxes(0, 1) if "t" in flip else pixels


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    a = alpha.astype(np.float64)[..., np.newaxis] / 255
    return np.rint(pixels * a + 255 * (1 - a)).astype(np.uint8)


def keyed(pixels: np.ndarray, colour: np.ndarray, shift: int = 0) -> np.ndarray:
    """Replace pixels of the transparent colour by white."""
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    return np.where(
        (pixels == colour).all(2, keepdims=True),
        255,
        np.broadcast_to(pixels >> shift, (*pixels.shape[:2], 3)),
    )


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., np.newaxis].astype(np.uint8), 3, axis=2)


def plain(data: bytes) -> np.ndarray:
    """Decode by Pillow alone, for files that need no decision of ours."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def ink(cmyk: np.ndarray) -> np.ndarray:
    """Convert CMYK to RGB: the complement of each colour, times the complement of black."""
    c = 255 - cmyk.astype(np.float64)
    return np.rint(c[..., :3] * c[..., 3:] / 255).astype(np.uint8)


def refused() -> list[Odd]:
    """Return files that are in no format we read, or are damaged, or are too large."""
    small = synthetic(20, 24)
    good = {kind: saved(small, kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP")}
    pages = saved(
        Image.fromarray(small), "TIFF", save_all=True, append_images=[Image.fromarray(small)]
    )
    at = good["PNG"].index(b"IDAT")
    flipped = good["PNG"][: at + 9] + bytes([good["PNG"][at + 9] ^ 1]) + good["PNG"][at + 10 :]
    clear = with_chunk(good["PNG"], b"tRNS", bytes(6))
    scans = saved(smooth(16, 16), "JPEG")
    first = scans.index(b"\xff\xda")
    scan = scans[first:-2]
    frame = good["JPEG"].index(b"\xff\xc0") + 5
    huge_jpeg = good["JPEG"][:frame] + struct.pack(">HH", 65500, 65500) + good["JPEG"][frame + 4 :]
    huge_webp = (
        b"RIFF"
        + struct.pack("<I", 22)
        + b"WEBPVP8X"
        + struct.pack("<I", 10)
        + bytes(4)
        + b"\xff" * 6
    )
    huge_bmp = good["BMP"][:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + good["BMP"][26:]
    no_width = good["BMP"][:18] + struct.pack("<ii", 0, 5) + good["BMP"][26:]
    wide_gif = bytearray(good["GIF"])
    descriptor = wide_gif.index(b"\x2c\x00\x00\x00\x00")
    wide_gif[descriptor + 5 : descriptor + 9] = b"\xff" * 4
    delta = struct.pack("<IHHI", 80, 0, 0, 58) + struct.pack(
        "<IiiHHIIiiII", 40, 80_000_000, 1, 1, 8, 1, 4, 0, 0, 1, 0
    )
    rows = [
        ("empty", b"", "empty"),
        ("html", b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        ("html_after_bom", b"\xef\xbb\xbf\n <html>", "HTML"),
        ("svg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        ("zip", b"PK\x03\x04" + bytes(40), "zip"),
        ("gzip", b"\x1f\x8b\x08" + bytes(40), "gzip"),
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "PostScript"),
        ("eps_binary", b"\xc5\xd0\xd3\xc6" + bytes(40), "EPS"),
        ("pdf", b"%PDF-1.7\n", "PDF"),
        ("fits", b"SIMPLE  =                    T" + b" " * 50, "unknown"),
        ("psd", b"8BPS\x00\x01" + bytes(30), "Photoshop"),
        ("wmf", b"\xd7\xcd\xc6\x9a" + bytes(30), "unknown"),
        ("tiff_pages", pages, "TIFF"),
        ("ico", b"\x00\x00\x01\x00\x01\x00" + bytes(30), "icon"),
        ("jpeg2000", b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(30), "JPEG 2000"),
        ("avif", b"\x00\x00\x00\x20ftypavif" + bytes(30), "AVIF"),
        ("hdf5", b"\x89HDF\r\n\x1a\n" + bytes(30), "HDF5"),
        ("pickle", b"\x80\x02}q\x00.", "pickle"),
        ("text", b"hello, this is no picture", "unknown"),
        ("one_byte", b"\xff", "unknown"),
        ("png_only_signature", PNG, "cut short"),
        ("jpeg_only_signature", b"\xff\xd8", "JPEG"),
        ("jpeg_only_frame", b"\xff\xd8\xff\xd9", "JPEG"),
        ("gif_only_signature", b"GIF89a", "GIF"),
        ("webp_only_signature", b"RIFF\x00\x00\x00\x00WEBP", "WebP"),
        ("bmp_only_signature", b"BM", "BMP"),
        ("png_bad_crc_pixels", flipped, "PNG"),
        (
            "png_bad_crc_header",
            good["PNG"][:29] + b"\x00\x00\x00\x00" + good["PNG"][33:],
            "checksum",
        ),
        (
            "png_no_pixels",
            PNG
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0))
            + chunk(b"IEND", b""),
            "PNG",
        ),
        ("png_few_rows", png(4, 4, 8, 0, bytes(7)), "PNG"),
        ("png_chunk_of_2_gib", PNG + b"\x7f\xff\xff\xffIHDR" + bytes(30), "PNG"),
        ("png_bad_crc_transparency", clear[:41] + b"c" + clear[42:], "checksum"),
        ("png_14000_squared", png(14000, 14000, 8, 0, bytes(64)), "196000000|14000 x 14000"),
        ("png_10000_squared", png(10000, 10000, 1, 0, bytes(64)), "10000 x 10000"),
        ("png_2_31", png(2**31 - 1, 2**31 - 1, 8, 0, bytes(64)), "more than"),
        ("png_1_by_1e8", png(1, 10**8, 8, 0, bytes(64)), "more than"),
        ("png_no_width", png(0, 4, 8, 0, bytes(64)), "PNG"),
        ("png_depth_3", png(4, 4, 3, 0, bytes(64)), "PNG"),
        ("jpeg_65500_squared", huge_jpeg, "65500 x 65500"),
        ("jpeg_no_end", good["JPEG"][:-2], "truncated"),
        ("jpeg_1000_scans", scans[:first] + scan * 1000 + b"\xff\xd9", "scans"),
        ("gif_65535_frame", bytes(wide_gif), "65535 x 65535|4294836225 pixels"),
        ("gif_no_frame", good["GIF"][:descriptor] + b";", "GIF"),
        ("gif_endless_extensions", good["GIF"][:descriptor] + b"\x21\xfe\x00" * 50, "GIF"),
        ("webp_2_24_squared", huge_webp, "WebP"),
        ("webp_short_riff", good["WEBP"][:-7], "WebP"),
        ("bmp_2_31", huge_bmp, "more than"),
        ("bmp_no_width", no_width, "BMP"),
        ("bmp_RLE8_of_20_gb", b"BM" + delta + bytes(4) + b"\0\2\0\xff" + b"\0\1", "run-length"),
    ]
    return [Odd(f"I_{name}", data, None, says) for name, data, says in rows]


def accepted_png() -> list[Odd]:
    """Return PNGs of every colour type and depth, with transparency, and with irrelevant chunks."""
    rgb, alpha = synthetic(13, 17), synthetic(13, 17, 1)[..., 0]
    mono = rgb[..., 0]
    wide = (synthetic(13, 17, 1)[..., 0].astype(np.uint16) << 8) | synthetic(13, 17, 2)[..., 1]
    wide[0, :3] = 65535, 255, 0
    wide_rgb = (rgb.astype(np.uint16) << 8) | rgb[::-1]
    wide_rgb[0, 0] = 0
    indices = (rgb[..., 1] % 4).astype(np.uint8)
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    palette = Image.fromarray(indices)
    palette.putpalette(table.tobytes())
    opaque = np.array([0, 85, 170, 255], np.uint8)
    base = saved(rgb, "PNG")
    bits = np.packbits(mono >= 128, axis=1)
    two = [[0, 1, 2, 3], [3, 2, 1, 0]]
    two_rows = b"".join(b"\0" + bytes([r[0] << 6 | r[1] << 4 | r[2] << 2 | r[3]]) for r in two)
    two_grey = np.array(two) * 85

    # Values of 4 bits, and an odd number of them in a row.
    halves = np.pad(mono >> 4, ((0, 0), (0, 1))).reshape(13, 9, 2)
    rows4 = b"".join(b"\0" + bytes(r) for r in (halves[..., 0] << 4 | halves[..., 1]))
    # The transparent colour has neighbours that differ in low bytes only.
    near = wide_rgb.copy()
    near[:3] = near[0, 1] ^ (np.arange(51).reshape(3, 17, 1) % 3 == 0)

    def rows16(a: np.ndarray) -> bytes:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in a)

    def key(colour: np.ndarray) -> bytes:
        return chunk(b"tRNS", np.asarray(colour).astype(">u2").tobytes())

    two_wide = np.stack([wide, wide[::-1]], 2)
    animation = saved(rgb, "PNG", save_all=True, append_images=[Image.fromarray(rgb[::-1])] * 2)
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 17, 13, 0, 0, 1, 10, 0, 0))
    clear = rgb[1, 1].astype(">u2").tobytes()
    seen_clear = keyed(rgb, rgb[1, 1])
    text = with_chunk(base, b"tEXt", b"a\x00b")
    bomb = zlib.compress(bytes(64 * 2**20), 9)
    seen_wrong = base[:33] + chunk(b"eXIf", exif(6)[6:])[:-4] + bytes(4) + base[33:]
    rows = [
        ("bad_crc_text", text[:44] + b"c" + text[45:], rgb),
        ("bad_crc_pHYs", base[:33] + chunk(b"pHYs", bytes(9))[:-4] + bytes(4) + base[33:], rgb),
        ("bad_crc_eXIf", seen_wrong, turned(rgb, 6)),
        ("tEXt_8_MiB", with_chunk(base, b"tEXt", b"k\0" + b"x" * 2**23), rgb),
        ("zTXt_bomb", with_chunk(base, b"zTXt", b"k\0\0" + bomb), rgb),
        ("zTXt_XMP_bomb", with_chunk(base, b"zTXt", XMP_KEY + b"\0\0" + bomb), rgb),
        ("zTXt_EXIF_bomb", with_chunk(base, b"zTXt", b"Raw profile type exif\0\0" + bomb), rgb),
        ("iTXt_bomb", with_chunk(base, b"iTXt", b"k\0\1\0\0\0" + bomb), rgb),
        ("iTXt_XMP_bomb", with_chunk(base, b"iTXt", XMP_KEY + b"\0\1\0\0\0" + bomb), rgb),
        ("iCCP_bomb", with_chunk(base, b"iCCP", b"p\0\0" + bomb), rgb),
        ("iCCP_odd", with_chunk(base, b"iCCP", b"no profile at all"), rgb),
        ("iCCP_empty", with_chunk(base, b"iCCP", b""), rgb),
        ("short_chunks", base[:33] + b"".join(map(short, SHORT_KINDS)) + base[33:], rgb),
        ("frames_without_acTL", base[:-12] + frame * 2 + base[-12:], rgb),
        ("text_named_transparency", with_chunk(base, b"tEXt", b"transparency\0abc"), rgb),
        ("text_named_interlace", with_chunk(base, b"tEXt", b"interlace\0abc"), rgb),
        ("text_named_bbox", with_chunk(base, b"tEXt", b"bbox\0abc"), rgb),
        ("text_between_pixels", base[:-12] + chunk(b"tEXt", b"k\0v") + chunk(b"IDAT", b""), rgb),
        ("text_cut_short", base[:-12] + b"\0\0\xff\xfftEXtk\0abcdefghij", rgb),
        ("private_chunk", with_chunk(base, b"prVt", bytes(100)), rgb),
        ("tRNS_and_text", with_chunk(with_chunk(base, b"tRNS", clear), b"tEXt", b"k"), seen_clear),
        ("XMP_6", with_chunk(base, b"iTXt", XMP_KEY + b"\0\0\0\0\0" + xmp(6)), turned(rgb, 6)),
        (
            "XMP_8_compressed",
            with_chunk(base, b"iTXt", XMP_KEY + b"\0\1\0en\0k\0" + zlib.compress(xmp(8))),
            turned(rgb, 8),
        ),
        ("raw_EXIF_3", with_chunk(base, b"tEXt", raw_profile(exif(3))), turned(rgb, 3)),
        (
            "raw_EXIF_5_compressed",
            with_chunk(base, b"zTXt", squeezed(raw_profile(exif(5, ">", 4)))),
            turned(rgb, 5),
        ),
        ("raw_EXIF_damaged", with_chunk(base, b"tEXt", raw_profile(exif(3)) + b"zz"), rgb),
        (
            "1_bit",
            png(17, 13, 1, 0, b"".join(b"\0" + r.tobytes() for r in bits)),
            grey((mono >= 128) * 255),
        ),
        ("L", saved(mono, "PNG"), grey(mono)),
        ("LA", saved(np.stack([mono, alpha], 2), "PNG"), over_white(grey(mono), alpha)),
        ("P", saved(palette, "PNG"), table[indices]),
        (
            "P_tRNS_bytes",
            saved(palette, "PNG", transparency=opaque.tobytes()),
            over_white(table[indices], opaque[indices]),
        ),
        (
            "P_tRNS_index",
            saved(palette, "PNG", transparency=2),
            over_white(table[indices], (indices != 2) * 255),
        ),
        ("RGB", base, rgb),
        ("RGBA", saved(np.dstack([rgb, alpha]), "PNG"), over_white(rgb, alpha)),
        ("RGBA_opaque", saved(np.dstack([rgb, np.full_like(alpha, 255)]), "PNG"), rgb),
        ("RGB_tRNS", base[:33] + key(rgb[1, 1]) + base[33:], keyed(rgb, rgb[1, 1])),
        (
            "L_tRNS",
            with_chunk(saved(mono, "PNG"), b"tRNS", b"\0" + mono[:1, 1].tobytes()),
            keyed(mono, mono[0, 1]),
        ),
        ("2_bit_grey", png(4, 2, 2, 0, two_rows), grey(two_grey)),
        (
            "2_bit_grey_tRNS",
            png(4, 2, 2, 0, two_rows, chunk(b"tRNS", b"\0\0")),
            grey(np.where(two_grey == 0, 255, two_grey)),
        ),
        ("16_bit_grey", png(17, 13, 16, 0, rows16(wide)), grey(wide >> 8)),
        (
            "2_bit_grey_tRNS_above_0",
            png(4, 2, 2, 0, two_rows, chunk(b"tRNS", b"\0\2")),
            grey(np.where(two_grey == 170, 255, two_grey)),
        ),
        (
            "4_bit_grey_tRNS",
            png(17, 13, 4, 0, rows4, chunk(b"tRNS", b"\0\5")),
            grey(np.where(mono >> 4 == 5, 255, (mono >> 4) * 17)),
        ),
        (
            "16_bit_grey_tRNS",
            png(17, 13, 16, 0, rows16(wide), key(wide[2, 3])),
            keyed(wide, wide[2, 3], 8),
        ),
        (
            "16_bit_grey_alpha",
            png(17, 13, 16, 4, rows16(two_wide)),
            over_white(grey(wide >> 8), wide[::-1] >> 8),
        ),
        ("16_bit_rgb", png(17, 13, 16, 2, rows16(wide_rgb)), wide_rgb >> 8),
        (
            "16_bit_rgb_tRNS",
            png(17, 13, 16, 2, rows16(wide_rgb), key([0, 0, 0])),
            keyed(wide_rgb, [0, 0, 0], 8),
        ),
        (
            "16_bit_rgb_tRNS_above_255",
            png(17, 13, 16, 2, rows16(near), key(near[0, 1])),
            keyed(near, near[0, 1], 8),
        ),
        (
            "16_bit_rgba",
            png(17, 13, 16, 6, rows16(np.dstack([wide_rgb, wide]))),
            over_white(wide_rgb >> 8, wide >> 8),
        ),
        ("1x1", saved(rgb[:1, :1], "PNG"), rgb[:1, :1]),
        ("1xN", saved(synthetic(1, 3000), "PNG"), synthetic(1, 3000)),
        ("Nx1", saved(synthetic(3000, 1), "PNG"), synthetic(3000, 1)),
        ("eXIf_bomb", with_chunk(base, b"eXIf", bytes(2**20)), rgb),
        ("eXIf_cycle", with_chunk(base, b"eXIf", exif(6, offset=0, entries=65535)[6:]), rgb),
        ("text_10000", base[:33] + chunk(b"tEXt", b"a\0b") * 10_000 + base[33:], rgb),
        ("many_IDAT", png(17, 13, 8, 2, b"".join(b"\0" + r.tobytes() for r in rgb)), rgb),
        ("no_end", base[:-12], rgb),
        ("text_named_exif", with_chunk(base, b"tEXt", b"exif\0abc"), rgb),
        (
            "eXIf_after_pixels",
            base[:-12] + chunk(b"eXIf", exif(6)[6:]) + base[-12:],
            turned(rgb, 6),
        ),
        ("trailing_bytes", base + b"PK\x03\x04" + bytes(5000), rgb),
        ("APNG", animation, rgb),
        (
            "APNG_10000_frames",
            with_chunk(base[:-12], b"acTL", b"\0\0\x27\x10" + bytes(4))
            + (frame + chunk(b"fdAT", bytes(4))) * 10_000
            + base[-12:],
            rgb,
        ),
        ("APNG_acTL_invalid", with_chunk(base, b"acTL", bytes(8)), rgb),
        ("APNG_acTL_twice_late", base[:-12] + chunk(b"acTL", b"\xff" * 8) * 2 + base[-12:], rgb),
    ]
    return [Odd(f"I_png_{name}", data, np.asarray(pixels, np.uint8)) for name, data, pixels in rows]


def accepted_jpeg() -> list[Odd]:
    """Return JPEGs with unusual colour spaces and markers.

    Where a colour space has to be converted back, smooth images are the reference.
    """
    rgb = smooth(24, 32)
    base = saved(rgb, "JPEG", quality=95)
    mono = saved(rgb[..., 0], "JPEG", quality=95)
    inks = np.dstack([rgb, smooth(24, 32, 1)[::-1, :, 0] // 2])
    cmyk = saved(
        Image.frombytes("CMYK", (32, 24), inks.tobytes()), "JPEG", quality=100, subsampling=0
    )
    # YCCK: Y, Cb, Cr of the inks taken as red, green and blue; Pillow stores the complement of what
    # it is given.
    ycc = np.asarray(Image.fromarray(np.ascontiguousarray(inks[..., :3])).convert("YCbCr"))
    stored = np.dstack([255 - ycc, inks[..., 3]])
    ycck = bytearray(
        saved(
            Image.frombytes("CMYK", (32, 24), stored.tobytes()), "JPEG", quality=100, subsampling=0
        )
    )
    ycck[ycck.index(b"Adobe") + 11] = 2
    two = saved(
        Image.fromarray(rgb), "MPO", save_all=True, append_images=[Image.fromarray(rgb[::-1])]
    )
    damaged = [
        exif(6, offset=4000),
        exif(6, entries=65535, offset=2),
        exif(0),
        exif(9),
        exif(6, kind=7),
    ]
    damaged += [b"Exif\0\0", b"Exif\0\0XX*\0"]
    rows = [
        ("RGB", base, plain(base), 0),
        ("L", mono, plain(mono), 0),
        (
            "progressive",
            saved(rgb, "JPEG", progressive=True),
            plain(saved(rgb, "JPEG", progressive=True)),
            0,
        ),
        (
            "restart_markers",
            saved(rgb, "JPEG", restart_marker_blocks=1),
            plain(saved(rgb, "JPEG")),
            0,
        ),
        ("keep_rgb", saved(rgb, "JPEG", quality=100, keep_rgb=True), rgb, 2),
        ("CMYK_adobe_inverted", cmyk, ink(inks), 4),
        ("YCCK", bytes(ycck), ink(inks), 5),
        ("MPO", two, plain(two), 0),
        ("trailing_bytes", base + b"\xff\xda\xff\xd8" * 500, plain(base), 0),
        ("fill_bytes", base[:2] + b"\xff" * 300 + base[2:], plain(base), 0),
        ("garbage_between_segments", base[:20] + bytes(9) + base[20:], plain(base), 0),
        ("ICC_odd", with_segment(base, 0xE2, b"ICC_PROFILE\0\1\1" + bytes(100)), plain(base), 0),
        (
            "ICC_of_60000",
            with_segment(base, 0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000)),
            plain(base),
            0,
        ),
        ("comments_10000", base[:2] + b"\xff\xfe\x00\x04hi" * 10_000 + base[2:], plain(base), 0),
        (
            "XMP_damaged",
            with_segment(base, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<tiff:Orientation>"),
            plain(base),
            0,
        ),
    ]
    rows += [
        (f"{name}_damaged", with_segment(base, marker, body), plain(base), 0)
        for name, marker, body in (
            ("JFIF", 0xE0, b"JFIF\0\1"),
            ("JFXX", 0xE0, b"JFXX\0\x10\xff\xd8\xff\xdb"),
            ("Adobe", 0xEE, b"Adobe\0"),
            ("ICC", 0xE2, b"ICC_PROFILE\0"),
            ("MPF", 0xE2, b"MPF\0II*\0" + bytes(9)),
            ("Photoshop", 0xED, b"Photoshop 3.0\x008BIM\4\4\xff\xff\xff\xff"),
            ("FPXR", 0xE2, b"FPXR\0" + bytes(99)),
            (
                "XMP_UTF16",
                0xE1,
                b"http://ns.adobe.com/xap/1.0/\0" + xmp(6).decode().encode("utf-16"),
            ),
            ("comment", 0xFE, b"\xff\xd8\xff\xdb\xff\xda"),
            ("empty_EXIF", 0xE1, b""),
        )
    ]
    app1 = base[:2] + b"\xff\xe1"
    rows += [
        ("segment_of_no_length", app1 + b"\0\0" + base[2:], plain(base), 0),
        ("segment_of_one_byte", app1 + b"\0\1" + base[2:], plain(base), 0),
        ("segment_said_shorter", app1 + b"\0\4" + bytes(60) + base[2:], plain(base), 0),
        ("ICC_of_16_MB", with_profile(base, 255), plain(base), 0),
        ("ICC_that_lacks_a_part", with_profile(base, 7, 4), plain(base), 0),
    ]
    rows += [
        (
            f"EXIF_type_{kind}{name}",
            with_segment(base, 0xE1, exif(6, order, kind)),
            turned(plain(base), 6),
            0,
        )
        for kind in (1, 4, 6, 8, 9)
        for order, name in (("<", "_little"), (">", "_big"))
    ]
    packet = b"http://ns.adobe.com/xap/1.0/\0"
    rows += [
        (
            f"XMP_{value}",
            with_segment(base, 0xE1, packet + xmp(value, value > 4)),
            turned(plain(base), value),
            0,
        )
        for value in range(1, 9)
    ]
    rows += [
        (f"EXIF_damaged_{i}", with_segment(base, 0xE1, block), plain(base), 0)
        for i, block in enumerate(damaged)
    ]
    for value in range(1, 9):
        for order, name in (("<", "little"), (">", "big")):
            data = with_segment(base, 0xE1, exif(value, order))
            rows.append((f"EXIF_{value}_{name}", data, turned(plain(base), value), 0))
    return [
        Odd(f"I_jpeg_{name}", data, pixels, tolerance=tolerance)
        for name, data, pixels, tolerance in rows
    ]


def accepted_others() -> list[Odd]:
    """Return GIF, BMP and WebP files."""
    rgb = synthetic(13, 17)
    indices = (rgb[..., 1] % 4).astype(np.uint8)
    table = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    palette = Image.fromarray(indices)
    palette.putpalette(table.tobytes())
    alpha = synthetic(13, 17, 1)[..., 0]
    still = saved(palette, "GIF")
    tail = still[still.index(b"\x2c\x00\x00\x00\x00") : -1]
    offset = bytearray(still)
    offset[offset.index(b"\x2c\x00\x00\x00\x00") + 1] = 3
    shifted = np.concatenate([np.broadcast_to(table[0], (13, 3, 3)), table[indices]], axis=1)
    rows32 = np.dstack([rgb[::-1, :, ::-1], np.zeros((13, 17), np.uint8)]).tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, 17, 13, 1, 32, 0, 0, 0, 0, 0, 0)
    bmp32 = b"BM" + struct.pack("<IHHI", 54 + len(rows32), 0, 0, 54) + info + rows32
    top_down = np.dstack([rgb[:, :, ::-1], np.zeros((13, 17), np.uint8)]).tobytes()
    bmp_top = bmp32[:22] + struct.pack("<i", -13) + bmp32[26:54] + top_down
    flat = smooth(24, 32)
    moving = saved(
        rgb, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(rgb[::-1])] * 3
    )
    lossy = saved(flat, "WEBP", quality=80)
    rows = [
        ("gif_P", still, table[indices]),
        (
            "gif_transparent",
            saved(palette, "GIF", transparency=2),
            over_white(table[indices], (indices != 2) * 255),
        ),
        ("gif_interlaced", saved(palette, "GIF", interlace=1), table[indices]),
        ("gif_10000_frames", still[:-1] + tail * 10_000 + b";", table[indices]),
        ("gif_second_frame_damaged", still[:-1] + tail[:12] + b"\xff\xff\xff", table[indices]),
        (
            "gif_comment",
            still[:6] + still[6:-1].replace(tail, b"\x21\xfe\x02hi\x00" * 500 + tail) + b";",
            table[indices],
        ),
        ("gif_frame_beyond_screen", bytes(offset), shifted),
        ("bmp_RGB", saved(rgb, "BMP"), rgb),
        ("bmp_L", saved(rgb[..., 0], "BMP"), grey(rgb[..., 0])),
        ("bmp_P", saved(palette, "BMP"), table[indices]),
        (
            "bmp_1_bit",
            saved(Image.fromarray(rgb[..., 0] >= 128), "BMP"),
            grey((rgb[..., 0] >= 128) * 255),
        ),
        ("bmp_32_bit", bmp32, rgb),
        ("bmp_top_down", bmp_top, rgb),
        ("bmp_trailing_bytes", saved(rgb, "BMP") + bytes(999), rgb),
        ("webp_lossless", saved(rgb, "WEBP", lossless=True), rgb),
        ("webp_lossy", lossy, plain(lossy)),
        (
            "webp_alpha",
            saved(np.dstack([rgb, alpha]), "WEBP", lossless=True, exact=True),
            over_white(rgb, alpha),
        ),
        ("webp_animation", moving, rgb),
        ("webp_trailing_bytes", saved(rgb, "WEBP", lossless=True) + bytes(99), rgb),
    ]
    rows += [
        (f"webp_EXIF_{v}", saved(rgb, "WEBP", lossless=True, exif=exif(v)), turned(rgb, v))
        for v in range(1, 9)
    ]
    rows += [
        (f"png_EXIF_{v}", saved(rgb, "PNG", exif=exif(v)), turned(rgb, v)) for v in range(1, 9)
    ]
    rows += [
        (
            f"webp_EXIF_LONG_{v}",
            saved(rgb, "WEBP", lossless=True, exif=exif(v, ">", 4)),
            turned(rgb, v),
        )
        for v in (3, 6)
    ]
    rows += [("webp_XMP_6", saved(rgb, "WEBP", lossless=True, xmp=xmp(6)), turned(rgb, 6))]
    return [Odd(f"I_{name}", data, np.asarray(pixels, np.uint8)) for name, data, pixels in rows]


def tiff(pixels: np.ndarray | Image.Image, compression: str | None = None, **tags: int) -> bytes:
    """Return a TIFF with some tags, each given as t and its number."""
    info = {int(name[1:]): value for name, value in tags.items()}
    return saved(pixels, "TIFF", compression=compression, tiffinfo=info)


def tiff_by_hand(tags: dict[int, tuple[int, int]], order: str = "<", strip: bytes = b"") -> bytes:
    """Return a TIFF of 4 x 2 grey pixels; each tag is given as its type and its value."""
    usual = {256: (3, 4), 257: (3, 2), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8)}
    usual |= {277: (3, 1), 278: (4, 2), 279: (4, 8)}
    strip = strip or bytes(range(0, 80, 10))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(strip))
    entries = sorted((usual | tags).items())
    body = struct.pack(order + "H", len(entries))
    for tag, (kind, value) in entries:
        form = {1: "B3x", 3: "H2x"}.get(kind, "I")
        body += struct.pack(order + "HHI" + form, tag, kind, 1, value)
    return start + strip + body + bytes(4)


def tiffs() -> list[Odd]:
    """Return TIFFs that are one plain image, and such that are not read."""
    rgb, alpha = synthetic(13, 17), synthetic(13, 17, 1)[..., 0]
    mono = rgb[..., 0]
    wide = (mono.astype(np.uint16) << 8) | 7
    palette = Image.fromarray(rgb).quantize(16)
    cmyk = Image.fromarray(rgb).convert("CMYK")
    two = Image.fromarray(np.dstack([mono, alpha]))
    kinds = {
        "RGB": (rgb, rgb),
        "L": (mono, grey(mono)),
        "LA": (two, over_white(grey(mono), alpha)),
        "RGBA": (np.dstack([rgb, alpha]), over_white(rgb, alpha)),
        "16": (wide, grey(mono)),
        "1": (Image.fromarray(mono > 99), grey((mono > 99) * 255)),
        "P": (palette, np.array(palette.convert("RGB"))),
        "CMYK": (cmyk, np.array(cmyk.convert("RGB"))),
    }
    rows = [
        (f"{name}_{compression}", tiff(image, compression), pixels)
        for name, (image, pixels) in kinds.items()
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")
    ]
    small = np.arange(0, 80, 10).reshape(2, 4)
    rows += [
        (f"predictor_{compression}", tiff(rgb, compression, t317=2), rgb)
        for compression in ("tiff_lzw", "tiff_adobe_deflate")
    ]
    rows += [(f"orientation_{v}", tiff(rgb, t274=v), turned(rgb, v)) for v in range(1, 9)]
    rows += [(f"by_hand{order}", tiff_by_hand({}, order), grey(small)) for order in ("<", ">")]
    rows += [
        ("orientation_LONG", tiff_by_hand({274: (4, 6)}, ">"), turned(grey(small), 6)),
        ("orientation_9", tiff_by_hand({274: (3, 9)}), grey(small)),
        ("white_is_0", tiff_by_hand({262: (3, 0)}), grey(255 - small)),
        ("metadata", tiff_by_hand({34675: (7, 2**31), 33432: (2, 9)}), grey(small)),
        ("rows_beyond", tiff_by_hand({278: (4, 2**32 - 1)}), grey(small)),
    ]
    base = tiff(rgb)
    no = [
        ("float", tiff(Image.fromarray(mono.astype(np.float32))), "kind that is not read"),
        ("32_bit", tiff(Image.fromarray(mono.astype(np.int32))), "kind that is not read"),
        ("fax", tiff(Image.fromarray(mono > 99), "group4"), "method 4"),
        ("JPEG", tiff(rgb, "jpeg"), "method 7"),
        ("tiles", tiff_by_hand({322: (3, 16)}), "tiles"),
        ("cut_short", base[: len(base) // 2], "TIFF"),
        ("no_directory", b"II*\0" + bytes(40), "TIFF"),
        ("directory_beyond", b"II*\0\xff\xff\xff\xff", "outside the file"),
        ("huge", tiff_by_hand({256: (4, 2**31), 257: (4, 2**31), 278: (4, 2**31)}), "cut short"),
        (
            "huge_deflated",
            tiff_by_hand({256: (4, 10**5), 257: (4, 10**5), 278: (4, 10**5), 259: (3, 8)}),
            "more than",
        ),
        ("no_height", tiff_by_hand({257: (3, 0)}), "empty"),
        ("no_rows", tiff_by_hand({278: (3, 0)}), "strips"),
        ("few_rows", tiff_by_hand({278: (3, 1)}), "strips"),
        ("strip_beyond", tiff_by_hand({273: (4, 2**31)}), "cut short"),
        ("strip_of_4_GB", tiff_by_hand({279: (4, 2**32 - 1)}), "larger than the file"),
        ("planes", tiff_by_hand({284: (3, 2), 277: (3, 3)}), "TIFF"),
        ("backwards", tiff_by_hand({266: (3, 2)}), "backwards"),
        ("no_palette", tiff_by_hand({262: (3, 3)}), "palette"),
        ("Lab", tiff_by_hand({262: (3, 8)}), "kind that is not read"),
        ("damaged_deflate", tiff_by_hand({259: (3, 8)}), "TIFF"),
        ("damaged_LZW", tiff_by_hand({259: (3, 5)}, strip=b"\xff" * 8), "TIFF"),
        ("big", b"II+\0" + bytes(40), "unknown"),
    ]
    return [
        *(Odd(f"I_tiff_{name}", data, np.asarray(pixels, np.uint8)) for name, data, pixels in rows),
        *(Odd(f"I_tiff_{name}", data, None, says) for name, data, says in no),
    ]


def all_odd_images() -> list[Odd]:
    return refused() + accepted_png() + accepted_jpeg() + accepted_others() + tiffs()
