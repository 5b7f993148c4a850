"""Convolutions on the GPU, and their gradients.

Read `windows` (the sizes), `pack` (how weights are laid out), then `gemm` (the matrix product with
implicit im2col) and `grouped` (narrow groups), which `forward` chooses from. `backward` has the
gradients; those of weights are outer products: `outer`, and `grouped_outer` for narrow groups.
`fold` adds up what several blocks have computed. `interlaced` makes a dilated convolution one
without dilation.
"""
