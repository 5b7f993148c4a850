"""What lies beside the tensors: the folder of a hub, its JSON files, names, and strides.

`folder` finds the weights in a folder, `config` reads timm's ``config.json``, `processor` what
transformers writes, `named` says which network timm's names and arguments mean, and `architecture`
compares it with the tensors. `layers` compares the strides and paddings that Torch7's files have
with those of the network. `labels` gives each class a name.
"""
