"""What stands in front of the names of a network, and what its classifier is called.

Training scripts keep a network inside of others: below ``encoder.``, beside its copy, or with a
classifier that is a list of modules. The functions here only look at names.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TypeVar

from ...errors import UsageError

__all__ = [
    "averages",
    "classifiers",
    "given",
    "is_average",
    "is_counter",
    "is_lone_backbone",
    "may_follow",
    "plain_name",
    "possible",
    "single_layer",
    "unwrap",
]

T = TypeVar("T")

MOST_NETWORKS = 32  # in one file

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
AVERAGING_COUNTERS = ("n_averaged", "steps")  # of torch's AveragedModel, and mmengine's

# Parts of names that PyTorch's wrappers put anywhere: torch.compile, FSDP, checkpointed activations
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# The first convolution, and what the names of the first stage begin with, in the schemes that may
# stand behind a prefix
_BEGINNINGS = (
    ("conv1.weight", "layer1."),
    ("conv1.0.weight", "layer1."),
    ("layer0.conv1.weight", "layer1."),
    ("backbone.conv1.weight", "backbone.layer1."),
    ("backbone.stem.0.conv.weight", "backbone.layer1."),
    ("conv_1_3x3.weight", "stage_1."),
    ("features.0.weight", "features.5."),
    ("0.weight", "5."),  # a deep stem has 0, 1, 3, 4 and 6
)
_OWN = (
    ("backbone.", "head.fc.weight"),
    ("features.", "last_linear.weight"),
    ("features.", "10.1.weight"),
)
_CLASSIFIER = re.compile(
    r"(?:\w+_)?(?:fc|head|heads|classifier|cls|linear|logits|output|out)\d?(?:\.\w+)*"
    r"\.(?:weight|bias|running_mean|running_var)",
    re.ASCII,
)
# of self-supervised training, which has no classes
_PROJECTION = re.compile(r"mlp|proj|predict|last_layer|neck|prototypes", re.IGNORECASE)
_AVERAGE = re.compile(
    r"(?:^|[._])(?:ema|swa|averaged?|avg|shadow|teacher|target|momentum|k)(?=$|[._])", re.IGNORECASE
)


def unwrap(tensors: dict[str, T]) -> tuple[str, dict[str, T], tuple[str, ...]]:
    """Return the prefix of every name, the tensors without it, and the counters beside them."""
    counters = [name for name in AVERAGING_COUNTERS if name in tensors]
    wrapped = [name for name in tensors if name not in counters]
    prefix = ""
    while wrapped and (
        more := [one for one in PREFIXES if all(name.startswith(prefix + one) for name in wrapped)]
    ):
        prefix += more[0]
    if prefix:
        return prefix, {name[len(prefix) :]: tensors[name] for name in wrapped}, tuple(counters)
    return "", tensors, ()


def plain_name(key: str) -> str:
    """Return a key without the parts that PyTorch's wrappers put into it."""
    return ".".join(part for part in key.split(".") if part not in _WRAPPERS)


def is_counter(key: str) -> bool:
    """Return whether a profiler (thop) counts operations under this key."""
    return key.rpartition(".")[2] in ("total_ops", "total_params")


def is_average(name: str) -> bool:
    """Return whether a network of this name follows another: an average, a teacher, a target."""
    return _AVERAGE.search(name) is not None


def possible(keys: Collection[str]) -> list[str]:
    """Return what may stand in front of a network's names, in the order of the keys.

    What a scheme itself has in front belongs to its names if its classifier stands beside it.
    """
    starts = {key[: match.end()] for key in keys for match in re.finditer(r"\.", key)}
    found: dict[str, None] = {}
    for key in keys:
        for first, stage in _BEGINNINGS:
            prefix = key.removesuffix(first)
            # Torch7's own names may begin with several numbers
            whole = len(prefix) < len(key) and (not prefix or re.search(r"[^\d.]\w*\.$", prefix))
            own = any(
                prefix.endswith(inner) and f"{prefix.removesuffix(inner)}{classifier}" in keys
                for inner, classifier in _OWN
            )
            if whole and f"{prefix}{stage}" in starts and not own:
                found[prefix] = None
    return [*found][:MOST_NETWORKS]


def averages(keys: Collection[str]) -> list[str]:
    """Return the prefixes of networks that follow another, in the order of the keys."""
    return [prefix for prefix in possible(keys) if is_average(prefix)]


def is_lone_backbone(keys: Collection[str]) -> bool:
    """Return whether all names begin with ``backbone.``, in a form that is not mmpretrain's own."""
    own = (".downsample.2.", "backbone.stem.")
    return all(key.startswith("backbone.") and not any(part in key for part in own) for key in keys)


def given(prefix: str, keys: Iterable[str], known: Collection[str]) -> str:
    """Return a prefix that the user gave as the keys have it.

    The last dot may be missing. What wraps every name is known already, and may stand before it.

    Raises
    ------
    UsageError
        No key begins with it.
    """
    whole = plain_name(prefix if not prefix or prefix.endswith(".") else f"{prefix}.")
    for start in (whole, whole.removeprefix("module.")):
        if any(key.startswith(start) for key in keys):
            return start
    there = ", ".join(repr(one) for one in known if one) or "no network behind a prefix"
    raise UsageError(f"no tensor's name begins with {prefix!r}; there is {there}")


def classifiers(prefix: str, beside: Iterable[str]) -> list[str]:
    """Return which keys, beside the network behind a prefix, may be those of its classifier.

    Those of a projection, which self-supervised training has, are not.
    """
    parent = prefix[: prefix[:-1].rfind(".") + 1]
    return [
        key
        for key in beside
        if key.startswith(parent)
        and _CLASSIFIER.fullmatch(key, len(parent))
        and not _PROJECTION.search(key, len(parent))
    ]


def single_layer(keys: Collection[str]) -> str:
    """Return the one linear layer that all these keys belong to, or "".

    It may stand behind a dropout, as the second of a list: ``fc.1.weight`` and ``fc.1.bias``. It
    may have no bias.
    """
    module = min(keys, default="").rpartition(".")[0]
    weight, bias = f"{module}.weight", f"{module}.bias"
    return module if module and {*keys} in ({weight, bias}, {weight}) else ""


def may_follow(key: str, single: bool, classified: bool) -> bool:
    """Return whether the weight of a layer beside a network may be that of its classifier.

    If it has one (``classified``), the layer may stand in front of that, where it may be a neck.
    Self-supervised training has layers there that are none. Of these, only a ``single`` one with a
    bias may be meant otherwise, such as ``proj`` and ``predictor``.
    """
    name = _PROJECTION.search(key)
    if name is None or (classified and name[0].lower() == "neck"):
        return True
    numbered = key.removesuffix(".weight").rpartition(".")[2].isdigit()
    return single and not numbered and name[0].lower() in ("proj", "predict")
