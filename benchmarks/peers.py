"""Compare all installed engines on the same networks and layers, in turn, each in its own process.

A run goes in rounds: engine A runs for a moment while the others sleep, then B, then C, then A
again, so that all of them run under the same conditions. The median of each is compared; the
*ratio* of two medians is the result, because a machine that is slow today is slow for all. Before
that, all engines must compute the same logits.

``python benchmarks/peers.py`` takes about half an hour; ``--help`` lists options for less. With
``--precision bfloat16`` or ``int8`` it compares whole networks in that precision, and tinyresnext
with itself in float32.
README.md beside this file explains what is fair and what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import workloads  # noqa: E402  (the path above finds it, from any folder)
from engines import BY_PRECISION, ENGINES  # noqa: E402
from workloads import Case  # noqa: E402

from tinyresnext import __version__  # noqa: E402
from tinyresnext.bench import processor  # noqa: E402

OURS, WIDE, JUDGE = "tinyresnext", "tinyresnext float32", "pytorch eager"
SLACK = 3  # our error may be this many times that of PyTorch in float32, on the same input
# An engine with a larger error is still raced, unless the error shows a different computation: then
# it is timed, and no ratio is to it.
PEERS_SLACK = 30
REST = 0.1  # seconds of sleep before each turn, in which no engine may use processor time
Row = dict[str, Any]


class Engine:
    """A process that runs `engines`, and the pipe to it."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        count = str(threads)
        more = {
            "OMP_NUM_THREADS": count,
            "MKL_NUM_THREADS": count,
            "NUMBA_NUM_THREADS": count,
            "PYTHONWARNINGS": "ignore",
        }
        more["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parent)])
        command = [python, str(HERE / "engines.py"), name, count]
        self.name, self.burned, self.waits = name, 0.0, 0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | more,
            text=True,
        )

    def ask(self, **question: Any) -> Row:
        """Send one line and return the answer; it has the key ``error`` if that failed."""
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = (
            json.loads(line)
            if line
            else {"error": f"the process ended with code {self._process.wait()}"}
        )
        self.burned += answer.get("burned", 0.0)
        self.waits += 1
        return answer

    def close(self) -> None:
        """End the process."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def installed(pythons: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Return the first interpreter that has each engine, for those that are installed."""
    found = {}
    for name in wanted:
        for python in pythons:
            package = ENGINES[name][0]
            check = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
            if subprocess.run([python, "-c", check], check=False).returncode == 0:
                found[name] = python
                break
    return found


def write_graphs(folders: Sequence[Path], pythons: Sequence[str]) -> None:
    """Write the ONNX graphs with the first interpreter that has ``onnx``."""
    for python in pythons:
        command = [python, str(HERE / "graph.py"), *map(str, folders)]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return


@contextmanager
def running(engines: dict[str, str], threads: int) -> Iterator[list[Engine]]:
    """Start all engines, and end them afterwards."""
    started = [Engine(name, python, threads) for name, python in engines.items()]
    try:
        yield started
    finally:
        for engine in started:
            engine.close()


def compare(
    case: Case,
    engines: list[Engine],
    folder: Path,
    pythons: Sequence[str],
    rounds: int,
    seconds: float,
) -> Row:
    """Check one case on all engines, and time it in rounds."""
    return together([case], engines, folder, pythons, rounds, seconds)[0]


def together(
    cases: Sequence[Case],
    engines: list[Engine],
    scratch: Path,
    pythons: Sequence[str],
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Check some cases on all engines, and time them in rounds: all of them in each turn."""
    folders = [scratch / str(number) for number in range(len(cases))]
    for case, folder in zip(cases, folders, strict=True):
        workloads.write(case, folder)
    write_graphs(folders, pythons)
    rows, counts = [], []
    for number, (case, folder) in enumerate(zip(cases, folders, strict=True)):
        row, loaded = load(case, engines, folder, seconds, more=number > 0)
        check(case, folder, row)
        rows.append(row)
        counts.append(loaded)
    times: list[dict[str, list[float]]] = [{name: [] for name in loaded} for loaded in counts]
    awake = []
    for turn in range(rounds):
        for engine in engines:
            say(f"{cases[0].name}: round {turn + 1} of {rounds}: {engine.name}")
            others = processor.Others()
            time.sleep(REST)
            awake.append(others.share())
            for case, folder, loaded, found in zip(cases, folders, counts, times, strict=True):
                if engine.name in loaded:
                    answer = engine.ask(run=loaded[engine.name], of=str(folder))
                    found[engine.name] += [t / case.times * 1e3 for t in answer.get("times", [])]
    known = [share for share in awake if share is not None]
    busy = sum(known) / len(known) if known else None
    return [finished(*three, busy) for three in zip(cases, rows, times, strict=True)]


def load(
    case: Case, engines: list[Engine], folder: Path, seconds: float, more: bool
) -> tuple[Row, dict[str, int]]:
    """Build a case on all engines, and return how often each can run it in so many seconds."""
    row: Row = {"case": case.name, "kind": case.kind, "gflop": case.gflop, "engines": {}}
    loaded = {}
    for engine in engines:
        say(f"{case.name}: {engine.name} loads")
        answer = engine.ask(load=str(folder), more=more)
        row["engines"][engine.name] = {}
        if "error" in answer:  # the message may name files of this machine; the report must not
            print(f"\n{case.name}: {engine.name}: {answer['error']}", file=sys.stderr)
            row["engines"][engine.name]["error"] = answer["error"].partition(":")[0]
        else:
            loaded[engine.name] = max(1, math.ceil(seconds / answer["seconds"]))
    return row, loaded


def finished(case: Case, row: Row, times: dict[str, list[float]], busy: float | None) -> Row:
    """Return the row of a case with what was measured."""
    for name, found in times.items():
        if found:
            row["engines"][name] |= {
                "median_ms": median(found),
                "min_ms": min(found),
                "runs": len(found),
            }
    return row | {"times": case.times, "others": busy} | ratios(row["engines"])


def check(case: Case, folder: Path, row: Row) -> None:
    """Compare the results for the first and the last image with float64, and judge the errors.

    In another precision than float32 the measure is the error of its definition, in NumPy, and
    peers are allowed no more than tinyresnext.
    """
    n = len(case.arrays["x"])
    images = slice(0, n, max(1, n - 1))
    say(f"{case.name}: float64")
    wanted = workloads.exact(case, images)
    found = {
        name: np.load(folder / f"{name}.npy")[images]
        for name, e in row["engines"].items()
        if "error" not in e
    }
    if wanted.ndim == 4:
        wanted = wanted.transpose(0, 3, 1, 2)
    errors = {
        name: float(np.abs(y - wanted).max() / np.abs(wanted).max()) for name, y in found.items()
    }
    narrow = case.precision != "float32"
    if JUDGE in errors and not narrow:
        judge = errors[JUDGE]
    else:
        y = workloads.plain(case, images)
        y = y.transpose(0, 3, 1, 2) if y.ndim == 4 else y
        judge = float(np.abs(y - wanted).max() / np.abs(wanted).max())
    row["allowed"] = SLACK * judge
    for name, error in errors.items():
        limit = row["allowed"] if name == OURS or narrow else PEERS_SLACK * judge
        row["engines"][name] |= {"error_of_logits": error, "agrees": error <= limit}


def ratios(engines: dict[str, Row]) -> Row:
    """Return our median over those of the fastest peer, PyTorch eager, and our own float32.

    Of those that agree.
    """
    raced = {
        name: e["median_ms"] for name, e in engines.items() if e.get("agrees") and "median_ms" in e
    }
    peers = {name: ms for name, ms in raced.items() if name not in (OURS, WIDE)}
    found = {}
    if OURS in raced and peers:
        fastest = min(peers, key=peers.__getitem__)
        found = {"fastest_peer": fastest, "ratio": raced[OURS] / raced[fastest]}
    for key, name in (("ratio_to_eager", JUDGE), ("ratio_to_float32", WIDE)):
        if OURS in raced and name in raced:
            found[key] = raced[OURS] / raced[name]
    return found


def table(report: Row) -> str:
    """Format a report for people."""
    machine = f"{report['processor']}, {report['threads']} threads, {report['date']}"
    lines = [f"{machine}, {report.get('precision', 'float32')}"]
    for row in report["cases"]:
        lines += ["", f"{row['case']} ({row['kind']}), {row['gflop']:.3f} GFLOP"]
        for name, e in row["engines"].items():
            if "median_ms" not in e:
                lines.append(f"  {name:30} {e.get('error', 'no times')}")
                continue
            speed = row["gflop"] / e["median_ms"] * 1e3
            lines.append(
                f"  {name:30} median {e['median_ms']:9.3f} ms  shortest {e['min_ms']:9.3f} ms  "
                f"{speed:7.1f} GFLOP/s  error {e['error_of_logits']:.1e}"
                f"{'' if e['agrees'] else ', more than allowed: not raced'}"
            )
        if row["others"] is not None:
            lines.append(f"  while all engines slept, others took {row['others']:.0%} of the cores")
        if "ratio" in row:
            lines.append(f"  {row['ratio']:.2f} of the time of {row['fastest_peer']}")
        if "ratio_to_float32" in row:
            lines.append(f"  {row['ratio_to_float32']:.2f} of the time of our own float32")
    for name, ms in report["burned_asleep_ms"].items():
        # An engine may spin for a while, but not into the next turn.
        if ms > REST * 1e3 * max(1, report["threads"] - 1) / 2:
            lines.append(
                f"{name} used {ms:.0f} ms of processor time in each of its rests: "
                "the times of the others are too long"
            )
    return "\n".join(lines)


def say(text: str) -> None:
    """Print progress to a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text:100.100}", end="", file=sys.stderr, flush=True)


def add_engines(p: argparse.ArgumentParser, default: list[str] | None, which: str) -> None:
    """Add the options that say which engines are measured, and where they are looked for."""
    p.add_argument(
        "--engine",
        nargs="+",
        default=default,
        choices=list(ENGINES),
        help=f"by default {which} that are installed",
    )
    p.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="FILE",
        help="more interpreters to look for engines in",
    )


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the options."""
    p = argparse.ArgumentParser(description="Compare engines; see README.md beside this file.")
    p.add_argument(
        "--model",
        nargs="*",
        default=workloads.MODELS,
        metavar="NAME",
        help="architectures; without a name, none",
    )
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images at a time (1 8)")
    p.add_argument("--size", type=int, nargs="+", default=[224], help="sides of the images (224)")
    p.add_argument(
        "--precision",
        default="float32",
        choices=workloads.PRECISIONS,
        help="whole networks only in another one than float32 (float32)",
    )
    p.add_argument("--no-layers", action="store_true", help="whole networks only")
    add_engines(p, None, "all for the precision")
    p.add_argument(
        "--threads",
        type=int,
        default=_cores(),
        help="for every engine (as many as there are cores)",
    )
    p.add_argument("--rounds", type=int, default=15, help="turns of each engine (15)")
    p.add_argument("--seconds", type=float, default=0.3, help="length of a turn (0.3)")
    p.add_argument(
        "--json",
        default=None,
        metavar="FILE",
        help="by default results/DATE.json beside this file, or DATE-PRECISION.json; - for none",
    )
    a = p.parse_args(argv)
    a.engine = a.engine or BY_PRECISION[a.precision]
    if wrong := [name for name in a.engine if name not in BY_PRECISION[a.precision]]:
        p.error(f"{wrong[0]} is not compared in {a.precision}")
    return a


def _cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run all cases, print the results and write them to a file."""
    a = arguments(argv)
    pythons = [sys.executable, *a.python]
    engines = installed(pythons, a.engine)
    # Each network has its own processes; the layers, which are small, share theirs.
    groups = [
        [workloads.model(name, batch, size, a.precision)]
        for name in a.model
        for batch in a.batch
        for size in a.size
    ]
    layers = a.precision == "float32" and not a.no_layers
    groups += [workloads.layers()] if layers else []
    report: Row = {
        "tinyresnext": __version__,
        "date": date.today().isoformat(),
        "processor": processor.processor(),
        "precision": a.precision,
    }
    report |= {"threads": a.threads, "versions": versions(engines), "cases": []}
    burned, waits = dict.fromkeys(engines, 0.0), dict.fromkeys(engines, 0)
    with tempfile.TemporaryDirectory() as scratch:
        for g, group in enumerate(groups):
            with running(engines, a.threads) as started:
                for c, case in enumerate(group):
                    folder = Path(scratch) / f"{g}.{c}"
                    report["cases"].append(
                        compare(case, started, folder, pythons, a.rounds, a.seconds)
                    )
                for engine in started:
                    burned[engine.name] += engine.burned
                    waits[engine.name] += engine.waits
    report["burned_asleep_ms"] = {
        name: burned[name] / max(1, waits[name]) * 1e3 for name in engines
    }
    say("")
    print(table(report))
    if a.json != "-":
        kind = "" if a.precision == "float32" else f"-{a.precision}"
        target = Path(a.json or HERE / "results" / f"{report['date']}{kind}.json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def versions(engines: dict[str, str]) -> dict[str, str]:
    """Return the version of each package that was used."""
    found = {}
    for name, python in engines.items():
        package = ENGINES[name][0]
        command = [python, "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
        found[package] = subprocess.run(
            command, check=False, capture_output=True, text=True
        ).stdout.strip()
    return found


if __name__ == "__main__":
    sys.exit(main())
