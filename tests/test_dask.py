"""Folders on the workers of a real Dask scheduler: the rows of one process, whatever is killed.

What a shard is, and what it refuses, is in `test_shards`, which needs no Dask.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from dask_images import ends_others, held, only_here
from data_files import picture, write_files, write_zip
from test_many import stop_at, write_tar

import tinyresnext as tr
from tinyresnext.data import open_dataset, open_labelled
from tinyresnext.data.trees.sources import Images, as_source
from tinyresnext.errors import DeviceError
from tinyresnext.inference.classify import classify
from tinyresnext.inference.many import cluster as clusters
from tinyresnext.inference.many import shards
from tinyresnext.inference.many.features import save_features

pytestmark = pytest.mark.slow
distributed = pytest.importorskip("distributed")
FILES = {f"{i:02}.png": picture(i) for i in range(12)}


@pytest.fixture(scope="module")
def cluster():
    """Return a cluster in processes of its own; a worker that is killed begins anew."""
    started = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
    with started as found:
        yield found


@pytest.fixture
def workers(cluster):
    """Return a function that lets a cluster have so many workers, and returns a client."""
    with distributed.Client(cluster, set_as_default=False) as client:

        def scaled(count: int):
            cluster.scale(count)
            while len(client.nthreads()) != count:  # until those too many have ended
                time.sleep(0.05)
            return client

        yield scaled


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 2)
    spec, small = tr.cifar(11, 1, 4, classes=3), tr.Preprocess(8, 8)
    return tr.random_model(spec, seed=1, preprocess=small)


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Return images of every kind of source, and two that are none, with relative paths."""
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "photos", {**FILES, "broken.png": b"\x89PNG\r\n\x1a\n"})
    write_tar(tmp_path / "t.tar", FILES)
    write_zip(tmp_path / "z.zip", FILES)
    return list(Images(["photos", "none.png", "t.tar", "z.zip"]))


def test_one_two_and_four_workers_have_the_rows_of_one_process(workers, model, images):
    expected = list(classify(model, images, batch=2))
    assert [bool(row.error) for row in expected].count(True) == 2
    for count in (1, 2, 4):
        found = list(classify([model], images, batch=2, client=workers(count)))
        assert found == expected, f"{count} workers"


def test_several_threads_of_one_worker(model, images):
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, dashboard_address=":0"
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        found = list(classify(model, images, batch=2, client=client))
    assert found == list(classify(model, images, batch=2))


@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_worker_loses_nothing_and_doubles_nothing(workers, model, tmp_path, count):
    """It is killed while it has an image open; alone, it had the only copy of the model too."""
    write_files(tmp_path / "photos", FILES)
    (tmp_path / "begun").mkdir()
    paths = [str(tmp_path / "photos" / name) for name in FILES]
    client, killed = workers(count), []
    killer = threading.Thread(target=lambda: killed.append(kill_one(client, tmp_path / "begun")))
    killer.start()
    sources = [held(tmp_path / "begun", path) for path in paths]
    rows = list(classify(model, sources, batch=1, client=client))
    killer.join()
    assert rows == list(classify(model, paths, batch=1))
    began = [one.name.split("-") for one in (tmp_path / "begun").iterdir() if one.name != "go"]
    again = {name for name, process in began if int(process) == killed[0]}
    assert again, "the worker that was killed had images"
    assert again <= {name for name, process in began if int(process) != killed[0]}


def until(found):
    """Return what a function returns, as soon as that is true."""
    while not (value := found()):
        time.sleep(0.01)
    return value


def test_features_and_a_run_that_goes_on(workers, model, images, tmp_path):
    client = workers(2)
    list(save_features(model, images, "whole.h5", "layer2", batch=2))
    first = save_features(model, images, "f.h5", "layer2", batch=2, settings={}, client=client)
    assert [next(first)[0] for _ in range(3)] == [one.name for one in images[:3]]
    first.close()
    counts: dict[str, int] = {}
    rest = save_features(
        model, images, "f.h5", "layer2", batch=2, settings={}, resume=True, counts=counts,
        client=client,
    )  # fmt: skip
    assert [name for name, _ in rest] == [one.name for one in images[counts["before"] :]]
    assert 3 <= counts["before"] < len(images)
    with h5py.File("f.h5") as found, h5py.File("whole.h5") as expected:
        assert found["paths"][:].tolist() == expected["paths"][:].tolist()
        np.testing.assert_array_equal(found["features"][:], expected["features"][:])


@pytest.mark.parametrize("count", [1, 2])
def test_an_evaluation_is_that_of_one_process(workers, model, images, count):
    """Of a folder of classes, of archives, and of pixels in memory."""
    client = workers(count)
    files = {f"{'abc'[i % 3]}/{i:02}.png": picture(i) for i in range(12)}
    write_files(Path("d"), {**files, "a/broken.png": b"\x89PNG\r\n\x1a\n"})
    write_tar(Path("d.tar"), files)
    write_zip(Path("d.zip"), files)
    every = [open_labelled([path], warn=lambda line: None) for path in ("d", "d.tar", "d.zip")]
    for data in (*every, open_dataset("d.zip", None)):
        alone = tr.evaluate(model, data, batch=2, by_number=True)
        found = tr.evaluate(model, data, batch=2, by_number=True, client=client)
        assert found.to_json() == alone.to_json()


def test_a_worker_that_is_killed_changes_no_accuracy(workers, model, tmp_path):
    write_files(tmp_path / "d", {f"{'abc'[i % 3]}/{i:02}.png": picture(i) for i in range(12)})
    (tmp_path / "begun").mkdir()
    client, data = workers(2), open_labelled([str(tmp_path / "d")])
    alone = tr.evaluate(model, data, batch=1, by_number=True)
    every = [held(tmp_path / "begun", one.name)._replace(label=one.label) for one in data]
    killer = threading.Thread(target=kill_one, args=(client, tmp_path / "begun"))
    killer.start()
    slow = replace(data, each=lambda left_out: iter(every))
    found = tr.evaluate(model, slow, batch=1, by_number=True, client=client)
    killer.join()
    assert found.to_json() == alone.to_json()


def kill_one(client, begun: Path) -> int:
    """Kill the worker that opens an image first; let the others go on when it has ended."""
    first = until(lambda: [one.name for one in begun.iterdir()])[0]
    process = int(first.rpartition("-")[2])
    os.kill(process, signal.SIGKILL)
    until(lambda: process not in client.run(os.getpid, on_error="ignore").values())
    (begun / "go").touch()
    return process


def test_the_commands(workers, run, model, images, monkeypatch):
    """The second one is stopped, and goes on."""
    tr.save(model, "m.h5")
    address = workers(2).scheduler.address
    command = ["classify", "photos", "none.png", "t.tar", "z.zip", "--batch", 2]
    command += ["--model", "m.h5"]
    assert run(*command, "-o", "one.jsonl")[0] == 1
    with monkeypatch.context() as patched:
        stop_at(patched, 30)
        code, out, err = run(*command, "-o", "r.jsonl", "--dask", address)
    assert (code, out) == (130, "")
    assert "2 workers of Dask compute, 2 tasks at once" in err
    assert "--resume goes on" in err
    begun = Path("r.jsonl.part").read_bytes()
    assert Path("one.jsonl").read_bytes().startswith(begun)
    assert begun
    code, out, err = run(*command, "-o", "r.jsonl", "--dask", address, "--resume")
    assert (code, out) == (1, "r.jsonl: 38 rows, 2 of them with an error\n")
    assert Path("r.jsonl").read_bytes() == Path("one.jsonl").read_bytes()

    command = ["features", "photos", "--model", "m.h5"]
    assert run(*command, "-o", "f.h5")[0] == 1
    assert run(*command, "-o", "g.h5", "--dask", address)[0] == 1
    with h5py.File("f.h5") as one, h5py.File("g.h5") as other:
        np.testing.assert_array_equal(one["features"][:], other["features"][:])

    write_files(Path("d"), {f"{'abc'[i % 3]}/{i:02}.png": picture(i) for i in range(12)})
    command = ["evaluate", "d", "--model", "m.h5", "--labels-by-number", "--json"]
    alone = run(*command, "-o", "one.csv")
    assert run(*command, "-o", "two.csv", "--dask", address)[:2] == alone[:2]
    assert Path("one.csv").read_bytes() == Path("two.csv").read_bytes()


# --- what cannot be had


def test_no_scheduler(run, images, monkeypatch):
    """Nothing listens, something else does, or the address is none."""
    monkeypatch.setattr(clusters, "CONNECTING", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for address in ("tcp://127.0.0.1:1", f"tcp://127.0.0.1:{port}", "http://a", "", "a b"):
            code, out, err = run("classify", "photos", "--dask", address)
            assert (code, out, err.count("\n")) == (4, "", 1), err
            assert "no scheduler of Dask answers at" in err


def test_no_workers(run, images, monkeypatch):
    monkeypatch.setattr(clusters, "PATIENCE", 0.1)
    with distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster:
        code, out, err = run("classify", "photos", "--dask", cluster.scheduler_address)
    assert (code, out, err.count("\n")) == (4, "", 1), err
    assert "has had no worker" in err


def test_another_version(workers, run, images):
    client = workers(2)
    one = next(iter(client.nthreads()))
    client.run(_set_version, "0.0.1", workers=[one])
    try:
        code, out, err = run("classify", "photos", "--dask", client.scheduler.address)
    finally:
        client.run(_set_version, tr.__version__, workers=[one])
    assert (code, out, err.count("\n")) == (4, "", 1), err
    assert "1 of 2 workers have another tinyresnext than this process" in err
    assert f"{one} has version 0.0.1" in err


def _set_version(version: str) -> None:
    from tinyresnext.system import version as module

    module.__version__ = version


def test_no_access_to_the_files(workers, model, images):
    path = str(Path("photos/00.png").resolve())
    client = workers(2)
    with pytest.raises(DeviceError, match=r"does not see .*00\.png.*no such file.*same names"):
        list(classify(model, [only_here(path)], client=client))
    with pytest.raises(DeviceError, match=r"a worker of Dask does not see .*00\.png"):
        list(classify(model, [as_source(path), only_here(path)], client=client))


def test_an_image_that_ends_every_worker(workers, cluster, model, images, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    path = str(Path("photos/00.png").resolve())
    sources = [as_source(path), as_source(path), ends_others(path)]
    with pytest.raises(DeviceError, match=r"1 images from .*00\.png on .*KilledWorker"):
        list(classify(model, sources, batch=2, client=workers(2)))


def test_a_closed_client(workers, model, images):
    client = workers(1)
    client.close()
    with pytest.raises(DeviceError, match="does not answer"):
        classify(model, images, client=client)
