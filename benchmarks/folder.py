"""Measure a folder of JPEGs end to end: ours, the bare network, and a PyTorch DataLoader, in turn.

``python benchmarks/folder.py --python PYTHON`` makes the folder from the photographs of the tests,
in several sizes, and takes about a quarter of an hour on two cores that do nothing else; ``--images
200 --rounds 3`` takes a minute or two. It prints one JSON object.

A run goes in rounds, each over a part of the images. ``ours`` is `classify` as the command runs it,
over all images of the round. The other sides work on a fifth of them: ``bare`` computes the network
on prepared mini-batches and nothing else, ``decode`` prepares images on all cores and computes
nothing, and ``loader N`` is a DataLoader with N workers and the same network, channels last. So
what slows the machine slows all. Medians over rounds are reported; the first round is for warming
up and does not count. Resident memory is read after every round of ``ours``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
PHOTOGRAPHS = HERE.parent / "tests" / "data"
SIZES = ((500, 375), (640, 480), (1024, 768), (375, 500), (1600, 1200))
WORKERS = (0, 1, 2)
SHARE = 5  # the other sides see one image in so many, so that a run takes a third of the time


def make(folder: Path, count: int) -> list[str]:
    """Write JPEGs of several sizes, no two alike, and return their names."""
    from PIL import Image

    sources = [Image.open(one).convert("RGB") for one in sorted(PHOTOGRAPHS.rglob("*.jpg"))]
    names = []
    for i in range(count):
        image, size = sources[i % len(sources)], SIZES[i % len(SIZES)]
        cut = i // len(SIZES) % 40  # pixels off the left and the top
        part = image.resize(size, box=(cut, cut, image.width, image.height))
        names.append(str(folder / f"{i:06}.jpg"))
        part.save(names[-1], quality=90)
    return names


def ours(arch: str, batch: int, threads: int) -> dict[str, Callable[[list[str]], None]]:
    """Return what this package does with a list of images: all of it, and its parts."""
    import numpy as np

    import tinyresnext as tr
    from tinyresnext.bench.inputs import random_parameters, random_pictures
    from tinyresnext.inference.classify import classify
    from tinyresnext.ops import backend

    spec, labels = tr.variant(arch), tuple(map(str, range(1000)))
    params = random_parameters(spec)
    model = tr.Model(spec, params, tr.Preprocess(), labels, {}, backend("cpu"), threads)
    x = random_pictures((batch, 224, 224, 3))

    def bare(paths: list[str]) -> None:
        for first in range(0, len(paths), batch):
            model(np.ascontiguousarray(x[: len(paths) - first]))

    def decode(paths: list[str]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda path: tr.prepare(path, model.preprocess).sum(), paths):
                pass

    def whole(paths: list[str]) -> None:
        failed = [row.error for row in classify(model, paths, batch=batch) if row.error]
        assert not failed, failed[0]

    return {"bare": bare, "decode": decode, "ours": whole}


def peer(arch: str, batch: int, threads: int) -> None:
    """Answer each line of standard input, workers and paths as JSON, with seconds: a process."""
    import torch
    import workloads
    from PIL import Image
    from torch_module import Network

    case = workloads.model(arch, 1)
    torch.set_num_threads(threads)
    network = Network(case.steps, case.arrays).eval().to(memory_format=torch.channels_last)

    class Files(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __init__(self, paths: list[str]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, i: int) -> Any:
            import numpy as np

            image = Image.open(self.paths[i]).convert("RGB")
            scale = 256 / min(image.size)
            image = image.resize(
                (round(image.width * scale), round(image.height * scale)),
                Image.Resampling.BILINEAR,
            )
            left, top = (image.width - 224) // 2, (image.height - 224) // 2
            x = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
            x = (x - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
            return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))

    for line in sys.stdin:
        asked = json.loads(line)
        start = time.perf_counter()
        loader = torch.utils.data.DataLoader(
            Files(asked["paths"]), batch_size=batch, num_workers=asked["workers"]
        )
        with torch.inference_mode():
            for x in loader:
                network(x.to(memory_format=torch.channels_last)).softmax(1).topk(5)
        print(json.dumps(time.perf_counter() - start), flush=True)


def resident() -> float:
    """Return the resident memory of this process now, in MiB; its peak where Linux is not."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--arch", default="resnext50_32x4d")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", help="an interpreter that has PyTorch; without, no DataLoader")
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.peer:
        return peer(a.arch, a.batch, a.threads)
    sides = ours(a.arch, a.batch, a.threads)
    process = None
    if a.python:
        words = [a.python, __file__, "--peer", "--arch", a.arch, "--batch", str(a.batch)]
        words += ["--threads", str(a.threads)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    speeds: dict[str, list[float]] = {}
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), a.images)
        part = len(paths) // (a.rounds + 1)
        for number in range(a.rounds + 1):
            own = paths[number * part : (number + 1) * part]
            few = own[: len(own) // SHARE]
            for name, run in sides.items():
                seen = own if name == "ours" else few
                start = time.perf_counter()
                run(seen)
                speeds.setdefault(name, []).append(len(seen) / (time.perf_counter() - start))
                memory += [resident()] if name == "ours" else []
            for workers in WORKERS if process else ():
                assert process is not None
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps({"workers": workers, "paths": few}) + "\n")
                process.stdin.flush()
                seconds = json.loads(process.stdout.readline())
                speeds.setdefault(f"loader {workers}", []).append(len(few) / seconds)
    if process is not None:
        process.communicate()
    found = {name: median(each[1:]) for name, each in speeds.items()}
    # If decoding and network shared the same cores perfectly, an image would take both times.
    shared = 1 / (1 / found["bare"] + 1 / found["decode"])
    result = {
        "images": a.images,
        "arch": a.arch,
        "threads": a.threads,
        "batch": a.batch,
        "images_per_second": {name: round(value, 2) for name, value in found.items()},
        "ours_of_bare": round(found["ours"] / found["bare"], 3),
        "ours_of_both_on_the_same_cores": round(found["ours"] / shared, 3),
        "memory_mib": [round(value, 1) for value in memory],
        "memory_growth_mib": round(max(memory[1:]) - memory[1], 1),
    }
    if process is not None:
        best = max(value for name, value in found.items() if name.startswith("loader"))
        result["ours_of_loader"] = round(found["ours"] / best, 3)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
