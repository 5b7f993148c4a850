"""Models and architectures as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..hub.catalogue import Entry, is_here
from ..images.preprocess import Preprocess
from ..network.count import layers, totals
from ..network.spec import VARIANTS, Spec, describe
from ..store.store import Stored


def models(names: Sequence[str]) -> str:
    """A line for each named architecture: C x d, size and cost at its usual picture."""
    lines = [f"{'name':20} {'layers':>6} {'C x d':>8} {'params':>12} {'GMACs':>8}  picture"]
    for name in names:
        spec = VARIANTS[name]
        size = usual_size(spec)
        sums = totals(layers(spec, size, size))
        paths = f"{spec.cardinality} x {spec.width}"
        lines.append(
            f"{name:20} {spec.depth:6} {paths:>8} {sums['params']:12,} {sums['macs'] / 1e9:8.3f}  {size} x {size}"
        )
    return "\n".join(lines) + "\n"


def published(entries: Sequence[Entry], sizes: Mapping[str, tuple[int, float]]) -> str:
    """A line for each published model; ``sizes`` has parameters and multiply-adds of each, by name."""
    head = (
        f"{'model':40} {'C x d':>8} {'params':>12} {'GMACs':>8} {'top-1':>6}  {'licence':13} here"
    )
    lines = [head]
    for entry in entries:
        params, macs = sizes[entry.name]
        paths, top1 = (
            f"{entry.spec.cardinality} x {entry.spec.width}",
            "" if entry.top1 is None else f"{entry.top1:.2f}",
        )
        here = "yes" if is_here(entry) else "no: unreadable" if entry.unreadable else "no"
        lines.append(
            f"{entry.name:40} {paths:>8} {params:12,} {macs / 1e9:8.3f} {top1:>6}  {entry.licence:13} {here}"
        )
    return "\n".join(lines) + "\n"


def entry(found: Entry) -> str:
    """What the catalogue says of a published model."""
    lines = [
        f"pictures      {pictures(found.preprocess)}",
        f"published     for {found.system}: {found.file}, {found.page}",
        f"licence       {found.licence}",
        *(f"note          {text}" for text in (found.note, found.unreadable) if text),
    ]
    for score in found.scores:
        top5 = "" if score.top5 is None else f", top-5 {score.top5:.2f}"
        lines.append(
            f"top-1         {score.top1:.2f}{top5} by {score.by}, pictures as {score.pipeline}"
        )
    return "\n".join(lines) + "\n"


def architecture(spec: Spec, size: int) -> str:
    """What the network is and what it costs for a picture of that size."""
    sums = totals(layers(spec, size, size))
    lines = [
        f"architecture  {describe(spec)}",
        f"parameters    {sums['params']:,}",
        f"multiply-adds {sums['macs'] / 1e9:.3f} G in convolutions and classifier, for {size} x {size}",
        f"activations   {sums['activations'] / 1e6:.2f} M values",
    ]
    return "\n".join(lines) + "\n"


def stored(contents: Stored, sha256: str) -> str:
    """What a model file says of itself beside its architecture; ``sha256`` is the model's own digest."""
    labels = contents.labels
    shown = ", ".join(labels[:3]) + (f" ... {labels[-1]}" if len(labels) > 3 else "")
    lines = [
        f"pictures      {pictures(contents.preprocess)}",
        f"labels        {len(labels)}: {shown}",
        f"model sha256  {sha256}",
    ]
    names = {"sha256": "source sha256"}
    lines += [
        f"{names.get(key, key):13} {value}" for key, value in contents.provenance.items() if value
    ]
    return "\n".join(lines) + "\n"


def pictures(p: Preprocess) -> str:
    """How pictures are prepared."""
    rim = ", with a black rim" if p.crop > p.resize else ""
    cut = f"resized to {p.resize} ({p.interpolation}), cropped to {p.crop}{rim}"
    if p.interpolation == "keras":
        cut = f"squeezed to {p.crop} x {p.crop} (keras)"
    return f"{cut}, mean {_row(p.mean)}, std {_row(p.std)}"


def usual_size(spec: Spec) -> int:
    """The side of the pictures that published numbers are for."""
    return 32 if spec.small else 224


def _row(values: Sequence[float]) -> str:
    """Numbers in a row, as they are usually written."""
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def every_layer(spec: Spec, size: int) -> str:
    """The layers with weights, one a line."""
    lines = [
        "",
        f"{'layer':24} {'kind':10} {'weight':>20} {'groups':>6} {'stride':>6} {'result':>16} {'params':>11} {'MMACs':>9}",
    ]
    for x in layers(spec, size, size):
        weight, result = " x ".join(map(str, x.weight)), " x ".join(map(str, x.result))
        lines.append(
            f"{x.name:24} {x.kind:10} {weight:>20} {x.groups:6} {x.stride:6} {result:>16} {x.params:11,} {x.macs / 1e6:9.3f}"
        )
    return "\n".join(lines) + "\n"
