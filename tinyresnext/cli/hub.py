"""The commands `models`, `pull` and `info`: which models there are, and what is known of each."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..system.files import shown
from .options import Commands, add_command, positive
from .output.progress import Megabytes, say

if TYPE_CHECKING:
    from ..network.spec import Spec


def add_commands(commands: Commands) -> None:
    """Add the parsers of `models`, `pull` and `info`."""
    sentence = "List the architectures that have names, and the models."
    add_command(commands, "models", sentence, "tinyresnext models resnext50", _add_models, _models)
    sentence = "Fetch a published model, check it, convert it, and keep it."
    example = "tinyresnext pull resnext50_32x4d.tv_in1k"
    add_command(commands, "pull", sentence, example, _add_pull, _pull)
    sentence = "Print the architecture, cost, preprocessing, labels and provenance of a model."
    add_command(commands, "info", sentence, "tinyresnext info best.h5", _add_info, _info)


# --- models ---------------------------------------------------------------------------------------


def _add_models(c: argparse.ArgumentParser) -> None:
    """Add the options of `models`."""
    c.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="part of the names to list, such as resnext50, or a pattern, such as '*_in1k' (all)",
    )


def _models(a: argparse.Namespace) -> int:
    """Print the architectures and the published models whose names match."""
    from ..hub import catalogue
    from ..hub.bundled import BUNDLED, shipped_model
    from ..inference.files import list_models
    from ..network.spec import VARIANTS
    from ..store import store
    from .output import report

    names = list_models(a.pattern)
    if not names:
        raise UsageError(
            f"no architecture and no model matches {a.pattern!r}; `tinyresnext models` lists all"
        )
    architectures = [name for name in names if name in VARIANTS]
    found = [report.published(entry) for entry in catalogue.entries() if entry.name in names]
    if BUNDLED in names:
        found.insert(0, report.bundled(store.read(shipped_model())))
    parts = [report.models(architectures)] if architectures else []
    parts += [report.listed(found)] if found else []
    print("\n".join(parts), end="")
    return 0


# --- pull -----------------------------------------------------------------------------------------


def _add_pull(c: argparse.ArgumentParser) -> None:
    """Add the options of `pull`."""
    c.add_argument(
        "name",
        metavar="NAME",
        help="one of `tinyresnext models`; an architecture stands for its best model with a free "
        "licence",
    )
    c.add_argument(
        "--accept-licence",
        action="store_true",
        help="accept a licence that does not allow every use",
    )
    where = c.add_mutually_exclusive_group()
    where.add_argument(
        "--offline",
        action="store_true",
        help="use what is on this computer, and never the network",
    )
    where.add_argument(
        "--from", dest="source", metavar="FILE", help="the published file, fetched by other means"
    )


def _pull(a: argparse.Namespace) -> int:
    """Fetch a model, and print the name of its file."""
    from ..hub.pull import pull

    progress = Megabytes()
    try:
        path = pull(
            a.name,
            accept_licence=a.accept_licence,
            offline=a.offline,
            source=a.source,
            note=say,
            progress=progress,
        )
    finally:
        progress.end()
    print(shown(path))
    return 0


# --- info -----------------------------------------------------------------------------------------


def _add_info(c: argparse.ArgumentParser) -> None:
    """Add the options of `info`."""
    c.add_argument(
        "name",
        nargs="?",
        metavar="NAME|FILE",
        help="an architecture or a model (the bundled model)",
    )
    c.add_argument(
        "--layers", action="store_true", help="every layer with its parameters and multiply-adds"
    )
    c.add_argument(
        "--size", type=positive, metavar="N", help="side of the image that the counts are for"
    )


def _info(a: argparse.Namespace) -> int:
    """Print what is known of a file, a published model or an architecture."""
    from ..inference.inputs import shapes_that_fit
    from .output import report

    spec, size, more = _known(a)
    with shapes_that_fit(spec):
        layers = report.every_layer(spec, size) if a.layers else ""
        text = report.architecture(spec, size) + more + layers
    print(text, end="")
    return 0


def _known(a: argparse.Namespace) -> tuple[Spec, int, str]:
    """Return an architecture, the side of its images, and more lines about the model."""
    from ..hub import catalogue
    from ..hub.bundled import shipped_model
    from ..network.spec import VARIANTS
    from ..store import store
    from .output import report

    name = str(shipped_model()) if a.name is None else a.name
    if not os.path.exists(name):
        if name in VARIANTS:
            return VARIANTS[name], a.size or report.usual_size(VARIANTS[name]), ""
        known = next((entry for entry in catalogue.entries() if entry.name == name), None)
        if known is not None and not catalogue.is_here(known):
            return known.spec, a.size or known.preprocess.crop, report.entry(known)
    file = catalogue.model_file(name)
    stored, quantisation = store.read_any(file)
    more = report.stored(stored, store.digests(file).model)
    if quantisation is not None:
        more += report.quantised(stored.spec, quantisation)
    return stored.spec, a.size or stored.preprocess.crop, more
