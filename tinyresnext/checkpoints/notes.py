"""What a conversion says of a checkpoint: what was understood, assumed, and not taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..network.spec import Spec, describe
from ..store.contents import Stored
from . import carried, infer
from .beside.config import Config
from .carried import Carried
from .names.layouts import FOLDED_EPSILON
from .names.schemes import Names
from .readers.checkpoint import Checkpoint
from .readers.container import PICKLED

__all__ = ["FOUND_NORM", "About", "Doubt", "notes", "prepared"]

FOUND_NORM = "found: mean and deviation"  # and nothing else of how images are prepared


class Doubt(str):
    """A note of what was assumed, or of what is in the file and not in the model."""

    __slots__ = ()


class About(NamedTuple):
    """Where what is known of a checkpoint comes from, besides its tensors.

    Attributes
    ----------
    given, stem_given : bool
        Whether the user gave the whole architecture, or the stem.
    carried : Carried, optional
        What was carried beside the tensors.
    config : Config, optional
        What the ``config.json`` of timm or transformers says.
    """

    given: bool
    stem_given: bool
    carried: Carried | None
    config: Config | None


def notes(found: Checkpoint, spec: Spec, named: Names, about: About) -> tuple[str, ...]:
    """Return what the user should know; a `Doubt` is what may have been meant otherwise."""
    said, beside, config = (
        [*_where(found, named), *_left_out(found, named)],
        about.carried,
        about.config,
    )
    how = "inferred" if beside is None else "found"
    how = "given" if about.given else f"{how}, but for the stem" if about.stem_given else how
    if beside is not None:
        fits = carried.fits(beside, spec)
        text = carried.FOUND_BESIDE if about.given else carried.FOUND
        said.append(text if fits else Doubt(f"{carried.NOT_TAKEN} {describe(beside.spec)}"))
    if config is not None:
        said += [config.summary()] if config.summary() else []
        said += [Doubt(f"not taken from {what}") for what in config.passed_over]
    said.append(f"{how}: {describe(spec)}")
    said += [f"from the graph: {what}" for what in found.remarks]
    if found.spec is None and (beside is None or about.given):
        said += _assumed(spec, about, found)
    if not spec.classes:
        text = "no classifier: the model computes features, and `finetune` gives it a classifier; "
        said.append(Doubt(f"{text}`classify` and `evaluate` need one"))
    if spec.classes == 1 and beside is None:
        text = "one output: taken for the logit of the second of two labels under a sigmoid, whose "
        said.append(Doubt(f"{text}probability is 1 / (1 + exp(-logit)); --labels FILE names both"))
    if beside is None and (note := infer.implied(named.scheme, spec).note):
        said.append(Doubt(note))
    return tuple(said)


def prepared(
    told: Sequence[str], model: Stored, options: Sequence[str] = (), whole: bool = False
) -> str:
    """Return how images are prepared, and where that comes from.

    Parameters
    ----------
    told : sequence of str
        What `notes` has returned.
    model : Stored
        Its preprocessing and its channels are looked at.
    options : sequence of str
        What the user has given of it.
    whole : bool
        Whether the user has given all of it.
    """
    found = any(note.startswith("found") and "preprocessing" in note for note in told)
    how = "found" if found else "assumed"
    norm = ["mean and deviation"] if any(note.startswith(FOUND_NORM) for note in told) else []
    if norm or options or whole:
        how = "given" if whole else f"{how}, but for {', '.join([*norm, *options])}"
    text, why = (
        f"{how}: {model.preprocess.described()}",
        model.preprocess.misfit(model.spec.channels),
    )
    if why:
        return Doubt(f"{text}; {why}")
    return Doubt(text) if how.startswith("assumed") else text


def _where(found: Checkpoint, named: Names) -> list[str]:
    """Return where the weights lie, and what their names are."""
    wrapper = f", weights under {found.wrapper!r}" if found.wrapper else ""
    said = [f"{found.container} format{wrapper}"]
    if found.others:
        ways = ""
        if found.container in PICKLED:
            ways = " (--ema takes averaged weights, --key those under a key)"
        said.append(Doubt(f"not taken: {_some(found.others)}{ways}"))
    if found.called:
        said.append(f"the file calls its network {ascii(found.called)[:80]} (arch)")
    prefix = found.prefix + named.prefix
    classifier = f", the classifier is {named.classifier!r}" if named.classifier else ""
    behind = f", behind {prefix!r}" if prefix else ""
    if found.spec is not None:
        return [*said, "names: by the structure of the graph"]
    return [*said, f"names: {named.scheme}{behind}{classifier}"]


def _left_out(found: Checkpoint, named: Names) -> list[str]:
    """Return what of the file is not in the model."""
    said: list[str] = []
    if named.others:
        networks = _some([repr(found.prefix + prefix) for prefix in named.others])
        said.append(Doubt(f"not taken: other networks, behind {networks} (--prefix takes one)"))
    if named.outside:
        some = f"{len(named.outside)} tensors beside the network, such as {_some(named.outside, 2)}"
        said.append(Doubt(f"not taken: {some}"))
    if found.skipped:
        said.append(f"left out: {_some(found.skipped, 20)}")
    bias = named.parts.get("fc.bias")
    if bias is not None and bias[0] == named.parts["fc.weight"][0]:
        none = "the classifier has no bias in the file: zeros, and its weight is taken as it is, "
        said.append(Doubt(f"assumed: {none}with no normalising of weight or features (ArcFace)"))
    for what, keys in named.left_out.items():
        said.append(Doubt(f"left out: {len(keys)} {what}, such as {keys[0]}"))
    return said


def _some(names: Sequence[str], most: int = 8) -> str:
    """Return the first of some names."""
    return ", ".join(name[:80] for name in names[:most]) + (" ..." if len(names) > most else "")


def _assumed(spec: Spec, about: About, found: Checkpoint) -> list[str]:
    """Return what the tensors do not record, for people; the name of an architecture tells it."""
    config = about.config
    known = config is not None and config.architecture != "" and not about.given
    how = "by its name" if known else "assumed"
    strides = f"the {'3x3' if spec.stride_on == 2 else 'first 1x1'} convolutions stride"
    ours = None if about.carried is None else about.carried.spec
    kept = ours is not None and carried.of_a_kind(ours, spec)
    kept = kept and ours is not None and (ours.eps, ours.stride_on) == (spec.eps, spec.stride_on)
    epsilon = f"batch norm epsilon {spec.eps:g}"
    said, assumed = [f"found: {epsilon}"] if found.eps is not None else [], [strides]
    layers = found.layers if found.eps is not None else None
    if layers is not None and all(layers.convolutions.values()):
        slide = "how convolutions and max poolings slide"
        untold = [f"{how}: ReLU, and a mean over all positions"]
        return [f"found: {epsilon}, {slide}", *(untold if known else map(Doubt, untold))]
    if kept:
        said, assumed = [f"found: {epsilon}, {strides}"], []
    elif found.eps is None and spec.eps != FOLDED_EPSILON:
        assumed.append(epsilon)
    if spec.stem == "cifar" and not about.stem_given:
        assumed.append("stride 1 and no pooling in the stem (--stem pooled says otherwise)")
    trace = "" if known else ", of which tensors have no trace"
    untold = [f"{how}: {', '.join(assumed)}"] if assumed else []
    untold.append(f"{how}: {_traceless(spec)}{trace}")
    return [*said, *(untold if known else map(Doubt, untold))]


def _traceless(spec: Spec) -> str:
    """Return what a network does between its layers, where another would have the same tensors."""
    first = "1 in the stem and 2" if spec.small else "2 in the stem and"
    usual = ["ReLU", "padding with zeros", f"stride {first} in each later stage"]
    if spec.stem != "cifar" and spec.blur_pool != "average":
        usual.append("max pooling in the stem")
    usual.append("a mean over all positions at the end")
    absent = ["no blur pooling (--blur-pool)"] if spec.blur_pool == "none" else []
    absent += ["no dilation (--output-stride)"] if not spec.dilated else []
    return " and ".join([", ".join([*usual, *absent[:1]]), *absent[1:]])
