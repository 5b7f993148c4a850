"""Convolutions on the CPU: register tiles, three ways to feed them, and their gradients.

Read `forward` with `gemm` and `dense` (1x1 with one group: a product of matrices), then `wide` (any
other convolution: tiles that find pixels in strips of the image) and `narrow` (groups so narrow
that several lie in a vector). `forward.way_of` says which way a convolution goes. `backward` has
the gradients; those of weights are outer products: `outer` for `dense`, `narrow.outer` where
several groups fill a vector, `wide.outer` for the others. All begin with the sizes in `geometry`.
`integer` has the convolutions of quantised networks.
"""
