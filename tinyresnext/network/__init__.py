"""The paper: which networks there are, what they compute, and how a forward pass becomes a plan.

Read `spec` and `resnext` first. `tape` records a forward pass, `trace` does so without data;
`rewrite` folds and fuses the recorded calls, `buffers` gives their values memory, `plan` runs them
for inference and `step` for training; `buckets` lets processes add up its gradients. `count` says
what each layer costs. The room knows `tinyresnext.ops`, of `system` only the ranks, and nothing of
images, files or weights on disk.
"""
