"""Convolutions on the CPU: implicit im2col into register tiles, and their gradients.

Read `forward` with `gemm` (the dense tile), then `grouped` (the tile for narrow groups). `backward`
has the gradients; those of weights are outer products: `outer` for dense weights, `grouped_outer`
for grouped ones. Beside `gemm`, `dense` lays out what each position sees; `grouped_tile` and
`outer_tile` are the other register tiles. All begin with the sizes in `geometry`.
"""
