"""The key names of systems in PyTorch: torchvision, timm, mmpretrain, prlz77 and Cadene.

Each function reads the keys of a checkpoint in one system's way: it returns the keys that each of
torchvision's parameters is made of, and the keys that do not fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from . import module_tree
from .layouts import AS_IT_IS, Layout, Part, Reading, folded_norm

__all__ = [
    "by_key",
    "cadene",
    "cadene_resnet",
    "cadene_se",
    "folded",
    "mmpretrain",
    "prlz77",
    "quantised",
]
__all__ += ["timm_d", "torchvision"]

_FIELD = r"(?:weight|bias|running_mean|running_var)"
_BLOCK = r"(?:conv[123]|bn[123]|downsample\.[01])"
_SE = r"se\.fc[12]\.(?:weight|bias)"  # squeeze and excitation, which torchvision does not have
_TORCHVISION = re.compile(
    rf"(?:conv1|bn1|layer\d+\.\d+\.{_BLOCK}|fc)\.{_FIELD}|layer\d+\.\d+\.{_SE}", re.ASCII
)
_DEEP = re.compile(
    rf"(?:conv1\.[01346]|bn1|conv1|layer\d+\.\d+\.(?:{_BLOCK}|downsample\.2)|fc)\.{_FIELD}"
    rf"|layer\d+\.\d+\.{_SE}",
    re.ASCII,
)

_FOLDED = r"conv1|layer\d+\.\d+\.(?:conv[123]|downsample\.0)|fc"
_UNFOLDED = re.compile(
    rf"(conv1(?:\.[036])?|layer\d+\.\d+\.(?:conv[123]|downsample\.[01]))\.(weight|bias)"
    rf"|layer\d+\.\d+\.{_SE}|fc\.(?:weight|bias)",
    re.ASCII,
)
_FUSED = re.compile(r"((?:^|\.)conv[123])\.0(\.(?:weight|bias))$", re.ASCII)
# The norms that do not follow from the names of their convolutions
_NORMS = {"conv1": "bn1", "conv1.0": "conv1.1", "conv1.3": "conv1.4", "conv1.6": "bn1"}
_QUANTISED = re.compile(rf"({_FOLDED})\.(weight|bias)", re.ASCII)
_ACTIVATIONS = re.compile(
    rf"(?:{_FOLDED}|layer\d+\.\d+\.skip_add_relu|quant)\.(?:scale|zero_point)", re.ASCII
)
_BACKBONE = re.compile(
    rf"backbone\.((?:conv1|bn1|layer\d+\.\d+\.(?:{_BLOCK}|downsample\.2))\.{_FIELD})", re.ASCII
)
_BACKBONE_SE = re.compile(
    r"backbone\.(layer\d+\.\d+)\.se_layer\.conv([12])\.conv\.(weight|bias)", re.ASCII
)
_STEM = re.compile(rf"backbone\.stem\.([012]\.(?:conv|bn))\.({_FIELD})", re.ASCII)
_STEM_NAMES = {
    "0.conv": "conv1.0",
    "0.bn": "conv1.1",
    "1.conv": "conv1.3",
    "1.bn": "conv1.4",
    "2.conv": "conv1.6",
    "2.bn": "bn1",
}
_PRLZ77 = re.compile(
    r"stage_(?P<s>\d+)\.stage_(?P=s)_bottleneck_(?P<b>\d+)\."
    rf"(?P<module>\w+|shortcut\.\w+)\.(?P<field>{_FIELD})",
    re.ASCII,
)
_PRLZ77_OUTSIDE = {"conv_1_3x3": "conv1", "bn_1": "bn1", "classifier": "fc"}
_PRLZ77_INSIDE = {
    "conv_reduce": "conv1",
    "bn_reduce": "bn1",
    "conv_conv": "conv2",
    "bn": "bn2",
    "conv_expand": "conv3",
    "bn_expand": "bn3",
    "shortcut.shortcut_conv": "downsample.0",
    "shortcut.shortcut_bn": "downsample.1",
}


def torchvision(keys: Collection[str]) -> Reading:
    """Read torchvision's names, which timm has too for all but its variants d."""
    return ({}, [*keys]) if _is_folded(keys) else by_key(keys, _plain)


def _plain(key: str) -> tuple[str, Layout] | None:
    """Return a name of torchvision's unchanged."""
    return (key, AS_IT_IS) if _TORCHVISION.fullmatch(key) else None


def timm_d(keys: Collection[str]) -> Reading:
    """Read the names of timm's variants d: a stem of three convolutions, pooled shortcuts."""
    if _is_folded(keys):
        return {}, [*keys]
    return by_key(keys, lambda key: (key, AS_IT_IS) if _DEEP.fullmatch(key) else None)


def folded(keys: Collection[str]) -> Reading:
    """Read torchvision's and timm's names where all norms are folded into the convolutions.

    ``fuse_conv_bn_eval`` of PyTorch does so: the convolutions have biases, and no norm is left.
    ``fuse_modules`` also puts a convolution into a list with the ReLU behind it.
    """
    if not _is_folded(keys):
        return {}, [*keys]
    parts: dict[str, Part] = {}
    foreign = []
    deep = "conv1.6.bias" in keys
    for key in keys:
        name = key if deep and key.startswith("conv1.") else _FUSED.sub(r"\1\2", key)
        match = _UNFOLDED.fullmatch(name)
        if match is None or name in parts:
            foreign.append(key)
        elif match[2] == "bias":
            module, _, number = match[1].rpartition(".downsample.")
            norm = f"{module}.downsample.{int(number) + 1}" if module else match[1]
            norm = _NORMS.get(norm, norm.replace(".conv", ".bn"))
            if f"{norm}.bias" in parts:
                foreign.append(key)
            else:
                parts |= folded_norm(norm, key)
        else:
            parts[name] = (key,), AS_IT_IS
    return parts, foreign


def _is_folded(keys: Collection[str]) -> bool:
    """Return whether the first convolution has a bias, and no name is that of a norm."""
    biased = "conv1.bias" in keys or "conv1.0.bias" in keys
    return biased and not any(re.search(r"(?:^|\.)bn\d\.|\.running_", key) for key in keys)


def mmpretrain(keys: Collection[str]) -> Reading:
    """Read mmpretrain's names: torchvision's, below ``backbone`` and ``head``.

    The deep stem is numbered by its three pieces. Where shortcuts are pooled, mmpretrain has no
    module in the pooling's place at stride 1: there the convolution is ``downsample.0``, and
    ``downsample.1`` elsewhere. timm keeps the place, so it is 1 everywhere.
    """
    pooled = {key.partition(".downsample.")[0] for key in keys if ".downsample.2." in key}

    def rename(key: str) -> tuple[str, Layout] | None:
        if match := _STEM.fullmatch(key):
            return f"{_STEM_NAMES[match[1]]}.{match[2]}", AS_IT_IS
        if key in ("head.fc.weight", "head.fc.bias"):
            return key.removeprefix("head."), AS_IT_IS
        if match := _BACKBONE_SE.fullmatch(key):
            return f"{match[1]}.se.fc{match[2]}.{match[3]}", AS_IT_IS
        if not (match := _BACKBONE.fullmatch(key)):
            return None
        block, is_shortcut, rest = match[1].partition(".downsample.")
        if is_shortcut and pooled and f"backbone.{block}" not in pooled:
            return f"{block}.downsample.{int(rest[0]) + 1}{rest[1:]}", AS_IT_IS
        return match[1], AS_IT_IS

    return by_key(keys, rename)


def prlz77(keys: Collection[str]) -> Reading:
    """Read the names of ResNeXt.pytorch, for CIFAR: stages and blocks have their numbers twice."""

    def rename(key: str) -> tuple[str, Layout] | None:
        if (match := _PRLZ77.fullmatch(key)) and match["module"] in _PRLZ77_INSIDE:
            module, field = _PRLZ77_INSIDE[match["module"]], match["field"]
            return f"layer{match['s']}.{match['b']}.{module}.{field}", AS_IT_IS
        outside, _, field = key.rpartition(".")
        if outside in _PRLZ77_OUTSIDE and re.fullmatch(_FIELD, field):
            return f"{_PRLZ77_OUTSIDE[outside]}.{field}", AS_IT_IS
        return None

    return by_key(keys, rename)


def cadene(keys: Collection[str]) -> Reading:
    """Read Cadene's names: Torch7's tree below ``features``, or at the top as first published.

    The classifier is ``last_linear`` or ``10.1``.
    """
    if _has_layers(keys):
        return {}, [*keys]
    classifier = {key for key in keys if key.startswith(("last_linear.", "10.1."))}
    above = "features." if 2 * sum(key.startswith("features.") for key in keys) > len(keys) else ""
    if not above and not classifier:
        return {}, [*keys]
    fitting = [key for key in keys if key.startswith(above) or key in classifier]
    paths = {re.sub(r"^last_linear\.", "9999.", key.removeprefix(above)): key for key in fitting}
    parts, foreign = module_tree.to_torchvision(paths)
    named = {
        name: (tuple(paths[path] for path in sources), layout)
        for name, (sources, layout) in parts.items()
    }
    return named, [*({*keys} - {*paths.values()}), *(paths[path] for path in foreign)]


def cadene_resnet(keys: Collection[str]) -> Reading:
    """Read the names of Cadene's ResNets: torchvision's, except for ``last_linear``."""
    if not _has_layers(keys) or _is_folded(keys):
        return {}, [*keys]
    return by_key(keys, _cadene_resnet)


def _has_layers(keys: Collection[str]) -> bool:
    """Return whether most names begin as torchvision's."""
    return 2 * sum(key.startswith("layer") for key in keys) > len(keys)


def cadene_se(keys: Collection[str]) -> Reading:
    """Read the names of Cadene's SE networks, which timm keeps for its ``legacy_seresnext``.

    The stem is ``layer0``, by which they are known.
    """
    if "layer0.conv1.weight" not in keys:
        return {}, [*keys]

    def rename(key: str) -> tuple[str, Layout] | None:
        if key.startswith(("conv1.", "bn1.")):
            return None
        return _cadene_resnet(key.removeprefix("layer0.").replace(".se_module.", ".se."))

    return by_key(keys, rename)


def _cadene_resnet(key: str) -> tuple[str, Layout] | None:
    """Translate a key of Cadene's ResNets."""
    return None if key.startswith("fc.") else _plain(re.sub(r"^last_linear\.", "fc.", key))


def quantised(keys: Collection[str]) -> Reading:
    """Read the names of torchvision's quantised networks, whose norms are folded.

    Scales and zero points of activations are not needed.
    """
    if not {"conv1.scale", "conv1.zero_point"} <= {*keys}:
        return {}, [*keys]
    parts: dict[str, Part] = {}
    foreign = []
    for key in keys:
        if match := _QUANTISED.fullmatch(key):
            module, field = match.groups()
            if module == "fc" or field == "weight":
                parts[key] = (key,), AS_IT_IS
            else:
                norm = module.replace("downsample.0", "downsample.1").replace("conv", "bn")
                parts |= folded_norm(norm, key)
        elif not _ACTIVATIONS.fullmatch(key):
            foreign.append(key)
    return parts, foreign


def by_key(keys: Iterable[str], rename: Callable[[str], tuple[str, Layout] | None]) -> Reading:
    """Rename each key by itself; a key does not fit if its new name was used before.

    Parameters
    ----------
    keys : iterable of str
    rename : callable
        Returns torchvision's name of a key and its layout, or None if the key does not fit.
    """
    parts: dict[str, Part] = {}
    foreign = []
    for key in keys:
        found = rename(key)
        if found is None or found[0] in parts:
            foreign.append(key)
        else:
            parts[found[0]] = (key,), found[1]
    return parts, foreign
