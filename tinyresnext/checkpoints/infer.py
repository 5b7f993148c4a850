"""The network that a checkpoint belongs to, from names and shapes; and what its scheme implies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from ..errors import ShapeError, UsageError
from ..images.preprocess import CIFAR, CIFAR_100, Preprocess
from ..network.resnext import parameters
from ..network.spec import FIRST_PLANES, Spec, excitation
from .imagenet import imagenet_labels
from .names import table
from .names.layouts import FOLDED_EPSILON

__all__ = [
    "Implied",
    "Shapes",
    "by_names",
    "check",
    "epsilon",
    "implied",
    "infer",
    "untold",
    "usual_labels",
]

EPSILON, KERAS_EPSILON = 1e-5, 1.001e-5

Shapes = Mapping[str, tuple[int, ...]]
_ASK = "if you know the architecture, say it with --arch NAME (`tinyresnext models` lists them)"


def infer(shapes: Shapes, eps: float = EPSILON) -> Spec:
    """Return the architecture whose parameters have these names and shapes.

    What leaves no trace in a checkpoint is assumed to be as in nearly all of them: the 3x3
    convolution of a block strides, nothing is dilated and no blur pooling strides instead, and
    batch norms have an epsilon of 1e-5; Keras' have another.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Under torchvision's names.
    eps : float
        Of the batch norms (see `epsilon`).

    Returns
    -------
    Spec

    Raises
    ------
    ShapeError
        Names or shapes fit no network of the family; the message says which does not fit and what
        was expected.
    """
    counts = _blocks(shapes)
    c_out = _shape(shapes, "layer1.0.conv3.weight", 4)[0]
    wide, width, *_ = _shape(shapes, "layer1.0.conv2.weight", 4)
    classes = _classes(shapes)
    stem, channels, widths = _stem(shapes)
    squeezes = (_shape(shapes, key, 4) for key in shapes if key.endswith(".se.fc1.weight"))
    reduction, divisor = excitation([(few, many) for few, many, *_ in squeezes])
    if width == 0 or wide % width or c_out % FIRST_PLANES:
        raise ShapeError(
            f"layer1.0 has {wide} channels in groups of {width} and {c_out} in its result; "
            f"expected whole groups and a multiple of {FIRST_PLANES}; {_ASK}"
        )
    avg_down = any(re.fullmatch(r"layer\d+\.\d+\.downsample\.2\.weight", key) for key in shapes)
    beside = [key for key in shapes if ".downsample." in key]
    convs = [shapes[key] for key in beside if re.fullmatch(r".*\.[01]\.weight", key)]
    # Only in type C has a shortcut a convolution where the channels stay as they are.
    alike = any(len(shape) == 4 and shape[0] == shape[1] for shape in convs)
    shortcut = "C" if alike else "B" if beside else "A"
    try:
        spec = Spec(
            blocks=counts,
            cardinality=wide // width,
            width=width,
            classes=classes,
            channels=channels,
            stem=stem,
            shortcut=shortcut,
            avg_down=avg_down,
            expansion=c_out // FIRST_PLANES,
            eps=eps,
            head=usual_head(classes),
            stem_channels=widths,
            se_reduction=reduction,
            se_divisor=divisor,
        )
    except UsageError as error:
        raise ShapeError(f"the tensors describe a network that cannot be built: {error}") from error
    check(shapes, spec, _ASK)
    return spec


def check(shapes: Shapes, spec: Spec, remedy: str) -> None:
    """Compare names and shapes with those of an architecture.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Under torchvision's names.
    spec : Spec
    remedy : str
        What to do if they differ, for the message.

    Raises
    ------
    ShapeError
        With the first parameters that are missing, unexpected or of another shape.
    """
    expected = parameters(spec)
    missing = [
        f"{name} {shape} is missing" for name, shape in expected.items() if name not in shapes
    ]
    extra = [
        f"{name} {shape} is unexpected" for name, shape in shapes.items() if name not in expected
    ]
    wrong = [
        f"{name} is {shapes[name]} and should be {shape}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    faults = wrong + missing + extra
    if faults:
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise ShapeError(
            f"the tensors are not those of {spec.name} with {spec.classes} classes: {shown}; "
            f"{remedy}"
        )


def untold(spec: Spec) -> list[str]:
    """Return what names and shapes do not say of the layers, if it has an unusual value."""
    plain = infer(parameters(spec), spec.eps)
    usual = {"stem": plain.stem, "stride_on": 2, "eps": EPSILON, "blur_pool": "none", "dilated": 0}
    return [
        f"{name} is {getattr(spec, name)!r}"
        for name, value in usual.items()
        if getattr(spec, name) != value
    ]


def usual_head(classes: int) -> str:
    """Return the head that is assumed: a single output means nothing under a softmax."""
    return "sigmoid" if classes == 1 else "softmax"


def usual_labels(spec: Spec) -> tuple[str, ...]:
    """Return ImageNet's labels for 1,000 classes, and numbers otherwise."""
    if spec.classes == 1000:
        return imagenet_labels()
    return tuple(f"class {i}" for i in range(spec.labels))


class Implied(NamedTuple):
    """What the scheme of the names implies: how images were prepared, and a note for people."""

    preprocess: Preprocess
    note: str


def epsilon(scheme: str) -> float:
    """Return the epsilon of batch norms in the networks of a scheme (`names.schemes.SCHEMES`)."""
    se = 9.999999747378752e-06  # 1e-5 in float32
    known = {table.KERAS: KERAS_EPSILON}
    known |= dict.fromkeys((table.QUANTISED, table.FOLDED), FOLDED_EPSILON)
    known |= {table.CLASSIFICATION_MODELS: 2e-5, table.SE_CLASSIFICATION_MODELS: se}
    return known.get(scheme, EPSILON)


def implied(scheme: str, spec: Spec) -> Implied:
    """Return how the system whose names these are prepares images, and a note on it.

    The note says in a few words what is particular to that system; it is empty if nothing is.

    Parameters
    ----------
    scheme : str
        One of `names.schemes.SCHEMES`.
    spec : Spec
        The network; those for small images use CIFAR's preprocessing.
    """
    if scheme == table.TORCH7:
        if spec.small:
            usual, resized = CIFAR_100 if spec.classes == 100 else CIFAR, ""
        else:
            usual = Preprocess(interpolation="torch7")
            resized = ", resized bicubically without antialiasing"
        return Implied(usual, f"Torch7: images as the authors' code prepares them{resized}")
    notes = {
        table.PRLZ77: "prlz77: CIFAR-10's mean and deviation, for CIFAR-100 as well",
        table.KERAS: f"Keras: batch norm epsilon {KERAS_EPSILON:g}; RGB over 255 with ImageNet's "
        "mean and deviation ('torch' mode)",
        table.CADENE_SE: "Cadene's SE networks: the stem's pooling has no padding, as in Caffe",
        table.CADENE: "Cadene: resized bilinearly, where the Torch7 originals were bicubic",
        table.MMPRETRAIN: "mmpretrain: its Pillow backend resizes; its style 'caffe', which "
        "strides elsewhere, leaves no trace",
        table.CLASSIFICATION_MODELS: "classification_models: batch norm epsilon 2e-05",
        table.PADDLE: "Paddle: the original images were resized with OpenCV's bilinear filter, "
        "without antialiasing",
        table.FOLDED: "norms are folded into the convolutions of the file: those of this network "
        "are the identity and a shift",
        table.QUANTISED: "quantised: the weights are what their integers stand for; the original "
        "rounds its activations to 8 bits too, which this network does not: its logits are near, "
        "and not equal. Norms are folded: those of this network are the identity and a shift",
    }
    if spec.cardinality == 1 and sum(spec.blocks) == 33:
        notes[table.CADENE_RESNET] = (
            "Cadene: taken for torchvision's ResNet-101; cafferesnet101 has the same names and is "
            "not read: it strides elsewhere, pools as Caffe does, and takes BGR from 0 to 255"
        )
    whole = Preprocess(224, 224, "keras") if scheme == table.KERAS else Preprocess()
    return Implied(CIFAR if spec.small else whole, notes.get(scheme, ""))


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """Return how many blocks each stage has; stages and blocks must be numbered without gaps."""
    found: dict[int, set[int]] = {}
    for key in shapes:
        if match := re.match(r"layer(\d{1,3})\.(\d{1,4})\.", key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    in_order = set(found) == set(range(1, len(found) + 1))
    if not found or not in_order or any(b != set(range(len(b))) for b in found.values()):
        numbers = {
            f"layer{stage}": sorted(members)[:4] for stage, members in sorted(found.items())[:8]
        }
        raise ShapeError(
            f"the stages and blocks found are {numbers}; expected layer1, layer2 ... with blocks "
            "0, 1, 2 ..."
        )
    if "layer1.0.conv3.weight" not in shapes:
        raise ShapeError(
            "layer1.0 has no conv3: these are the two-layer blocks of ResNet-18 and ResNet-34, "
            "whose split-transform-merge form is trivial (section 3.3); expected bottleneck blocks "
            "of three layers"
        )
    return tuple(len(found[stage]) for stage in sorted(found))


def _classes(shapes: Shapes) -> int:
    """Return how many classes there are: 0 if there is no classifier."""
    if not {"fc.weight", "fc.bias"} & shapes.keys():
        return 0
    classes, _ = _shape(shapes, "fc.weight", 2)
    if not classes:
        raise ShapeError(
            "the tensors describe a network that cannot be built: fc.weight has 0 classes"
        )
    return classes


def by_names(scheme: str, spec: Spec) -> Spec:
    """Return an inferred network with what the names of its system say besides.

    Cadene's SE networks pool as Caffe does, and the first 1x1 strides in those that are no ResNeXt.
    """
    strides = 2 if spec.cardinality > 1 else 1
    return replace(spec, stem="caffe", stride_on=strides) if scheme == table.CADENE_SE else spec


def _stem(shapes: Shapes) -> tuple[str, int, tuple[int, int, int]]:
    """Return the stem, how many channels the image has, and the widths of a deep stem."""
    if "conv1.0.weight" in shapes:
        first, second, last = (_shape(shapes, f"conv1.{i}.weight", 4) for i in (0, 3, 6))
        return "deep", first[1], (first[0], second[0], last[0])
    _, channels, k_h, k_w = _shape(shapes, "conv1.weight", 4)
    stems = {(7, 7): "imagenet", (3, 3): "cifar"}
    if (k_h, k_w) not in stems:
        raise ShapeError(
            f"conv1 is a convolution of {k_h}x{k_w}; expected 7x7 (ImageNet) or 3x3 (CIFAR); {_ASK}"
        )
    return stems[k_h, k_w], channels, Spec.stem_channels


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a tensor that every network of the family has."""
    if name not in shapes:
        raise ShapeError(
            f"there is no tensor {name} among {len(shapes)}; every ResNeXt has one, so these are "
            "other weights"
        )
    if len(shapes[name]) != rank:
        raise ShapeError(f"{name} has shape {shapes[name]}; expected {rank} dimensions")
    return shapes[name]
