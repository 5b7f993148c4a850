"""Checkpoints that name modules by numbers: Torch7's, and Cadene's, which were made from them.

Their networks are trees of containers, and a key is the way down: ``4.0.0.1.0.weight`` is the first
module of the shortcut of the first block of the first stage. How deep the convolutions of a branch
lie differs between the published files and today's code. So a branch is read as its leaves in
order, whatever they are wrapped in: convolution, norm, convolution, norm, convolution, norm. A
branch of C parallel paths (Figure 3b, ``resnext_B``) has two convolutions with their norms for each
path, then one of each for all; side by side, the paths' weights are those of a grouped convolution.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from .layouts import AS_IT_IS, STACKED, Part, Reading

__all__ = ["to_torchvision"]

Leaf = dict[str, str]  # of one module: its fields ("weight", "running_mean") -> their keys
Leaves = dict[tuple[int, ...], Leaf]

_PATH = re.compile(
    r"((?:0|[1-9]\d{0,3})(?:\.(?:0|[1-9]\d{0,3}))*)\.(weight|bias|running_mean|running_var)",
    re.ASCII,
)
# numbers on the way to a module inside a block: stage, block, sum, branch, and at least one within
_BLOCK = 5
_STATISTICS = {"running_mean", "running_var"}
# these stand in the place of the first four numbers: the modules before the stages and behind them
_STEM, _CLASSIFIER = (-1,), (-2,)


def to_torchvision(keys: Collection[str]) -> Reading:
    """Return the keys that each of torchvision's parameters is made of, and the keys left over.

    Parameters
    ----------
    keys : collection of str
        Paths of child numbers from 0 and the name of a field.
    """
    leaves, foreign = _leaves(keys)
    numbers = sorted({path[0] for path in leaves if len(path) >= _BLOCK})
    stages = {number: index + 1 for index, number in enumerate(numbers)}
    first = numbers[0] if numbers else 0
    branches: dict[tuple[int, ...], list[Leaf]] = {}
    parts: dict[str, Part] = {}
    for path in sorted(leaves):
        if 2 < len(path) < _BLOCK:
            foreign += leaves[path].values()
            continue
        branch = path[:4] if len(path) >= _BLOCK else _STEM if path[0] < first else _CLASSIFIER
        branches.setdefault(branch, []).append(leaves[path])
    for branch, found in branches.items():
        if branch in (_STEM, _CLASSIFIER):
            named = _stem_or_classifier(branch == _STEM, found)
        else:
            named = _branch(stages[branch[0]], branch, found)
        if named and not parts.keys() & named.keys():
            parts |= named
        else:
            foreign += [key for leaf in found for key in leaf.values()]
    return parts, foreign


def _leaves(keys: Collection[str]) -> tuple[Leaves, list[str]]:
    """Return the modules by their paths, and the keys that are no path.

    Numbers that every path begins with are left out.
    """
    leaves: Leaves = {}
    foreign = []
    for key in keys:
        match = _PATH.fullmatch(key)
        leaf = leaves.setdefault(tuple(map(int, match[1].split("."))), {}) if match else {}
        if match is None or match[2] in leaf:
            foreign.append(key)
        else:
            leaf[match[2]] = key
    while leaves and all(len(path) > 1 and path[0] == 0 for path in leaves):
        leaves = {path[1:]: leaf for path, leaf in leaves.items()}
    return leaves, foreign


def _kinds(leaves: list[Leaf]) -> str:
    """Return one letter for each module. A norm may lack fields; a later check names them."""
    plain = {frozenset({"weight"}): "c", frozenset({"weight", "bias"}): "l"}  # convolution, linear
    return "".join(
        "n" if _STATISTICS & leaf.keys() else plain.get(frozenset(leaf), "?") for leaf in leaves
    )


def _stem_or_classifier(is_stem: bool, leaves: list[Leaf]) -> dict[str, Part]:
    """Return the parameters of the modules before the first stage, or behind the last."""
    names = ("conv1", "bn1") if is_stem else ("fc",)
    fits = _kinds(leaves) == ("cn" if is_stem else "l")
    return _named(names, [[leaf] for leaf in leaves]) if fits else {}


def _branch(stage: int, branch: tuple[int, ...], leaves: list[Leaf]) -> dict[str, Part]:
    """Return the parameters of a branch of a block: the residual branch (0) or the shortcut (1)."""
    _, block, inner, side = branch
    at, kinds = f"layer{stage}.{block}", _kinds(leaves)
    if inner == 0 and side == 1 and kinds == "cn":
        return _named((f"{at}.downsample.0", f"{at}.downsample.1"), [[leaf] for leaf in leaves])
    if inner == 0 and side == 0 and re.fullmatch("(cncn)+cn", kinds):
        paths = [leaves[i : len(leaves) - 2 : 4] for i in range(4)]
        names = tuple(f"{at}.{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn"))
        return _named(names, [*paths, leaves[-2:-1], leaves[-1:]])
    return {}


def _named(names: tuple[str, ...], modules: list[list[Leaf]]) -> dict[str, Part]:
    """Return the parameters of modules; a module in several pieces has one leaf for each."""
    parts: dict[str, Part] = {}
    for name, leaves in zip(names, modules, strict=True):
        for field in leaves[0]:
            keys = tuple(leaf[field] for leaf in leaves if field in leaf)
            if len(keys) == len(leaves):
                parts[f"{name}.{field}"] = keys, AS_IT_IS if len(keys) == 1 else STACKED
    return parts
