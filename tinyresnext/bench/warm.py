"""Compile before it is needed: all kernels that predictions with the named architectures use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..images.preprocess import Preprocess
from ..inference.model import Model
from ..network.resnext import parameters
from ..network.spec import VARIANTS, Spec

# of the picture: five halvings leave two positions, so padding and strides happen everywhere
SIDE = 64


def warm(ops: Any, names: Iterable[str], threads: int | None = None) -> None:
    """Run each architecture once, with one block a stage and at most two paths: that needs the same kernels.

    Parameters
    ----------
    ops : backend
    names : iterable of str
        Of architectures, as `tinyresnext.list_models` has them.
    threads : int, optional
        As for `tinyresnext.load`.
    """
    for spec in _small(VARIANTS[name] for name in names):
        params = {name: np.zeros(shape, np.float32) for name, shape in parameters(spec).items()}
        model = Model(spec, params, Preprocess(), tuple("ab"), {}, ops, threads)
        x = np.zeros((1, SIDE, SIDE, spec.channels), np.float32)
        model.rank(model(x))
        model.trace(x)


def _small(specs: Iterable[Spec]) -> Iterator[Spec]:
    """The different ones among the specs when all are cut down."""
    cut = {
        replace(s, blocks=(1,) * len(s.blocks), cardinality=min(s.cardinality, 2), classes=2): None
        for s in specs
    }
    yield from cut
