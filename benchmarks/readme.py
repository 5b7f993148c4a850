"""Write the README's table of measured ratios, between its ``<!-- bench -->`` markers, from a file that `peers` wrote.

``python benchmarks/readme.py [RESULTS.json]``: by default the newest in ``results/``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
PEERS = ("openvino", "onnx runtime", "pytorch")  # the columns; of PyTorch's modes the fastest
TITLES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "torch": "PyTorch", "numba": "Numba"}


def section(report: dict[str, Any]) -> str:
    """The table and the sentence above it, in Markdown."""
    versions = ", ".join(f"{TITLES[name]} {version}" for name, version in report["versions"].items())
    lines = [
        f"{report['processor']}, {report['threads']} threads, {report['date']}; {versions}.",
        "Medians in milliseconds (and our part of the fastest peer's time), all engines in turn within one run.",
        "",
        "| | tinyresnext | OpenVINO | ONNX Runtime | PyTorch, its fastest mode | eager |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["cases"]:
        if "ratio" in row:
            ours = f"**{row['engines']['tinyresnext']['median_ms']:.3g}** ({row['ratio']:.2f})"
            cells = [_fastest(row, peer) for peer in (*PEERS, "pytorch eager")]
            lines.append(f"| {_title(row)} | {' | '.join([ours, *cells])} |")
    return "\n".join(lines)


def _title(row: dict[str, Any]) -> str:
    """What the row is of."""
    if row["kind"] == "model":
        return row["case"]
    return {"grouped": "3x3, ", "grouped in a row": "3x3 in a row, ", "pointwise": ""}[row["kind"]] + row["case"]


def _fastest(row: dict[str, Any], peer: str) -> str:
    """The shortest median of the engines whose names begin like this."""
    found = [
        e["median_ms"] for name, e in row["engines"].items() if name.startswith(peer) and e.get("agrees") and "median_ms" in e
    ]
    return f"{min(found):.3g}" if found else ""


def put(text: str, table: str) -> str:
    """A text with something else between the markers.

    Raises
    ------
    ValueError
        When the markers are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise ValueError(f"expected {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main(argv: Sequence[str]) -> int:
    """Read the results and rewrite the README."""
    source = Path(argv[0]) if argv else max((HERE / "results").glob("*.json"))
    table = section(json.loads(source.read_text("utf-8")))
    README.write_text(put(README.read_text("utf-8"), table), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
