"""The command `export`: from a model file to a checkpoint, or a graph, for other programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ...system.console import plain, tell
from ...system.files import shown
from ..options import add_force, positive, word
from ..output.tables import target

PRECISIONS = ("float32", "float16")
OF_GRAPHS = ("opset", "fold", "batch", "precision")


def add_options(c: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    c.add_argument(
        "src",
        nargs="?",
        metavar="NAME|FILE.h5",
        help="a model (the bundled model); a quantised one for .onnx only",
    )
    c.add_argument(
        "dst", metavar="DST", help="file to write, ending in .pth, .safetensors, .npz or .onnx"
    )
    g = c.add_argument_group("only for .onnx")
    g.add_argument(
        "--opset", type=positive, metavar="N", help="version of ONNX's operators, 9 to 20 (17)"
    )
    g.add_argument(
        "--fold",
        action="store_true",
        default=None,
        help="fold batch norms into the convolutions, which rounds their weights",
    )
    g.add_argument(
        "--batch",
        type=_batch,
        metavar="N|dynamic",
        help="images in a mini-batch (dynamic: any number)",
    )
    g.add_argument(
        "--precision",
        type=word(PRECISIONS),
        metavar="{float32,float16}",
        help="of weights and computation; input and output stay float32 (float32)",
    )
    add_force(c, "DST")


def run(a: argparse.Namespace, model_file: Callable[[str | None], str | os.PathLike[str]]) -> int:
    """Export a model, and say what only tinyresnext will read in its file."""
    from ...checkpoints.export import check_options, export
    from ...store import store

    given = {name: getattr(a, name) for name in OF_GRAPHS}
    check_options(a.dst, **given)
    src = model_file(a.src)
    stored, quantisation = store.read_any(src)
    notes = export(target(a.dst, a.force, not_over=src), stored, quantisation, **given)
    for note in notes:
        tell(plain(f"{shown(a.dst)}: {note}"))
    print(shown(a.dst))
    return 0


def _batch(text: str) -> int:
    """Return the images in a mini-batch, 0 for any number."""
    return 0 if text == "dynamic" else positive(text)
