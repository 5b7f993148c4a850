"""Models and architectures as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from .checkpoints.infer import describe
from .count import Layer, layers, totals
from .spec import VARIANTS, Spec
from .store import Stored


def models(names: Sequence[str]) -> str:
    """A line for each named architecture: C x d, size and cost at its usual picture."""
    lines = [f"{'name':20} {'layers':>6} {'C x d':>8} {'params':>12} {'GMACs':>8}  picture"]
    for name in names:
        spec = VARIANTS[name]
        size = usual_size(spec)
        sums = totals(layers(spec, size, size))
        paths = f"{spec.cardinality} x {spec.width}"
        lines.append(f"{name:20} {spec.depth:6} {paths:>8} {sums['params']:12,} {sums['macs'] / 1e9:8.3f}  {size} x {size}")
    return "\n".join(lines) + "\n"


def architecture(spec: Spec, size: int, *, every_layer: bool = False) -> str:
    """What the network is and what it costs for a picture of that size; with ``every_layer``, each of them."""
    found = layers(spec, size, size)
    sums = totals(found)
    lines = [
        f"architecture  {describe(spec)}",
        f"parameters    {sums['params']:,}",
        f"multiply-adds {sums['macs'] / 1e9:.3f} G in convolutions and classifier, for {size} x {size}",
        f"activations   {sums['activations'] / 1e6:.2f} M values",
    ]
    return "\n".join(lines + ["", *_table(found)] * every_layer) + "\n"


def stored(contents: Stored) -> str:
    """What a model file says of itself beside its architecture."""
    p, labels = contents.preprocess, contents.labels
    shown = ", ".join(labels[:3]) + (f" ... {labels[-1]}" if len(labels) > 3 else "")
    lines = [f"{key:13} {value}" for key, value in contents.provenance.items() if value]
    lines += [
        f"preprocessing resize {p.resize} ({p.interpolation}), crop {p.crop}, mean {_row(p.mean)}, std {_row(p.std)}",
        f"labels        {len(labels)}: {shown}",
    ]
    return "\n".join(lines) + "\n"


def usual_size(spec: Spec) -> int:
    """The side of the pictures that published numbers are for."""
    return 32 if spec.stem == "cifar" else 224


def _row(values: Sequence[float]) -> str:
    """Numbers in a row, as they are usually written."""
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _table(found: list[Layer]) -> list[str]:
    """The layers, one a line."""
    lines = [f"{'layer':24} {'kind':10} {'weight':>20} {'groups':>6} {'stride':>6} {'result':>16} {'params':>11} {'MMACs':>9}"]
    for x in found:
        weight, result = " x ".join(map(str, x.weight)), " x ".join(map(str, x.result))
        lines.append(
            f"{x.name:24} {x.kind:10} {weight:>20} {x.groups:6} {x.stride:6} {result:>16} {x.params:11,} {x.macs / 1e6:9.3f}"
        )
    return lines
