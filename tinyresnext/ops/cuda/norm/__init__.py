"""Batch normalisation: with known statistics (`constant`), and in training (`train`).

Read `tile` (how threads share channels and positions) and `moments` (means and variances) first;
`sums` has the sums that gradients need.
"""
