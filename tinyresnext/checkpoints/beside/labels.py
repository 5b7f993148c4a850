"""The names of the classes: those that are given, or found beside the tensors, or usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...errors import UsageError
from ...network.spec import Spec
from ..infer import usual_labels

__all__ = ["labels_of"]


def labels_of(spec: Spec, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Return one name for each class, or two for a single output."""
    if labels is None:
        return usual_labels(spec)
    texts = isinstance(labels, Iterable) and not isinstance(labels, str)
    if not texts or not all(isinstance(label, str) for label in labels):
        raise UsageError(f"labels is {labels!r:.80}; give a list with a text for each class")
    if spec.labels == 2 and spec.classes == 1 and len(labels) == 1:
        return f"not {labels[0]}", labels[0]
    if len(labels) != spec.labels:
        raise UsageError(
            f"there are {len(labels)} labels and the network has {spec.labels} classes; give one "
            "label for each class"
        )
    return tuple(labels)
