"""A write that fails or is killed leaves the file that was there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from child import ENVIRONMENT, child
from hdf5_cases import model

from tinyresnext.errors import UsageError
from tinyresnext.store import store

# A write that fails


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")], ids=str
)
def test_a_failed_write_leaves_the_old_file(path, good, monkeypatch, failure):
    before = h5py.Group.create_dataset
    calls = []

    def fail_at_the_fifth(self, name, **options):
        calls.append(name)
        if len(calls) == 5:
            raise failure
        return before(self, name, **options)

    monkeypatch.setattr(h5py.Group, "create_dataset", fail_at_the_fifth)
    with pytest.raises(UsageError if isinstance(failure, OSError) else failure):
        store.write(path, model(seed=1))
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


LIMITED = """if True:
    import resource, signal, sys
    from hdf5_cases import file_bytes, model
    from tinyresnext import errors
    from tinyresnext.store import store
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    try:
        store.write(sys.argv[1], model(seed=1))
    except errors.UsageError as error:
        print(error)"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system cannot limit the size of files")
@pytest.mark.parametrize("limit", [0, 3000, 60_000, 120_000])
def test_no_room(path, good, limit):
    done = child(LIMITED, path, limit, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == good
    assert os.listdir(path.parent) == [path.name]


WRITER = """if True:
    import sys
    from hdf5_cases import file_bytes, model
    from tinyresnext.store import store
    models = [model(seed) for seed in (0, 1)]
    print("ready", flush=True)
    while True:
        for stored in models:
            store.write(sys.argv[1], stored)"""
# A line of standard input asks for one more writer. They are forked: each begins without imports.
WRITERS = """if True:
    import os, signal, sys
    from hdf5_cases import file_bytes, model
    from tinyresnext.store import store
    models = [model(seed) for seed in (0, 1)]
    for line in sys.stdin:
        process = os.fork()
        if not process:
            print(os.getpid(), flush=True)
            while True:
                for stored in reversed(models):
                    store.write(sys.argv[1], stored)
        print(os.waitpid(process, 0)[1] == signal.SIGKILL, flush=True)"""


def outcomes(path: Path) -> list[store.Digests]:
    """Return the digests of the two models that a file may hold."""
    store.write(path.with_name("other.h5"), model(seed=1))
    return [store.digests(one) for one in (path, path.with_name("other.h5"))]


def test_killed_while_writing(path):
    """Kill a process that writes two models in turn: the file is always one of the two."""
    rng, either = random.Random(0), outcomes(path)
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, env=ENVIRONMENT
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 0.1))
        writer.kill()
        writer.communicate()
        assert store.check(path).passed
        assert store.digests(path) in either


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.slow
def test_killed_100_times_while_writing(path):
    rng, either = random.Random(1), outcomes(path)
    command = [sys.executable, "-c", WRITERS, path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, bufsize=1, **pipes) as writers:
        for _ in range(100):
            writers.stdin.write("\n")
            process = int(writers.stdout.readline())
            time.sleep(rng.uniform(0, 0.1))
            os.kill(process, signal.SIGKILL)
            assert writers.stdout.readline() == "True\n"
            assert store.check(path).passed
            assert store.digests(path) in either


@pytest.mark.skipif(sys.platform == "win32", reason="interrupts are sent otherwise")
def test_interrupted_while_writing(path):
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert writer.stdout.readline() == b"ready\n"
    time.sleep(0.05)
    writer.send_signal(signal.SIGINT)
    _, complaint = writer.communicate()
    assert b"KeyboardInterrupt" in complaint
    assert store.check(
        path
    ).passed  # a signal in the instant of making the temporary file can leave an empty one behind
