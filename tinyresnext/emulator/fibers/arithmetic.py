"""Instructions of a GPU that LLVM has no function for, from its inline assembly."""

from __future__ import annotations

import re

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


def saturated(sign: str, bits: int, kind: str) -> str:
    """Return the definition of a float as an integer, as a GPU has it: the nearest that there is.

    What is not a number becomes 0, or where a type has 64 bits, the highest bit alone. A GPU knows
    no integers of 8 bits: it takes the lowest of 16.
    """
    wide, short = max(bits, 16), {"float": "f32", "double": "f64"}[kind]
    function = f"@llvm.fpto{sign}i.sat.i{wide}.{short}"
    other = f"-{1 << wide - 1}" if 64 in (wide, {"float": 32, "double": 64}[kind]) else "0"
    lines = [
        f"define i{bits} @word_fpto{sign}i_i{bits}_{kind}({kind} %x) alwaysinline {{",
        f"  %near = call i{wide} {function}({kind} %x)",
        f"  %is = fcmp ord {kind} %x, %x",
        f"  %y = select i1 %is, i{wide} %near, i{wide} {other}",
        f"  %low = trunc i{wide} %y to i8" if bits == 8 else "",
        f"  ret i{bits} {'%low' if bits == 8 else '%y'}",
        "}",
    ]
    if bits == 8:  # that of 16 bits declares it
        return "\n".join(lines)
    return "\n".join([f"declare i{wide} {function}({kind})", *lines])


def shifted(how: str, bits: int) -> str:
    """Return the definition of a shift, as a GPU has it: by all bits or more, nothing is left.

    Of a number with a sign, that is left in every bit.
    """
    rest = f"%last = ashr i{bits} %a, {bits - 1}" if how == "ashr" else f"%last = and i{bits} 0, 0"
    return f"""define i{bits} @word_{how}_i{bits}(i{bits} %a, i{bits} %b) alwaysinline {{
  %over = icmp uge i{bits} %b, {bits}
  %by = select i1 %over, i{bits} 0, i{bits} %b
  %some = {how} i{bits} %a, %by
  {rest}
  %y = select i1 %over, i{bits} %last, i{bits} %some
  ret i{bits} %y
}}"""


INTEGERS = "\n".join(
    [saturated(s, n, kind) for s in "su" for n in (8, 16, 32, 64) for kind in ("float", "double")]
    + [shifted(how, bits) for how in ("shl", "lshr", "ashr") for bits in (32, 64)]
)


def defined(text: str) -> str:
    """Return LLVM whose conversions and shifts compute what a GPU does, where LLVM is free."""
    value = r"(%\"[^\"]*\"|[^\s,]+)"
    text = re.sub(
        rf"= fpto([su])i (float|double) {value} to i(8|16|32|64)\b",
        r"= call i\4 @word_fpto\1i_i\4_\2(\2 \3)",
        text,
    )
    return re.sub(
        rf"= (shl|lshr|ashr) i(32|64) {value}, (%\"[^\"]*\"|%[^\s,]+)",
        r"= call i\2 @word_\1_i\2(i\2 \3, i\2 \4)",
        text,
    )


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
{INTEGERS}
{dot("u32")}
{dot("s32")}
"""
