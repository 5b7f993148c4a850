"""Small images inside of large files, whose structure is slow to read: each a kind of attack.

`HEAVY` has a function for each, which takes the number of bytes and returns the file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import odd_images as odd
from PIL import Image

PLAIN = odd.saved(odd.smooth(16, 16), "JPEG")
SCANS = odd.saved(odd.smooth(16, 16), "JPEG", progressive=True)
RESTARTS = odd.saved(odd.smooth(64, 64), "JPEG", restart_marker_blocks=1)
PNG = odd.saved(odd.smooth(16, 16), "PNG")
GIF = odd.saved(odd.smooth(16, 16, 1)[:, :, 0], "GIF")
WEBP = odd.saved(odd.smooth(16, 16), "WEBP")
BMP = odd.saved(odd.smooth(16, 16), "BMP")
IDAT = PNG[33:-12]

Make = Callable[[int], bytes]


def many(part: bytes, size: int) -> bytes:
    """Return so many bytes of a part that is repeated."""
    return part * max(1, size // len(part))


def inside(data: bytes, at: int, part: bytes) -> Make:
    """Put a part into a file, as often as the size asks for."""
    return lambda size: data[:at] + many(part, size) + data[at:]


def scan(data: bytes) -> int:
    """Return where the coded numbers of the first scan of a JPEG begin."""
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")


def riff(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def piece(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


CANVAS = piece(b"VP8X", struct.pack("<4B", 0, 0, 0, 0) + b"\x0f\0\0\x0f\0\0")
MOVING = piece(b"VP8X", struct.pack("<4B", 2, 0, 0, 0) + b"\x0f\0\0\x0f\0\0")
TRANSPARENT = piece(b"VP8X", struct.pack("<4B", 16, 0, 0, 0) + b"\x0f\0\0\x0f\0\0")
FRAME = piece(b"ANMF", bytes(6) + b"\x0f\0\0\x0f\0\0" + bytes(4) + WEBP[12:])


def webp(start: bytes, part: bytes, end: bytes) -> Make:
    return lambda size: riff(start, many(part, size), end)


def long_frame(size: int) -> bytes:
    """Return an animation whose first frame has many parts of its own."""
    body = bytes(6) + b"\x0f\0\0\x0f\0\0" + bytes(4) + many(piece(b"abcd", b""), size) + WEBP[12:]
    return riff(MOVING, piece(b"ANIM", bytes(6)), piece(b"ANMF", body))


def texts(keyword: bytes, kind: bytes = b"zTXt") -> Make:
    """Return a PNG with many texts that inflate to a thousand times their size."""
    text = b"\0\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"") + zlib.compress(bytes(1 << 20), 9)
    body = keyword + (text[:1] + b"\1\0\0\0" + text[6:] if kind == b"iTXt" else text)
    return inside(PNG, 33, odd.chunk(kind, body))


def strips(size: int) -> bytes:
    """Return a TIFF of one pixel a row, each in a strip."""
    n = max(1, size // 9)
    entries = [(256, 4, 1, 1), (257, 4, 1, n), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, n, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, n, 8 + 4 * n)]
    lists = struct.pack(f"<{n}I", *range(8 + 8 * n, 8 + 9 * n)) + struct.pack("<I", 1) * n
    at = 8 + 9 * n
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = b"II*\0" + struct.pack("<I", at + at % 2)
    count = struct.pack("<H", len(entries))
    return start + lists + bytes(n + at % 2) + count + directory + bytes(4)


def one_strip(compression: int, strip: bytes) -> Make:
    """Return a TIFF of one grey pixel whose only strip has the size of the file."""

    def made(size: int) -> bytes:
        data = many(strip, size)
        data += bytes(len(data) % 2)
        entries = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, compression)]
        entries += [(262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 1)]
        entries.append((279, 4, 1, len(data)))
        directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
        start = b"II*\0" + struct.pack("<I", 8 + len(data))
        return start + data + struct.pack("<H", len(entries)) + directory + bytes(4)

    return made


def long_chunk(kind: bytes, start: bytes = b"", at: int = 33) -> Make:
    """Return a PNG with a chunk that has the size of the file."""
    return lambda size: PNG[:at] + odd.chunk(kind, start + bytes(size)) + PNG[at:]


def scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG of equal pixels that repeats its last scan."""
    data = odd.saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xc4") : -2] * count + b"\xff\xd9"


HEAVY: dict[str, Make] = {
    "jpeg fill bytes before a segment": inside(PLAIN, 2, b"\xff"),
    "jpeg fill bytes before the scan": inside(PLAIN, PLAIN.index(b"\xff\xda"), b"\xff"),
    "jpeg fill bytes in the scan": inside(PLAIN, scan(PLAIN), b"\xff"),
    "jpeg fill bytes in a progressive scan": inside(SCANS, scan(SCANS), b"\xff"),
    "jpeg fill bytes before a restart": inside(RESTARTS, RESTARTS.index(b"\xff\xd0"), b"\xff"),
    "jpeg fill bytes before the end": inside(PLAIN, len(PLAIN) - 2, b"\xff"),
    "jpeg fill bytes between scans": inside(SCANS, SCANS.rindex(b"\xff\xc4"), b"\xff"),
    "jpeg empty APP segments": inside(PLAIN, 2, b"\xff\xe5\0\2"),
    "jpeg empty comments": inside(PLAIN, 2, b"\xff\xfe\0\2"),
    "jpeg short comments": inside(PLAIN, 2, b"\xff\xfe\0\3a"),
    "jpeg comments between scans": inside(SCANS, SCANS.rindex(b"\xff\xc4"), b"\xff\xfe\0\2"),
    "jpeg JFIF segments": inside(PLAIN, 2, PLAIN[2:20]),
    "jpeg tables": inside(PLAIN, PLAIN.index(b"\xff\xdb"), b"\xff\xdd\0\4\0\0"),
    "jpeg EXIF segments": inside(PLAIN, 2, b"\xff\xe1\0\x0aExif\0\0ab"),
    "jpeg restarts before a segment": inside(PLAIN, 2, b"\xff\xd0"),
    "jpeg restarts in the scan": inside(PLAIN, scan(PLAIN), b"\xff\xd0"),
    "jpeg restarts in turn": inside(
        RESTARTS, RESTARTS.index(b"\xff\xd0"), bytes.fromhex("ffd0ffd1ffd2ffd3ffd4ffd5ffd6ffd7")
    ),
    "jpeg restarts in a progressive scan": inside(SCANS, scan(SCANS), b"\xff\xd0\xff\xd1"),
    "jpeg zeros in the scan": inside(PLAIN, scan(PLAIN), b"\0"),
    "jpeg stuffed bytes in the scan": inside(PLAIN, scan(PLAIN), b"\xff\0"),
    "jpeg zeros behind the end": inside(PLAIN, len(PLAIN), b"\0"),
    "jpeg images behind the end": inside(PLAIN, len(PLAIN), PLAIN),
    "jpeg long EXIF": inside(PLAIN, 2, b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)),
    "jpeg long XMP": lambda size: many(
        PLAIN[:2] + b"\xff\xe1\xff\xffhttp://ns.adobe.com/xap/1.0/\0" + bytes(65504), size
    ),
    "png iCCP": inside(PNG, 33, odd.chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100)))),
    "png tEXt": inside(PNG, 33, odd.chunk(b"tEXt", b"a\0b")),
    "png acTL": inside(PNG, 33, odd.chunk(b"acTL", bytes(8))),
    "png fcTL behind the pixels": inside(PNG, len(PNG) - 12, odd.chunk(b"fcTL", bytes(26))),
    "png tRNS": inside(PNG, 33, odd.chunk(b"tRNS", bytes(6))),
    "png palettes": inside(PNG, 33, odd.chunk(b"PLTE", bytes(3))),
    "png unknown": inside(PNG, 33, odd.chunk(b"ABCD", b"")),
    "png empty IDAT": inside(PNG, 33, odd.chunk(b"IDAT", b"")),
    "png empty IDAT between": inside(PNG, 33 + len(IDAT), odd.chunk(b"IDAT", b"")),
    "png zeros behind the pixels": inside(PNG, len(PNG) - 12, bytes(1)),
    "png zeros behind the end": inside(PNG, len(PNG), bytes(1)),
    "png XMP bombs": texts(b"XML:com.adobe.xmp"),
    "png EXIF bombs": texts(b"Raw profile type exif"),
    "png iTXt bombs": texts(b"XML:com.adobe.xmp", b"iTXt"),
    "png a long unknown chunk": long_chunk(b"ABCD"),
    "png a long palette": long_chunk(b"PLTE"),
    "png a long tRNS": long_chunk(b"tRNS"),
    "png a long header": long_chunk(b"IHDR", PNG[16:29], at=8),
    "png long pixels": long_chunk(b"IDAT"),
    "png long pixels behind": long_chunk(b"IDAT", at=len(PNG) - 12),
    "png long EXIF": long_chunk(b"eXIf"),
    "gif comments": inside(GIF, len(GIF) - 1, b"!\xfe\1a\0"),
    "gif comments before": inside(GIF, GIF.index(b",\0\0\0\0"), b"!\xfe\1a\0"),
    "gif a long comment": lambda size: (
        GIF[: GIF.index(b",\0\0\0\0")]
        + b"!\xfe"
        + many(b"\1a", size)
        + b"\0"
        + GIF[GIF.index(b",\0\0\0\0") :]
    ),
    "gif extensions": inside(GIF, GIF.index(b",\0\0\0\0"), b"!\xf9\4\0\0\0\0\0"),
    "gif zeros": inside(GIF, GIF.index(b",\0\0\0\0"), b"\0"),
    "gif short blocks": inside(GIF, GIF.index(b",\0\0\0\0") + 11, b"\1\0"[:1] + b"\1"),
    "gif frames": inside(GIF, len(GIF) - 1, GIF[GIF.index(b",\0\0\0\0") : -1]),
    "webp chunks": webp(CANVAS, piece(b"abcd", b""), WEBP[12:]),
    "webp chunks behind": webp(CANVAS + WEBP[12:], piece(b"abcd", b""), b""),
    "webp EXIF": webp(CANVAS + WEBP[12:], piece(b"EXIF", b""), b""),
    "webp profiles": webp(CANVAS, piece(b"ICCP", b""), WEBP[12:]),
    "webp frames": webp(MOVING + piece(b"ANIM", bytes(6)), FRAME, b""),
    "webp chunks in a frame": long_frame,
    "webp long pixels": lambda size: riff(
        WEBP[12:16] + struct.pack("<I", len(WEBP) - 20 + size) + WEBP[20:], bytes(size + size % 2)
    ),
    "webp a long ANIM": lambda size: riff(MOVING, piece(b"ANIM", bytes(size)), FRAME),
    "webp a long VP8X": lambda size: riff(piece(b"VP8X", MOVING[8:] + bytes(size)), WEBP[12:]),
    "webp a long ALPH": lambda size: riff(TRANSPARENT, piece(b"ALPH", bytes(size)), WEBP[12:]),
    "webp many ALPH": webp(TRANSPARENT, piece(b"ALPH", bytes(2000)), WEBP[12:]),
    "webp a long ALPH in a frame": lambda size: riff(
        MOVING,
        piece(b"ANIM", bytes(6)),
        piece(b"ANMF", FRAME[8:24] + piece(b"ALPH", bytes(size)) + WEBP[12:]),
    ),
    "webp long EXIF": lambda size: riff(CANVAS, piece(b"EXIF", bytes(size)), WEBP[12:]),
    "webp no pixels": lambda size: riff(piece(b"VP8 ", bytes(size))),
    "webp zeros behind": lambda size: WEBP + bytes(size),
    "tiff strips": strips,
    "tiff a long strip": one_strip(1, b"a"),
    "tiff a long strip of Deflate": one_strip(8, zlib.compress(b"a")),
    "tiff a long strip of LZW": one_strip(5, b"\0"),
    "tiff a long strip of PackBits": one_strip(32773, b"\0"),
    "bmp a long header": lambda size: BMP[:14] + struct.pack("<I", size) + BMP[18:] + bytes(size),
    "bmp zeros": lambda size: BMP + bytes(size),
}
