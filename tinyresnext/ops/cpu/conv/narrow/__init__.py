"""Groups that fill a vector together, or alone: forward (`strips`, `tile`).

`outer` is the gradient of the weights of those that fill it together.
"""
