"""What lies beside the tensors: the folder of a hub, timm's ``config.json``, names, and strides.

`folder` finds the weights in a folder, `config` reads a ``config.json``, `named` says which network
its names and arguments mean, and `architecture` compares it with the tensors. `layers` compares the
strides and paddings that Torch7's files have with those of the network. `labels` gives each class a
name.
"""
