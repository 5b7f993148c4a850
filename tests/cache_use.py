"""Helpers for tests of the kernel cache: use a kernel, and find out where it came from."""

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
    """Return a new kernel from a factory, as in a new process: nothing is compiled or loaded."""

    @kernel(key=(factor,))
    def multiply(x):
        return x * np.float32(factor)

    return multiply


def counts(dispatcher) -> tuple[int, int]:
    """Return how many kernels were loaded from disk and how many were compiled."""
    return sum(dispatcher.stats.cache_hits.values()), sum(dispatcher.stats.cache_misses.values())


def use(dispatcher, factor=3) -> tuple[int, int]:
    """Call the kernel, check the result, and return where it came from."""
    np.testing.assert_array_equal(dispatcher(X), X * factor)
    return counts(dispatcher)


def stored(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start Python code in another process, beside the tests."""
    return start(code, **environment).wait_for()


class _Process(subprocess.Popen):
    def wait_for(self):
        out, err = self.communicate(timeout=300)
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


def start(code: str, **environment: str) -> _Process:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return _Process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
