"""The cases to compare: networks and layers as steps that every engine can build, with weights.

A step is ``{"op", "out", "args", "attrs"}`` with names for arrays: what a tape recorded, before
anything is folded or fused. So every engine gets the batch norms of the network, and folds them
itself if it can, as it would in a user's network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyresnext import Model, Preprocess, ops, variant
from tinyresnext.bench.inputs import random_parameters, random_pictures
from tinyresnext.checkpoints.onnx.write import write_onnx
from tinyresnext.inference.many.quantise import quantised
from tinyresnext.network.plan import Plan, Quantisation, program
from tinyresnext.network.spec import Spec, parameters
from tinyresnext.network.tape import Call
from tinyresnext.network.trace import replay, trace
from tinyresnext.ops import reference
from tinyresnext.store import integers
from tinyresnext.store.contents import Stored

Array = np.ndarray
MODELS = ("resnext50_32x4d", "resnext101_32x8d")
PRECISIONS = ("float32", "bfloat16", "int8")
CALIBRATION, SEED = 16, 2  # random images that the scales of int8 are found on


class Case(NamedTuple):
    """One comparison: steps, the arrays they name, and their multiply-adds.

    ``x`` is the input, ``[n, h, w, c]``. A layer may be repeated ``times`` times, each reading the
    result of the previous one: then an engine that computes in its own layout converts at both ends
    of the row, and not for every layer. Times are reported for one layer.

    In another precision than float32 a case is a network, ``spec`` says which, and in int8
    ``quantisation`` has the scales that all engines compute with.
    """

    name: str
    kind: str  # "model", "grouped", "grouped in a row" or "pointwise"
    steps: list[dict[str, Any]]
    arrays: dict[str, Array]
    gflop: float
    times: int = 1
    precision: str = "float32"
    spec: Spec | None = None
    quantisation: Quantisation | None = None


def model(name: str, batch: int, size: int = 224, precision: str = "float32") -> Case:
    """Return the case of a whole network that has a name."""
    found = network(variant(name), name, batch, size)
    if precision == "float32":
        return found
    scales = found_scales(found.spec, found.arrays, size) if precision == "int8" else None
    return found._replace(precision=precision, quantisation=scales)


def found_scales(spec: Spec, params: dict[str, Array], size: int) -> Quantisation:
    """Return the scales of a network's values, found on random images as `quantise` does."""
    params = {name: params[name] for name in parameters(spec)}  # the images are beside them
    model = Model(spec, params, Preprocess(), (), {}, ops.backend("cpu"))
    return quantised(model, list(calibration(spec, size))).model.quantisation


def calibration(spec: Spec, size: int) -> Array:
    """Return the images [n, h, w, c] that scales are found on."""
    return random_pictures((CALIBRATION, size, size, spec.channels), SEED)


def network(spec: Spec, name: str, batch: int, size: int) -> Case:
    """Return the case of any network."""
    from tinyresnext.network.count import macs

    params = random_parameters(spec)
    traced = trace(params, spec, (batch, size, size, spec.channels))
    stand_in, calls = traced.x, traced.calls
    names = {id(value): key for key, value in params.items()} | {id(stand_in): "x"}
    steps = []
    for call in calls:
        names[id(call.out)] = f"{call.name}:"
        args = [names[id(a)] for a in call.args]
        steps.append({"op": call.op, "out": names[id(call.out)], "args": args, "attrs": call.attrs})
    gflop = sum(2 * macs(call, call.out.shape) for call in calls) / 1e9
    x = random_pictures((batch, size, size, spec.channels))
    title = f"{name} batch {batch}, {size} px"
    return Case(title, "model", steps, params | {"x": x}, gflop, spec=spec)


def layer(
    c_in: int,
    c_out: int,
    side: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    times: int = 1,
) -> Case:
    """Return the case of a convolution with bias and ReLU, for one image.

    With ``times``, of so many in a row, as in a stage of a network: the first has the stride.
    """
    random = np.random.default_rng(0)
    shape, arrays, steps, last = (c_out, c_in // groups, kernel, kernel), {}, [], "x"
    for i in range(times):
        weight = random.standard_normal(shape, np.float32) * np.float32(
            (2 / np.prod(shape[1:])) ** 0.5
        )
        arrays |= {
            f"weight{i}": weight,
            f"bias{i}": np.float32(0.1) * random.standard_normal(c_out, np.float32),
        }
        attrs = {"stride": 1 if i else stride, "padding": kernel // 2, "groups": groups}
        steps.append(
            {
                "op": "conv2d",
                "out": f"sum{i}",
                "args": [last, f"weight{i}", f"bias{i}"],
                "attrs": attrs,
            }
        )
        steps.append({"op": "relu", "out": f"y{i}", "args": [f"sum{i}"], "attrs": {}})
        last = f"y{i}"
    arrays["x"] = random_pictures((1, side, side, c_in))
    gflop = 2 * (-(-side // stride)) ** 2 * int(np.prod(shape)) / 1e9
    if kernel == 1:
        return Case(f"{c_in} to {c_out}, {side}, 1x1", "pointwise", steps, arrays, gflop, times)
    kind = "grouped in a row" if times > 1 else "grouped"
    return Case(
        f"{c_in} x {c_in // groups}, {side}, stride {stride}", kind, steps, arrays, gflop, times
    )


def layers(row: int = 8) -> list[Case]:
    """Return cases for layers of ResNeXt-50: every grouped one, and some of its 1x1 layers.

    Grouped layers that keep the shape come alone and in a row.
    """
    strided = [
        (128, 56, 1),
        (256, 56, 2),
        (256, 28, 1),
        (512, 28, 2),
        (512, 14, 1),
        (1024, 14, 2),
        (1024, 7, 1),
    ]
    found = [layer(c, c, side, 3, stride, 32) for c, side, stride in strided]
    found += [layer(c, c, side, 3, 1, 32, row) for c, side, stride in strided if stride == 1]
    return found + [
        layer(*shape) for shape in ((64, 256, 56), (512, 256, 28), (512, 1024, 14), (2048, 1024, 7))
    ]


def exact(case: Case, images: slice) -> Array:
    """Compute the result for some of the images in float64."""
    return _reference(case, images, np.float64)


def plain(case: Case, images: slice) -> Array:
    """Compute the same in NumPy in the case's precision, as its definition says.

    That is the measure of error where there is no PyTorch, and in less than float32.
    """
    if case.precision == "float32":
        return _reference(case, images, np.float32)
    backend = ops.backend("reference", "float32" if case.quantisation else case.precision)
    x = np.ascontiguousarray(case.arrays["x"][images])
    return Plan(program(case.arrays, case.spec, backend, case.quantisation), x.shape, backend)(x)


def _reference(case: Case, images: slice, dtype: Any) -> Array:
    """Compute the steps with `tinyresnext.ops.reference`."""
    arrays = {name: np.asarray(value, dtype) for name, value in case.arrays.items() if name != "x"}
    x, calls = np.asarray(case.arrays["x"][images], dtype), []
    arrays["x"] = x
    for step in case.steps:  # an empty array of its own stands for each result
        arrays[step["out"]] = np.empty(0)
        calls.append(
            Call(
                step["op"],
                tuple(arrays[name] for name in step["args"]),
                step["attrs"],
                arrays[step["out"]],
            )
        )
    return replay(calls, x, x, reference)[-1]


def write(case: Case, folder: Path) -> None:
    """Write a case for the engines: ``steps.json`` and ``arrays.npz``.

    In another precision also ``network.json``, and in int8 ``graph.onnx``, as ``tinyresnext
    export`` writes it, and ``calibration.npy``.
    """
    folder.mkdir(parents=True)
    if case.precision != "float32":
        scales = case.quantisation and integers.value_of(case.quantisation)
        told = {"precision": case.precision, "spec": case.spec.to_json(), "quantisation": scales}
        (folder / "network.json").write_text(json.dumps(told), "utf-8")
    if case.quantisation is not None:
        n, side, *_ = case.arrays["x"].shape
        params = {name: value for name, value in case.arrays.items() if name != "x"}
        stored = Stored(case.spec, params, Preprocess(side, side), (), {})
        graph = folder / "graph.onnx"
        write_onnx(graph, stored, batch=n, quantisation=case.quantisation)
        np.save(folder / "calibration.npy", calibration(case.spec, side))
    (folder / "steps.json").write_text(json.dumps(case.steps), "utf-8")
    np.savez(folder / "arrays.npz", **case.arrays)
