"""The grouped layers of the networks in the paper's Tables 2 to 4, on all installed engines.

``python benchmarks/widths.py`` prints tables for `LOG.md` and writes a file into ``results/``; it
takes about five minutes. Each layer is a 3x3 convolution with bias and ReLU for one image: *alone*,
and *in a row*, all those of a stage one after the other, as many as a network of 50 layers has. In
a row, activations and weights are in the caches as in a network, and an engine with a layout of its
own converts only at both ends. How engines are compared is said in `peers` and README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import geometric_mean
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import peers  # noqa: E402  (the path above finds it, from any folder)
from workloads import Case, layer  # noqa: E402

from tinyresnext import __version__  # noqa: E402
from tinyresnext.bench import processor  # noqa: E402

# Paths and width of each network. Table 2 and Table 3 have the same five; those of Table 4 besides.
NETWORKS = ((1, 64), (2, 40), (4, 24), (8, 14), (32, 4), (1, 100), (2, 64), (64, 4))
BLOCKS = (3, 4, 6, 3)  # of each stage, in a network of 50 layers
ENGINES = (
    "tinyresnext",
    "onnx runtime",
    "openvino",
    "pytorch eager",
    "pytorch eager, channels last",
)
COLUMNS = {
    "onnx runtime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "pytorch": "PyTorch, better layout",
}


def cases(paths: int, width: int) -> list[Case]:
    """Return the grouped layers of a network, alone and in a row."""
    alone, rows = [], []
    for stage, count in enumerate(BLOCKS):
        channels, side, stride = paths * width * 2**stage, 112 >> max(1, stage), 1 + (stage > 0)
        alone.append(layer(channels, channels, side, 3, stride, paths))
        if stride > 1:
            alone.append(layer(channels, channels, side // stride, 3, 1, paths))
        rows.append(layer(channels, channels, side, 3, stride, paths, count))
    return [_named(case, paths) for case in alone + rows]


def _named(case: Case, paths: int) -> Case:
    """Return the case with the name that the tables have: paths x width, input, stride."""
    channels, size = case.name.split(" x ")
    width = int(channels) // paths
    row = f", {case.times} layers" if case.times > 1 else ""
    kind = "grouped in a row" if case.times > 1 else "grouped"
    return case._replace(name=f"{paths} x {width},{size.partition(',')[2]}{row}", kind=kind)


def table(rows: Sequence[peers.Row]) -> str:
    """Return the rows as a table in Markdown, and a sentence on all of them."""
    heading = ["paths x width, input, stride", "ours", "GF", *COLUMNS.values(), "of the fastest"]
    lines = [f"| {' | '.join(heading)} |", "|" + "---|" * len(heading)]
    for row in rows:
        engines = row["engines"]
        ours = engines["tinyresnext"].get("median_ms", math.nan)
        cells = [f"{ours:.3f}", f"{row['gflop'] / ours * 1e3:.0f}"]
        cells += [_fastest(engines, peer) for peer in COLUMNS]
        ratio = row.get("ratio", math.nan)
        cells.append(f"**{ratio:.2f}**" if ratio <= 1 else f"{ratio:.2f}")
        lines.append(f"| {row['case']} | {' | '.join(cells)} |")
    known = {row["case"]: row["ratio"] for row in rows if "ratio" in row}
    if known:
        worst = max(known, key=known.__getitem__)
        lines += [
            "",
            f"Geometric mean of the fastest peer's time: {geometric_mean(known.values()):.2f}; "
            f"{sum(ratio <= 1 for ratio in known.values())} of {len(known)} at 1.00 or below; the "
            f"worst is {worst} at {known[worst]:.2f}.",
        ]
    return "\n".join(lines)


def _fastest(engines: dict[str, Any], peer: str) -> str:
    """Return the shortest median of the engines whose names begin like this."""
    found = [
        e["median_ms"]
        for name, e in engines.items()
        if name.startswith(peer) and e.get("agrees") and "median_ms" in e
    ]
    return f"{min(found):.3f}" if found else ""


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    p = argparse.ArgumentParser(description="Compare engines on layers; see README.md beside this.")
    p.add_argument(
        "--network",
        nargs="+",
        default=[f"{paths}x{width}" for paths, width in NETWORKS],
        metavar="PATHSxWIDTH",
        help="networks, such as 8x14; by default all of the tables",
    )
    peers.add_engines(p, list(ENGINES), "those of the tables")
    p.add_argument("--threads", type=int, default=2, help="for every engine (2)")
    p.add_argument("--rounds", type=int, default=7, help="turns of each engine (7)")
    p.add_argument("--seconds", type=float, default=0.02, help="time of a case in a turn (0.02)")
    p.add_argument("--json", default=None, metavar="FILE", help="- for none")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure all layers, print the tables and write a file."""
    a = arguments(argv)
    pythons = [sys.executable, *a.python]
    engines = peers.installed(pythons, a.engine)
    report: peers.Row = {
        "tinyresnext": __version__,
        "date": date.today().isoformat(),
        "processor": processor.processor(),
        "threads": a.threads,
        "versions": peers.versions(engines),
        "cases": [],
    }
    with (
        tempfile.TemporaryDirectory() as scratch,
        peers.running(engines, a.threads) as started,
    ):
        for name in a.network:
            paths, _, width = name.partition("x")
            report["cases"] += peers.together(
                cases(int(paths), int(width)),
                started,
                Path(scratch) / name,
                pythons,
                a.rounds,
                a.seconds,
            )
    peers.say("")
    busy = [row["others"] for row in report["cases"] if row["others"] is not None]
    print(f"{report['processor']}, {a.threads} threads, {report['date']}, {report['versions']}")
    if busy:
        print(f"While all engines slept, others took {sum(busy) / len(busy):.0%} of the cores.")
    for kind, title in (("grouped", "Alone"), ("grouped in a row", "In a row, time of one layer")):
        rows = [row for row in report["cases"] if row["kind"] == kind]
        print(f"\n{title}, medians in milliseconds:\n\n{table(rows)}")
    if a.json != "-":
        target = Path(a.json or HERE / "results" / f"{report['date']}-widths.json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
