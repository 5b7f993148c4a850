"""Pull a model repeatedly in processes that are killed at random moments, and check the files.

::

    python killed_pull.py URL SHA256 SEED TIMES

Half of the moments lie in the download, however long the conversion behind it takes. The program
prints how many were killed, how many came to their end first, and how many found something to go on
with. ``TINYRESNEXT_HOME`` says where. Any name that does not mean a whole model ends it with a
traceback.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time

import pulled

from tinyresnext.hub import catalogue
from tinyresnext.hub.pull import pull
from tinyresnext.store import store

DRIPS = 0.05  # seconds that the server takes for a whole file


def attempt(entry: catalogue.Entry) -> tuple[int, int]:
    """A child that pulls, and a pipe in which it writes a byte when the first part has come.

    The pipe is at its end where nothing is downloaded.
    """
    read, write = os.pipe()
    child = os.fork()
    if child:
        os.close(write)
        return child, read
    try:
        pull(entry, local=True, progress=lambda done, _: done and os.write(write, b"."))
    except BaseException:
        os._exit(1)
    os._exit(0)


def status_of(child: int, read: int) -> int:
    """How a child ends."""
    status = os.waitpid(child, 0)[1]
    os.close(read)
    return status


def main(url: str, sha256: str, seed: int, times: int) -> None:
    """Kill them one by one."""
    entry = pulled.entry(url, sha256)
    rng = random.Random(seed)
    place = catalogue.place(entry)
    start = time.monotonic()
    assert status_of(*attempt(entry)) == 0
    usual = time.monotonic() - start
    place.unlink()
    killed = ended = held = 0
    for number in range(times):
        child, read = attempt(entry)
        if number % 2:
            os.read(read, 1)
        time.sleep(rng.uniform(0, DRIPS if number % 2 else usual))
        os.kill(child, signal.SIGKILL)
        status = status_of(child, read)
        assert status in (0, signal.SIGKILL), status
        killed, ended = killed + (status != 0), ended + (status == 0)
        work = place.parent.parent / "downloads" / entry.name
        if place.exists():
            assert store.check(place).passed
            place.unlink()
            if rng.random() < 0.5:
                shutil.rmtree(work, ignore_errors=True)
        elif work.exists():
            held += any(path.stat().st_size for path in work.iterdir())
    assert status_of(*attempt(entry)) == 0
    assert store.check(place).passed
    assert not work.exists()
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    print(killed, ended, held)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
