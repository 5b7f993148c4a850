"""Print the report of a benchmark as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .measure import Row


def text(report: Row) -> str:
    """Return the tables of a report from `tinyresnext.bench.bench.bench`."""
    lines = [
        f"{report['processor']}, {report['threads']} threads, tinyresnext {report['tinyresnext']}",
        f"computed by {report['device']}",
        "",
    ]
    lines.append(f"{'threads':>7} {'multiply-adds':>18} {'reading':>12} {'copying':>12}")
    for m in report["machine"]:
        lines.append(
            f"{m['threads']:7} {m['gflops']:10.1f} GFLOP/s {m['read']:7.1f} GB/s "
            f"{m['copy']:7.1f} GB/s"
        )
    lines += ["", f"{'model':20} {'batch':>5} {'size':>5} {_FIGURES} {'images/s':>9}"]
    for row in report["models"]:
        rate = row["batch"] / row["median_ms"] * 1e3
        lines.append(f"{row['model']:20} {row['batch']:5} {row['size']:5} {_row(row)} {rate:9.1f}")
    for key, rows in _tables(report["layers"]):
        lines += ["", f"{key[0]}, {key[1]} x {key[2]} x {key[2]}"]
        lines.append(f"{'layer':72} {'times':>5} {_FIGURES} {'alone':>9}")
        lines += [
            f"{row['layer']:72} {row['count']:5} {_row(row)} {row['alone_median_ms']:9.3f}"
            for row in rows
        ]
    return "\n".join([*lines, "", _reliability(report)]) + "\n"


_FIGURES = f"{'GFLOP':>8} {'median ms':>9} {'shortest':>9} {'GFLOP/s':>8} {'of peak':>8}"


def _row(row: Row) -> str:
    """Return the figures of a row; a step without multiplications has no speed.

    In another precision than float32, there is no measured peak to compare with.
    """
    peak = "" if row["peak"] is None else f"{row['peak']:.1%}"
    speed = f"{row['gflops']:8.1f} {peak:>8}" if row["gflop"] else f"{'':8} {'':8}"
    return f"{row['gflop']:8.3f} {row['median_ms']:9.3f} {row['min_ms']:9.3f} {speed}"


def _tables(rows: Iterable[Row]) -> list[tuple[tuple[Any, ...], list[Row]]]:
    """Group the rows of layers by network and shape of input."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["model"], row["batch"], row["size"]), []).append(row)
    return list(found.items())


def _reliability(report: Row) -> str:
    """Return the load of the machine, and how reliable the figures are under it."""
    others, load = report["others"], report["load_before"]
    said = []
    if others is not None:
        said.append(f"other processes took {others:.0%} of the time of all cores")
    if load is not None:
        said.append(f"load average {load:.2f} before and {report['load_after']:.2f} after")
    if others is not None and others > 0.05:
        said.append(
            "the machine was busy, so rely only on the shortest times, and on ratios of one run"
        )
    return "; ".join(said) or "this system does not report what other processes took"
