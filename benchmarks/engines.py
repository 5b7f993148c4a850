"""One engine in its own process, which loads a case, stores its result, and runs on request.

``python engines.py ENGINE THREADS`` reads lines of JSON and answers each with one line: ``{"load":
FOLDER}`` builds the case and writes ``ENGINE.npy`` beside it; ``{"run": N, "of": FOLDER}`` runs it
once to warm up and then N times, which are timed. A case that is loaded takes the place of those
before it, unless the line has ``"more": true``. Between lines the process waits for its standard
input, which costs nothing unless the engine's threads spin. Every answer includes the processor
time that the waiting took.

Only the engine ``tinyresnext`` imports tinyresnext here: the other engines may use another
interpreter.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
# One run; the result is [n, classes], or [n, c, h, w] in the memory layout of the engine.
Run = Callable[[], Array]


def ours(folder: Path, threads: int) -> Run:
    """Build a plan for a network, or one call for a layer.

    Weights are packed, and memory for results is allocated, before the first run.
    """
    import numba

    from tinyresnext.network.plan import Plan, Program
    from tinyresnext.network.rewrite import folded, for_inference
    from tinyresnext.network.tape import Call
    from tinyresnext.ops import cpu

    numba.set_num_threads(threads)
    steps, arrays = _read(folder)
    values: dict[str, Any] = dict(arrays)
    calls = []
    for step in steps:
        out = values[step["out"]] = np.empty(0)
        calls.append(
            Call(
                step["op"],
                tuple(values[name] for name in step["args"]),
                step["attrs"],
                out,
                step["out"],
            )
        )
    x = arrays["x"]
    calls = [folded(call) for call in for_inference(calls)]
    made = {id(call.out) for call in calls} | {id(x)}

    def place(call: Call) -> Call:
        first, *rest = (a if id(a) in made else cpu.upload(a) for a in call.args)
        packed = (
            [cpu.pack(rest[0], call.attrs["groups"]), *rest[1:]] if call.op == "conv2d" else rest
        )
        return Call(call.op, (first, *packed), call.attrs, call.out, call.name, call.fused)

    placed = [place(call) for call in calls]
    if all(call.op == "conv2d" for call in placed):
        return _row(placed, x)
    plan = Plan(Program(x, tuple(placed)), x.shape, cpu, threads=threads)
    return lambda: plan(x)


def _row(calls: list[Any], x: Array) -> Run:
    """Bind convolutions, one after the other, to the memory they read and write, as a plan does."""
    from tinyresnext.ops import cpu, shapes

    bound, value = [], cpu.upload(x)
    for call in calls:
        out = cpu.empty(shapes.conv2d(value, *call.args[1:], **call.attrs))
        bound.append(cpu.bind("conv2d", value, *call.args[1:], **call.attrs, out=out))
        value = out
    run_all = cpu.chain(bound)

    def run() -> Array:
        run_all()
        return value.transpose(0, 3, 1, 2)

    return run


def onnx_runtime(folder: Path, threads: int) -> Run:
    """Build a session with all optimisations, its input and output bound to allocated memory."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.graph_optimization_level = (
        threads,
        ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    )
    session = ort.InferenceSession(
        str(folder / "graph.onnx"), options, providers=["CPUExecutionProvider"]
    )
    x = ort.OrtValue.ortvalue_from_numpy(_nchw(_read(folder)[1]["x"]))
    binding, name = session.io_binding(), session.get_outputs()[0].name
    binding.bind_ortvalue_input("x", x)
    y = session.run(None, {"x": x.numpy()})[0]
    kept = ort.OrtValue.ortvalue_from_numpy(y)
    binding.bind_ortvalue_output(name, kept)

    def run() -> Array:
        session.run_with_iobinding(binding)
        return kept.numpy()

    return run


def openvino(folder: Path, threads: int) -> Run:
    """Build a request for low latency, in float32 like all engines.

    By default OpenVINO uses bfloat16 where the processor has it.
    """
    import openvino as ov

    core = ov.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(str(folder / "graph.onnx")), "CPU", hints)
    request = compiled.create_infer_request()
    tensor = ov.Tensor(_nchw(_read(folder)[1]["x"]))  # a copy
    request.set_input_tensor(tensor)

    def run() -> Array:
        request.infer()
        return request.get_output_tensor().data

    return run


def torch(folder: Path, threads: int, mode: str, channels_last: bool) -> Run:
    """Build a PyTorch module: eager, a frozen TorchScript, or compiled with freezing."""
    import torch as pt
    from torch_module import Network

    pt.set_num_threads(threads)
    steps, arrays = _read(folder)
    x = pt.from_numpy(_nchw(arrays["x"]))
    network = Network(steps, arrays).eval()
    if channels_last:
        x, network = (
            x.to(memory_format=pt.channels_last),
            network.to(memory_format=pt.channels_last),
        )
    with pt.no_grad():
        if mode == "frozen":
            network = pt.jit.optimize_for_inference(pt.jit.freeze(pt.jit.trace(network, x)))
        elif mode == "compile":
            from torch import _dynamo
            from torch._inductor import config

            _dynamo.reset()
            config.freezing = True
            network = pt.compile(network)
    without_gradients = pt.no_grad if mode == "compile" else pt.inference_mode

    def run() -> Array:
        with without_gradients():
            return network(x).numpy()

    return run


# For each engine, the package it needs and the function that builds it.
ENGINES: dict[str, tuple[str, Callable[[Path, int], Run]]] = {
    "tinyresnext": ("numba", ours),
    "pytorch eager": ("torch", lambda folder, threads: torch(folder, threads, "eager", False)),
    "pytorch eager, channels last": (
        "torch",
        lambda folder, threads: torch(folder, threads, "eager", True),
    ),
    "pytorch frozen": ("torch", lambda folder, threads: torch(folder, threads, "frozen", False)),
    "pytorch frozen, channels last": (
        "torch",
        lambda folder, threads: torch(folder, threads, "frozen", True),
    ),
    "pytorch compile": ("torch", lambda folder, threads: torch(folder, threads, "compile", False)),
    "onnx runtime": ("onnxruntime", onnx_runtime),
    "openvino": ("openvino", openvino),
}


def _read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Read the steps and the arrays of a case."""
    with np.load(folder / "arrays.npz") as found:
        return json.loads((folder / "steps.json").read_text("utf-8")), dict(found)


def _nchw(x: Array) -> Array:
    """Return the input in the layout of the other engines."""
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def serve(engine: str, threads: int) -> None:
    """Answer requests until the input ends."""
    runs: dict[str, Run] = {}
    answers, sys.stdout = (
        sys.stdout,
        sys.stderr,
    )  # the output of an engine must not mix with answers
    idle = time.process_time()
    for line in sys.stdin:
        asleep = {"burned": time.process_time() - idle}
        asked, answer = json.loads(line), {}
        try:
            if "load" in asked:
                if not asked.get("more"):
                    runs.clear()  # releases the memory of the cases before
                run = runs[asked["load"]] = ENGINES[engine][1](Path(asked["load"]), threads)
                run()
                start = time.perf_counter()
                y = run()
                answer = {"seconds": time.perf_counter() - start}
                np.save(Path(asked["load"]) / f"{engine}.npy", np.asarray(y))
            else:
                run = runs[asked["of"]]
                run()
                answer["times"] = []
                for _ in range(asked["run"]):
                    start = time.perf_counter()
                    run()
                    answer["times"].append(time.perf_counter() - start)
        except Exception as error:  # an engine that fails is reported and left out
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        idle = time.process_time()
        print(json.dumps(answer | asleep), file=answers, flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
