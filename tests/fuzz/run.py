"""Fuzz readers by hand: ``python tests/fuzz/run.py [READER ...] [--seconds N] [--seed N]``."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]
from loop import fuzz
from readers import READERS


def main() -> int:
    """Run, keep each finding as a file, and return 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", nargs="*", help=f"of {', '.join(READERS)}")
    parser.add_argument("--seconds", type=float, default=60, help="for each reader (60)")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--keep", type=Path, default=Path("findings"), help="folder of findings")
    a = parser.parse_args()
    if not a.reader:
        print("\n".join(READERS))
        return 0
    found = 0
    for name in a.reader:
        reader, begin = READERS[name], time.monotonic()
        print(f"{name}: seed {a.seed}", flush=True)
        # Rounds, so that what is traced does not become ever rarer.
        for number in range(10**9):
            left = begin + a.seconds
            seed = a.seed + number
            for one in fuzz(reader.read, reader.seeds(), 20_000, seed=seed, until=left):
                found += 1
                a.keep.mkdir(exist_ok=True)
                path = a.keep / f"{name}-{hashlib.sha256(one.data).hexdigest()[:12]}"
                path.write_bytes(one.data)
                print(f"{name}: {one.what:.200}; kept as {path}", flush=True)
            if time.monotonic() > left:
                break
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
