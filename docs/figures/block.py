"""Draw a block of ResNeXt-50 (32x4d) in the three equal forms of Figure 3 of the paper, as SVG.

``python docs/figures/block.py`` writes ``block.svg`` beside this file. The drawing has a background
of its own and follows the reader's choice of light or dark. Rows have the same height in all three
forms, and a layer keeps its colour, so that the eye finds a layer again in the next form.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

TARGET = Path(__file__).with_suffix(".svg")
CHANNELS, CARDINALITY, WIDTH = 256, 32, 4  # Figure 3: 256 channels in and out, 32 paths of 4
GROUPED = CARDINALITY * WIDTH  # channels of the grouped convolution: 128
WEIGHTS = CARDINALITY * (CHANNELS * WIDTH + 3 * 3 * WIDTH * WIDTH + WIDTH * CHANNELS)  # Equation 4

# One form is BODY wide, its shortcut runs to the right of it, and an equal sign follows.
BODY, PANEL, GAP, MARGIN = 256, 290, 60, 34
BOX, HIGH = 66, 50  # a layer of one path
ROWS = (152, 240, 348)  # the tops of the three layers
INPUT, SUM, MERGE, OUTPUT = 86, 446, 486, 526
WIDE, TALL = 2 * MARGIN + 3 * PANEL + 2 * GAP, 682

# class: (light fill, light stroke, dark fill, dark stroke)
COLOURS = {
    "reduce": ("#dfeafc", "#3a6db5", "#16304f", "#79aaf0"),
    "spatial": ("#fde8d2", "#bf6c16", "#47300f", "#e6a65c"),
    "expand": ("#ddf1df", "#35824a", "#163a22", "#7fca90"),
    "value": ("#eef0f3", "#8a94a3", "#232b36", "#7d8899"),
}
KINDS = ("reduce", "spatial", "expand")  # the class of each layer
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace"


def drawing() -> str:
    """Return the whole SVG."""
    forms = [
        _form(0, "a", "A sum of paths", _summed()),
        _form(1, "b", "A concatenation of paths", _concatenated()),
        _form(2, "c", "A grouped convolution", _grouped()),
    ]
    equal = [
        _text(MARGIN + (i + 1) * PANEL + (i + 0.5) * GAP, ROWS[1] + 37, "=", "equal")
        for i in range(2)
    ]
    each = f"{CARDINALITY} · ({CHANNELS}·{WIDTH} + 3·3·{WIDTH}·{WIDTH} + {WIDTH}·{CHANNELS})"
    count = (
        f"Each form has {each} = {WEIGHTS:,} weights (Equation 4) and computes the same function."
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {TALL}" '
        f'width="{WIDE}" height="{TALL}" role="img" aria-labelledby="title description">'
    )
    about = (
        f"From {CHANNELS} channels to {CHANNELS}: {CARDINALITY} paths of {WIDTH} channels are "
        f"added up (a), or concatenated to {GROUPED} channels and merged by one 1x1 convolution "
        f"(b), or computed as one grouped 3x3 convolution with {CARDINALITY} groups (c)."
    )
    parts = [
        head,
        '<title id="title">A ResNeXt block in three equal forms</title>',
        f'<desc id="description">{about}</desc>',
        _style(),
        f'<rect class="paper" width="{WIDE}" height="{TALL}" rx="14"/>',
        *forms,
        *equal,
        _text(WIDE / 2, TALL - 26, count, "note"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _style() -> str:
    """Return the colours of both modes, and how lines and letters look."""
    light = [f".{name}{{fill:{c[0]};stroke:{c[1]}}}" for name, c in COLOURS.items()]
    dark = [f".{name}{{fill:{c[2]};stroke:{c[3]}}}" for name, c in COLOURS.items()]
    rules = [
        f"text{{font-family:{FONT};font-size:14px;fill:#1c2430;text-anchor:middle}}",
        ".paper{fill:#fff}.box,.node{stroke-width:1.5}",
        ".wire{fill:none;stroke:#66707f;stroke-width:1.5}.tip{fill:#66707f}",
        ".hair{fill:none;stroke:#66707f;stroke-width:.75}.cut{stroke-width:.75;opacity:.75}",
        ".kernel{font-weight:600}.small{font-size:13px}.equal{font-size:34px;fill:#66707f}",
        ".letter{font-weight:700;font-size:17px}.heading{font-weight:600;font-size:17px}",
        ".sum{font-size:19px}.dots{font-size:20px;fill:#66707f}",
        f".code{{font-family:{MONO};font-size:14px;fill:#1c2430}}.why,.note{{fill:#4b5563}}",
        *light,
        "@media (prefers-color-scheme:dark){text,.code{fill:#e7ecf3}.paper{fill:#0f141b}",
        ".wire,.hair{stroke:#94a0b1}.tip,.equal,.dots{fill:#94a0b1}.why,.note{fill:#aab4c2}",
        *dark,
        "}",
    ]
    return "<style>" + "\n".join(rules) + "</style>"


def _form(index: int, letter: str, title: str, body: Sequence[str]) -> str:
    """Return one form at its place: heading, input, layers, shortcut, output, and what to read."""
    middle, side = BODY / 2, BODY + 34
    code, why = {
        "a": ("summed", "y = x + Σ Tᵢ(x), Equation 3"),
        "b": ("concatenated", "A₁B₁ + A₂B₂ = [A₁ A₂] [B₁; B₂]"),
        "c": ("grouped", f"{CARDINALITY} small 3×3 are one with {CARDINALITY} groups"),
    }[letter]
    start, merge, bend = INPUT + 15, MERGE, 12
    shortcut = (
        f"M{middle + 52} {start}H{side - bend}q{bend} 0 {bend} {bend}V{merge - bend}"
        f"q0 {bend} {-bend} {bend}H{middle + 19}"
    )
    return "\n".join(
        [
            f'<g transform="translate({MARGIN + index * (PANEL + GAP)} 0)">',
            _text(middle, 46, f"({letter})  {title}", "heading"),
            f'<path class="wire" d="{shortcut}"/>',
            _tip(middle + 13, merge, "left"),
            _pill(middle, INPUT, f"{CHANNELS} channels"),
            *body,
            _node(middle, merge),
            _arrow(middle, merge + 12, OUTPUT),
            _pill(middle, OUTPUT, f"{CHANNELS} channels"),
            _text(middle, OUTPUT + 62, code, "code"),
            _text(middle, OUTPUT + 84, why, "why"),
            "</g>",
        ]
    )


def _summed() -> list[str]:
    """Return the layers of form (a): three layers a path, and a sum."""
    parts = _split() + _paths(0) + _paths(1) + _paths(2)
    for x in _centres():
        parts += [_arrow(x, ROWS[0] + HIGH, ROWS[1]), _arrow(x, ROWS[1] + HIGH, ROWS[2])]
        parts.append(_curve(x, ROWS[2] + HIGH, BODY / 2, SUM - 12))
    return [*parts, _node(BODY / 2, SUM), _arrow(BODY / 2, SUM + 12, MERGE - 12)]


def _concatenated() -> list[str]:
    """Return the layers of form (b): two layers a path, their results side by side, one 1x1."""
    bar = ROWS[2] - 40
    parts = _split() + _paths(0) + _paths(1)
    for x in _centres():
        parts += [_arrow(x, ROWS[0] + HIGH, ROWS[1]), _arrow(x, ROWS[1] + HIGH, bar)]
    parts.append(f'<rect class="box value" x="0" y="{bar}" width="{BODY}" height="10" rx="3"/>')
    parts += _cuts("value", bar, 10)
    parts.append(_arrow(BODY / 2, bar + 10, ROWS[2]))
    parts.append(_text(BODY * 3 / 4, bar + 27, f"{CARDINALITY} · {WIDTH} = {GROUPED}", "small"))
    return [*parts, _wide(2, GROUPED, CHANNELS), _arrow(BODY / 2, ROWS[2] + HIGH, MERGE - 12)]


def _grouped() -> list[str]:
    """Return the layers of form (c): three convolutions, the second one grouped."""
    hairs = "".join(
        f"M{x:.1f} {ROWS[row] + HIGH}V{ROWS[row + 1]}"
        for row in range(2)
        for x in (BODY * (i + 0.5) / CARDINALITY for i in range(CARDINALITY))
    )
    return [
        _arrow(BODY / 2, INPUT + 30, ROWS[0]),
        f'<path class="hair" d="{hairs}"/>',
        _wide(0, CHANNELS, GROUPED),
        _wide(1, GROUPED, GROUPED, f" in {CARDINALITY} groups"),
        _wide(2, GROUPED, CHANNELS),
        _arrow(BODY / 2, ROWS[2] + HIGH, MERGE - 12),
    ]


def _centres() -> tuple[float, ...]:
    """Return the middles of the paths that are drawn: the first, the second and the last."""
    return BOX / 2, BOX / 2 + BOX + 10, BODY - BOX / 2


def _split() -> list[str]:
    """Return the wires from the input to every path."""
    return [_curve(BODY / 2, INPUT + 30, x, ROWS[0]) for x in _centres()]


def _paths(row: int) -> list[str]:
    """Return one layer of all paths."""
    kernel, c_in, c_out = (
        ("1×1", CHANNELS, WIDTH),
        ("3×3", WIDTH, WIDTH),
        ("1×1", WIDTH, CHANNELS),
    )[row]
    parts = []
    for x in _centres():
        parts += [
            f'<rect class="box {KINDS[row]}" x="{x - BOX / 2}" y="{ROWS[row]}" width="{BOX}" '
            f'height="{HIGH}" rx="7"/>',
            _text(x, ROWS[row] + 21, kernel, "kernel"),
            _text(x, ROWS[row] + 40, f"{c_in} → {c_out}", "small"),
        ]
    between = (BOX * 2 + 10 + BODY - BOX) / 2
    parts.append(_text(between, ROWS[row] + (20 if row == 1 else 30), "···", "dots"))
    if row == 1:
        parts += [
            _text(between, ROWS[row] + 36, f"{CARDINALITY}", "small"),
            _text(between, ROWS[row] + 50, "paths", "small"),
        ]
    return parts


def _wide(row: int, c_in: int, c_out: int, more: str = "") -> str:
    """Return one layer that has all channels; a grouped one is cut into its groups."""
    kind, y = KINDS[row], ROWS[row]
    parts = [
        f'<rect class="box {kind}" x="0" y="{y}" width="{BODY}" height="{HIGH}" rx="7"/>',
    ]
    if more:
        parts += _cuts(kind, y, HIGH)
        parts.append(
            f'<rect class="{kind}" x="44" y="{y + 5}" width="{BODY - 88}" height="{HIGH - 10}" '
            'rx="5" stroke-opacity="0"/>'
        )
    parts += [
        _text(BODY / 2, y + 21, "3×3" if row == 1 else "1×1", "kernel"),
        _text(BODY / 2, y + 40, f"{c_in} → {c_out}{more}", "small"),
    ]
    return "\n".join(parts)


def _cuts(kind: str, y: float, high: float) -> list[str]:
    """Return the lines that cut a bar into as many pieces as there are paths."""
    lines = "".join(f"M{BODY * i / CARDINALITY:g} {y}v{high}" for i in range(1, CARDINALITY))
    return [f'<path class="{kind} cut" d="{lines}"/>']


def _pill(x: float, y: float, words: str) -> str:
    """Return a value: the input or the output of the block."""
    shape = f'<rect class="box value" x="{x - 52}" y="{y}" width="104" height="30" rx="15"/>'
    return shape + _text(x, y + 20, words, "small")


def _node(x: float, y: float) -> str:
    """Return a circle that adds up what comes in."""
    cross = f'<path class="wire" d="M{x - 6} {y}h12M{x} {y - 6}v12"/>'
    return f'<circle class="node value" cx="{x}" cy="{y}" r="12"/>{cross}'


def _arrow(x: float, y: float, to: float) -> str:
    """Return an arrow that points down."""
    return f'<path class="wire" d="M{x} {y}V{to - 6}"/>{_tip(x, to, "down")}'


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """Return an arrow that ends pointing down, somewhere else."""
    half, end = (y + to_y) / 2, to_y - 6
    return (
        f'<path class="wire" d="M{x} {y}C{x} {half} {to_x} {half} {to_x} {end}"/>'
        f"{_tip(to_x, to_y, 'down')}"
    )


def _tip(x: float, y: float, way: str) -> str:
    """Return the head of an arrow, which touches (x, y)."""
    sides = "l-4 -8h8z" if way == "down" else "l8 -4v8z"
    return f'<path class="tip" d="M{x} {y}{sides}"/>'


def _text(x: float, y: float, words: str, kind: str) -> str:
    """Return words, centred."""
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(words)}</text>'


if __name__ == "__main__":
    TARGET.write_text(drawing(), "utf-8", newline="\n")
    print(TARGET)
