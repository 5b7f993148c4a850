"""The command `explain`: what happens inside a network that sees an image."""

from __future__ import annotations

import argparse

from ..system.files import shown
from .options import Commands, add_command, add_device, add_force, add_model, positive
from .output.progress import announce_compiling
from .output.tables import target


def add_commands(commands: Commands) -> None:
    """Add the parser of `explain`."""
    sentence = "Write an HTML page that shows what each path of a network did with an image."
    example = "tinyresnext explain photo.jpg -o report.html"
    add_command(commands, "explain", sentence, example, _add_explain, _explain)


def _add_explain(c: argparse.ArgumentParser) -> None:
    """Add the options of `explain`."""
    c.add_argument("image", metavar="IMAGE", help="an image")
    c.add_argument("-o", "--out", required=True, metavar="FILE.html", help="the page to write")
    add_model(c)
    c.add_argument(
        "--class",
        dest="label",
        metavar="NAME|NUMBER",
        help="a class to explain, beside the most probable ones",
    )
    c.add_argument(
        "--block",
        metavar="NAME|all",
        help="the block whose paths are left out one by one, such as layer3.1 (the last one)",
    )
    c.add_argument(
        "--top", type=positive, default=5, metavar="N", help="classes that are explained (5)"
    )
    add_device(c)
    add_force(c, "the page")


def _explain(a: argparse.Namespace) -> int:
    """Explain one image."""
    from ..explanation.explain import explain
    from ..inference.files import load

    page = target(a.out, a.force, not_over=a.image)
    model = load(a.model, a.device, a.threads)
    with announce_compiling(model.ops):
        found = explain(model, a.image, block=a.block, label=a.label, top=a.top)
    found.save(page)
    best = found.predictions[0]
    print(
        f"{shown(a.image)}: {best.label}, {best.probability:.1%}; open {shown(page)} in a browser"
    )
    return 0
