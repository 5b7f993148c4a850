"""Draw the accuracies of a training by epoch, as the card of a model shows them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def drawn(log: Sequence[dict]) -> str:
    """Return the curve of the accuracies by epoch, as SVG."""
    lines = {"accuracy": ("training", "#9aa7b4"), "top1": ("images of --val", "#08285a")}
    found = {
        key: [(i, line[key] * 100) for i, line in enumerate(log) if key in line] for key in lines
    }
    low = min(90, 10 * int(min(value for values in found.values() for _, value in values) // 10))
    left, top, wide, high = 60, 24, 560, 280

    def x(i: int) -> float:
        return left + wide * i / max(len(log) - 1, 1)

    def y(value: float) -> float:
        return top + high * (100 - value) / (100 - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="0 0 {left + wide + 150} {top + high + 50}" '
        'font-family="sans-serif" font-size="13" fill="#141820">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left - 44}" y="{top - 8}">% right</text>',
        f'<text x="{left + wide / 2}" y="{top + high + 40}" text-anchor="middle">epoch</text>',
    ]
    for value in range(low, 101, 10 if low < 60 else 5):
        parts.append(f'<path d="M{left} {y(value):.1f}h{wide}" stroke="#dde2e8"/>')
        parts.append(
            f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value}</text>'
        )
    for i in sorted({round(k * (len(log) - 1) / 5) for k in range(6)}):
        parts.append(
            f'<text x="{x(i):.1f}" y="{top + high + 20}" text-anchor="middle">'
            f"{log[i]['epoch']}</text>"
        )
    for key, values in found.items():
        if not values:
            continue
        (name, colour), (_, last) = lines[key], values[-1]
        points = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in values)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        label = escape(f"{name} {last:.1f}")
        parts.append(
            f'<text x="{left + wide + 6}" y="{y(last) + 4:.1f}" fill="{colour}">{label}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"
