"""The kernels compiled for another processor: other vectors, other register tiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.registry import cpu_target

from tinyresnext.ops.cpu.runtime.simd import Machine

HERE = Path(__file__).parent
HOST = (
    set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
    if not numba.config.DISABLE_JIT
    else set()
)
X86 = not numba.config.DISABLE_JIT and cpu_target.target_context.codegen().magic_tuple()[
    0
].startswith("x86_64")
SSE2 = "+64bit,+cmov,+cx8,+fxsr,+mmx,+sse,+sse2"
AVX2 = (
    f"{SSE2},+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+sahf,+xsave,+avx,+avx2,+fma,+f16c,+bmi,"
    "+bmi2,+lzcnt,+movbe"
)
# Name, features, what the tiles are made for, registers that its code has and such as it must not
# have.
PROCESSORS = {
    "haswell": ("haswell", AVX2, Machine(8, 16, 3), "%ymm", "%zmm"),
    "any x86-64": ("x86-64", SSE2, Machine(4, 16, 3), "%xmm", "%ymm"),
}
CHILD = """
import sys
import pytest
from tinyresnext.ops.cpu.conv import dense
from tinyresnext.ops.cpu.runtime import simd

print(tuple(simd.machine()), flush=True)
text = dense.blocks.c_function._library.get_asm_str()
print(sys.argv[1] in text, sys.argv[2] in text, "fmadd" in text, flush=True)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[3:]]))
"""


@pytest.mark.skipif(
    not X86,
    reason="x86-64 only: on other processors there is nothing to forget, or nothing is compiled",
)
@pytest.mark.slow
@pytest.mark.parametrize("which", PROCESSORS)
def test_the_ops_on_an_older_processor(which, tmp_path):
    name, features, machine, its_own, newer = PROCESSORS[which]
    missing = [feature for feature in features.split(",") if feature not in HOST]
    if missing:
        pytest.skip(f"this processor is older still: it has no {', '.join(missing)}")
    env = os.environ | {
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "TINYRESNEXT_HOME": str(tmp_path),
    }
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    names = ("ops", "bfloat16", "integer_ops", "tiny")
    tests = [str(HERE / f"test_{name}.py") for name in names]
    tests.append(f"{HERE / 'test_bfloat16_training.py'}::test_conv2d")
    command = [sys.executable, "-c", CHILD, its_own, newer, *tests]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=env, cwd=HERE.parent
    )
    said = done.stdout.splitlines()
    assert done.returncode == 0, "\n".join([*said[-40:], done.stderr])
    assert said[:2] == [str(tuple(machine)), f"True False {'+fma' in features}"]
    assert " passed" in said[-1]
    assert " failed" not in said[-1]
