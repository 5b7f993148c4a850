"""Models and architectures as text for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...hub.bundled import BUNDLED
from ...hub.catalogue import Entry, is_here
from ...network.count import layers, totals
from ...network.plan.quantised import Quantisation, integer_parts
from ...network.spec import VARIANTS, Spec, describe
from ...store.store import Stored


def models(names: Sequence[str]) -> str:
    """Return a line for each named architecture: C x d, size, and cost at its usual image size."""
    wide = max(map(len, ("architecture", *names)))
    head = f"{'architecture':{wide}} {'layers':>6} {'C x d':>8} {'params':>12} {'GMACs':>8}  image"
    lines = [head]
    for name in names:
        spec, size = VARIANTS[name], usual_size(VARIANTS[name])
        params, macs = cost(spec, size)
        lines.append(
            f"{name:{wide}} {spec.depth:6} {_paths(spec):>8} {params:12,} {macs / 1e9:8.3f}"
            f"  {size} x {size}"
        )
    return _text(lines)


class Listed(NamedTuple):
    """What a list says of a model.

    ``size`` is the side of the images that it sees, and ``here`` whether its file is on this
    computer.
    """

    name: str
    spec: Spec
    size: int
    top1: str
    licence: str
    download: str
    here: str


def bundled(contents: Stored) -> Listed:
    """Return what a list says of the bundled model, given what its file has."""
    says = contents.provenance
    top1 = says.get("accuracy", "").partition("%")[0]
    size, licence = contents.preprocess.crop, says.get("licence", "")
    return Listed(BUNDLED, contents.spec, size, top1, licence, "", "bundled")


def published(entry: Entry) -> Listed:
    """Return what a list says of a published model."""
    top1 = "" if entry.top1 is None else f"{entry.top1:.2f}"
    here = "yes" if is_here(entry) else "no: unreadable" if entry.unreadable else "no"
    size = entry.preprocess.crop
    return Listed(entry.name, entry.spec, size, top1, entry.licence, download(entry), here)


def listed(found: Sequence[Listed]) -> str:
    """Return a line for each model; what it costs is that of an image of the size that it sees."""
    costs = {key: cost(*key) for key in {(one.spec, one.size) for one in found}}
    wide = max(len(one.name) for one in found)
    lines = [
        f"{'model':{wide}} {'C x d':>8} {'params':>12} {'GMACs':>8} {'image':>9} {'top-1':>6}  "
        f"{'licence':13}{'download':>9}  here"
    ]
    for one in found:
        params, macs = costs[one.spec, one.size]
        size = f"{one.size} x {one.size}"
        lines.append(
            f"{one.name:{wide}} {_paths(one.spec):>8} {params:12,} {macs / 1e9:8.3f} {size:>9} "
            f"{one.top1:>6}  {one.licence:13}{one.download:>9}  {one.here}"
        )
    if any(one.download.startswith("~") for one in found):
        lines += ["", "~ is the size of the weights: that of the file is not published."]
    return _text(lines)


def download(entry: Entry) -> str:
    """Return how large the file of a published model is, as far as that is known.

    Files of PyTorch and Keras are as large as their weights, to a few thousandths. Those of Torch7
    may also have gradients.
    """
    if entry.bytes is not None:
        return f"{entry.bytes / 1e6:.0f} MB"
    if entry.unreadable or not entry.file.endswith((".pth", ".pytorch", ".h5")):
        return ""
    return f"~{4 * cost(entry.spec, entry.preprocess.crop)[0] / 1e6:.0f} MB"


def entry(found: Entry) -> str:
    """Return what the catalogue says of a published model."""
    lines = [
        f"images        {found.preprocess.described()}",
        f"published     for {found.system}: {found.file}, {found.page}",
        *(f"download      {size}" for size in [download(found)] if size),
        f"licence       {found.licence}",
        *(f"note          {text}" for text in (found.note, found.unreadable) if text),
    ]
    for score in found.scores:
        top5 = "" if score.top5 is None else f", top-5 {score.top5:.2f}"
        lines.append(
            f"top-1         {score.top1:.2f}{top5} by {score.by}, images "
            + (f"after {score.measured}" if score.measured else f"as {score.pipeline}")
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
        f"images        {contents.preprocess.described()}",
        f"labels        {len(labels)}: {shown}",
        f"model sha256  {sha256}",
    ]
    names = {"sha256": "source sha256", "pictures": "trained on"}
    for key, value in contents.provenance.items():
        if value:
            lines.append(f"{names.get(key, key):13} {_settings(value) or value}")
    return _text(lines)


def quantised(spec: Spec, found: Quantisation) -> str:
    """Return what is computed with integers of 8 bits, and how the scales were found."""
    parts = integer_parts(spec)
    chosen = Counter(one.method for one in found.scales.values())
    methods = ", ".join(f"{method} {count}" for method, count in chosen.most_common())
    worst = max(found.scales, key=lambda name: found.scales[name].error)
    return _text(
        [
            f"computes in   int8: {len(parts.weights)} convolutions with {parts.work:.1%} of the "
            "multiply-adds; the rest in float32",
            f"scales        {len(found.scales)} values, found on {found.images} images: {methods}",
            f"rounding      takes {found.scales[worst].error:.2e} of the squares of {worst}, and "
            "less of every other value",
        ]
    )


def _settings(value: str) -> str:
    """Return a table of the settings in a JSON object, three in a row; an empty text for others."""
    if not value.startswith("{"):
        return ""
    try:
        settings = json.loads(value)
    except ValueError:
        return ""
    cells = [f"{name:15} {_plain(setting):12}" for name, setting in settings.items()]
    rows = [" ".join(cells[i : i + 3]).rstrip() for i in range(0, len(cells), 3)]
    return f"\n{'':14}".join(rows)


def _plain(setting: Any) -> str:
    """Return the value of a setting as a person would type it."""
    if isinstance(setting, bool):
        return "yes" if setting else "no"
    if isinstance(setting, list):
        return ",".join(map(str, setting)) or "none"
    return str(setting)


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


def cost(spec: Spec, size: int) -> tuple[int, int]:
    """Return parameters, and multiply-adds for an image of that size."""
    sums = totals(layers(spec, size, size))
    return sums["params"], sums["macs"]


def _paths(spec: Spec) -> str:
    """Return C x d, as the paper writes it."""
    return f"{spec.cardinality} x {spec.width}"


def _text(lines: Sequence[str]) -> str:
    """Return lines as text, of which each ends."""
    return "\n".join(lines) + "\n"
