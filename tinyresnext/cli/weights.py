"""The commands `pull`, `models`, `info` and `verify`: from what was typed to one call each."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..errors import FormatError, UsageError
from ..hub import catalogue
from ..hub.bundled import shipped_model
from ..hub.catalogue import Entry
from ..inference.model import list_models
from ..network.count import layers, totals
from ..network.spec import VARIANTS, Spec, variant
from ..store import store
from ..system.files import shown
from . import report


def pull(a: argparse.Namespace) -> str:
    """Fetch a model and give the name of its file."""
    from ..hub.pull import pull

    progress = _Progress() if sys.stderr.isatty() else None
    try:
        path = pull(
            a.name,
            accept_licence=a.accept_licence,
            offline=a.offline,
            source=a.source,
            note=lambda text: print(f"tinyresnext: {text}", file=sys.stderr, flush=True),
            progress=progress or (lambda done, total: None),
        )
    finally:
        if progress is not None:
            progress.end()
    return shown(path)


class _Progress:
    """A line on the terminal that says how much has come."""

    def __init__(self) -> None:
        self.text = ""

    def __call__(self, done: int, total: int | None) -> None:
        text = (
            f"{done / 2**20:.1f}" + ("" if total is None else f" of {total / 2**20:.1f}") + " MiB"
        )
        if text != self.text:
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self.text = text

    def end(self) -> None:
        """Leave the line."""
        if self.text:
            print(file=sys.stderr, flush=True)


def models(a: argparse.Namespace) -> str:
    """The architectures and the published models that match."""
    names = list_models(a.pattern)
    if not names:
        raise UsageError(
            f"no architecture and no model matches {a.pattern!r}; a * stands for anything, as in '*swsl*'"
        )
    architectures = [name for name in names if name in VARIANTS]
    found = [entry for entry in catalogue.entries() if entry.name in names]
    parts = [report.models(architectures)] if architectures else []
    if found:
        costs = {entry.spec: _cost(entry.spec) for entry in found}
        parts.append(report.published(found, {entry.name: costs[entry.spec] for entry in found}))
    return "\n".join(parts)


def _cost(spec: Spec) -> tuple[int, int]:
    """Parameters and multiply-adds."""
    size = report.usual_size(spec)
    sums = totals(layers(spec, size, size))
    return sums["params"], sums["macs"]


def info(a: argparse.Namespace) -> str:
    """What is known of a file, a published model or an architecture."""
    name = a.name if a.name is not None else str(shipped_model())
    known: Entry | None = (
        next((entry for entry in catalogue.entries() if entry.name == name), None)
        if _plain(name)
        else None
    )
    if known is not None and catalogue.is_here(known) and not os.path.exists(name):
        name = str(catalogue.place(known))
    if os.path.exists(name):
        stored = store.read(name)
        spec, size, more = (
            stored.spec,
            a.size or stored.preprocess.crop,
            report.stored(stored, store.digests(name).model),
        )
    elif known is not None:
        spec, size, more = known.spec, a.size or known.preprocess.crop, report.entry(known)
    elif os.path.dirname(name) or Path(name).suffix:
        raise FormatError(
            f"there is no file {name!r}; give a model file, or the name of an architecture or a published model"
        )
    else:
        spec, more = variant(name), ""
        size = a.size or report.usual_size(spec)
    return (
        report.architecture(spec, size)
        + more
        + (report.every_layer(spec, size) if a.layers else "")
    )


def _plain(name: str) -> bool:
    """Whether it is no path."""
    return not os.path.exists(name) and not os.path.dirname(name)


def verify(a: argparse.Namespace) -> tuple[bool, str]:
    """Whether all is well, and what to print."""
    from ..inference.verify import make_reference, verify

    file = catalogue.model_file(a.file) if a.file is not None else shipped_model()
    if a.make_reference is None:
        if a.with_torch or a.force:
            raise UsageError("--with-torch and --force are for --make-reference")
        found = verify(file, a.reference, a.device, a.threads)
        return found.passed, str(found)
    if a.threads is not None or a.device != "cpu":
        raise UsageError(
            "--device and --threads are for --reference; a reference is made by plain NumPy, or with --with-torch"
        )
    if os.path.exists(a.make_reference) and not a.force:
        raise UsageError(
            f"{a.make_reference!r} exists; give another name, or --force to write over it"
        )
    error = make_reference(file, a.make_reference, with_torch=a.with_torch)
    print(
        f"{shown(a.make_reference)}: float64; float32 may be off by {error:.1e} of the largest logit",
        file=sys.stderr,
    )
    return True, shown(a.make_reference)
