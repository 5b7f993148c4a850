"""The command `export`: from a model file to a checkpoint, or a graph, for other programs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import UsageError
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
    from ...checkpoints import carried, export
    from ...checkpoints.onnx.write import write_onnx
    from ...store import store

    writers: dict[str, Callable[..., None]] = {
        ".pth": export.write_pth,
        ".safetensors": export.write_safetensors,
        ".npz": export.write_npz,
    }
    suffix = Path(a.dst).suffix
    if suffix not in (*writers, ".onnx"):
        raise UsageError(f"{a.dst!r} ends in {suffix!r}; expected {', '.join(writers)} or .onnx")
    options = _of_graphs(a, suffix)
    src = model_file(a.src)
    stored, quantisation = store.read_any(src)
    if quantisation is not None:
        if suffix != ".onnx":
            raise UsageError(
                f"{shown(src)} is quantised, and {suffix} is not written for such models; name a "
                "file that ends in .onnx, or export the model that it was made of"
            )
        options["quantisation"] = quantisation
    beside = carried.written(stored)
    dst = target(a.dst, a.force, not_over=src)
    if suffix == ".onnx":
        write_onnx(dst, stored, beside, **options)
    else:
        writers[suffix](dst, stored.params, carried=beside)
    graph, batch = suffix == ".onnx", options.get("batch", 0)
    notes = carried.export_notes(stored, a.dst, beside, graph, batch, quantisation is not None)
    for note in notes:
        tell(plain(f"{shown(a.dst)}: {note}"))
    print(shown(a.dst))
    return 0


def _of_graphs(a: argparse.Namespace, suffix: str) -> dict[str, Any]:
    """Return the options that were given for a graph; raise `UsageError` for another file."""
    given = {name: getattr(a, name) for name in OF_GRAPHS if getattr(a, name) is not None}
    if given and suffix != ".onnx":
        raise UsageError(f"--{next(iter(given))} is for .onnx; {a.dst!r} ends in {suffix!r}")
    if "precision" in given:
        given["half"] = given.pop("precision") == "float16"
    return given


def _batch(text: str) -> int:
    """Return the images in a mini-batch, 0 for any number."""
    return 0 if text == "dynamic" else positive(text)
