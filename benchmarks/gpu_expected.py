"""What is expected of a GPU (`docs/gpu.md`) beside what `benchmarks/gpu.py` has measured.

``python benchmarks/gpu_expected.py OUT`` reads ``OUT/results.json`` and prints one table, and below
it what was absent and what to install. `benchmarks/gpu.py` prints the same at its end. No GPU is
needed, and neither is Numba. What was not measured is called so, and nothing else takes its place:
of PyTorch, rows without TF32 count, in the layout of images that was faster.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BATCHES, TRAINED = (1, 32, 256), 64  # images at a time, and those of a step of training
NETWORK, GROUPED, STEP = 1.0, 0.5, 1.2  # our own time, as a part of theirs, at most
OF_PEAK, ONE_IMAGE = 0.7, 1.0  # at least, and milliseconds
DENSE = re.compile(r"layer\d\.\d+\.(conv1|conv3|downsample\.0)$")  # the 1x1 of a bottleneck
INSTALL = {
    "peer": "pip install torch torchvision",
    "runtime": "pip install onnxruntime-gpu",
    "pytest-xdist": "pip install pytest-xdist",
}
Results = dict[str, Any]


class Row(NamedTuple):
    """A line of the table; ``ratio`` is None for what was not measured, and ``found`` says why."""

    what: str
    expected: str
    found: str
    ratio: float | None = None
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {None: "not measured", True: "yes", False: "NO"}[self.met]
        return self.what, self.expected, self.found, ratio, verdict


def rows(found: Results) -> list[Row]:
    """Return the expectations, with what `results.json` has of each."""
    made: list[Row] = []
    for makes in (networks, grouped, dense, one_image, training):
        made += makes(found)
    why = "weights/train.py trains it, this program does not"
    return [*made, Row("the bundled model, trained", "as right as on the processor", why)]


def networks(found: Results) -> Iterator[Row]:
    """Yield a row for each mini-batch: the time of the network, as a part of PyTorch's."""
    for batch in BATCHES:
        what = f"inference, {images(batch)}, beside PyTorch"
        times = network(found, batch), peer(found, "median_ms", batch=batch)
        yield compared(found, "speed", what, times, NETWORK)


def grouped(found: Results) -> Iterator[Row]:
    """Yield a row for each mini-batch and grouped layer: its time, as a part of cuDNN's."""
    named = list(dict.fromkeys(row["layer"] for row in of(found, "peer") if "layer" in row))
    for batch in BATCHES:
        own = layers(found, batch)
        if not named:
            what = f"grouped 3x3, {images(batch)}, beside cuDNN"
            yield Row(what, f"at most {GROUPED:.2f}", absent(found, "peer"))
        for name in named:
            what = f"{name}, {images(batch)}, beside cuDNN"
            times = own.get(name, {}).get("min_ms"), peer(found, "min_ms", layer=name, batch=batch)
            yield compared(found, "speed", what, times, GROUPED)


def dense(found: Results) -> Iterator[Row]:
    """Yield a row for each mini-batch: all 1x1 of the blocks together, as a part of the peak."""
    peak = (found.get("machine") or {}).get("limits", {}).get("gflops")
    for batch in BATCHES:
        what, expected = f"its 1x1 together, {images(batch)}, of the peak", "at least 0.70"
        some = {name: row for name, row in layers(found, batch).items() if DENSE.match(name)}
        if not some or not peak:
            yield Row(what, expected, absent(found, "speed" if peak else "machine"))
            continue
        seconds = sum(row["min_ms"] for row in some.values())
        speed = sum(row["gflops"] * row["min_ms"] for row in some.values()) / seconds
        least = min(some, key=lambda name: some[name]["gflops"])
        text = f"{speed:.0f} of {peak:.0f} GFLOP/s; least {some[least]['gflops']:.0f}, {least}"
        yield Row(what, expected, text, speed / peak, speed / peak >= OF_PEAK)


def one_image(found: Results) -> Iterator[Row]:
    """Yield the row of one image, with the copies of it and of its logits."""
    ms = network(found, 1, "with_copies")
    text = absent(found, "speed") if ms is None else f"{ms:.3f} ms"
    met = None if ms is None else ms < ONE_IMAGE
    yield Row("one image, with its copies, in ms", "under 1.00", text, ms, met)


def training(found: Results) -> Iterator[Row]:
    """Yield the row of a step of training: its time, as a part of PyTorch's."""
    own = found.get("step") or {}
    batch = own.get("batch", TRAINED)
    times = own.get("median_ms"), peer(found, "median_ms", training=batch)
    what = f"a step of training, {images(batch)}, beside PyTorch"
    yield compared(found, "step", what, times, STEP)


def compared(
    found: Results, part: str, what: str, times: tuple[float | None, float | None], most: float
) -> Row:
    """Return the row of our own time in a part, and of theirs."""
    (own, theirs), expected = times, f"at most {most:.2f}"
    if own is None or theirs is None:
        return Row(what, expected, absent(found, part if own is None else "peer"))
    return Row(
        what, expected, f"{own:.3f} ms to {theirs:.3f} ms", own / theirs, own / theirs <= most
    )


# --- what the file has ----------------------------------------------------------------------------


def images(count: int) -> str:
    return f"{count} image{'s' * (count > 1)}"


def of(found: Results, part: str) -> list[Any]:
    """Return the rows of a part."""
    return list((found.get(part) or {}).get("rows", ()))


def speed(found: Results, batch: int) -> Results:
    """Return the row of a mini-batch in float32, or nothing."""
    some = (row for row in of(found, "speed") if row["precision"] == "float32")
    return next((row for row in some if row["batch"] == batch), {})


def network(found: Results, batch: int, which: str = "network") -> float | None:
    """Return the median time of a mini-batch."""
    ms: float | None = speed(found, batch).get(which, {}).get("median_ms")
    return ms


def layers(found: Results, batch: int) -> dict[str, Any]:
    """Return the layers of a mini-batch by name."""
    return {row["name"]: row for row in speed(found, batch).get("layers", ())}


def peer(found: Results, time: str, **which: Any) -> float | None:
    """Return PyTorch's time of what is asked for, without TF32, in the faster layout.

    That of a layer in a CUDA graph counts, too.
    """
    keys = ("layer", "training", "batch")
    wanted = [which.get(key) for key in keys]
    some = [row for row in of(found, "peer") if [row.get(key) for key in keys] == wanted]
    plain = [row for row in some if not row["tf32"]]
    return min((min(row[time], row.get("graph_ms", row[time])) for row in plain), default=None)


def absent(found: Results, part: str) -> str:
    """Return why a part has not what is asked for."""
    has = found.get(part)
    if has is None:
        return f"the part {part} did not run"
    why = has.get("absent") or found.get("failed", {}).get(part)
    return f"the part {part}: {why}" if why else f"the part {part} has no such row"


def missing(found: Results) -> list[str]:
    """Return a line for each part that was absent, and for what its tests lacked: what to do."""
    lines = []
    for part, what in INSTALL.items():
        has = found.get(part) or {}
        reasons = [has.get("absent"), *(row.get("absent") for row in of(found, part))]
        lines += [f"{part} is absent: {why}; {what}" for why in reasons if why]
    packages = (found.get("machine") or {}).get("packages")
    if packages is not None and not packages.get("pytest-xdist"):
        why = "pytest-xdist is absent: the tests ran in one process, so fewer of them in their time"
        lines.append(f"{why}; {INSTALL['pytest-xdist']}")
    return lines


# --- the table ------------------------------------------------------------------------------------


def table(found: Results) -> str:
    """Return the table of all expectations, and the lines of what was absent."""
    cells = [("what", "expected", "measured", "ratio", "met"), *(row.cells for row in rows(found))]
    cells.insert(1, ("---",) * len(cells[0]))
    lines = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([*lines, *missing(found)])


def main(argv: Sequence[str]) -> int:
    """Print the table of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder with results.json")
    path = parser.parse_args(argv).out / "results.json"
    if not path.is_file():
        raise SystemExit(f"{path} is not there; `python benchmarks/gpu.py OUT` writes it")
    print(table(json.loads(path.read_text("utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
