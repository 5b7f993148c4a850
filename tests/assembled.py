"""What NVIDIA's assembler makes of the GPU backend's kernels, kept in ``assembled.json``.

`tests/test_emulator_assembler.py` compares. Where a change is meant, this writes the file anew:

    PYTHONPATH=. python tests/assembled.py
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

from tinyresnext.emulator.assembler import Assembled, assemble_ptx
from tinyresnext.ops import cuda
from tinyresnext.ops.cuda.conv import gemm, grouped, outer
from tinyresnext.ops.cuda.runtime.kernel import Capability, Kernel, bfloats, floats, halves, octets
from tinyresnext.ops.cuda.tensor import product as tensor
from tinyresnext.ops.cuda.tensor.integer import grouped as narrow
from tinyresnext.ops.cuda.tensor.integer import product as integers
from tinyresnext.ops.cuda.tensor.integer.ends import BYTES, REAL, SUMS

TABLE = Path(__file__).parent / "assembled.json"
PROCESSORS: tuple[Capability, ...] = ((7, 5), (8, 0), (9, 0))
EACH = [(), (halves,), (bfloats,)]  # of kernels for values of each type
# Of kernels that are made for sizes: those that a ResNeXt uses, and one for arrays that do not
# begin at a multiple of 16 bytes.
SIZES: dict[str, list[tuple[Any, ...]]] = {
    "gemm_kernel": [(tile, point) for tile in gemm.TILES for point in (True, False)],
    "outer_kernel": [(tile, point) for tile in outer.TILES for point in (True, False)],
    "grouped_kernel": [
        *(
            (3, 3, s, grouped.columns_of(s), a, *kind)
            for s, a in ((1, 16), (2, 16), (1, 4))
            for kind in EACH
        ),
        # The gradient of an image by a 3x3 with a stride of two: places are of four kinds.
        *((k_h, k_w, 1, grouped.columns_of(1), 16) for k_h in (1, 2) for k_w in (1, 2)),
    ],
    "tensor_kernel": [
        *((tile, point) for tile in tensor.TILES for point in (True, False)),
        *((tile, False, bfloats, bfloats) for tile in tensor.TILES),
        (tensor.Tile(64, 32, 16), True, bfloats, bfloats),
        *((tensor.Tile(64, 32, 16), True, of, floats) for of in (halves, bfloats)),  # logits
    ],
    "grouped_outer_kernel": [
        (3, s, grouped.columns_of(s), a) for s, a in ((1, 16), (2, 16), (1, 4))
    ],
    "dot_kernel": [
        (tile, point, signed, end)
        for tile, point, signed, end in zip(
            integers.TILES, (False, True, False), (0, 1, 0), (BYTES, REAL, SUMS), strict=True
        )
    ],
    "grouped_dot_kernel": [(3, 3, s, 4, s - 1, BYTES) for s in (1, 2)],
    "ended_kernel": [(BYTES,)],
    "pairs_kernel": [(halves,), (bfloats,)],
    "dots_kernel": [(), (halves, halves), (bfloats, bfloats)],
    "join_few_kernel": [(4,), (1,)],
    "copy_kernel": [(), *((floats, kind) for kind in (halves, bfloats)), (halves, floats)],
    **dict.fromkeys(
        (
            "relu_kernel",
            "add_kernel",
            "normalise_kernel",
            "maximum_kernel",
            "average_kernel",
            "excite_kernel",
            "blur_kernel",
            "split_kernel",
            "join_kernel",
            "rows_kernel",
        ),
        EACH,
    ),
    "mean_kernel": EACH,
    "widen_kernel": [*EACH, (octets,)],
    "narrow_kernel": EACH,
    "norms_kernel": [(False,), (True,)],
    "columns_kernel": [(False,), (True,)],
    "slabs_kernel": [(False,), (True,)],
}

# All that a launcher can ask for, of kernels that are made for sizes and of pairs of types.
SIDES, FLAGS = range(1, grouped.TAPS + 1), (False, True)
STRIDES = [(s if grouped.columns_of(s) > 1 else 1, grouped.columns_of(s)) for s in (1, 2, 3)]
TYPES = (floats, halves, bfloats)
ALL: dict[str, list[tuple[Any, ...]]] = {
    **SIZES,
    "grouped_kernel": [
        (k_h, k_w, *stride, align, kind)
        for k_h, k_w, stride, align, kind in product(SIDES, SIDES, STRIDES, (16, 4), TYPES)
    ],
    "grouped_outer_kernel": [
        (k_w, *stride, align) for k_w, stride, align in product(SIDES, STRIDES, (16, 4))
    ],
    "tensor_kernel": [
        (tile, point, of, to)
        for tile, point, of in product(tensor.TILES, FLAGS, (halves, bfloats))
        for to in (of, floats)
    ],
    "dot_kernel": list(product(integers.TILES, FLAGS, (0, 1), (BYTES, REAL, SUMS))),
    "grouped_dot_kernel": [
        (k_h, k_w, *stride, signed, end)
        for k_h, k_w, stride, signed, end in product(
            SIDES, SIDES, ((1, narrow.COLUMNS), (2, narrow.COLUMNS), (1, 1)), (0, 1), (BYTES, REAL)
        )
    ],
    "ended_kernel": [(REAL,)],
    "dots_kernel": list(product(TYPES, TYPES)),
    "copy_kernel": [*product(TYPES, TYPES), (octets, octets)],
}


def kernels(sizes: dict[str, list[tuple[Any, ...]]] = SIZES) -> list[Kernel]:
    """Return every kernel of the backend: what a module calls ``..._kernel`` returns one."""
    found: dict[str, Kernel] = {}
    for info in pkgutil.walk_packages(cuda.__path__, f"{cuda.__name__}."):
        for name, factory in vars(import_module(info.name)).items():
            if name.endswith("_kernel") and hasattr(factory, "cache_info"):
                made = sizes.get(name, [()]) if inspect.signature(factory).parameters else [()]
                for one in made:
                    kernel = factory(*one)
                    found[kernel.name] = kernel
    return [found[name] for name in sorted(found)]


def of_bfloat16(kernel: Kernel) -> bool:
    """Return whether a kernel reads or writes bfloat16; the logits' one takes it as words."""
    return bfloats in kernel.parameters or kernel.name.endswith("_b_f")


def cases() -> list[tuple[Kernel, Capability]]:
    """Return every kernel for every processor, those of bfloat16 for the first that has it."""
    return [
        (kernel, processor)
        for kernel in kernels()
        for processor in PROCESSORS
        if processor == cuda.BFLOAT16 or not of_bfloat16(kernel)
    ]


def others() -> list[tuple[Kernel, Capability]]:
    """Return what can run besides `cases`: other sizes and types, and bfloat16 on a newer GPU.

    For the last processor it is the latter only; of other sizes its PTX is that of the one before.
    """
    there, tabled = {key(*case) for case in cases()}, {kernel.name for kernel in kernels()}
    return [
        (kernel, processor)
        for kernel in kernels(ALL)
        for processor in PROCESSORS
        if key(kernel, processor) not in there
        and (processor != PROCESSORS[-1] or kernel.name in tabled)
        and (processor >= cuda.BFLOAT16 or not of_bfloat16(kernel))
    ]


def key(kernel: Kernel, processor: Capability) -> str:
    """Return the name of a kernel for a processor in the table."""
    return "{} sm_{}{}".format(kernel.name, *processor)


def entry(made: Assembled) -> dict[str, int]:
    """Return what the table keeps; the share is in percent."""
    return {
        "registers": made.registers,
        "shared": made.shared,
        "ffma": round(100 * made.share),
    }


def write() -> None:
    """Assemble everything and write the table."""
    wanted = cases()
    with ThreadPoolExecutor(2) as pool:
        texts = [kernel.ptx(processor) for kernel, processor in wanted]
        made = pool.map(assemble_ptx, texts, [processor for _, processor in wanted])
        table = {key(*one): entry(result) for one, result in zip(wanted, made, strict=True)}
    lines = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(table.items()))
    TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    print(f"wrote {len(table)} rows to {TABLE}", file=sys.stderr)


if __name__ == "__main__":
    write()
