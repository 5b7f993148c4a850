"""The architecture that a ``config.json`` beside a checkpoint names, or the checkpoint itself.

Blur pooling, another activation and dilation leave no trace in the tensors, so a network that has
them has the names and shapes of a plain one. Only the name of the architecture and the arguments
beside it tell (`named`). timm's folders have a ``config.json``, and training scripts write the name
into the checkpoint, as ``arch``.
"""

from __future__ import annotations

import os
from dataclasses import replace

from ...errors import FormatError, ShapeError, UsageError
from ...network.spec import Spec, describe, other
from ...system.files import shown
from .config import Config
from .folder import CONFIG
from .named import Named, named

__all__ = ["blur_of_name", "check_labels", "decided"]


def decided(
    path: str | os.PathLike[str],
    config: Config,
    spec: Spec,
    given: tuple[bool, bool],
    blur_pool: str | None,
    output_stride: int | None,
) -> tuple[str, int]:
    """Return blur pooling and output stride: what the user says, else what is named.

    Parameters
    ----------
    path : path
        Of the checkpoint.
    config : Config
        What is said beside it.
    spec : Spec
        What the tensors are.
    given : (bool, bool)
        Whether the user has named the architecture, which then counts; and the stem.
    blur_pool, output_stride
        What the user says of them, None for nothing.

    Raises
    ------
    FormatError
        This version cannot compute what is named.
    ShapeError
        It is another network than the tensors are.
    UsageError
        The user has named a network with another blur pooling or output stride.
    """
    told = _checked(path, config, spec, *given)
    if blur_pool is None:
        blur_pool = told.blur_pool
        if given[0] and spec.blur_pool != blur_pool:
            raise _differs(path, config, "blur pooling", spec.blur_pool, blur_pool, "blur-pool")
    if output_stride is None:
        output_stride = min(told.output_stride, replace(spec, dilated=0).output_stride)
        if given[0] and spec.output_stride != output_stride:
            own = spec.output_stride
            raise _differs(path, config, "output stride", own, output_stride, "output-stride")
    return blur_pool, output_stride


def check_labels(path: str | os.PathLike[str], config: Config, spec: Spec) -> None:
    """Raise `ShapeError` if a ``config.json`` names other classes than the network has, if any."""
    count = spec.labels if config.labels is None else len(config.labels)
    if spec.classes and count not in (spec.labels, spec.classes):
        raise ShapeError(
            f"{shown(path)}: {CONFIG} beside it has {count} labels, and the tensors have "
            f"{spec.classes} classes; if the tensors are right, say --labels FILE, or move the "
            f"file away from {CONFIG}"
        )


def blur_of_name(
    path: str | os.PathLike[str], name: str, spec: Spec, given: bool, blur_pool: str | None
) -> str | None:
    """Return the blur pooling: what the user says, else what the name in a checkpoint does.

    A script may have any name for a network, perhaps of one that it has changed. So a name counts
    only if it tells what tensors do not; and not if the user has ``given`` the architecture.

    Parameters
    ----------
    path, name
        Of the checkpoint, and what it calls its architecture.
    spec, given, blur_pool
        As for `decided`.

    Returns
    -------
    str or None
        None if neither says it.

    Raises
    ------
    FormatError
        It is the name of a network that this version cannot compute.
    ShapeError
        It is that of a network with blur pooling, and the tensors are another one.
    """
    architecture = name.partition(".")[0]  # of timm; the name of its weights may follow
    called = f"{shown(path)}: the file calls its network {ascii(name)[:80]} (arch)"
    if given:
        return blur_pool
    if why := other(architecture):
        raise FormatError(
            f"{called}, which this version cannot compute ({why}), though its tensors may look "
            "like those of a plain network; use a plain ResNeXt, or say --arch NAME if it is one"
        )
    told = named(architecture, {})
    if told is None or told.blur_pool == "none" or blur_pool is not None:
        return blur_pool
    if not told.fits(spec) or not told.stem_fits(spec):
        raise ShapeError(
            f"{called}, which has a blur pooling, and the tensors are {describe(spec)}; say which "
            "pooling the network has with --blur-pool"
        )
    return told.blur_pool


def _differs(
    path: str | os.PathLike[str],
    config: Config,
    what: str,
    own: str | int,
    told: str | int,
    option: str,
) -> UsageError:
    """Return the error for an architecture that was given and is another than the named one."""
    return UsageError(
        f"{shown(path)}: the architecture has the {what} {own!r}, and {CONFIG} beside the file "
        f"names {_name(config)}, which has {told!r}; say which with --{option}"
    )


def _checked(
    path: str | os.PathLike[str], config: Config, spec: Spec, given: bool, stem_given: bool
) -> Named:
    """Return what is named; raise unless it can be computed and is what the tensors are."""
    file, told = shown(path), named(config.architecture, config.arguments)
    if told is None or told.wrong:
        what = _name(config, () if told is None else told.wrong)
        why = other(config.architecture)
        raise FormatError(
            f"{file}: {CONFIG} beside it names the architecture {what}, which this version "
            f"cannot compute{f' ({why})' if why else ''}, though its tensors may look like those "
            "of a plain network; use a plain ResNeXt"
        )
    if given:
        return told
    if not told.fits(spec) or not (stem_given or told.stem_fits(spec)):
        raise ShapeError(
            f"{file}: {CONFIG} beside it names the architecture {_name(config)}, and the tensors "
            f"are {describe(spec)}; if the tensors are right, say --arch NAME, or move the file "
            f"away from {CONFIG}"
        )
    for classes in (config.classes, told.classes):
        if classes not in (None, spec.classes):
            raise ShapeError(
                f"{file}: {CONFIG} beside it says {classes} classes, and the tensors have "
                f"{spec.classes}; if the tensors are right, move the file away from {CONFIG}"
            )
    return told


def _name(config: Config, arguments: tuple[str, ...] = ()) -> str:
    """Return the name of the architecture for a message, with some of its arguments."""
    shown_ones = [
        f"{ascii(key)[1:-1][:40]}={ascii(config.arguments[key])[:40]}" for key in arguments[:4]
    ]
    more = f" with {', '.join(shown_ones)}" if shown_ones else ""
    return f"{ascii(config.architecture)[:80]}{more}"
