"""Whether the tests that ran on the emulator of PTX executed every kernel of the GPU backend.

With ``TINYRESNEXT_EXECUTED=FILE`` each run of pytest adds the names of its kernels to a file. When
all have ended, this compares them with those that are assembled for a processor (`assembled`):

    PYTHONPATH=. python tests/executed.py FILE 8.0
"""

from __future__ import annotations

import sys
from pathlib import Path

from assembled import cases


def missing(names: set[str], processor: tuple[int, ...]) -> list[str]:
    """Return the kernels for a processor that are not among these names."""
    wanted = [kernel.name for kernel, other in cases() if other == processor]
    assert wanted, f"no kernels are assembled for {processor}"
    return [name for name in wanted if name not in names]


if __name__ == "__main__":
    path, processor = sys.argv[1:]
    names = set(Path(path).read_text("utf-8").splitlines())
    if left := missing(names, tuple(map(int, processor.split(".")))):
        sys.exit(f"no watched test executed {len(left)} kernels: {', '.join(left)}")
    print("the watched tests executed every kernel")
