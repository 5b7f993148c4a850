"""Checkpoints whose description is a pickle, which is interpreted and never run.

`torch_file` with `torch_storages` reads PyTorch's files, `torch_tar` those of its first
format, `paddle` Paddle's. `wrappers` finds the
weights among what a training script saved beside them, and `quantised` says which numbers the
integers of a quantised tensor stand for.
"""
