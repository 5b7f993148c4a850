"""From a published file to a model that `load` finds, wherever the file is and whatever fails."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import cases
import pulled
import pytest
import servers
from killed_pull import DRIPS

from tinyresnext import load
from tinyresnext.checkpoints.export import write_safetensors
from tinyresnext.cli import main as cli
from tinyresnext.errors import DownloadError, FormatError, IntegrityError, ShapeError, UsageError
from tinyresnext.hub import catalogue
from tinyresnext.hub.caches import found_in_caches, mirrored
from tinyresnext.hub.pull import pull, wanted
from tinyresnext.hub.transfer import Limits
from tinyresnext.hub.wanted import Wanted
from tinyresnext.store import store

CONTENT = pulled.checkpoint()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = Limits(silence=10, window=10, least=1, tries=1, pause=0)
HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """An own place for everything, no caches and no proxies."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(
            ("TORCH_HOME", "HF_", "HUGGINGFACE_")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("TINYRESNEXT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def server():
    with servers.serving(CONTENT) as server:
        yield server


@pytest.fixture
def entry(server):
    return pulled.entry(server.url, SHA256[:8])


def get(entry, **options) -> Path:
    return pull(entry, local=True, limits=QUICK, **options)


def left(home: Path) -> list[str]:
    """Every file there, but for locks."""
    return sorted(
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_pull(entry, server, home):
    path = get(entry)
    assert path == home / "models" / f"{pulled.NAME}.h5"
    assert left(home) == [f"models/{pulled.NAME}.h5"]
    model = load(path)
    assert (model.spec, model.preprocess, model.labels) == (
        entry.spec,
        entry.preprocess,
        entry.labels,
    )
    said = {
        "source": "net.pth",
        "sha256": SHA256,
        "licence": "MIT",
        "url": server.url,
        "model": pulled.NAME,
    }
    assert said.items() <= model.provenance.items()
    assert get(entry) == path  # it is here
    assert len(server.asked) == 1


def test_it_is_found_by_its_name(entry, home, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    for ask in (lambda: load(pulled.NAME), lambda: catalogue.model_file(pulled.NAME)):
        with pytest.raises(UsageError, match=f"`tinyresnext pull {pulled.NAME}` fetches it"):
            ask()
    get(entry)
    assert load(pulled.NAME).labels == pulled.LABELS
    assert (
        cli.main(
            [
                "classify",
                str(HERE / "data" / "chelsea.jpg"),
                "--model",
                pulled.NAME,
                "--device",
                "reference",
            ]
        )
        == 0
    )
    assert cli.main(["verify", pulled.NAME]) == 0
    assert cli.main(["info", pulled.NAME]) == 0
    assert cli.main(["models", "*test_set"]) == 0
    assert "50.00  MIT              ~1 MB  yes" in capsys.readouterr().out


def test_the_command(entry, monkeypatch, capsys, home):
    kept = pulled.entry("", SHA256)
    monkeypatch.setattr(catalogue, "entries", lambda: (kept,))
    assert cli.main(["pull", pulled.NAME]) == 3
    assert "name it with --from" in capsys.readouterr().err
    (home.parent / "mine.pth").write_bytes(CONTENT)
    assert cli.main(["pull", pulled.NAME, "--from", str(home.parent / "mine.pth")]) == 0
    out, err = capsys.readouterr()
    assert out == f"{home / 'models' / pulled.NAME}.h5\n"
    assert "licence MIT" in err
    assert (home.parent / "mine.pth").exists()
    assert cli.main(["pull", pulled.NAME, "--from", str(home.parent / "mine.pth")]) == 0
    (home.parent / "other.pth").write_bytes(CONTENT + b"1")
    assert cli.main(["pull", pulled.NAME, "--from", str(home.parent / "other.pth")]) == 3
    assert cli.main(["pull", pulled.NAME, "--from", str(home.parent / "none.pth")]) == 3
    assert cli.main(["pull", "tinyresnext_cifar10", "--from", "x.pth"]) == 2
    assert "is made of no other file" in capsys.readouterr().err
    assert cli.main(["pull", "resnext"]) == 2


def test_the_licence_comes_first(server, home):
    entry = pulled.entry(server.url, SHA256, licence="CC-BY-NC-4.0")
    said = []
    with pytest.raises(UsageError, match=r"CC-BY-NC-4\.0, .* --accept-licence"):
        get(entry, note=said.append)
    assert "licence CC-BY-NC-4.0" in said[0]
    assert (server.asked, home.exists()) == ([], False)
    assert load(get(entry, accept_licence=True)).provenance["licence"] == "CC-BY-NC-4.0"


def test_what_cannot_be_read_is_not_fetched(server):
    with pytest.raises(UsageError, match="quantised"):
        get(pulled.entry(server.url, SHA256, unreadable="quantised"))
    assert server.asked == []


def test_offline(entry, server):
    with pytest.raises(DownloadError, match="nothing may be fetched; fetch it from http"):
        get(entry, offline=True)
    assert server.asked == []


@pytest.mark.parametrize("place", ["torch", "TORCH_HOME"])
def test_pytorch_has_it(place, entry, server, tmp_path, monkeypatch):
    if place == "TORCH_HOME":
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = (
        (tmp_path / ("torch" if place == "TORCH_HOME" else "caches/torch"))
        / "hub"
        / "checkpoints"
        / "net.pth"
    )
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    assert store.check(get(entry, offline=True)).passed
    assert (server.asked, file.read_bytes()) == ([], CONTENT)


@pytest.mark.parametrize("damage", [CONTENT[:-1], b"", b"<html>", bytes(len(CONTENT))])
def test_pytorchs_is_damaged(damage, entry, server, tmp_path):
    file = tmp_path / "caches" / "torch" / "hub" / "checkpoints" / "net.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(damage)
    said = []
    assert store.check(get(entry, note=said.append)).passed
    assert any("is not used" in text for text in said)
    assert (len(server.asked), file.read_bytes()) == (1, damage)


@pytest.mark.skipif(os.name == "nt", reason="the Hub's cache has links")
@pytest.mark.parametrize("variable", ["", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_the_hub_has_it(variable, server, tmp_path, monkeypatch):
    hub = tmp_path / "caches" / "huggingface" / "hub"
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / variable))
        hub = tmp_path / variable / ("hub" if variable == "HF_HOME" else "")
    root = hub / "models--timm--net"
    for folder in ("blobs", "snapshots/abc"):
        (root / folder).mkdir(parents=True)
    (root / "blobs" / SHA256).write_bytes(CONTENT)
    (root / "blobs" / ("0" * 64)).write_bytes(b"damaged")
    (root / "snapshots/abc/pytorch_model.bin").symlink_to(f"../../blobs/{SHA256}")
    (root / "snapshots/abc/model.safetensors").symlink_to("../../blobs/" + "0" * 64)
    said = []
    entry = pulled.entry(server.url, "f" * 8, hub="timm/net")
    assert load(get(entry, offline=True, note=said.append)).provenance["sha256"] == SHA256
    assert [("is not used" in text, "which was on this computer" in text) for text in said[1:]] == [
        (True, False),
        (False, True),
    ]
    assert get(entry, offline=True)
    assert load(pull(entry)).provenance["url"] == "https://huggingface.co/timm/net"


def hub_cache(root, name, content):
    """Put a file into a snapshot of the Hub's cache, and return its sha256."""
    digest = hashlib.sha256(content).hexdigest()
    blobs, snapshot = root / "blobs", root / "snapshots" / name
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    (blobs / digest).write_bytes(content)
    (snapshot / "pytorch_model.bin").symlink_to(f"../../blobs/{digest}")
    return digest


@pytest.mark.skipif(os.name == "nt", reason="the Hub's cache has links")
def test_the_revision_of_main_comes_first(server, tmp_path):
    root = tmp_path / "caches" / "huggingface" / "hub" / "models--timm--net"
    older = cases.checkpoint({k: w * 2 for k, w in cases.weights(pulled.SPEC).items()}, legacy=True)
    assert hub_cache(root, "aaa", older) != hub_cache(root, "bbb", CONTENT)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("bbb")
    entry = pulled.entry(server.url, "f" * 8, hub="timm/net")
    assert load(get(entry, offline=True)).provenance["sha256"] == SHA256


def test_a_cache_that_may_not_be_entered_is_passed_over(entry, server, tmp_path, monkeypatch):
    """As root may enter every folder, the calls are refused here."""
    caches, real = str(tmp_path / "caches"), os.stat

    def refused(path, *more, **options):
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(caches):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *more, **options)

    monkeypatch.setattr(os, "stat", refused)
    assert store.check(get(dataclasses.replace(entry, hub="timm/net"))).passed
    caches = str(tmp_path / "home")
    with pytest.raises(UsageError, match="TINYRESNEXT_HOME"):
        get(entry)


@pytest.mark.parametrize(
    ("variable", "value", "folder"),
    [
        ("TORCH_HOME", "~/own", "user/own"),  # torch/hub.py: expanduser, and no more
        ("TORCH_HOME", "$OWN/own", "$OWN/own"),
        ("HF_HOME", "~/own", "user/own"),  # huggingface_hub/constants.py: both
        ("HF_HOME", "$OWN/own", "user/own"),
        ("HF_HUB_CACHE", "${OWN}/own", "user/own"),
        ("HF_HUB_CACHE", "", "caches/huggingface"),
    ],
)
def test_folders_are_named_as_their_owners_read_them(
    tmp_path, monkeypatch, variable, value, folder
):
    monkeypatch.chdir(tmp_path)
    for name, where in (("HOME", "user"), ("USERPROFILE", "user"), ("OWN", "user")):
        monkeypatch.setenv(name, str(tmp_path / where))
    monkeypatch.setenv(variable, value)
    place = tmp_path / folder
    inner = "hub/checkpoints" if variable == "TORCH_HOME" else "hub" if "HOME" in variable else ""
    inner = "hub" if not value else inner
    entry = pulled.entry(hub="timm/net")
    file = place / inner / "net.pth"
    if variable != "TORCH_HOME":
        snapshot = place / inner / "models--timm--net" / "snapshots" / "1"
        snapshot.mkdir(parents=True)
        file = snapshot / "pytorch_model.bin"
        (snapshot / SHA256).write_bytes(CONTENT)
        file.symlink_to(SHA256)
    else:
        file.parent.mkdir(parents=True)
        file.write_bytes(CONTENT)
    found = [path.resolve() for path, _ in found_in_caches(entry, Wanted(9, md5="0"), tmp_path)]
    assert file.resolve() in found


def test_the_hub_at_another_address(monkeypatch):
    """Only files of the Hub are asked for there."""
    file = "https://huggingface.co/timm/x/resolve/main/model.safetensors"
    other = "https://github.com/huggingface.co/x"
    assert (mirrored(file), mirrored(other)) == (file, other)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert mirrored(file) == "https://mirror.example/hub/timm/x/resolve/main/model.safetensors"
    assert mirrored(other) == other
    assert mirrored("https://huggingface.com/x") == "https://huggingface.com/x"


def test_another_address_is_asked(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url.rpartition("/")[0])
    name = server.url.rpartition("/")[2]
    assert store.check(get(pulled.entry(f"https://huggingface.co/{name}", SHA256))).passed
    assert len(server.asked) == 1


@pytest.mark.skipif(os.name == "nt", reason="the Hub's cache has links")
def test_the_hub_has_it_as_safetensors(entry, server, tmp_path):
    write_safetensors(tmp_path / "net", store.read(get(entry)).params)
    digest = hashlib.sha256((tmp_path / "net").read_bytes()).hexdigest()
    root = tmp_path / "caches" / "huggingface" / "hub" / "models--timm--net"
    for folder in ("blobs", "snapshots/abc"):
        (root / folder).mkdir(parents=True)
    (tmp_path / "net").rename(root / "blobs" / digest)
    (root / "snapshots/abc/model.safetensors").symlink_to(f"../../blobs/{digest}")
    other = dataclasses.replace(entry, name="resnext8_4x8d.hub", hub="timm/net")
    ours, theirs = store.digests(get(other, offline=True)), store.digests(catalogue.place(entry))
    assert ours.model == theirs.model


@pytest.mark.parametrize(
    ("content", "kind"),
    [(CONTENT[:-1], IntegrityError), (b"", IntegrityError), (None, FormatError)],
)
def test_from_another_file(content, kind, entry, tmp_path, home):
    if content is not None:
        (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(kind, match=r"net\.pth"):
        get(entry, source=tmp_path / "net.pth")
    assert left(home) == []


def test_the_published_file_is_of_another_network(server, home):
    entry = pulled.entry(server.url, SHA256, spec=dataclasses.replace(pulled.SPEC, width=4))
    with pytest.raises(ShapeError, match="stays in"):
        get(entry)
    assert left(home) == [f"downloads/{pulled.NAME}/net.pth"]  # no need to fetch it again
    with pytest.raises(ShapeError):
        get(entry)
    assert len(server.asked) == 1


def test_another_file_where_no_digest_is_known(server, home, tmp_path):
    entry = pulled.entry(server.url)
    model = get(entry)
    (tmp_path / "same.pth").write_bytes(CONTENT)
    assert get(entry, source=tmp_path / "same.pth") == model
    (tmp_path / "other.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(UsageError, match="made of another file than"):
        get(entry, source=tmp_path / "other.pth")


def test_nobody_has_published_a_digest(server, home):
    said = []
    load(get(pulled.entry(server.url), note=said.append))
    assert SHA256 in said[-1]
    entry = pulled.entry(
        server.url, spec=dataclasses.replace(pulled.SPEC, width=4), name="resnext8_4x4d.test_set"
    )
    with pytest.raises(ShapeError):
        get(entry)
    assert left(home) == [f"models/{pulled.NAME}.h5"]


@pytest.mark.parametrize(
    "way",
    [
        servers.cut,
        servers.flipped,
        servers.page,
        servers.endless,
        servers.nothing,
        servers.to("file:///x"),
    ],
)
def test_a_server_that_fails(way, entry, server, home):
    server.always = way
    with pytest.raises((DownloadError, IntegrityError)):
        get(entry)
    assert not (home / "models").exists()
    server.always = servers.whole
    assert store.check(get(entry)).passed
    assert left(home) == [f"models/{pulled.NAME}.h5"]


def test_ctrl_c_and_again(entry, server, home):
    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    server.always = servers.cut
    with pytest.raises(KeyboardInterrupt, match="continues from there"):
        get(entry, progress=stop)
    assert not (home / "models").exists()
    server.always = servers.whole
    assert store.check(get(entry)).passed
    assert server.ranges[0] is None
    assert server.ranges[1].startswith("bytes=")


def test_a_model_file_that_is_damaged_or_of_another_time_is_made_again(entry, server):
    path = get(entry)
    path.write_bytes(path.read_bytes()[:-100])
    assert store.check(get(entry)).passed
    get(dataclasses.replace(entry, sha256=SHA256))  # the catalogue means another file now
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"preprocess": dataclasses.replace(pulled.entry().preprocess, resize=60)},
        {"labels": tuple("jihgfedcba")},
    ],
)
def test_a_model_of_another_catalogue_is_made_again(change, entry, server):
    """Once: then it is what the catalogue says."""
    get(entry)
    newer = dataclasses.replace(entry, **change)
    model = load(get(newer))
    assert (model.preprocess, model.labels) == (newer.preprocess, newer.labels)
    get(newer)
    assert len(server.asked) == 2


def test_a_norm_in_the_file_has_mean_and_deviation(entry, server):
    """So those of the catalogue are not compared with them."""
    path = get(entry)
    stored = store.read(path)
    own = dataclasses.replace(stored.preprocess, mean=(0.1, 0.2, 0.3))
    store.write(path, stored._replace(preprocess=own))
    get(dataclasses.replace(entry, system="classification_models"))
    assert len(server.asked) == 1
    get(entry)
    assert len(server.asked) == 2


def test_threads_wait_for_each_other(entry, server):
    server.always = servers.drips(0.5)
    said, failed = [], []

    def run():
        try:
            get(entry, note=said.append)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, len(server.asked)) == ([], 1)
    assert sum("another process" in text for text in said) == 3


def test_processes_wait_for_each_other(entry, server, home):
    server.always = servers.drips(1)
    code = f"""if True:
        import pulled
        from tinyresnext.hub.pull import pull
        print(pull(pulled.entry({server.url!r}, {SHA256!r}), local=True))"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    found = [process.communicate(timeout=120)[0] for process in running]
    assert found == [f"{home / 'models' / pulled.NAME}.h5\n"] * 2
    assert len(server.asked) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.parametrize("times", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_moments(times, server):
    server.always = lambda h, content: (
        servers.whole if h.headers.get("Range") else servers.drips(DRIPS)
    )(h, content)
    command = [
        sys.executable,
        str(HERE / "killed_pull.py"),
        server.url,
        SHA256[:8],
        "7",
        str(times),
    ]
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    killed, ended, held = map(int, done.stdout.split())
    assert killed + ended == times
    assert killed >= times // 4
    assert held > 0  # some left a part, and those after them went on with it
    assert any(server.ranges)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_folder_that_cannot_be_written_to(entry, home):
    home.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="TINYRESNEXT_HOME"):
        get(entry)


@pytest.mark.parametrize("place", ["file", "under a file", "null device"])
def test_no_folder(place, entry, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    places = {
        "file": tmp_path / "file",
        "under a file": tmp_path / "file" / "home",
        "null device": os.devnull,
    }
    monkeypatch.setenv("TINYRESNEXT_HOME", str(places[place]))
    with pytest.raises(UsageError, match="cannot"):
        get(entry)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
def test_a_full_disk(entry, home):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (10_000, len(CONTENT) + 100):  # while it is fetched; while the model is written
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            with pytest.raises(UsageError, match="room"):
                get(entry)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not (home / "models" / f"{pulled.NAME}.h5").exists()
    assert store.check(get(entry)).passed


def test_how_large_a_file_may_be(entry):
    assert wanted(entry).most > 2 * len(CONTENT)
    assert wanted(dataclasses.replace(entry, bytes=5)).most == 5


def test_the_pages_count_the_catalogue():
    """What they say can be pulled: neither unreadable, nor without an address."""
    every = catalogue.entries()
    unreadable = [entry for entry in every if entry.unreadable]
    by_hand = [entry for entry in every if not entry.unreadable and not entry.urls]
    here = Path(__file__).parents[1]
    readme = " ".join((here / "README.md").read_text().split())
    page = " ".join((here / "docs" / "checkpoints.md").read_text().split())
    fetched = len(every) - len(unreadable) - len(by_hand)
    assert f"lists {len(every)} of them, of which {fetched} can be pulled so" in readme
    assert (len(by_hand), len(unreadable)) == (4, 16)
    assert f"{fetched} can be had so. Four have to be fetched by hand" in page
    assert "and 16 are only listed" in page
