"""The options of `train` that say which network is trained, and what they mean."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ...errors import UsageError
from ..options import add_stem, counts, positive

if TYPE_CHECKING:
    from ...images.preprocess import Preprocess
    from ...network.spec import Spec


def add_network(c: argparse.ArgumentParser) -> None:
    """Add the options that say which network is trained."""
    which = c.add_mutually_exclusive_group()
    which.add_argument("--arch", metavar="NAME", help="one of `tinyresnext models`")
    which.add_argument(
        "--depth", type=positive, metavar="N", help="a CIFAR network of 9 n + 2 layers, such as 29"
    )
    which.add_argument(
        "--blocks",
        type=counts,
        metavar="N,N...",
        help="a network with so many blocks in each stage, such as 3,4,6,3",
    )
    for name, what in {
        "--cardinality": "paths of a block (32)",
        "--width": "channels of a path (4)",
        "--widen": "expansion of a block (4)",
    }.items():
        c.add_argument(name, type=positive, metavar="N", help=f"with --depth or --blocks: {what}")
    add_stem(c, "with --blocks: the first layers (imagenet)")
    c.add_argument(
        "--avg-down",
        action="store_const",
        const=True,
        help="with --depth or --blocks: shortcuts that stride average, as ResNet-D's",
    )


def spec_of(a: argparse.Namespace) -> Spec:
    """Return the network: by its name, by its depth, or by its blocks."""
    from dataclasses import replace

    from ...network.spec import Spec, cifar, variant

    said = {
        "cardinality": a.cardinality,
        "width": a.width,
        "expansion": a.widen,
        "stem": a.stem,
        "avg_down": a.avg_down,
    }
    given = {name: value for name, value in said.items() if value is not None}
    if a.arch is not None:
        if given:
            raise UsageError(
                f"--arch {a.arch} says what the network is; leave out {', '.join(given)}, or give "
                "--depth or --blocks"
            )
        return variant(a.arch)
    if a.depth is not None:
        if a.stem not in (None, "cifar"):
            raise UsageError(
                f"--depth is that of a CIFAR network and --stem is {a.stem}; give --blocks for "
                "other stems"
            )
        return replace(cifar(a.depth, 32, 4), **given)
    if a.blocks is None:
        raise UsageError("one of the arguments --arch --depth --blocks is required")
    return Spec(a.blocks, **given)


def preprocess_of(a: argparse.Namespace, usual: Preprocess) -> Preprocess:
    """Return the usual preprocessing with the size, mean and standard deviation that were typed."""
    from dataclasses import replace

    if a.size is not None:
        # The margin around a crop stays in proportion.
        usual = replace(usual, resize=round(usual.resize * a.size / usual.crop), crop=a.size)
    given = {
        name: value for name, value in {"mean": a.mean, "std": a.std}.items() if value is not None
    }
    return replace(usual, **given)
