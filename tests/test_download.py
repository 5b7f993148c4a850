"""Fetching a file from servers that fail in every way: the right bytes, or a typed error."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import servers

from tinyresnext.errors import (
    DownloadError,
    FormatError,
    IntegrityError,
    TinyResNeXtError,
    UsageError,
)
from tinyresnext.hub import download
from tinyresnext.hub.download import Wanted, fetch
from tinyresnext.hub.transfer import Limits

CONTENT = np.random.default_rng(5).bytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WANTED = Wanted(1_000_000, None, SHA256[:8])
QUICK = Limits(silence=10, window=10, least=1, tries=2, pause=0)
HASTY = Limits(silence=0.5, window=0.5, least=50_000, tries=2, pause=0)

# What a server can do, and the error if it does nothing else.
FAILURES = {
    "cut": (servers.cut, DownloadError),
    "length too small": (servers.length_too_small, IntegrityError),
    "length too large": (servers.length_too_large, DownloadError),
    "length huge": (servers.length_huge, DownloadError),
    "length nonsense": (servers.length_nonsense, IntegrityError),
    "no length, cut": (servers.no_length_cut, IntegrityError),
    "chunks cut": (servers.chunks_cut, DownloadError),
    "chunks nonsense": (servers.chunks_nonsense, DownloadError),
    "page": (servers.page, DownloadError),
    "page as file": (servers.page_as_file, DownloadError),
    "packed": (servers.packed, DownloadError),
    "bit flipped": (servers.flipped, IntegrityError),
    "endless": (servers.endless, DownloadError),
    "hangs up": (servers.nothing, DownloadError),
    "babbles": (servers.babble, DownloadError),
    "many headers": (servers.many_headers, DownloadError),
    "not found": (servers.status(404), DownloadError),
    "broken": (servers.status(500), DownloadError),
    "busy": (servers.status(503), DownloadError),
    "no content": (servers.status(204), DownloadError),
    "to a file": (servers.to("file:///etc/passwd"), DownloadError),
    "to ftp": (servers.to("ftp://127.0.0.1/file"), DownloadError),
    "to data": (servers.to("data:,x"), DownloadError),
    "to http": (servers.to("http://files.example/file"), DownloadError),
    "to a bad address": (servers.to("https://[/file"), DownloadError),
    "to nowhere": (servers.to(""), DownloadError),
    "to itself": (servers.to_itself, DownloadError),
    "range unasked": (servers.range_unasked, DownloadError),
    "range unnamed": (servers.range_unnamed, DownloadError),
    "range refused": (servers.range_refused, DownloadError),
}
SLOW = {
    "silent": servers.silent,
    "silent in the middle": servers.silent_in_the_middle,
    "slow header": servers.slow_header,
    "slow body": servers.slow_body,
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def server():
    with servers.serving(CONTENT) as server:
        yield server


@pytest.fixture
def part(tmp_path) -> Path:
    return tmp_path / "file.pth.part"


def get(server, part, wanted=WANTED, limits=QUICK, urls=None, **options):
    return fetch(urls or [server.url], part, wanted, limits=limits, local=True, **options)


def test_a_good_server(server, part):
    seen = []
    assert get(server, part, progress=lambda done, total: seen.append((done, total))) == SHA256
    assert part.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)
    assert server.asked[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("case", FAILURES)
def test_a_server_that_fails(case, server, part):
    server.always, kind = FAILURES[case]
    with pytest.raises(kind, match="--from") as caught:
        get(server, part)
    assert type(caught.value) is kind
    assert server.url in str(caught.value)
    # Whatever is left is a true beginning of the file, or is replaced by the next attempt.
    server.always = servers.whole
    assert get(server, part) == SHA256
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("case", FAILURES)
def test_a_mirror(case, server, part):
    fails = FAILURES[case][0]
    server.always = lambda h, content: (fails if h.path == "/file.pth" else servers.whole)(
        h, content
    )
    assert get(server, part, urls=[server.url, server.url.replace("file.pth", "mirror")]) == SHA256
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "case",
    ["cut", "length too small", "no length, cut", "bit flipped", "chunks cut", "busy", "hangs up"],
)
def test_it_fails_once(case, server, part):
    server.ways = [FAILURES[case][0]]
    assert get(server, part) == SHA256
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize("case", SLOW)
def test_a_slow_server(case, server, part):
    server.always = SLOW[case]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"nothing came|only .* bytes came"):
        get(server, part, limits=HASTY)
    assert (
        time.monotonic() - start < 60
    )  # two tries of half a second, and a machine that does other things
    server.always = servers.whole
    assert get(server, part) == SHA256


def test_what_was_cut_is_gone_on_with(server, part):
    server.ways = [servers.cut]
    assert get(server, part) == SHA256
    assert server.ranges == [None, "bytes=100000-"]
    assert server.asked[1][1]["If-Range"] == servers.tag(CONTENT)


def test_ctrl_c_leaves_what_came(server, part):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    server.always = servers.cut
    with pytest.raises(KeyboardInterrupt):
        get(server, part, progress=stop)
    held = part.stat().st_size
    assert 0 < held <= len(CONTENT) // 2
    assert part.read_bytes() == CONTENT[:held]
    server.always = servers.whole
    assert get(server, part) == SHA256
    assert server.ranges == [None, f"bytes={held}-"]


@pytest.mark.parametrize(
    "way",
    [
        servers.plain,
        servers.range_unasked,
        servers.range_unnamed,
        servers.range_of_another,
        servers.range_refused,
    ],
)
def test_a_part_and_a_server_that_lies_about_it(way, server, part):
    part.write_bytes(CONTENT[:77_000])
    server.ways = [way]
    assert get(server, part) == SHA256
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("size", "content"),
    [(None, b""), (None, b"<html>"), (len(CONTENT), b""), (len(CONTENT), b"quota exceeded")],
)
def test_an_answer_that_is_another_file_leaves_the_part(size, content, server, part):
    """An answer from the first byte on says nothing of what came before."""
    part.write_bytes(CONTENT[:77_000])
    server.content, server.always = content, servers.plain
    with pytest.raises(DownloadError):
        get(server, part, Wanted(1_000_000, size, SHA256))
    assert part.read_bytes() == CONTENT[:77_000]
    server.content, server.always = CONTENT, servers.whole
    assert get(server, part, Wanted(1_000_000, size, SHA256)) == SHA256
    assert server.ranges[-1] == "bytes=77000-"


def test_a_part_that_is_longer_than_the_file(server, part):
    part.write_bytes(b"?" * (len(CONTENT) + 1000))
    server.always = servers.plain  # all of it, whatever was asked for
    assert (
        get(server, part, limits=Limits(silence=10, window=10, least=1, tries=1, pause=0)) == SHA256
    )
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2/file", "http://files.example/file", "ftp://127.0.0.1/file", "https:///"],
)
def test_redirects_are_as_safe_as_addresses(location, server, part):
    server.always = servers.to(location)
    with pytest.raises(DownloadError, match=r"leads to .* only https is accepted"):
        get(server, part)


def test_a_redirect_that_is_safe(server, part):
    server.ways = [servers.to("/elsewhere")]
    part.write_bytes(CONTENT[:500])
    assert get(server, part) == SHA256
    assert [path for path, _ in server.asked] == ["/file.pth", "/elsewhere"]
    assert server.ranges == ["bytes=500-"] * 2


def test_a_part_of_another_version(server, part):
    """The file was replaced meanwhile: If-Range makes the server send all of the new one."""
    once = Limits(silence=10, window=10, least=1, tries=1, pause=0)
    server.ways = [servers.cut]
    with pytest.raises(DownloadError):
        get(server, part, limits=once)
    server.content = bytes(len(CONTENT))
    with pytest.raises(IntegrityError):
        get(server, part, limits=once)
    assert server.ranges == [None, "bytes=100000-"]
    assert not part.exists()


@pytest.mark.parametrize(
    "held", [CONTENT, CONTENT + b"x", b"y" * 5000, bytes(len(CONTENT)), CONTENT[:-1] + b"?"]
)
@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_part_that_is_whole_too_long_or_wrong(held, size, server, part):
    part.write_bytes(held)
    assert get(server, part, Wanted(1_000_000, size, SHA256)) == SHA256
    assert part.read_bytes() == CONTENT


def test_without_a_digest_nothing_is_gone_on_with(server, part):
    part.write_bytes(b"from another time")
    assert get(server, part, Wanted(1_000_000)) == SHA256
    assert server.ranges == [None]


def test_md5_and_size(server, part):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert get(server, part, Wanted(1_000_000, len(CONTENT), "", md5)) == SHA256
    part.unlink()
    with pytest.raises(IntegrityError, match="md5"):
        get(server, part, Wanted(1_000_000, None, "", "0" * 32))
    with pytest.raises(DownloadError, match="has 200,000 bytes, expected 200,001"):
        get(server, part, Wanted(1_000_000, len(CONTENT) + 1, SHA256))


@pytest.mark.parametrize(
    "memory",
    [
        "",
        "{",
        "[]",
        '{"url": 1}',
        '{"url": "URL", "version": "a\\nb: c"}',
        '{"url": "URL", "version": 5}',
    ],
)
def test_a_strange_memory(memory, server, part):
    part.write_bytes(CONTENT[:1000])
    part.with_name("file.pth.part.json").write_text(memory.replace("URL", server.url))
    assert get(server, part) == SHA256
    assert server.asked[-1][1]["If-Range"] is None


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/x", "file:///etc/passwd", "ftp://h/x", "https:///x", "https://[", "x", ""],
)
def test_only_https(url, part):
    with pytest.raises(DownloadError, match="only https is accepted"):
        fetch([url], part, WANTED, limits=QUICK)


def test_local_means_this_computer(part):
    with pytest.raises(DownloadError, match="only https is accepted"):
        fetch(["http://files.example/x"], part, WANTED, limits=QUICK, local=True)


def test_nobody_listens(part):
    with pytest.raises(DownloadError, match="refused"):
        fetch(["http://127.0.0.1:9/x"], part, WANTED, limits=QUICK, local=True)
    assert not part.exists()


def test_the_proxy_of_the_environment(server, part, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.rpartition("/")[0])
    assert fetch(["http://localhost:9/file.pth"], part, WANTED, limits=QUICK, local=True) == SHA256
    assert server.asked[0][0] == "http://localhost:9/file.pth"
    monkeypatch.setenv("https_proxy", server.url.rpartition("/")[0])
    with pytest.raises(DownloadError, match="403"):
        fetch(["https://files.example/file.pth"], part.with_name("other"), WANTED, limits=QUICK)
    assert server.asked[-1][0] == "files.example:443"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk(server, part, monkeypatch):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limits[1]))
    try:
        with pytest.raises(UsageError, match="make room"):
            get(server, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert part.read_bytes() == CONTENT[: part.stat().st_size]
    assert get(server, part) == SHA256
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    part.unlink()
    with pytest.raises(UsageError, match="room for 1,000 bytes and 200,000 are still needed"):
        get(server, part)


def test_a_folder_that_is_not_there_or_read_only(server, tmp_path):
    with pytest.raises(UsageError, match="cannot write"):
        get(server, tmp_path / "missing" / "x.part")


def test_checking_what_cannot_be_read(tmp_path):
    with pytest.raises(FormatError, match="is a directory"):
        WANTED.check(tmp_path)


def test_no_thread_stays_behind(server, part):
    before = threading.active_count()
    server.ways = [servers.endless, servers.cut]
    with pytest.raises(TinyResNeXtError):
        get(server, part, limits=Limits(silence=5, window=5, least=1, tries=1, pause=0))
    deadline = time.monotonic() + 60
    while (
        threading.active_count() > before + 1 and time.monotonic() < deadline
    ):  # one of the server may be at it
        time.sleep(0.05)
    assert threading.active_count() <= before + 1
