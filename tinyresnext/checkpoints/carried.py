"""What an exported checkpoint carries beside its tensors: all the rest of the model, as one JSON.

Names and shapes of tensors do not tell the whole model. So `export` writes a JSON object with the
four documents of the model file (`tinyresnext.store.contents`) and a version, always in the same
form, and `convert` reads it as strictly as the model file. `readers.checkpoint` says where it lies
in each container.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import FormatError, ShapeError
from ..images.preprocess import Preprocess
from ..network.resnext import parameters
from ..network.spec import Spec, describe
from ..store.contents import DOCUMENTS, Stored, documents_of, json_text, json_value, meanings
from ..system.words import as_typed
from . import infer
from .names.table import TORCHVISION
from .readers.checkpoint import CARRIED_KEY, MAX_CARRIED

__all__ = [
    "FOUND",
    "FOUND_BESIDE",
    "NOT_TAKEN",
    "Carried",
    "check",
    "export_notes",
    "fits",
    "of_a_kind",
    "understood",
    "written",
]

VERSION = "1"
FOUND = "found: spec, preprocessing, labels and licence written by tinyresnext"
FOUND_BESIDE = "found: preprocessing, labels and licence written by tinyresnext"
NOT_TAKEN = "not taken: what tinyresnext wrote beside the tensors, which is for"
# of the conversion itself; what was carried under these names is the original's
_OF_THE_FILE = ("source", "sha256", "converter")


class Carried(NamedTuple):
    """The model but for its weights, as `store.contents.Stored` describes it."""

    spec: Spec
    preprocess: Preprocess
    labels: tuple[str, ...]
    provenance: dict[str, str]

    def origin(self, of_the_file: Mapping[str, str]) -> dict[str, str]:
        """Return the provenance of a conversion: what was carried, and the entries of the file.

        A carried entry of the same name becomes ``original_source`` and so on; the licence stays if
        none is given.
        """
        merged = dict(self.provenance)
        for name in _OF_THE_FILE:
            if name in self.provenance:
                merged.setdefault(f"original_{name}", self.provenance[name])
        return merged | {name: text for name, text in of_the_file.items() if text}


def written(stored: Stored) -> str:
    """Return the JSON text for the exported file, or "" if it is longer than readers accept.

    Raises
    ------
    FormatError, ShapeError, UnsafeError
        Labels or provenance cannot be stored.
    """
    values = {name: json.loads(text) for name, text in documents_of(stored).items()}
    text = json_text({"format_version": VERSION, **values})
    return text if len(text) <= MAX_CARRIED else ""


def understood(raw: bytes) -> Carried | None:
    """Return the meaning of what a reader found, None if it found nothing.

    Raises
    ------
    FormatError, ShapeError, UnsafeError
        It is not what `written` writes, or of another version.
    """
    if not raw:
        return None
    try:
        text = raw.decode("ascii")
    except UnicodeDecodeError:
        raise FormatError(
            "what should be the JSON text of tinyresnext is not ASCII; export the model again"
        ) from None
    value = json_value("tinyresnext", text, MAX_CARRIED)
    version = value.get("format_version") if type(value) is dict else None
    if version != VERSION:
        raise FormatError(
            f"what tinyresnext wrote beside the tensors has the version {version!r:.40}, and this "
            f"tinyresnext knows {VERSION!r}; use the one that wrote it"
        )
    if value.keys() != {"format_version", *DOCUMENTS}:
        raise FormatError(
            f"what tinyresnext wrote beside the tensors has the fields {sorted(value)!s:.200}; "
            f"expected format_version, {', '.join(DOCUMENTS)}; export the model again"
        )
    return Carried(*meanings({name: json_text(value[name]) for name in DOCUMENTS}))


def check(spec: Spec, shapes: infer.Shapes) -> None:
    """Raise `ShapeError` unless the carried architecture has tensors of these names and shapes."""
    remedy = "they were not exported together; say the architecture with --arch NAME"
    if sum(spec.blocks) > len(shapes):  # so what is compared is no longer than the file's list
        raise ShapeError(
            f"tinyresnext wrote {describe(spec)} into the file, which has {len(shapes)} tensors; "
            f"{remedy}"
        )
    infer.check(shapes, spec, remedy)


def fits(beside: Carried, spec: Spec) -> bool:
    """Return whether labels and preprocessing are those of a network of this architecture."""
    ours = beside.spec
    return (ours.classes, ours.channels, ours.head) == (spec.classes, spec.channels, spec.head)


def of_a_kind(ours: Spec, spec: Spec) -> bool:
    """Return whether two networks have the same stages, whatever the image and the classes are."""
    if ours.blocks != spec.blocks:  # so what is compared is no longer than what was asked for
        return False
    alike = replace(ours, classes=spec.classes, channels=spec.channels, head=spec.head)
    return parameters(alike) == parameters(spec)


def export_notes(
    stored: Stored,
    path: str,
    text: str,
    graph: bool = False,
    batch: int = 0,
    quantised: bool = False,
) -> list[str]:
    """Return what the user of an exported file should know.

    ``text`` is what `written` returned, and ``path`` the file. A graph records all of the network
    but the head, for ``batch`` images or, if that is 0, for any number n. That of a quantised model
    is not read again.
    """
    spec, images = stored.spec, stored.preprocess
    notes = [
        f"the tensors do not record that {fact}; set this in any other program that reads them"
        for fact in ([] if graph else infer.untold(spec))
    ]
    prepared = "" if images.misfit(spec.channels) else images.described()
    if graph:
        shape = f"[{batch or 'n'}, {spec.channels}, {images.crop}, {images.crop}]"
        also = f"; its metadata say so under {CARRIED_KEY!r}" if prepared and text else ""
        notes.append(f"its input is images {shape}{prepared and f', {prepared}'}{also}")
    elif prepared:
        notes.append(f"the network expects images {prepared}")
    notes += _outputs(spec)
    options = _restoring(stored, graph)
    missing = f"only the tensors are in it, the rest has over {MAX_CARRIED:,} bytes"
    if not text and (quantised or not options):
        notes.append(missing)
    if quantised:
        notes.append(
            "its convolutions read integers between QuantizeLinear and DequantizeLinear; `convert` "
            "does not read quantised graphs, so keep the model file"
        )
    elif options:
        lost = "if a program drops what tinyresnext wrote beside the tensors, use"
        if not text:
            lost = f"{missing}; use"
        if "--labels" in options:
            lost += f", with the {spec.labels} labels in FILE, one a line"
        notes.append(f"{lost}: {as_typed(['tinyresnext', 'convert', path, *options])}")
    return notes


def _outputs(spec: Spec) -> list[str]:
    """Return what outputs mean that are not for a softmax."""
    if spec.head != "sigmoid" or not spec.classes:
        return []
    if spec.several:
        return ["its outputs are logits for a sigmoid: each label has a probability of its own"]
    return ["its output is a logit, whose sigmoid is the probability of the second of two labels"]


def _restoring(stored: Stored, graph: bool) -> list[str]:
    """Return the options of `convert` that restore the model from its exported tensors alone.

    An epsilon or a stride on the first 1x1 has no option: see `infer.untold`.
    """
    spec, options = stored.spec, []
    plain = infer.infer(parameters(spec), spec.eps)
    if plain.stem != spec.stem and not graph:
        options += ["--stem", spec.stem]
    if plain.head != spec.head:
        options += ["--head", spec.head]
    if spec.blur_pool != "none" and not graph:
        options += ["--blur-pool", spec.blur_pool]
    if spec.dilated and not graph:
        options += ["--output-stride", str(spec.output_stride)]
    if tuple(stored.labels) != infer.usual_labels(spec):
        options += ["--labels", "FILE"]
    assumed = infer.implied(TORCHVISION, spec).preprocess.to_json()
    for name, value in stored.preprocess.to_json().items():
        if value != assumed[name]:
            text = ",".join(map(repr, value)) if isinstance(value, list) else str(value)
            options.append(f"--{name}={text}")  # a mean may begin with a minus sign
    if licence := stored.provenance.get("licence"):
        options.append(f"--licence={licence}")
    return options
