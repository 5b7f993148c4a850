"""Measure what a call costs in another process: processor time, and memory above its start.

The rule for every file from elsewhere: an answer within `MOST_SECONDS` of processor time, and where
the file is refused, no more memory than the file and `MOST_MEMORY`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from child import child

MOST_SECONDS = 20
MOST_MEMORY = 64 << 20

_CODE = """
import json, resource, sys
{imports}
from tinyresnext.errors import TinyResNeXtError

def lines(name):
    return dict(line.split(":", 1) for line in open("/proc/self/" + name) if ":" in line)

def kib(name):
    return int(lines("status")[name].split()[0])

def spent():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime

path = sys.argv[1]
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak begins anew
before, begun = kib("VmRSS"), spent()
try:
    {call}
    found = ""
except TinyResNeXtError as error:
    found = type(error).__name__ + ": " + str(error)
print(json.dumps([found, spent() - begun, (kib("VmHWM") - before) * 1024]))
"""


class Cost(NamedTuple):
    """The error that was raised, or nothing; seconds of processor time; bytes of memory."""

    error: str
    seconds: float
    memory: int


def cost(imports: str, call: str, path: Path, timeout: float = 120) -> Cost:
    """Return what a statement about ``path`` costs in a process that has run the imports."""
    if sys.platform != "linux":
        pytest.skip("memory is measured where /proc is")
    done = child(_CODE.format(imports=imports, call=call), path, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def assert_refused(found: Cost, size: int, words: str = "") -> None:
    """Assert that a file of ``size`` bytes was refused within the rule."""
    assert words in found.error
    assert found.error, "it was accepted"
    assert found.seconds < MOST_SECONDS
    assert found.memory <= size + MOST_MEMORY
