"""How a training step changes weights, averages and running statistics, on their device.

Each optimiser says which weights it moves and by how much; the backend does the arithmetic. `muon`
updates the convolutions in the blocks if it is asked for, `sgd` or one of `adaptive` updates the
remaining weights (`update`), each at a rate of its own (`rates`), with gradients that are not too
large (`clip`). `parts` computes the gradient of a mini-batch, and `statistics` are those of batch
norms.
"""
