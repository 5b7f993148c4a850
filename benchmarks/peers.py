"""The same networks and layers on every engine that is installed, in turn, each in a process of its own.

A run goes round and round: engine A for a moment while the others sleep, then B, then C, then A
again. So all of them see the same weather. What is compared is the median of each; the *ratio* of
two medians is the result, because a machine that is slow today is slow for all. First of all,
everyone has to come to the same logits.

``python benchmarks/peers.py`` takes about half an hour; ``--help`` says how to take less. What is
fair and what the figures mean stands in README.md beside this file.
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

import workloads  # noqa: E402  (found only now, from wherever this is started)
from engines import ENGINES  # noqa: E402
from workloads import Case  # noqa: E402

from tinyresnext import __version__
from tinyresnext.bench import processor  # noqa: E402

OURS, JUDGE = "tinyresnext", "pytorch eager"
SLACK = 3  # we may err this many times as much as PyTorch in float32, on the same input
# A peer that errs more than we may is raced all the same, unless it computes something else
PEERS_SLACK = 30
REST = 0.1  # seconds of sleep before each turn, in which no engine may burn processor time
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
        """One line there, one line back; in it, ``error`` when that failed."""
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
        """Let it end."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def installed(pythons: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """For each engine that is there, the first interpreter that has it."""
    found = {}
    for name in wanted:
        for python in pythons:
            check = f"import importlib.util as u, sys; sys.exit(u.find_spec({ENGINES[name][0]!r}) is None)"
            if subprocess.run([python, "-c", check], check=False).returncode == 0:
                found[name] = python
                break
    return found


def write_graph(folder: Path, pythons: Sequence[str]) -> None:
    """The ONNX graph, made by the first interpreter that can."""
    for python in pythons:
        command = [python, str(HERE / "graph.py"), str(folder)]
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return


@contextmanager
def running(engines: dict[str, str], threads: int) -> Iterator[list[Engine]]:
    """All engines, started and ended."""
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
    """One case on all engines: the check, and then the rounds."""
    workloads.write(case, folder)
    write_graph(folder, pythons)
    row = {"case": case.name, "kind": case.kind, "gflop": case.gflop, "engines": {}}
    loaded = {}
    for engine in engines:
        say(f"{case.name}: {engine.name} loads")
        answer = engine.ask(load=str(folder))
        row["engines"][engine.name] = {}
        if "error" in answer:  # the message may name files of this machine; what is kept does not
            print(f"\n{case.name}: {engine.name}: {answer['error']}", file=sys.stderr)
            row["engines"][engine.name]["error"] = answer["error"].partition(":")[0]
        else:
            loaded[engine.name] = (engine, max(1, math.ceil(seconds / answer["seconds"])))
    check(case, folder, row)
    times: dict[str, list[float]] = {name: [] for name in loaded}
    awake = []
    for turn in range(rounds):
        say(f"{case.name}: round {turn + 1} of {rounds}")
        for name, (engine, count) in loaded.items():
            others = processor.Others()
            time.sleep(REST)
            awake.append(others.share())
            times[name] += [t / case.times * 1e3 for t in engine.ask(run=count).get("times", [])]
    for name, found in times.items():
        if found:
            row["engines"][name] |= {
                "median_ms": median(found),
                "min_ms": min(found),
                "runs": len(found),
            }
    known = [share for share in awake if share is not None]
    return (
        row
        | {"times": case.times, "others": sum(known) / len(known) if known else None}
        | ratios(row["engines"])
    )


def check(case: Case, folder: Path, row: Row) -> None:
    """How far everyone is from float64, and whether that is near enough: over the first picture and the last."""
    n = len(case.arrays["x"])
    pictures = slice(0, n, max(1, n - 1))
    say(f"{case.name}: float64")
    wanted = workloads.exact(case, pictures)
    found = {
        name: np.load(folder / f"{name}.npy")[pictures]
        for name, e in row["engines"].items()
        if "error" not in e
    }
    if wanted.ndim == 4:
        wanted = wanted.transpose(0, 3, 1, 2)
    errors = {
        name: float(np.abs(y - wanted).max() / np.abs(wanted).max()) for name, y in found.items()
    }
    if JUDGE in errors:
        judge = errors[JUDGE]
    else:
        y = workloads.plain(case, pictures)
        y = y.transpose(0, 3, 1, 2) if y.ndim == 4 else y
        judge = float(np.abs(y - wanted).max() / np.abs(wanted).max())
    row["allowed"] = SLACK * judge
    for name, error in errors.items():
        limit = row["allowed"] if name == OURS else PEERS_SLACK * judge
        row["engines"][name] |= {"error_of_logits": error, "agrees": error <= limit}


def ratios(engines: dict[str, Row]) -> Row:
    """Our median over the fastest peer's, and over PyTorch eager's; only those who agree are raced."""
    raced = {
        name: e["median_ms"] for name, e in engines.items() if e.get("agrees") and "median_ms" in e
    }
    peers = {name: ms for name, ms in raced.items() if name != OURS}
    if OURS not in raced or not peers:
        return {}
    fastest = min(peers, key=peers.__getitem__)
    eager = {"ratio_to_eager": raced[OURS] / raced[JUDGE]} if JUDGE in raced else {}
    return {"fastest_peer": fastest, "ratio": raced[OURS] / raced[fastest]} | eager


def table(report: Row) -> str:
    """What a person wants to see."""
    lines = [f"{report['processor']}, {report['threads']} threads, {report['date']}"]
    for row in report["cases"]:
        lines += ["", f"{row['case']} ({row['kind']}), {row['gflop']:.3f} GFLOP"]
        for name, e in row["engines"].items():
            if "median_ms" not in e:
                lines.append(f"  {name:30} {e.get('error', 'no times')}")
                continue
            speed = row["gflop"] / e["median_ms"] * 1e3
            lines.append(
                f"  {name:30} median {e['median_ms']:9.3f} ms  shortest {e['min_ms']:9.3f} ms  {speed:7.1f} GFLOP/s  "
                f"error {e['error_of_logits']:.1e}{'' if e['agrees'] else ', more than allowed: not raced'}"
            )
        if row["others"] is not None:
            lines.append(f"  while all engines slept, others took {row['others']:.0%} of the cores")
        if "ratio" in row:
            lines.append(f"  {row['ratio']:.2f} of the time of {row['fastest_peer']}")
    for name, ms in report["burned_asleep_ms"].items():
        if (
            ms > REST * 1e3 * max(1, report["threads"] - 1) / 2
        ):  # it may spin for a while, but not into the next turn
            lines.append(
                f"{name} burned {ms:.0f} ms of processor time in each of its rests: the figures of others suffer"
            )
    return "\n".join(lines)


def say(text: str) -> None:
    """Progress, where somebody sees it."""
    if sys.stderr.isatty():
        print(f"\r{text:100.100}", end="", file=sys.stderr, flush=True)


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options."""
    p = argparse.ArgumentParser(description="Compare engines; see README.md beside this file.")
    p.add_argument(
        "--model",
        nargs="*",
        default=workloads.MODELS,
        metavar="NAME",
        help="architectures; none with no name",
    )
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="pictures at a time (1 8)")
    p.add_argument("--size", type=int, nargs="+", default=[224], help="sides of the pictures (224)")
    p.add_argument("--no-layers", action="store_true", help="whole networks only")
    p.add_argument(
        "--engine",
        nargs="+",
        default=list(ENGINES),
        choices=list(ENGINES),
        help="by default all that are there",
    )
    p.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="FILE",
        help="more interpreters to look for engines in",
    )
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
        help="by default results/DATE.json beside this file; - for none",
    )
    return p.parse_args(argv)


def _cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run all cases, print them and keep them."""
    a = arguments(argv)
    pythons = [sys.executable, *a.python]
    engines = installed(pythons, a.engine)
    # Each network has processes of its own; the layers, which are small, share theirs.
    groups = [
        [workloads.model(name, batch, size)]
        for name in a.model
        for batch in a.batch
        for size in a.size
    ]
    groups += [] if a.no_layers else [workloads.layers()]
    report: Row = {
        "tinyresnext": __version__,
        "date": date.today().isoformat(),
        "processor": processor.processor(),
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
        target = Path(a.json or HERE / "results" / f"{report['date']}.json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return 0


def versions(engines: dict[str, str]) -> dict[str, str]:
    """Which version of each package was used."""
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
