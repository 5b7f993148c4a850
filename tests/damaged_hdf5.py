"""Seeded damage to a good model file, and what becomes of it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from hdf5_cases import SPEC, number, same

from tinyresnext.errors import TinyResNeXtError
from tinyresnext.network.resnext import parameters
from tinyresnext.store import places as store_file
from tinyresnext.store import store


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Change the bytes of a file in one of eight ways."""
    out, size = bytearray(data), len(data)
    kind, at = rng.randrange(8), rng.randrange(size)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.randrange(256)
    elif kind == 2:
        out[at : at + 8] = rng.choice(
            [b"\xff" * 8, bytes(8), rng.randbytes(8), b"\xff" * 7 + b"\x7f"]
        )[: size - at]
    elif kind == 3:
        at -= at % 512
        out[at : at + 512] = bytes(len(out[at : at + 512]))
    elif kind == 4:
        del out[at:]
    elif kind == 5:
        out += rng.randbytes(rng.randrange(1, 100))
    elif kind == 6:
        other, length = rng.randrange(size), rng.choice([8, 64, 512])
        out[at : at + length] = out[other : other + length]
    else:
        del out[at : at + rng.choice([1, 8, 64])]
    return bytes(out)


def blocks(path: Path) -> list[tuple[int, int, str]]:
    """Begin, end and name of everything in a good file that is no tensor."""
    with path.open("rb", buffering=0) as file:
        hdf5 = store_file.structure(file)
        store_file.places(hdf5, parameters(SPEC))
    return [tuple(block) for block in hdf5._walker._blocks if block.what not in parameters(SPEC)]


def forged(data: bytes, places: list[tuple[int, int, str]], rng: random.Random) -> bytes:
    """Change numbers of the structure, some to the addresses of other structures."""
    out = bytearray(data)
    begin, end, _ = rng.choice(places)
    for _ in range(rng.randrange(1, 3)):
        at, length = rng.randrange(begin, end), rng.choice([1, 1, 2, 4, 8])
        at -= at % length
        new = rng.choice(
            [
                b"\xff" * 8,
                bytes(8),
                b"\x01" + bytes(7),
                rng.randbytes(8),
                number(rng.choice(places)[0]),
                bytes([out[at] ^ 1 << rng.randrange(8), *out[at + 1 : at + 8]]),
            ]
        )
        out[at : at + length] = new[:length]
    return bytes(out)


def mutate(path: Path, seed: int, count: int) -> dict[str, int]:
    """Damage the good file at ``path`` many times and count what `store.read` makes of it."""
    rng, data, good, places = random.Random(seed), path.read_bytes(), store.read(path), blocks(path)
    bad, found = path.with_suffix(".bad"), {"same": 0, "different": 0, "untyped": 0}
    for i in range(count):
        bad.write_bytes(damaged(data, rng) if i % 2 else forged(data, places, rng))
        try:
            found["same" if same(store.read(bad), good) else "different"] += 1
        except TinyResNeXtError as error:
            found[type(error).__name__] = found.get(type(error).__name__, 0) + 1
        except Exception as error:
            found["untyped"] += 1
            print(repr(error), file=sys.stderr)
    return found
