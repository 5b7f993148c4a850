"""Kernels that are used, and where they then came from: what the tests of the cache share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np

from tinyresnext.ops.cpu.runtime.kernel import kernel

X = np.arange(5, dtype=np.float32)


def times(factor):
    """A kernel from a factory; each call makes a new one that knows nothing yet, as in a new process."""

    @kernel(key=(factor,))
    def multiply(x):
        return x * np.float32(factor)

    return multiply


def counts(dispatcher) -> tuple[int, int]:
    """Loaded from disk, and compiled."""
    return sum(dispatcher.stats.cache_hits.values()), sum(dispatcher.stats.cache_misses.values())


def use(dispatcher, factor=3) -> tuple[int, int]:
    """Call it, check the result, and tell where it came from."""
    np.testing.assert_array_equal(dispatcher(X), X * factor)
    return counts(dispatcher)


def stored(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, beside the tests."""
    return start(code, **environment).wait_for()


class _Process(subprocess.Popen):
    def wait_for(self):
        out, err = self.communicate(timeout=300)
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


def start(code: str, **environment: str) -> _Process:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return _Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
