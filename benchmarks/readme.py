"""Write the tables of speed between their markers, from files in ``results/``.

``python benchmarks/readme.py [FILE.json ...]``: what `peers` wrote goes between ``<!-- bench -->``,
whole networks into the README and everything into ``docs/performance.md``; what ``tinyresnext bench
--json`` wrote goes between ``<!-- sizes -->`` there. By default the newest of both is taken,
``DATE.json`` and ``DATE-bench.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PERFORMANCE = HERE.parent / "docs" / "performance.md"
DATE = "[0-9]" * 4 + "-[0-9][0-9]-[0-9][0-9]"
PEERS = ("openvino", "onnx runtime", "pytorch")  # the columns; of PyTorch's modes the fastest
TITLES = {
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "torch": "PyTorch",
    "numba": "Numba",
}


def section(report: dict[str, Any], kinds: Collection[str] = ()) -> str:
    """Return the table and the sentence above it, in Markdown: of all rows, or of some kinds."""
    versions = ", ".join(
        f"{TITLES[name]} {version}" for name, version in report["versions"].items()
    )
    lines = [
        f"{report['processor']}, {report['threads']} threads, {report['date']}; {versions}.",
        "Medians in milliseconds. In brackets: our time divided by the fastest other engine's.",
        "The engines took turns in one run.",
        "",
        "| | tinyresnext | OpenVINO | ONNX Runtime | PyTorch, its fastest mode | eager |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["cases"]:
        if "ratio" in row and (not kinds or row["kind"] in kinds):
            ours = f"**{ms(row['engines']['tinyresnext']['median_ms'])}** ({row['ratio']:.2f})"
            cells = [_fastest(row, peer) for peer in (*PEERS, "pytorch eager")]
            lines.append(f"| {_title(row)} | {' | '.join([ours, *cells])} |")
    return "\n".join(lines)


def _title(row: dict[str, Any]) -> str:
    """Return what the row is of."""
    if row["kind"] == "model":
        return row["case"]
    return {"grouped": "3x3, ", "grouped in a row": "3x3 in a row, ", "pointwise": ""}[
        row["kind"]
    ] + row["case"]


def _fastest(row: dict[str, Any], peer: str) -> str:
    """Return the shortest median of the engines whose names begin like this."""
    found = [
        e["median_ms"]
        for name, e in row["engines"].items()
        if name.startswith(peer) and e.get("agrees") and "median_ms" in e
    ]
    return ms(min(found)) if found else ""


def ms(value: float) -> str:
    """Write three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def sizes(report: dict[str, Any]) -> str:
    """Return whole networks for several sizes of images: the medians, and the part of the peak."""
    rows = {(row["model"], row["batch"]): {} for row in report["models"]}
    for row in report["models"]:
        rows[row["model"], row["batch"]][row["size"]] = (
            f"{ms(row['median_ms'])} ({row['peak']:.0%})"
        )
    columns = sorted({row["size"] for row in report["models"]})
    peak = report["machine"][-1]["gflops"]
    others = (
        ""
        if report["others"] is None
        else f" Other processes took {report['others']:.0%} of the cores meanwhile."
    )
    lines = [
        f"{report['processor']}, {report['threads']} threads, {report['date']}: medians in "
        "milliseconds, and the part of",
        f"{peak:.0f} GFLOP/s, which is what multiply-adds in registers alone reach.{others}",
        "",
        f"| | {' | '.join(f'{size} px' for size in columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for (model, batch), found in rows.items():
        lines.append(
            f"| {model} batch {batch} | {' | '.join(found.get(size, '') for size in columns)} |"
        )
    return "\n".join(lines)


def put(text: str, table: str, name: str = "bench") -> str:
    """Return a text with something else between the markers of that name.

    Raises
    ------
    ValueError
        The markers are not there, once each and in order.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, begin, rest = text.partition(opening)
    _, end, after = rest.partition(closing)
    if not begin or not end or opening in rest or closing in before + after:
        raise ValueError(f"expected {opening} and {closing}, once each and in this order")
    return f"{before}{opening}\n{table}\n{closing}{after}"


def main(argv: Sequence[str]) -> int:
    """Read the results and rewrite both pages."""
    newest = [
        max((HERE / "results").glob(f"{DATE}{kind}.json"), default=None) for kind in ("", "-bench")
    ]
    for source in [Path(name) for name in argv] or [found for found in newest if found]:
        report = json.loads(source.read_text("utf-8"))
        if "cases" in report:
            rewrite(README, section(report, ("model",)), "bench")
            rewrite(PERFORMANCE, section(report), "bench")
        else:
            rewrite(PERFORMANCE, sizes(report), "sizes")
    return 0


def rewrite(page: Path, table: str, name: str) -> None:
    """Put a table between the markers of a page."""
    page.write_text(put(page.read_text("utf-8"), table, name), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
