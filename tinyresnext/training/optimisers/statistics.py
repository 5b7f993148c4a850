"""The running statistics of batch norms."""

from __future__ import annotations

from collections.abc import Mapping

from ...ops import Backend
from ...ops.contract import Array

# PyTorch's and Torch7's share of the new mini-batch in running statistics.
MOMENTUM_OF_STATISTICS = 0.1


def update_statistics(
    ops: Backend,
    params: Mapping[str, Array],
    statistics: Mapping[str, Array],
    positions: Mapping[str, int],
) -> None:
    """Move the running statistics towards those of the last mini-batch, in place, as PyTorch does.

    Parameters
    ----------
    ops : Backend
    params : mapping of str to array
        With ``running_mean`` and ``running_var`` of every batch norm.
    statistics : mapping of str to [2, c] array
        For each batch norm, the mean and the biased variance of the mini-batch.
    positions : mapping of str to int
        For each, how many values were averaged.
    """
    for name, found in statistics.items():
        ops.statistics_step(
            params[f"{name}.running_mean"],
            params[f"{name}.running_var"],
            found,
            count=positions[name],
            new=MOMENTUM_OF_STATISTICS,
        )
