"""Instructions of a GPU that LLVM has no function for, from its inline assembly."""

from __future__ import annotations

# Inline assembly that returns a value, by its text, and the word that computes it.
VALUES = {
    "cvt.rn.bf16x2.f32 $0, $1, $2;": "word_two_bf16",
    "dp4a.u32.s32 $0, $1, $2, $3;": "word_dot_u32",
    "dp4a.s32.s32 $0, $1, $2, $3;": "word_dot_s32",
    "mul.rn.f32 $0, $1, $2;": "word_rounded_mul",
    "add.rn.f32 $0, $1, $2;": "word_rounded_add",
}


def dot(kind: str) -> str:
    """Return the definition of ``dp4a``: four products of bytes, added to a sum of 32 bits."""
    lines = [f"define i32 @word_dot_{kind}(i32 %a, i32 %b, i32 %c) alwaysinline {{"]
    total = "%c"
    for q in range(4):
        for name in "ab":
            back = "lshr" if name == "a" and kind == "u32" else "ashr"
            lines.append(f"  %{name}h{q} = shl i32 %{name}, {24 - 8 * q}")
            lines.append(f"  %{name}{q} = {back} i32 %{name}h{q}, 24")
        lines.append(f"  %p{q} = mul i32 %a{q}, %b{q}")
        lines.append(f"  %s{q} = add i32 {total}, %p{q}")
        total = f"%s{q}"
    return "\n".join([*lines, f"  ret i32 {total}", "}"])


# Two float32 become a word of two bfloat16, each the nearest one and of two the even one; the
# second operand is the lower half. What is not a number becomes 0x7FFF. Products and sums that are
# each rounded by itself are LLVM's own: nothing allows it to fuse them.
ARITHMETIC = f"""
define i32 @round_bf16(float %x) alwaysinline {{
  %bits = bitcast float %x to i32
  %shifted = lshr i32 %bits, 16
  %odd = and i32 %shifted, 1
  %half = add i32 %bits, 32767
  %sum = add i32 %half, %odd
  %made = lshr i32 %sum, 16
  %is = fcmp uno float %x, 0.0
  %y = select i1 %is, i32 32767, i32 %made
  ret i32 %y
}}
define i32 @word_two_bf16(float %upper, float %lower) alwaysinline {{
  %low = call i32 @round_bf16(float %lower)
  %up = call i32 @round_bf16(float %upper)
  %high = shl i32 %up, 16
  %both = or i32 %high, %low
  ret i32 %both
}}
define float @word_rounded_mul(float %a, float %b) alwaysinline {{
  %y = fmul float %a, %b
  ret float %y
}}
define float @word_rounded_add(float %a, float %b) alwaysinline {{
  %y = fadd float %a, %b
  ret float %y
}}
{dot("u32")}
{dot("s32")}
"""
