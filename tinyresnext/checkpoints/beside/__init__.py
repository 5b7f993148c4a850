"""What lies beside a checkpoint: the folder of a hub, and timm's ``config.json``.

`folder` finds the weights in a folder, `config` reads a ``config.json``, `named` says which network
its names and arguments mean, and `architecture` compares it with the tensors.
"""
