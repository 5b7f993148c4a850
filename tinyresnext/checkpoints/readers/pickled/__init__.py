"""Checkpoints whose description is a pickle, which is interpreted and never run.

`torch_file` with `torch_storages` reads PyTorch's files, `torch_tar` those of its first
format, `paddle` Paddle's. `wrappers` finds the weights among what a training script saved beside
them, `refusals` says what stands in the place of a tensor, and `quantised` which numbers the
integers of a quantised tensor stand for.
"""
