"""Convolutions of integers of 8 bits: sums of products in 32 bits, and rounding to 8 bits again.

Read `words` first (what an instruction multiplies at once), then `tile` with its end in `epilogue`,
`strips` (the kernel) with `cutting`, `narrow_tile` and `narrow` (groups in lanes), `forward` (the
op) and `rounding` (from float32 to 8 bits, and back).
"""
