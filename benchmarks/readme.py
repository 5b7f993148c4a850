"""Write the tables of speed between their markers, from files in ``results/``.

``python benchmarks/readme.py [FILE.json ...]``: the end of a file's name says where it goes, and by
default the newest of each is taken.

======================  ========================================================================
``DATE.json``           written by `peers`: between ``<!-- bench -->``, whole networks into the
                        README and everything into ``docs/performance.md``
``DATE-networks.json``  written by `peers`: between ``<!-- networks -->`` there
``DATE-int8.json``      written by `peers` with ``--precision int8``: between ``<!-- int8 -->``
                        there; with bfloat16, between ``<!-- bfloat16 -->``
``DATE-widths.json``    written by `widths`: layers in a row, between ``<!-- widths -->`` there
``DATE-bench.json``     written by ``tinyresnext bench --json``: between ``<!-- sizes -->`` there
======================  ========================================================================
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
COLUMNS = {
    "tinyresnext float32": "tinyresnext in float32",
    "openvino": "OpenVINO",
    "onnx runtime": "ONNX Runtime",
    "pytorch": "PyTorch, its fastest mode",
    "pytorch eager": "eager",
}
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
    rows = [r for r in report["cases"] if "ratio" in r and (not kinds or r["kind"] in kinds)]
    peers = [peer for peer in COLUMNS if any(_fastest(row, peer) for row in rows)]
    lines = [
        f"{report['processor']}, {report['threads']} threads, {report['date']}; {versions}.",
        "Medians in milliseconds. In brackets: our time divided by the fastest other engine's.",
        "The engines took turns in one run.",
        "",
        f"| | tinyresnext | {' | '.join(COLUMNS[peer] for peer in peers)} |",
        f"|---|---|{'---|' * len(peers)}",
    ]
    for row in rows:
        ours = f"**{ms(row['engines']['tinyresnext']['median_ms'])}** ({row['ratio']:.2f})"
        cells = [ours, *(_fastest(row, peer) for peer in peers)]
        lines.append(f"| {_title(row)} | {' | '.join(cells)} |")
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
    kinds = ("", "-networks", "-widths", "-bench", "-bfloat16", "-int8")
    newest = [max((HERE / "results").glob(f"{DATE}{kind}.json"), default=None) for kind in kinds]
    for source in [Path(name) for name in argv] or [found for found in newest if found]:
        report = json.loads(source.read_text("utf-8"))
        if "models" in report:
            rewrite(PERFORMANCE, sizes(report), "sizes")
        elif report.get("precision", "float32") != "float32":
            rewrite(PERFORMANCE, section(report), report["precision"])
        elif source.stem.endswith("-networks"):
            rewrite(PERFORMANCE, section(report), "networks")
        elif source.stem.endswith("-widths"):
            rewrite(PERFORMANCE, section(report, ("grouped in a row",)), "widths")
        else:
            rewrite(README, section(report, ("model",)), "bench")
            rewrite(PERFORMANCE, section(report), "bench")
    return 0


def rewrite(page: Path, table: str, name: str) -> None:
    """Put a table between the markers of a page."""
    page.write_text(put(page.read_text("utf-8"), table, name), "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
