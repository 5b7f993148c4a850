"""Images whose structure is slow to read: an answer within the rule, whatever is in the file."""

from __future__ import annotations

import contextlib
import time

import heavy_images as heavy
import pytest
from heavy_zips import raw_zip
from meter import MOST_MEMORY, MOST_SECONDS, cost

from tinyresnext.errors import ImageError
from tinyresnext.formats.image.parts import as_file
from tinyresnext.images.decode import decode

IMPORTS = "import numpy\nfrom tinyresnext.images.decode import decode"
LARGE = (64 << 20) - 3000


@pytest.mark.parametrize("name", heavy.HEAVY)
def test_slow_structures_end_soon(name, tmp_path):
    """Files of 1 MiB need a 16th of what 64 MiB may need, at most.

    Four times their part, since a busy machine is slower; what takes quadratic time needs more. The
    files of 64 MiB are among the long checks.
    """
    path = tmp_path / "image"
    path.write_bytes(heavy.HEAVY[name](1 << 20))
    assert any(_seconds(path) < MOST_SECONDS / 16 for _ in range(2))


def _seconds(path):
    begin = time.process_time()
    with contextlib.suppress(ImageError):
        assert decode(path).size
    return time.process_time() - begin


@pytest.mark.slow
@pytest.mark.parametrize("name", heavy.HEAVY)
def test_slow_structures_of_large_files_end_soon(name, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(heavy.HEAVY[name](LARGE))
    found = cost(IMPORTS, "decode(path)", path)
    assert found.seconds < MOST_SECONDS, found
    assert found.memory < path.stat().st_size + MOST_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jpeg fill bytes in the scan", "jpeg stuffed bytes in the scan"])
def test_a_small_zip_of_large_images(name, tmp_path):
    """Sixteen images that unpack to a thousand times their size are not decoded to be weighed."""
    data = heavy.HEAVY[name](LARGE)
    path = raw_zip(tmp_path / "d.zip", (b"a/%d.jpg" % i for i in range(16)), data, deflated=True)
    assert path.stat().st_size < 8 << 20
    call = "open_dataset(path, on_broken='skip', warn=str)"
    imports = (
        "from tinyresnext.data.trees import folders\nfrom tinyresnext.data.open import open_dataset"
    )
    found = cost(imports, call, path)
    assert found.seconds < MOST_SECONDS
    assert found.memory < len(data) + MOST_MEMORY


def test_what_is_kept_is_what_pillow_decodes(tmp_path):
    """What is cut out changes no pixel."""
    plain = {"jpeg": heavy.PLAIN, "png": heavy.PNG, "gif": heavy.GIF, "webp": heavy.WEBP}
    for name, make in heavy.HEAVY.items():
        kind = name.split()[0]
        base = {"RESTARTS": heavy.RESTARTS, "SCANS": heavy.SCANS}.get(
            "RESTARTS" if "before a restart" in name else "SCANS" if "scans" in name else ""
        )
        if kind in plain and not any(
            word in name for word in ("numbers", "in the scan", "tRNS", "ALPH")
        ):
            try:
                found = decode(make(300))
            except ImageError:
                continue
            assert (found == decode(base or plain[kind])).all(), name


def test_parts_are_read_as_one_file():
    file = as_file([b"abc", memoryview(b""), memoryview(b"defg"), b"h"])
    assert file.read() == b"abcdefgh"
    for start in range(10):
        for count in range(10):
            file.seek(start)
            assert file.read(count) == b"abcdefgh"[start : start + count]
            assert file.tell() == min(start + count, max(start, 8))
    assert file.seek(-3, 2) == 5
    assert file.read(2) == b"fg"
    assert file.seek(-1, 1) == 6
    assert as_file([]).read(1) == b""


def test_a_scan_of_a_progressive_image_counts(tmp_path):
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode(heavy.scans(16, 120))
    with pytest.raises(ImageError, match="scans are too large"):
        decode(heavy.scans(4000, 70))
    assert decode(heavy.scans(16, 20)).shape == (16, 16, 3)
