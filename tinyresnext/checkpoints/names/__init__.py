"""Which system a checkpoint's key names are from, and how they become torchvision's.

`schemes` recognises the system by its names. `pytorch` reads the names of systems in PyTorch,
`keras` those of Keras, and `module_tree` trees of numbers, as Torch7 nests its modules. `layouts`
says in which order each system keeps the axes of a weight.
"""
