"""Compile the kernels in advance that predictions with some architectures use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from ..images.preprocess import Preprocess
from ..inference.model import Model
from ..network.resnext import parameters
from ..network.spec import VARIANTS, Spec
from ..ops import Backend
from .inputs import any_scales


def warm(
    ops: Backend, names: Iterable[str], threads: int | None = None, *, rounds: bool = False
) -> None:
    """Run each architecture once, which compiles its kernels.

    Two blocks in each stage, one with a stride and one without, and at most two paths are enough:
    they use the same kernels. The image has the usual size, since the lengths of its lines decide
    how long tiles are.

    Parameters
    ----------
    ops : Backend
    names : iterable of str
        Names of architectures: keys of `network.spec.VARIANTS`.
    threads : int, optional
        As for `tinyresnext.load`.
    rounds : bool
        Whether the networks are quantised to 8 bits.
    """
    for spec in _small(VARIANTS[name] for name in names):
        params = {name: np.zeros(shape, np.float32) for name, shape in parameters(spec).items()}
        scales = any_scales(spec) if rounds else None
        model = Model(spec, params, Preprocess(), tuple("ab"), {}, ops, threads, scales)
        side = 32 if spec.small else 224
        x = np.zeros((1, side, side, spec.channels), np.float32)
        model.rank(model(x))
        if not rounds:  # a quantised network has no trace
            model.trace(x)


def _small(specs: Iterable[Spec]) -> Iterable[Spec]:
    """Return small specs that need the same kernels as these, each different one once."""
    return dict.fromkeys(
        replace(
            s,
            blocks=tuple(min(some, 2) for some in s.blocks),
            cardinality=min(s.cardinality, 2),
            classes=2,
        )
        for s in specs
    )
