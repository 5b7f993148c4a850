"""Other systems' key names -> torchvision's (timm's where torchvision has no such network: the deep stem, avg-down).

Each system spells the same tree of modules in its own way. A scheme is recognised from the keys
alone: it is the first in `SCHEMES` that leaves no key over. Then every parameter has a name of
torchvision's, the keys that it is made of, and a `Layout` that makes it of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from numpy.typing import NDArray

from ...errors import FormatError, WeightsError
from ..readers.checkpoint import OnDemand
from . import module_tree
from .layouts import AS_IT_IS, DENSE, DEPTHWISE, KERNEL, Layout, Shape

__all__ = [
    "CADENE",
    "KERAS",
    "MMPRETRAIN",
    "PRLZ77",
    "SCHEMES",
    "TIMM_D",
    "TORCH7",
    "TORCHVISION",
    "Names",
    "recognise",
]

Part = tuple[tuple[str, ...], Layout]  # the keys that a parameter is made of, and how
Reading = tuple[
    dict[str, Part], list[str]
]  # what fits, under torchvision's names; and the keys that do not

_FIELD = r"(?:weight|bias|running_mean|running_var)"
_BLOCK = r"(?:conv[123]|bn[123]|downsample\.[01])"
_TORCHVISION = re.compile(rf"(?:conv1|bn1|layer\d+\.\d+\.{_BLOCK}|fc)\.{_FIELD}", re.ASCII)
_DEEP = re.compile(
    rf"(?:conv1\.[01346]|bn1|conv1|layer\d+\.\d+\.(?:{_BLOCK}|downsample\.2)|fc)\.{_FIELD}",
    re.ASCII,
)

_BACKBONE = re.compile(
    rf"backbone\.((?:conv1|bn1|layer\d+\.\d+\.(?:{_BLOCK}|downsample\.2))\.{_FIELD})", re.ASCII
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
_LAYER = re.compile(
    r"(?:conv(?:1|([2-9])_block([1-9]\d{0,3})_([0-3]))_(conv|bn|gconv)|probs|predictions)", re.ASCII
)


class Scheme(NamedTuple):
    """How one system names parameters: the function that reads its keys, and a few of them for people."""

    read: Callable[[Collection[str]], Reading]
    examples: str


class Names(NamedTuple):
    """A checkpoint whose names are understood.

    Attributes
    ----------
    scheme : str
        A key of `SCHEMES`.
    parts : dict of str to (tuple of str, Layout)
        Torchvision's name of each parameter, in the file's order: the keys that it is made of, and
        how.
    left_out : tuple of str
        Keys that were recognised and are not needed, but for those that count training steps.
    """

    scheme: str
    parts: dict[str, Part]
    left_out: tuple[str, ...]

    def shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """The parameters' shapes, from those of the checkpoint's tensors.

        Raises
        ------
        FormatError
            When a tensor has no shape that its layout can have.
        """
        return {
            name: _told(name, lay.shape, [shapes[key] for key in keys])
            for name, (keys, lay) in self.parts.items()
        }

    def tensors(self, arrays: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
        """The parameters, from the checkpoint's tensors, each when it is asked for; without a change, it is the same array.

        Raises
        ------
        IntegrityError
            When a tensor that must have certain values has others.
        """

        def made(name: str) -> NDArray:
            keys, layout = self.parts[name]
            return _told(name, layout.array, [arrays[key] for key in keys])

        return OnDemand(self.parts, made)


def recognise(keys: Collection[str]) -> Names:
    """Whose names these are.

    Parameters
    ----------
    keys : collection of str
        As a checkpoint has them, prefixes of wrappers already gone.

    Returns
    -------
    Names

    Raises
    ------
    FormatError
        When no scheme fits all keys, or two keys are the same parameter. The message names the
        scheme that fits best and the first keys that do not belong to it.
    """
    present = set(keys)
    copies = {
        "ema_" + key.replace(".", "_") for key in present
    } & present  # mmcv's averaging hook keeps them among the others
    counters = {key for key in present if key.endswith(".num_batches_tracked")}
    counters = {key for key in counters if key.replace("num_batches_tracked", "weight") in present}
    wanted = [key for key in keys if key not in copies and key not in counters]
    readings = {name: scheme.read(wanted) for name, scheme in SCHEMES.items()}
    scheme, (parts, foreign) = min(readings.items(), key=lambda item: len(item[1][1]))
    order = {key: index for index, key in enumerate(keys)}
    if not foreign:
        in_order = sorted(parts.items(), key=lambda item: order[item[1][0][0]])
        return Names(scheme, dict(in_order), tuple(sorted(copies, key=order.__getitem__)))
    foreign.sort(key=order.__getitem__)
    shown = ", ".join(ascii(key[:80]) for key in foreign[:3]) + (" ..." if len(foreign) > 3 else "")
    if parts:
        blame = f"not a ResNeXt's as the nearest scheme, that of {scheme}, names them, or are there twice"
    else:
        blame = f"not a ResNeXt's as any of {', '.join(SCHEMES)} names them"
    raise FormatError(
        f"{len(foreign)} of {len(keys)} keys are {blame}: {shown}; expected keys such as {SCHEMES[scheme].examples}"
    )


# -- the schemes


def _torchvision(keys: Collection[str]) -> Reading:
    """Also timm's, for all but its variants d."""
    return _by_key(keys, _plain)


def _plain(key: str) -> tuple[str, Layout] | None:
    """A name of torchvision's, as it is."""
    return (key, AS_IT_IS) if _TORCHVISION.fullmatch(key) else None


def _timm_d(keys: Collection[str]) -> Reading:
    """Variants d of timm: three convolutions in the stem, and a pooling before the shortcut's."""
    return _by_key(keys, lambda key: (key, AS_IT_IS) if _DEEP.fullmatch(key) else None)


def _mmpretrain(keys: Collection[str]) -> Reading:
    """Torchvision's, below ``backbone`` and ``head``; the deep stem is numbered by its three pieces.

    Where shortcuts are pooled, mmpretrain has no module in the pooling's place at stride 1: there
    the convolution is ``downsample.0``, and ``downsample.1`` elsewhere. timm keeps the place, so it
    is 1 everywhere.
    """
    pooled = {key.partition(".downsample.")[0] for key in keys if ".downsample.2." in key}

    def rename(key: str) -> tuple[str, Layout] | None:
        if match := _STEM.fullmatch(key):
            return f"{_STEM_NAMES[match[1]]}.{match[2]}", AS_IT_IS
        if key in ("head.fc.weight", "head.fc.bias"):
            return key.removeprefix("head."), AS_IT_IS
        if not (match := _BACKBONE.fullmatch(key)):
            return None
        block, is_shortcut, rest = match[1].partition(".downsample.")
        if is_shortcut and pooled and f"backbone.{block}" not in pooled:
            return f"{block}.downsample.{int(rest[0]) + 1}{rest[1:]}", AS_IT_IS
        return match[1], AS_IT_IS

    return _by_key(keys, rename)


def _prlz77(keys: Collection[str]) -> Reading:
    """ResNeXt.pytorch, for CIFAR: stages and blocks say their numbers twice."""
    pattern = re.compile(
        rf"stage_(?P<s>\d+)\.stage_(?P=s)_bottleneck_(?P<b>\d+)\.(?P<module>\w+|shortcut\.\w+)\.(?P<field>{_FIELD})",
        re.ASCII,
    )
    outside = {"conv_1_3x3": "conv1", "bn_1": "bn1", "classifier": "fc"}
    inside = {
        "conv_reduce": "conv1",
        "bn_reduce": "bn1",
        "conv_conv": "conv2",
        "bn": "bn2",
        "conv_expand": "conv3",
        "bn_expand": "bn3",
        "shortcut.shortcut_conv": "downsample.0",
        "shortcut.shortcut_bn": "downsample.1",
    }

    def rename(key: str) -> tuple[str, Layout] | None:
        if (match := pattern.fullmatch(key)) and match["module"] in inside:
            return (
                f"layer{match['s']}.{match['b']}.{inside[match['module']]}.{match['field']}",
                AS_IT_IS,
            )
        module, _, field = key.rpartition(".")
        return (
            (f"{outside[module]}.{field}", AS_IT_IS)
            if module in outside and re.fullmatch(_FIELD, field)
            else None
        )

    return _by_key(keys, rename)


def _cadene(keys: Collection[str]) -> Reading:
    """Torch7's tree below ``features``, or at the top as first published; the classifier is ``last_linear`` or ``10.1``.

    Its ResNets are torchvision's but for ``last_linear``.
    """
    if 2 * sum(key.startswith("layer") for key in keys) > len(keys):
        return _by_key(
            keys,
            lambda key: (
                None if key.startswith("fc.") else _plain(re.sub(r"^last_linear\.", "fc.", key))
            ),
        )
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


def _keras(keys: Collection[str]) -> Reading:
    """keras-applications: ``conv2_block1_1_conv/kernel:0``, stages and blocks from 1, weights as TensorFlow lays them out."""
    parts, foreign = _by_key(keys, _from_keras)
    for name in [
        name for name in parts if name.endswith(".sum")
    ]:  # the fixed convolution behind a depthwise one
        weight = name.replace(".sum", ".weight")
        if parts.get(weight, ((), None))[1] is DEPTHWISE:
            parts[weight] = parts[weight][0] + parts[name][0], DEPTHWISE
        else:
            foreign += parts[name][0]
        del parts[name]
    return parts, foreign


def _from_keras(key: str) -> tuple[str, Layout] | None:
    """One key: ``LAYER/WEIGHT:0``, below more groups where HDF5 nests them."""
    *groups, layer, field = key.removesuffix(":0").split("/") if "/" in key else ("", "", "")
    match = _LAYER.fullmatch(layer)
    if match is None or not set(groups) <= {layer, "model_weights"}:
        return None
    stage, block, place, kind = match.groups()
    at = "" if block is None else f"layer{int(stage) - 1}.{int(block) - 1}."
    norm = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }
    shortcut = {"conv": "downsample.0", "bn": "downsample.1"}
    module = (
        f"{at}{shortcut[kind] if place == '0' else f'{kind}{place or 1}'}"
        if kind in shortcut
        else "fc"
    )
    match kind, field:
        case None, "kernel":
            return "fc.weight", DENSE
        case None, "bias":
            return "fc.bias", AS_IT_IS
        case "bn", _ if field in norm:
            return f"{module}.{norm[field]}", AS_IT_IS
        case "conv", "kernel":
            return f"{module}.weight", KERNEL
        case "conv", "depthwise_kernel" if place == "2":
            return f"{module}.weight", DEPTHWISE
        case "gconv", "kernel" if place == "2":
            return f"{at}conv2.sum", AS_IT_IS
    return None


def _by_key(keys: Iterable[str], rename: Callable[[str], tuple[str, Layout] | None]) -> Reading:
    """Rename each key by itself; a name that was given already does not fit."""
    parts: dict[str, Part] = {}
    foreign = []
    for key in keys:
        found = rename(key)
        if found is None or found[0] in parts:
            foreign.append(key)
        else:
            parts[found[0]] = (key,), found[1]
    return parts, foreign


def _told(name: str, change: Callable, pieces: list) -> Shape | NDArray:
    """Apply a layout's function; its errors do not know which parameter it was."""
    try:
        return change(pieces)
    except WeightsError as error:
        raise type(error)(f"{name}: {error}") from None


TORCHVISION, TIMM_D, MMPRETRAIN, CADENE, PRLZ77, TORCH7, KERAS = (
    "torchvision",
    "timm's variants d",
    "mmpretrain",
    "Cadene",
    "prlz77",
    "Torch7",
    "Keras",
)
SCHEMES: Mapping[str, Scheme] = {
    TORCHVISION: Scheme(_torchvision, "'conv1.weight', 'layer1.0.conv2.weight' and 'fc.bias'"),
    TIMM_D: Scheme(_timm_d, "'conv1.0.weight', 'layer1.0.downsample.1.weight' and 'fc.bias'"),
    MMPRETRAIN: Scheme(
        _mmpretrain, "'backbone.conv1.weight', 'backbone.layer1.0.conv2.weight' and 'head.fc.bias'"
    ),
    CADENE: Scheme(
        _cadene, "'features.0.weight', 'features.4.0.0.0.0.3.weight' and 'last_linear.bias'"
    ),
    PRLZ77: Scheme(
        _prlz77,
        "'conv_1_3x3.weight', 'stage_1.stage_1_bottleneck_0.conv_conv.weight' and 'classifier.bias'",
    ),
    TORCH7: Scheme(module_tree.to_torchvision, "'0.weight', '4.0.0.0.0.3.weight' and '10.bias'"),
    KERAS: Scheme(
        _keras, "'conv1_conv/kernel:0', 'conv2_block1_2_conv/depthwise_kernel:0' and 'probs/bias:0'"
    ),
}
