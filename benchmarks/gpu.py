"""Everything that a GPU machine should say about this project, in at most eight minutes.

``python benchmarks/gpu.py OUT`` runs each part in a process of its own, with a time limit, and
writes ``OUT/NAME.json`` as soon as a part is done, so that a machine that is taken away has told
what it could: what the machine is, the tests on the GPU, the speed of whole networks and layers,
the rungs of the ladder, a step of training, the figures of PyTorch and of ONNX Runtime beside them
where these are installed, and a run of training.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

NETWORK, SIDE = "resnext50_32x4d", 224
BATCHES, TRAINED = (1, 32, 256), 64  # images at a time, and those of a step of training
REPEATS = 20
CUDA = "CUDAExecutionProvider"
LR, MOMENTUM, DECAY = 0.02, 0.9, 5e-4
# The parts, and how many seconds each may take.
LIMITS = {
    "machine": 30, "tests": 150, "speed": 70, "ladder": 25, "step": 45, "peer": 75, "runtime": 30,
    "run": 55,
}  # fmt: skip


def medians(run: Callable[[], Any], wait: Callable[[], Any], repeats: int = REPEATS) -> Any:
    """Return the median and the shortest time of a call in milliseconds, after three warm ones."""
    for _ in range(3):
        run()
    wait()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        wait()
        found.append(1e3 * (time.perf_counter() - start))
    return {"median_ms": median(found), "min_ms": min(found)}


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, SIDE, SIDE, 3)).astype(np.float32)


# --- parts ----------------------------------------------------------------------------------------


def machine(folder: Path) -> Any:
    """Say what computes, and which packages compile for it."""
    from importlib import metadata

    from tinyresnext.ops import backend

    packages = (
        "numpy",
        "numba",
        "numba-cuda",
        "nvidia-nvvm",
        "nvidia-cuda-nvcc",
        "torch",
        "onnxruntime-gpu",
    )
    found: dict[str, Any] = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    start = time.perf_counter()
    ops = backend("cuda")
    opened = time.perf_counter() - start
    query = ["nvidia-smi", "--query-gpu=name,driver_version,clocks.max.sm,power.limit"]
    told = ""
    if shutil.which(query[0]):
        query.append("--format=csv,noheader")
        told = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return {
        "device": ops.described(),
        "capability": ops.machine.capability,
        "multiprocessors": ops.machine.multiprocessors,
        "free_bytes": ops.machine.free_bytes(),
        "seconds_to_open": opened,
        "nvidia_smi": told,
        "packages": found,
        "limits": ops.peak([1])[0]._asdict(),
    }


def tests(folder: Path) -> Any:
    """Run the tests that need a GPU; the most important first, as long as the time lasts."""
    log = folder / "tests.log"
    names = "gpu ops cuda_half backward ops_contract"
    files = [f"tests/test_{name}.py" for name in names.split()]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    started = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        needed = {**os.environ, "TINYRESNEXT_GPU": "needed"}
        done = subprocess.run([*command, *files], cwd=ROOT, stdout=file, stderr=file, env=needed)
    text = log.read_text("utf-8", "replace")
    failed = re.findall(r"^FAILED (\S+)(?: - (.*))?$", text, re.MULTILINE)
    return {
        "exit": done.returncode,
        "seconds": time.perf_counter() - started,
        "summary": text.strip().splitlines()[-1] if text.strip() else "",
        "failed": [{"test": test, "why": why} for test, why in failed],
    }


def speed(folder: Path) -> Any:
    """Time whole networks and their steps."""
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.network.spec import variant
    from tinyresnext.ops import backend

    ops, spec = backend("cuda"), variant(NETWORK)
    start = time.perf_counter()
    made = program(random_parameters(spec), spec, ops)
    rows = []
    for batch in BATCHES:
        x, plan = images(batch), Plan(made, (batch, SIDE, SIDE, 3), ops)
        plan(x)
        row = {"batch": batch, "at_once": plan.at_once, "bytes": plan.bytes}
        if batch == BATCHES[0]:
            row["seconds_to_first_result"] = time.perf_counter() - start
        row["with_copies"] = medians(lambda plan=plan, x=x: plan(x), ops.wait)
        row["network"] = medians(plan._run, ops.wait)
        profile = plan.profile(x, 5)
        row["layers"] = [
            {"name": call.name, "op": call.op, "shape": list(shape), "ms": 1e3 * seconds}
            for call, shape, seconds in zip(plan.calls, plan.shapes, profile.seconds, strict=True)
        ]
        rows.append(row)
        write(folder, "speed", {"model": NETWORK, "rows": rows})
    return {"model": NETWORK, "rows": rows}


def ladder(folder: Path) -> Any:
    """Time each rung of a matrix product, as a share of the measured peak."""
    module = runpy.run_path(str(HERE / "ladder_cuda" / "__main__.py"))
    layer = module["Layer"](*module["LARGE"])
    return {"layer": layer._asdict(), "rows": module["measure"]("cuda", layer)}


def step(folder: Path) -> Any:
    """Time a step of training: loss, gradients, SGD, running statistics."""
    from tinyresnext.network.spec import variant
    from tinyresnext.network.step import Step
    from tinyresnext.ops import backend
    from tinyresnext.training.initial import initialise
    from tinyresnext.training.optimisers.sgd import sgd
    from tinyresnext.training.optimisers.statistics import update_statistics
    from tinyresnext.training.recipes.optimiser import Optimiser
    from tinyresnext.training.recipes.parts import Start
    from tinyresnext.training.weights import size, upload, views

    ops, spec = backend("cuda"), variant(NETWORK)
    values = np.zeros(size(spec), np.float32)
    initialise(views(values, spec), Start(), 0)
    there = upload(ops, spec, values, np.zeros_like(values), None)
    compute = Step(there.params, spec, (TRAINED, SIDE, SIDE, 3), ops)
    how = Optimiser(nesterov=True, momentum=MOMENTUM, weight_decay=DECAY)
    x, labels, losses = images(TRAINED), np.arange(TRAINED) % spec.classes, []

    def run() -> None:
        loss, _ = compute(x, labels)
        sgd(ops, there.params, compute.gradients, there.velocities, how, LR)
        update_statistics(ops, there.params, compute.statistics, compute.positions)
        losses.append(loss)

    found = medians(run, ops.wait, 8)
    rate = 1e3 * TRAINED / found["median_ms"]
    return {
        "model": NETWORK, "batch": TRAINED, "bytes": compute.bytes, "losses": losses,
        "images_per_second": rate, **found,
    }  # fmt: skip


def peer(folder: Path) -> Any:
    """Time the same network in PyTorch, in float32 without and with TensorFloat-32."""
    try:
        import torch
    except ImportError:
        return {"absent": "PyTorch is not installed"}
    if not torch.cuda.is_available():
        return {"absent": "this PyTorch has no CUDA"}
    torch.backends.cudnn.benchmark = True
    try:
        from torchvision.models import resnext50_32x4d
    except ImportError:
        return {"absent": "torchvision is not installed"}
    rows = []
    for tf32, last in product((False, True), (False, True)):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        layout = torch.channels_last if last else torch.contiguous_format
        net = resnext50_32x4d().cuda().eval().to(memory_format=layout)
        for batch in BATCHES:
            x = torch.randn(batch, 3, SIDE, SIDE, device="cuda").to(memory_format=layout)
            with torch.inference_mode():
                found = medians(lambda net=net, x=x: net(x), torch.cuda.synchronize, 10)
            rows.append({"batch": batch, "tf32": tf32, "channels_last": last, **found})
            write(folder, "peer", {"torch": torch.__version__, "rows": rows})
        net.train()
        x = torch.randn(TRAINED, 3, SIDE, SIDE, device="cuda").to(memory_format=layout)
        labels = torch.arange(TRAINED, device="cuda") % 1000
        optimiser = torch.optim.SGD(
            net.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=True
        )

        def train(net=net, x=x, labels=labels, optimiser=optimiser) -> None:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(x), labels).backward()
            optimiser.step()

        found = medians(train, torch.cuda.synchronize, 8)
        rate = 1e3 * TRAINED / found["median_ms"]
        rows.append(
            {
                "training": TRAINED,
                "tf32": tf32,
                "channels_last": last,
                "images_per_second": rate,
                **found,
            }
        )
    return {"torch": torch.__version__, "rows": rows}


def runtime(folder: Path) -> Any:
    """Time a network with the same weights in ONNX Runtime, without and with TensorFloat-32."""
    try:
        import onnxruntime
    except ImportError:
        return {"absent": "ONNX Runtime is not installed"}
    if CUDA not in onnxruntime.get_available_providers():
        return {"absent": "this ONNX Runtime has no CUDA: onnxruntime-gpu has"}
    from tinyresnext.bench.inputs import random_parameters
    from tinyresnext.network.plan import Plan, program
    from tinyresnext.network.spec import variant
    from tinyresnext.ops import backend

    ops, spec = backend("cuda"), variant(NETWORK)
    params, shape = random_parameters(spec), (BATCHES[0], SIDE, SIDE, 3)
    own = Plan(program(params, spec, ops), shape, ops)(images(BATCHES[0]))
    graph, rows = folder / "runtime.onnx", []
    write_graph(graph, spec, params)
    for tf32 in (False, True):
        chosen = [(CUDA, {"use_tf32": int(tf32), "cudnn_conv_algo_search": "EXHAUSTIVE"})]
        for row in sessions(onnxruntime, graph, chosen, "cuda", own):
            rows.append({"tf32": tf32, **row})
            write(folder, "runtime", {"onnxruntime": onnxruntime.__version__, "rows": rows})
    graph.unlink()
    return {"onnxruntime": onnxruntime.__version__, "rows": rows}


def write_graph(path: Path, spec: Any, params: Any) -> None:
    """Export a network as an ONNX graph, with its batch norms folded as in a plan."""
    from tinyresnext.checkpoints.onnx.write import write_onnx
    from tinyresnext.images.preprocess import Preprocess
    from tinyresnext.store.contents import Stored

    labels = tuple(map(str, range(spec.classes)))
    write_onnx(path, Stored(spec, params, Preprocess(crop=SIDE), labels, {}), fold=True)


def sessions(
    package: Any, graph: Path, providers: list[Any], device: str, own: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yield the time of each mini-batch, and how far the logits of one are from ``own``."""
    session = package.InferenceSession(str(graph), providers=providers)
    first = providers[0] if isinstance(providers[0], str) else providers[0][0]
    if session.get_providers()[0] != first:  # it goes on with the processor, and only warns
        yield {"absent": f"{first} does not start; runtime.txt has its warning"}
        return
    for batch in BATCHES:
        x = np.ascontiguousarray(images(batch).transpose(0, 3, 1, 2))
        binding = session.io_binding()
        binding.bind_ortvalue_input("images", package.OrtValue.ortvalue_from_numpy(x, device, 0))
        binding.bind_output("logits", device)

        def compute(binding: Any = binding) -> None:
            session.run_with_iobinding(binding)

        row: dict[str, Any] = {"batch": batch}
        row |= medians(compute, binding.synchronize_outputs, 10)
        if batch == BATCHES[0]:
            found = binding.copy_outputs_to_cpu()[0]
            row["relative_difference"] = float(np.abs(found - own).max() / np.abs(own).max())
        yield row


def run(folder: Path) -> Any:
    """Train a small network on images that are made here, and say how far it came."""
    from tinyresnext import cifar, recipe
    from tinyresnext.data.dataset import Dataset
    from tinyresnext.training.train import train

    rng, count = np.random.default_rng(0), 10_000
    labels = rng.integers(0, 10, count)
    marks = rng.integers(0, 256, (10, 8, 8, 3))  # of each class, somewhere in an image of noise
    pixels = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    for image, label, (y, x) in zip(pixels, labels, rng.integers(0, 25, (count, 2)), strict=True):
        image[y : y + 8, x : x + 8] = marks[label]
    names, classes = [f"{i}.png" for i in range(count)], tuple("abcdefghij")
    half = count // 2

    def part(first: int, last: int) -> Dataset:
        return Dataset(
            classes, labels[first:last], names[first:last],
            lambda i: pixels[first + i], pixels=pixels[first:last],
        )  # fmt: skip

    out = folder / "trained"
    started = time.perf_counter()
    train(
        cifar(20, 8, 4), part(0, half), recipe("fast-cifar", epochs=4), out,
        validation=part(half, half + 1000), device="cuda",
    )  # fmt: skip
    lines = (out / "log.jsonl").read_text("utf-8").splitlines()
    return {"seconds": time.perf_counter() - started, "epochs": [json.loads(one) for one in lines]}


# --- all of them ----------------------------------------------------------------------------------


def write(folder: Path, name: str, found: Any) -> None:
    (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def all_parts(folder: Path, parts: list[str]) -> int:
    """Run parts, each in its own process; return 1 if one failed."""
    worst = 0
    for name in parts:
        print(f"{time.strftime('%X')} {name}", flush=True)
        command = [sys.executable, __file__, str(folder), "--only", name]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with open(folder / f"{name}.txt", "w", encoding="utf-8") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
            try:
                code = process.wait(LIMITS[name])
            except subprocess.TimeoutExpired:
                process.kill()
                code = process.wait()
                said.write(f"\nstopped after {LIMITS[name]} s\n")
        if code:
            worst = 1
            print((folder / f"{name}.txt").read_text("utf-8", "replace")[-1500:], flush=True)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder for the results")
    parser.add_argument("--only", choices=LIMITS, help="one part, in this process")
    parser.add_argument("--parts", nargs="+", choices=LIMITS, default=list(LIMITS))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    if a.only is None:
        return all_parts(a.out, a.parts)
    found = globals()[a.only](a.out)
    write(a.out, a.only, found)
    return int(a.only == "tests" and found["exit"] not in (0, 5))


if __name__ == "__main__":
    sys.exit(main())
