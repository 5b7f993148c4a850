"""Which system a checkpoint's key names are from, and how they become torchvision's.

`schemes` recognises the system by its names; `table` lists those that are known. `pytorch` reads
the names of systems in PyTorch, `keras` and `classification_models` those of Keras, `paddle` those
of Paddle, and `module_tree` trees of numbers, as Torch7 nests its modules. `layouts` says in which
order each system keeps the axes of a weight. `prefixes` finds what stands before the names of a
network, and `judge` refuses numbers that no network has, and layers beside
it that may belong to it.
"""
