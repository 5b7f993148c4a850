"""A case as an ONNX graph, one node a step, for ONNX Runtime and OpenVINO. Needs ``onnx``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write(folder: Path, name: str = "graph.onnx") -> None:
    """Write the graph of ``steps.json`` and ``arrays.npz`` beside them, for their input shape.

    One that is there already is left: that of a quantised network.
    """
    if (folder / name).exists():
        return
    steps = json.loads((folder / "steps.json").read_text("utf-8"))
    with np.load(folder / "arrays.npz") as found:
        arrays = dict(found)
    n, h, w, c = arrays.pop("x").shape
    used = {name for step in steps for name in step["args"]}
    weights = [
        numpy_helper.from_array(value, name) for name, value in arrays.items() if name in used
    ]
    nodes = [node for step in steps for node in _nodes(step, arrays)]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, c, h, w])]
    outputs = [helper.make_tensor_value_info(steps[-1]["out"], TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "case", inputs, outputs, weights)
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        str(folder / name),
    )


def _nodes(step: dict[str, Any], arrays: dict[str, np.ndarray]) -> list[Any]:
    """Return the nodes of one step."""
    op, out, args, a = step["op"], step["out"], step["args"], step["attrs"]
    p, s = a.get("padding", 0), a.get("stride", 1)
    if op == "conv2d":
        kernel = list(arrays[args[1]].shape[2:])
        more = {
            "kernel_shape": kernel,
            "pads": [p] * 4,
            "strides": [s] * 2,
            "group": a.get("groups", 1),
        }
        return [helper.make_node("Conv", args, [out], **more)]
    if op == "batch_norm":
        return [helper.make_node("BatchNormalization", args, [out], epsilon=a["eps"])]
    if op in ("relu", "add"):
        return [helper.make_node({"relu": "Relu", "add": "Add"}[op], args, [out])]
    if op == "max_pool2d":
        return [
            helper.make_node(
                "MaxPool", args, [out], kernel_shape=[a["size"]] * 2, pads=[p] * 4, strides=[s] * 2
            )
        ]
    if op == "mean_pool":
        return [
            helper.make_node("GlobalAveragePool", args, [out + "mean"]),
            helper.make_node("Flatten", [out + "mean"], [out]),
        ]
    if op == "linear":
        return [helper.make_node("Gemm", args, [out], transB=1)]
    raise ValueError(f"there is no ONNX node for {op!r} here")


# python graph.py FOLDER ...: `peers` starts this in an interpreter that has onnx.
if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
