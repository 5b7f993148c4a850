"""Shards of images for workers of Dask, without Dask: its client and its worker stand in a test.

`test_dask` has the same with real ones.
"""

from __future__ import annotations

import os
import pickle
import sys
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from data_files import picture, write_files, write_zip
from test_evaluate_many import FORMS, IMAGES, LABELS, NUMBERS, by_colour, form
from test_many import NAMES, write_tar

import tinyresnext as tr
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.trees.sources import Images, Source
from tinyresnext.errors import DeviceError, FormatError, ImageError, UsageError
from tinyresnext.images.decode import decode
from tinyresnext.inference.classify import classify
from tinyresnext.inference.ensemble import Ensemble
from tinyresnext.inference.many import cluster as clusters
from tinyresnext.inference.many import shards, worker
from tinyresnext.inference.many.features import save_features

HERE = SimpleNamespace(address="tcp://worker", state=SimpleNamespace(nthreads=1))


@pytest.fixture
def model():
    spec, small = tr.cifar(11, 1, 4, classes=3), tr.Preprocess(8, 8)
    return tr.random_model(spec, seed=1, device="reference", preprocess=small)


@pytest.fixture(autouse=True)
def as_worker(monkeypatch):
    """Let this process be the worker: with the names that the package takes from Dask."""
    monkeypatch.setitem(sys.modules, "distributed", SimpleNamespace(get_worker=lambda: HERE))
    monkeypatch.setitem(sys.modules, "cloudpickle", pickle)
    worker._unpacked.cache_clear()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Return images of every kind of source, and two that are none, with relative paths."""
    monkeypatch.chdir(tmp_path)
    files = {name: picture(i) for i, name in enumerate(NAMES)}
    write_files(tmp_path / "photos", {**files, "broken.png": b"\x89PNG\r\n\x1a\n"})
    write_tar(tmp_path / "t.tar", files)
    write_zip(tmp_path / "z.zip", files)
    return list(Images(["photos", "t.tar", "z.zip", "none.png", "none.tar"]))


# --- images that are sent


def test_images_are_the_same_in_another_folder(photos, tmp_path, monkeypatch):
    """Their rows have the same names, and the same words about what is wrong with them."""
    expected = [said(source) for source in photos]
    sent = pickle.dumps(photos)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = pickle.loads(sent)
    assert [one.name for one in found] == [one.name for one in photos]
    assert [said(one, str(tmp_path)) for one in found] == expected
    assert sum(isinstance(one, str) for one in expected) == 3


def said(source: Source, folder: str | None = None) -> list | str:
    """Return the pixels of an image, or the error."""
    try:
        return decode(source.open() if folder is None else worker.contents(source, folder)).tolist()
    except ImageError as error:
        return str(error)


def test_an_archive_of_another_size_is_another_archive(tmp_path):
    for name, write in {"a.tar": write_tar, "a.zip": write_zip}.items():
        write(tmp_path / name, {"1.png": picture(1)})
        sent = pickle.dumps(list(Images([str(tmp_path / name)])))
        assert len(pickle.loads(sent)) == 1
        write(tmp_path / name, {f"{i}.png": picture(i) for i in range(30)})
        with pytest.raises(FormatError, match="the same file is needed"):
            pickle.loads(sent)


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that is open")
def test_an_archive_that_was_replaced_is_opened_anew(tmp_path):
    """Even by one of the same size: a worker lives longer than a run."""
    files = {"a.tar": write_tar, "a.zip": partial(write_zip, method=0)}
    for name, write in files.items():
        write(tmp_path / name, {"1.png": b"one"})
        sent = pickle.dumps(list(Images([str(tmp_path / name)])))
        assert [worker.contents(one).data for one in pickle.loads(sent)] == [b"one"]
        write(tmp_path / f"new-{name}", {"1.png": b"two"})
        (tmp_path / f"new-{name}").replace(tmp_path / name)
        assert [worker.contents(one).data for one in pickle.loads(sent)] == [b"two"]


# --- what a worker does


def test_a_worker_computes_the_rows_of_one_process(model, photos):
    work = partial(rows_of, batch=2, loaders=1)
    packed = worker.pack(work, Ensemble.of(model), photos)
    found, unread = worker.shard(packed, pickle.dumps((os.getcwd(), photos)))
    assert found == list(classify(model, photos, batch=2))
    assert [photos[number].name for number in unread] == ["none.png", "none.tar"]


def rows_of(model, sources, batch, loaders):
    from tinyresnext.inference import classify as module

    return module._rows(model, sources, batch, loaders, top=5, threshold=None, fast=False)


def test_a_worker_takes_its_share_of_the_cores(model):
    def threads(nthreads: int, model: tr.Model) -> int | None:
        data = pickle.dumps((None, Ensemble.of(model), None))
        packed = worker.Bytes(str(nthreads), data)
        return worker._unpacked(packed, nthreads, "tcp://worker")[1].models[0].threads

    loaded = tr.load(threads=1)
    most = loaded.ops.thread_count()
    assert [threads(n, loaded) for n in (1, most, 4096)] == [1, most, most]


def test_a_worker_of_another_version_does_nothing():
    with pytest.raises(DeviceError, match=r"version 0\.0\.1; install the same"):
        worker.shard(("0.0.1", "", b"no pickle that this version knows"), b"")


@pytest.mark.parametrize("change", ["other", "none", "archive"])
def test_a_worker_that_sees_other_files_does_nothing(model, photos, change):
    if change == "archive":
        photos = [one for one in photos if one.name.startswith("t.tar/")]
    packed = worker.pack(rows_of, Ensemble.of(model), photos)
    if change == "other":
        Path(photos[0].name).write_bytes(picture(9))
    elif change == "none":
        Path(photos[0].name).unlink()
    else:
        Path("t.tar").unlink()
    with pytest.raises(DeviceError, match=r"tcp://worker does not see .* under the same names"):
        worker.shard(packed, pickle.dumps((os.getcwd(), photos)))


# --- shards in flight


class Future:
    """A task that is computed when its result is asked for."""

    def __init__(self, make):
        self.make, self.status = make, "pending"

    def result(self, timeout):
        if self.status == "cancelled":
            raise shards.Cancelled
        return self.make()

    def release(self):
        self.status = "released"


class Client:
    """A scheduler with some workers, which lose all that they have at some of the shards."""

    def __init__(self, threads: int = 1, losses: tuple[int, ...] = ()):
        self.threads, self.losses = threads, set(losses)
        self.sent, self.numbers, self.begun, self.lost = [], count(), [], 0

    def nthreads(self):
        return {"tcp://worker": self.threads} if self.threads else {}

    def scatter(self, values, broadcast, hash):
        assert (broadcast, hash) == (True, False)
        self.sent += values
        return [Future(lambda: values[0])]

    def submit(self, function, model, sent, pure):
        assert not pure
        number = next(self.numbers)

        def make():
            if number in self.losses:
                self.lost += 1
                for one in self.begun:
                    one.status = "cancelled" if one.status == "pending" else one.status
                raise shards.Cancelled
            future.status = "finished"
            return function(model.make(), sent)

        future = Future(make)
        self.begun.append(future)
        return future


def spread(client: Client, model: tr.Model, sources):
    work = partial(rows_of, batch=2, loaders=1)
    return shards.spread(client, work, Ensemble.of(model), sources, 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_few_shards_are_in_flight(model, tmp_path, threads):
    """However many images there are, and in their order."""
    write_files(tmp_path, {"a.png": picture(1)})
    path, taken = str(tmp_path / "a.png"), []

    def endless():
        for number in count():
            taken.append(number)
            yield Source(str(number), partial(str, path))

    client = Client(threads)
    rows = spread(client, model, endless())
    for number in range(30):
        assert next(rows).path == str(number)
        assert len(taken) - number <= 2 * shards.EACH * threads
    rows.close()
    assert {one.status for one in client.begun} == {"released"}
    assert len(client.sent) == 1, "the model goes once, not with each shard"
    assert list(spread(client, model, [])) == []


@pytest.mark.parametrize("losses", [(), (0,), (3,), (0, 3, 6), (2, 8)])
def test_what_lost_workers_had_is_done_again(model, photos, losses, monkeypatch):
    monkeypatch.setattr(shards, "check_client", lambda client: None)
    client = Client(1, losses)
    assert list(spread(client, model, photos)) == list(classify(model, photos, batch=2))
    assert client.lost == len(losses)
    assert len(client.sent) == 1 + len(losses)


def test_workers_that_are_lost_again_and_again_end_the_run(model, photos, monkeypatch):
    monkeypatch.setattr(shards, "check_client", lambda client: None)
    with pytest.raises(DeviceError, match=r"lost 4 times .* 2 images from photos/a.png on; .*logs"):
        list(spread(Client(1, tuple(range(100))), model, photos))


def test_no_worker_for_a_while_ends_the_run(model, photos, monkeypatch):
    """The patience is of no time here, and each look takes none."""
    monkeypatch.setattr(shards, "PATIENCE", -1)
    client = Client(0)
    client.scheduler = SimpleNamespace(address="tcp://scheduler")
    with pytest.raises(DeviceError, match=r"tcp://scheduler has had no worker"):
        list(spread(client, model, photos))


def test_what_a_worker_cannot_do_is_no_row(model, photos):
    """An error that is no image's, and an image that only this process can read."""

    def fails():
        raise RuntimeError("no disk")

    client = Client()
    client.submit = lambda f, model, sent, pure: Future(fails)
    with pytest.raises(DeviceError, match=r"failed with 2 images .*RuntimeError: no disk"):
        list(spread(client, model, photos))
    client.submit = lambda f, model, sent, pure: Future(lambda: ([], [1]))
    with pytest.raises(DeviceError, match=r"a worker of Dask does not see photos/b/c.png"):
        list(spread(client, model, photos))


# --- evaluations


@pytest.fixture
def client(monkeypatch):
    """Return workers of which one is lost; no client but Dask's would be accepted."""
    for module in (clusters, shards):
        monkeypatch.setattr(module, "check_client", lambda client: None)
    monkeypatch.setattr(shards, "SHARD", 3)
    return Client(2, losses=(2,))


@pytest.mark.parametrize("kind", [*FORMS, "pixels", "real"])
def test_an_evaluation_by_workers_is_that_of_one_process(here, client, kind):
    """Whatever images are opened from; an image of the folder cannot be read."""
    said, model, by_number = [], by_colour(LABELS), kind in NUMBERS
    if kind == "pixels":
        data = open_dataset(form("folder")[0], None, "wrong", warn=said.append)
    elif kind == "real":
        write_files(here, {f"v/ILSVRC2012_val_{i + 1:08}.JPEG": IMAGES[i] for i in (0, 1, 2, 4)})
        Path("real.json").write_text("[[0, 3], [1], [], [], [2]]")
        data, by_number = open_labelled(["v"], truth="real.json", warn=said.append), True
        spec, small = tr.cifar(11, 1, 4, classes=1000), tr.Preprocess(8, 8)
        model = tr.random_model(spec, seed=1, device="reference", preprocess=small)
    else:
        data = open_labelled(form(kind), warn=said.append)
    alone = tr.evaluate(model, data, batch=3, by_number=by_number)
    del said[:-1]
    found = tr.evaluate(model, data, batch=3, by_number=by_number, client=client)
    assert found.to_json() == alone.to_json()
    assert client.lost == (kind != "real")
    assert len(client.sent) == 1 + client.lost
    assert len(said) == 2 * (kind != "real"), "the image that is broken is named as before"


def test_an_image_that_ends_an_evaluation_by_workers(here, client):
    data = open_labelled(form("folder"), None, "refuse")
    with pytest.raises(ImageError, match=r"03\.png"):
        tr.evaluate(by_colour(LABELS), data, client=client)


def test_the_command_with_workers(here, run, client, monkeypatch):
    """A run that is stopped goes on, by workers or alone."""
    monkeypatch.setattr(clusters, "connected", lambda address: nullcontext(client))
    tr.save(by_colour(LABELS), "m.h5")
    words = ["evaluate", *form("folder"), "--model", "m.h5", "--device", "reference"]
    words += ["--batch", 3, "--json"]
    whole = run(*words, "-o", "whole.jsonl")
    assert run(*words, "--dask", "tcp://a")[:2] == whole[:2]
    next_shard, count = shards._Run.next, []

    def stops(self):
        count.append(1)
        if len(count) > 2:
            raise KeyboardInterrupt
        return next_shard(self)

    with monkeypatch.context() as patched:
        patched.setattr(shards._Run, "next", stops)
        code, out, err = run(*words, "-o", "r.jsonl", "--dask", "tcp://a")
    assert (code, out) == (130, "")
    assert "has 6 rows; the same command with --resume goes on" in err
    for more in (["--dask", "tcp://a"], []):
        Path("s.jsonl.part").write_bytes(Path("r.jsonl.part").read_bytes())
        Path("s.jsonl.part.json").write_bytes(Path("r.jsonl.part.json").read_bytes())
        assert run(*words, "-o", "s.jsonl", "--resume", *more)[:2] == whole[:2]
        assert Path("s.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
        Path("s.jsonl").unlink()
    code, _, err = run(*words[:-1], "--logits", "l.npz", "--dask", "tcp://a")
    assert (code, "leave out --dask" in err) == (2, True)


def test_the_size_of_a_shard():
    assert [shards.of_whole(n) for n in (1, 8, 24, 64, 100)] == [64, 64, 48, 64, 100]
    assert shards.of_whole(8, 1 << 20) == 16
    assert shards.of_whole(8, 1 << 30) == 8


# --- what cannot be had


def test_without_the_package_it_says_what_to_install(run, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    for command in (["classify"], ["features", "-o", "f.h5"]):
        code, out, err = run(*command, "photos", "--dask", "tcp://127.0.0.1:8786")
        assert (code, out) == (4, "")
        assert err.count("\n") == 1
        assert "pip install 'tinyresnext[dask]'" in err
        assert run(*command, "photos", "--dask", "tcp://x", "--threads", "1")[0] == 2
    assert not Path("f.h5").exists()


def test_a_client_that_is_none(model, photos, tmp_path, monkeypatch):
    for known in (None, SimpleNamespace(Client=Client)):
        monkeypatch.setitem(sys.modules, "distributed", known)
        with pytest.raises(UsageError, match=r"client is a str; expected a dask.distributed.Clie"):
            classify(model, photos, client="tcp://127.0.0.1:8786")
        with pytest.raises(UsageError, match=r"client is a str"):
            next(save_features(model, photos, tmp_path / "f.h5", client="tcp://127.0.0.1:8786"))
    assert not (tmp_path / "f.h5").exists()
