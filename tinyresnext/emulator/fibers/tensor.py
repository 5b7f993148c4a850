"""Tensor cores for fibers: what ``mma.sync`` computes, from the fragments of all threads of a warp.

Each thread writes its fragments down and waits until the others of its warp have. Then it computes
its own four sums from what the others wrote. There are two places to write to, used in turn, so
that a thread which is ahead does not disturb one that still reads.
"""

from __future__ import annotations

from ...ops.cuda.runtime.kernel import MOST
from .words import MULTIPLY

WORDS = 6  # of a thread's fragments: four of the left matrix, two of the right one

PRODUCTS = """define float @add_pairs(i32 %a, i32 %b, float %sum) alwaysinline {
  %va = bitcast i32 %a to <2 x half>
  %vb = bitcast i32 %b to <2 x half>
  %wa = fpext <2 x half> %va to <2 x float>
  %wb = fpext <2 x half> %vb to <2 x float>
  %a0 = extractelement <2 x float> %wa, i32 0
  %a1 = extractelement <2 x float> %wa, i32 1
  %b0 = extractelement <2 x float> %wb, i32 0
  %b1 = extractelement <2 x float> %wb, i32 1
  %s0 = call float @llvm.fma.f32(float %a0, float %b0, float %sum)
  %s1 = call float @llvm.fma.f32(float %a1, float %b1, float %s0)
  ret float %s1
}
define float @add_pairs_bf16(i32 %a, i32 %b, float %sum) alwaysinline {
  %la = shl i32 %a, 16
  %lb = shl i32 %b, 16
  %ua = and i32 %a, -65536
  %ub = and i32 %b, -65536
  %a0 = bitcast i32 %la to float
  %a1 = bitcast i32 %ua to float
  %b0 = bitcast i32 %lb to float
  %b1 = bitcast i32 %ub to float
  %s0 = call float @llvm.fma.f32(float %a0, float %b0, float %sum)
  %s1 = call float @llvm.fma.f32(float %a1, float %b1, float %s0)
  ret float %s1
}"""


def word(depth: int, kind: str = "") -> str:
    """Return the definition of the word that multiplies 8 or 16 deep.

    ``kind`` is nothing for float16, or ``_bf16``.

    Of pairs of depths 2p and 2p + 1, thread ``4 g + p % 4`` has those of row g in ``a0`` (or ``a2``
    from the fourth pair on), of row g + 8 in the register after that, and of column g in ``b0`` (or
    ``b1``). Thread ``4 g + t`` sums rows g and g + 8 of columns 2t and 2t + 1.
    """
    left, right = depth // 4, depth // 8
    names = [f"%a{i}" for i in range(left)] + [f"%b{i}" for i in range(right)]
    takes = ", ".join([f"i32 {name}" for name in names] + [f"float %c{i}" for i in range(4)])
    lines = [
        f"define {{float, float, float, float}} @word_mma{depth}{kind}({takes}) noinline {{",
        "  %thread = load i32, ptr @fiber",
        f"  %slot = getelementptr [{MOST} x i32], ptr @turn, i32 0, i32 %thread",
        "  %turn = load i32, ptr %slot",
        "  %next = xor i32 %turn, 1",
        "  store i32 %next, ptr %slot",
        f"  %side = mul i32 %turn, {MOST}",
        "  %place = add i32 %side, %thread",
        f"  %mine = getelementptr [{WORDS} x i32], ptr @fragments, i32 %place",
    ]
    registers = [*range(left), *range(4, 4 + right)]
    for name, register in zip(names, registers, strict=True):
        lines.append(f"  %m{register} = getelementptr i32, ptr %mine, i32 {register}")
        lines.append(f"  store i32 {name}, ptr %m{register}")
    lines += [
        f"  %ignored = call {{i32, i1}} @fiber_ask(i32 {MULTIPLY}, i32 -1, i32 {depth}, i32 0, "
        "i32 0, i32 0)",
        "  %lane = and i32 %thread, 31",
        "  %warp = sub i32 %place, %lane",
        "  %row = and i32 %lane, 28",  # 4 g
        "  %t = and i32 %lane, 3",
        "  %column = mul i32 %t, 8",  # 4 times column 2t
        "  %right = add i32 %warp, %column",
        "  %left = add i32 %warp, %row",
    ]
    sums = [f"%c{i}" for i in range(4)]
    for pair in range(depth // 2):
        above, owner = pair // 4, pair % 4
        loads = {
            "low": ("left", owner, 2 * above),
            "high": ("left", owner, 2 * above + 1),
            "first": ("right", owner, 4 + above),
            "second": ("right", 4 + owner, 4 + above),
        }
        for name, (base, step, register) in loads.items():
            end = f"{name}{pair}"
            lines += [
                f"  %w_{end} = add i32 %{base}, {step}",
                f"  %p_{end} = getelementptr [{WORDS} x i32], ptr @fragments, i32 %w_{end}, "
                f"i32 {register}",
                f"  %{end} = load i32, ptr %p_{end}",
            ]
        for i, (a, b) in enumerate(
            (("low", "first"), ("low", "second"), ("high", "first"), ("high", "second"))
        ):
            lines.append(
                f"  %s{i}_{pair} = call float @add_pairs{kind}(i32 %{a}{pair}, i32 %{b}{pair}, "
                f"float {sums[i]})"
            )
            sums[i] = f"%s{i}_{pair}"
    made = "poison"
    for i, value in enumerate(sums):
        lines.append(
            f"  %r{i} = insertvalue {{float, float, float, float}} {made}, float {value}, {i}"
        )
        made = f"%r{i}"
    return "\n".join([*lines, f"  ret {{float, float, float, float}} {made}", "}"])


TENSOR = f"""
@turn = global [{MOST} x i32] zeroinitializer
@fragments = global [{2 * MOST} x [{WORDS} x i32]] zeroinitializer
{PRODUCTS}
{word(8)}
{word(16)}
{word(16, "_bf16")}
"""
