"""How a training step changes weights, averages and running statistics, on their device.

Each optimiser says which weights it moves and by how much; the backend does the arithmetic. `sgd`
moves what `muon` leaves, and `average` follows both.
"""
