"""Models and architectures as text for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...hub.catalogue import Entry, is_here
from ...images.preprocess import Preprocess
from ...network.count import layers, totals
from ...network.spec import VARIANTS, Spec, describe
from ...store.store import Stored


def models(names: Sequence[str]) -> str:
    """Return a line for each named architecture: C x d, size, and cost at its usual image size."""
    lines = [f"{'name':20} {'layers':>6} {'C x d':>8} {'params':>12} {'GMACs':>8}  picture"]
    for name in names:
        spec, size = VARIANTS[name], usual_size(VARIANTS[name])
        params, macs = cost(spec)
        lines.append(
            f"{name:20} {spec.depth:6} {_paths(spec):>8} {params:12,} {macs / 1e9:8.3f}"
            f"  {size} x {size}"
        )
    return _text(lines)


def published(entries: Sequence[Entry], costs: Mapping[str, tuple[int, int]]) -> str:
    """Return a line for each published model.

    Parameters
    ----------
    entries : sequence of Entry
    costs : mapping of str to tuple of int
        What `cost` returns for each, by name.
    """
    lines = [
        f"{'model':40} {'C x d':>8} {'params':>12} {'GMACs':>8} {'top-1':>6}  {'licence':13} here"
    ]
    for entry in entries:
        params, macs = costs[entry.name]
        top1 = "" if entry.top1 is None else f"{entry.top1:.2f}"
        here = "yes" if is_here(entry) else "no: unreadable" if entry.unreadable else "no"
        lines.append(
            f"{entry.name:40} {_paths(entry.spec):>8} {params:12,} {macs / 1e9:8.3f} {top1:>6}"
            f"  {entry.licence:13} {here}"
        )
    return _text(lines)


def entry(found: Entry) -> str:
    """Return what the catalogue says of a published model."""
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
    return _text(lines)


def architecture(spec: Spec, size: int) -> str:
    """Return what the network is and what it costs for an image of that size."""
    sums = totals(layers(spec, size, size))
    return _text(
        [
            f"architecture  {describe(spec)}",
            f"parameters    {sums['params']:,}",
            f"multiply-adds {sums['macs'] / 1e9:.3f} G in convolutions and classifier, for "
            f"{size} x {size}",
            f"activations   {sums['activations'] / 1e6:.2f} M values",
        ]
    )


def stored(contents: Stored, sha256: str) -> str:
    """Return what a model file holds beside its architecture.

    Parameters
    ----------
    contents : Stored
    sha256 : str
        The digest of the model itself; the one in ``contents`` is that of its source.
    """
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
    return _text(lines)


def pictures(p: Preprocess) -> str:
    """Return how images are prepared."""
    padding = ", with black padding" if p.crop > p.resize else ""
    cut = f"resized to {p.resize} ({p.interpolation}), cropped to {p.crop}{padding}"
    if p.interpolation == "keras":
        cut = f"squeezed to {p.crop} x {p.crop} (keras)"
    return f"{cut}, mean {_row(p.mean)}, std {_row(p.std)}"


def every_layer(spec: Spec, size: int) -> str:
    """Return the layers with weights, one a line."""
    lines = [
        "",
        f"{'layer':24} {'kind':10} {'weight':>20} {'groups':>6} {'stride':>6} {'result':>16} "
        f"{'params':>11} {'MMACs':>9}",
    ]
    for x in layers(spec, size, size):
        weight, result = " x ".join(map(str, x.weight)), " x ".join(map(str, x.result))
        lines.append(
            f"{x.name:24} {x.kind:10} {weight:>20} {x.groups:6} {x.stride:6} {result:>16} "
            f"{x.params:11,} {x.macs / 1e6:9.3f}"
        )
    return _text(lines)


def usual_size(spec: Spec) -> int:
    """Return the side of the images that published numbers are for."""
    return 32 if spec.small else 224


def cost(spec: Spec) -> tuple[int, int]:
    """Return parameters, and multiply-adds for an image of the usual size."""
    size = usual_size(spec)
    sums = totals(layers(spec, size, size))
    return sums["params"], sums["macs"]


def _paths(spec: Spec) -> str:
    """Return C x d, as the paper writes it."""
    return f"{spec.cardinality} x {spec.width}"


def _row(values: Sequence[float]) -> str:
    """Return the channels' numbers in a row, as they are usually written."""
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _text(lines: Sequence[str]) -> str:
    """Return lines as text, of which each ends."""
    return "\n".join(lines) + "\n"
