"""The ONNX file of a model: `Write` makes its nodes, `tinyresnext.formats.onnx` the bytes."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ....errors import UsageError
from ....formats.onnx.write import IR_VERSIONS, Graph, write_model
from ....network.plan.quantised import Quantisation
from ....network.resnext import forward
from ....store.contents import Stored
from ....system.checks import is_whole
from ....system.version import __version__
from ...readers.checkpoint import CARRIED_KEY
from ..follow import Name
from .graph import Write
from .integers import Integers

__all__ = ["OPSETS", "write_onnx"]

OPSETS = tuple(IR_VERSIONS)
IN_8_BITS = 13  # DequantizeLinear takes a scale for each filter from this version on
FLOAT, FLOAT16 = 1, 10  # ONNX's numbers of the types


def write_onnx(
    path: str | os.PathLike[str],
    stored: Stored,
    carried: str = "",
    *,
    opset: int = 17,
    fold: bool = False,
    batch: int = 0,
    half: bool = False,
    quantisation: Quantisation | None = None,
) -> None:
    """Write an ONNX file whose input is float32 images [n, channels, side, side].

    Parameters
    ----------
    path : path
        The file to make or to replace.
    stored : Stored
    carried : str
        Text of `carried.written`, which goes into the metadata; none if it is empty.
    opset : int
        One of `OPSETS`.
    fold : bool
        Fold batch norms into convolutions, which rounds the weights once.
    batch : int
        Images in a mini-batch; 0 for any number.
    half : bool
        Weights and computation in half precision; input and output stay float32.
    quantisation : Quantisation, optional
        Of a quantised model, whose graph has a QuantizeLinear and a DequantizeLinear wherever a
        convolution reads integers, and weights of int8. Norms behind these are always folded.

    Raises
    ------
    UsageError
        The network cannot be written with these options, or not in a file of less than 2 GiB.
    PrecisionError
        A quantised model has a batch norm that is too large for float32.
    """
    if not is_whole(opset, OPSETS[0], OPSETS[-1]):
        raise UsageError(f"opset is {opset!r:.80}; expected {OPSETS[0]} to {OPSETS[-1]}")
    opset = int(opset)
    spec, side = stored.spec, stored.preprocess.crop
    integers = None
    if quantisation is not None:
        if opset < IN_8_BITS:
            raise UsageError(
                f"a scale for each filter needs opset {IN_8_BITS} or later, found {opset}; give "
                "another --opset"
            )
        if half:
            raise UsageError(
                "a quantised model computes in int8 and float32, and float16 is asked for; leave "
                "out --precision, or export the model that it was made of"
            )
        integers = Integers(spec, quantisation)
    ops = Write(stored.params, fold=fold, opset=opset, integers=integers)
    x = ops.cast("images", FLOAT16) if half else "images"
    out = forward({name: Name(name) for name in stored.params}, spec, x, ops)
    end = "logits" if spec.classes else "features"
    ops.named(ops.cast(out, FLOAT) if half else out, end)
    tensors = {
        name: _halved(name, one) if half and one.dtype != np.int64 else one
        for name, one in ops.tensors.items()
    }
    first = batch or "batch"
    graph = Graph(
        spec.name,
        ops.nodes,
        tensors,
        {"images": [first, spec.channels, side, side]},
        {end: [first, spec.outputs]},
    )
    write_model(
        path,
        graph,
        opset=opset,
        producer=("tinyresnext", __version__),
        metadata={CARRIED_KEY: carried} if carried else {},
    )


def _halved(name: str, array: NDArray) -> NDArray:
    """Return a tensor in half precision; raise `UsageError` if a number is too large for it."""
    with np.errstate(over="ignore"):
        found = array.astype("<f2")
    if not np.isfinite(found).all():
        raise UsageError(
            f"{name} has numbers beyond the 65,504 of half precision; export it in float32, or "
            "with its batch norms folded (--fold)"
        )
    return found
