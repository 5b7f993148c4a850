"""What lies beside a checkpoint: the folder of a hub, and timm's ``config.json``.

`folder` finds the weights in a folder, `config` reads a ``config.json``, and `architecture`
compares the network that it names with the tensors.
"""
