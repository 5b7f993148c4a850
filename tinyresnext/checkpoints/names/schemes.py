"""Other systems' key names -> torchvision's.

Where torchvision has no such network (the deep stem, average-pooled shortcuts, squeeze and
excitation), the names are timm's. Each system names the same tree of modules in its own way. A
scheme is recognised from the keys alone: it is the first in `SCHEMES` that leaves no key over. Then
every parameter has a name of torchvision's, the keys that it is made of, and a `Layout` that makes
it of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

from numpy.typing import NDArray

from ...errors import FormatError, WeightsError
from ..readers.checkpoint import OnDemand
from . import prefixes
from .layouts import AS_IT_IS, Part, Shape, without_bias
from .table import SCHEMES

__all__ = ["SCHEMES", "Names", "recognise"]

T = TypeVar("T")

_AGAIN = "and save the state dict again"
# Parts of names of what stands in the place of a weight, or around a layer, and how to undo it
_CURES = {
    r"\.(?:weight|bias)_mask$": "weights are pruned and kept apart from their masks; call "
    f"torch.nn.utils.prune.remove(layer, 'weight') for each pruned layer, {_AGAIN}",
    r"\.weight_u$|\.parametrizations\.weight\.\d+\._u$": "weights are kept apart from their "
    "spectral norms; call torch.nn.utils.remove_spectral_norm(layer), or for parametrizations "
    f"torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), for each, {_AGAIN}",
    r"\.weight_g$|\.parametrizations\.": "weights are kept as parts of which they are computed, as "
    "weight_norm does; call torch.nn.utils.remove_weight_norm(layer), or for parametrizations "
    f"torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), for each, {_AGAIN}",
    r"(?:^|\.)(?:activation_post_process|\w*fake_quant\w*)\.": "observers of quantisation are in "
    "the network; save the state dict of the float network, without prepare or prepare_qat",
    r"(?:^|[._])(?:lora_[AB]|modules_to_save\.|original_module\.)": "adapters (LoRA) are kept "
    f"apart from the weights; call model.merge_and_unload(), {_AGAIN}",
}


class Names(NamedTuple):
    """A checkpoint whose names are understood.

    Attributes
    ----------
    scheme : str
        A key of `SCHEMES`.
    parts : dict of str to (tuple of str, Layout)
        Torchvision's name of each parameter, in the file's order: the keys that it is made of, and
        how.
    left_out : dict of str to tuple of str
        Keys that were recognised and are not needed, except for those that count training steps,
        under what they are in words for a note, such as ``"second copies"``.
    prefix : str
        What stands before the names of the network.
    classifier : str
        The module of the classifier, if its name is not the scheme's own.
    others : tuple of str
        Prefixes of other networks in the file, and of the same, which were not taken.
    outside : tuple of str
        Keys beside the network, which were not taken.
    """

    scheme: str
    parts: dict[str, Part]
    left_out: dict[str, tuple[str, ...]]
    prefix: str = ""
    classifier: str = ""
    others: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    def shapes(self, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
        """Return the parameters' shapes, from those of the checkpoint's tensors.

        Raises
        ------
        FormatError
            A tensor has no shape that its layout can have.
        """
        return {
            name: _applied(name, layout.shape, [shapes[key] for key in keys])
            for name, (keys, layout) in self.parts.items()
        }

    def tensors(self, arrays: Mapping[str, NDArray]) -> Mapping[str, NDArray]:
        """Return the parameters, each made of the checkpoint's tensors when it is asked for.

        Where nothing changes, it is the same array.

        Raises
        ------
        IntegrityError
            A tensor that must have certain values has others.
        """

        def made(name: str) -> NDArray:
            keys, layout = self.parts[name]
            return _applied(name, layout.array, [arrays[key] for key in keys])

        return OnDemand(self.parts, made)


class Attempt(NamedTuple):
    """How the scheme that fits best reads the names behind one prefix.

    Attributes
    ----------
    names : Names
    foreign : list of str
        Keys that it cannot read.
    whole : bool
        Whether there are a stem and a first block.
    """

    names: Names
    foreign: list[str]
    whole: bool


def recognise(keys: Collection[str], prefix: str | None = None) -> Names:
    """Find out whose names these are, and what stands before them.

    Parameters
    ----------
    keys : collection of str
        As a checkpoint has them.
    prefix : str, optional
        Take the network behind this prefix, and nothing else. By default the prefix is found: of
        several networks, the first with a classifier that does not follow another as its average
        or its teacher.

    Returns
    -------
    Names

    Raises
    ------
    FormatError
        No scheme fits all keys, or two keys are the same parameter. The message names the scheme
        that fits best and the first keys that do not belong to it.
    UsageError
        No key begins with ``prefix``.
    """
    short = {prefixes.plain_name(key): key for key in keys}
    if len(short) < len(keys):  # two keys would be the same
        short = {key: key for key in keys}
    counted = tuple(short.pop(name) for name in [*short] if prefixes.is_counter(name))
    possible = prefixes.possible(short.keys())
    if prefix is not None:
        tried = [_attempt(short, prefixes.given(prefix, short.keys(), possible), ())]
    else:
        tried = [_attempt(short, "", ())]
        if tried[0].foreign or prefixes.is_lone_backbone(short.keys()):
            behind = [_attempt(short, start, possible) for start in possible]
            tried = [one for one in behind if one.whole and not one.foreign] or tried + behind
    fitting = [one.names for one in tried if not one.foreign]
    if not fitting:
        raise _unknown(keys, min(tried, key=lambda one: (len(one.foreign), not one.names.prefix)))
    chosen = min(fitting, key=lambda n: (prefixes.is_average(n.prefix), "fc.weight" not in n.parts))
    others = tuple(one.names.prefix for one in tried if one.names is not chosen)
    if counted:
        chosen.left_out["counters of a profiler"] = counted
    return chosen._replace(others=others)


def _attempt(short: Mapping[str, str], prefix: str, possible: Collection[str]) -> Attempt:
    """Read the names behind a prefix in the best way.

    Parameters
    ----------
    short : mapping of str to str
        Names without what wrappers put into them, and the keys.
    prefix : str
    possible : collection of str
        Prefixes behind which networks stand; if there are none, what is beside is not looked at.
    """
    inner = tuple(one for one in possible if one.startswith(prefix) and one != prefix)
    own = {
        name.removeprefix(prefix): key
        for name, key in short.items()
        if name.startswith(prefix) and not name.startswith(inner)
    }
    # mmcv's averaging hook keeps averaged copies among the other tensors
    copies = {"ema_" + name.replace(".", "_") for name in own} & own.keys()
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    norms = {name.rpartition(".")[0] for name in own if name not in counters}
    counters = {name for name in counters if name.rpartition(".")[0] in norms}
    wanted = [name for name in own if name not in copies and name not in counters]
    read = {name: _with_classifier(*scheme.read(wanted)) for name, scheme in SCHEMES.items()}
    scheme, (parts, foreign, classifier) = min(
        read.items(), key=lambda item: (len(item[1][1]), item[1][2] != "")
    )
    parts = {n: (tuple(own[key] for key in pieces), how) for n, (pieces, how) in parts.items()}
    foreign = [own[key] for key in foreign]
    networks = (prefix, *(one for one in possible if not prefix.startswith(one)))
    beside = [n for n in short if prefix and possible and not n.startswith(networks)]
    if heads := prefixes.classifiers(prefix, beside) if "fc.weight" not in parts else []:
        beside = [name for name in beside if name not in heads]
        found, more, classifier = _with_classifier({}, heads, prefix)
        parts |= {n: (tuple(short[key] for key in keys), how) for n, (keys, how) in found.items()}
        foreign += [short[name] for name in more]
    order = {key: index for index, key in enumerate(short.values())}
    parts = dict(sorted(parts.items(), key=lambda item: order[item[1][0][0]]))
    if "fc.weight" in parts and "fc.bias" not in parts:
        parts["fc.bias"] = without_bias(parts["fc.weight"])
    second = tuple(key for name, key in own.items() if name in copies)
    left_out = {"second copies": second} if second else {}
    whole = any(name.startswith("conv1.") for name in parts) and any(
        name.startswith("layer1.0.") for name in parts
    )
    outside = tuple(short[name] for name in beside)
    names = Names(scheme, parts, left_out, prefix, classifier, outside=outside)
    return Attempt(names, sorted(foreign, key=order.__getitem__), whole)


def _with_classifier(
    parts: dict[str, Part], foreign: list[str], prefix: str = ""
) -> tuple[dict[str, Part], list[str], str]:
    """Return a reading in which one linear layer that nobody knows is the missing classifier.

    The third value is the name of its module, "" if there is none.
    """
    heads = prefixes.classifiers(prefix, foreign)
    module = prefixes.single_layer(heads)
    if not module or "fc.weight" in parts or "fc.bias" in parts:
        return parts, foreign, ""
    fields = {f"fc.{key.rpartition('.')[2]}": ((key,), AS_IT_IS) for key in heads}
    return parts | fields, [key for key in foreign if key not in heads], module


def _unknown(keys: Collection[str], nearest: Attempt) -> FormatError:
    """Return the error for keys of which some fit no scheme."""
    names, foreign = nearest.names, nearest.foreign
    shown = ", ".join(ascii(key[:80]) for key in foreign[:3]) + (" ..." if len(foreign) > 3 else "")
    if names.parts:
        blame = f"not those of a ResNeXt in the nearest scheme, {names.scheme}, or stand twice"
    else:
        blame = f"not those of a ResNeXt in any scheme of {', '.join(SCHEMES)}"
    behind = f" (behind {names.prefix!r})" if names.prefix else ""
    return FormatError(
        f"{len(foreign)} of {len(keys)} keys{behind} are {blame}: {shown}; "
        f"{_advice(names, foreign)}"
    )


def _advice(names: Names, foreign: list[str]) -> str:
    """Return why keys do not fit, as far as it can be known, and what to do."""
    for names_of, cure in _CURES.items():
        if any(re.search(names_of, key) for key in foreign):
            return cure
    parent = len(names.prefix) if foreign[0].startswith(names.prefix) else 0
    if (
        prefixes.classifiers("", [key[parent:] for key in foreign])
        and "fc.weight" not in names.parts
    ):
        way = f", or say --prefix {names.prefix}" if not parent and names.prefix else ""
        return (
            "the classifier has other layers than one, which is not read; to have the network "
            f"without a classifier, delete these tensors from the state dict{way}"
        )
    if any(re.search(r"\.conv2\.(?:paths|attn)\.", key) for key in foreign):
        return "selective kernels (SK) are not supported; use a ResNeXt or an SE-ResNeXt"
    return f"expected keys such as {SCHEMES[names.scheme].examples}"


def _applied(name: str, change: Callable[[Sequence[T]], T], pieces: Sequence[T]) -> T:
    """Apply a layout's function, and put the name of the parameter into its errors."""
    try:
        return change(pieces)
    except WeightsError as error:
        raise type(error)(f"{name}: {error}") from None
