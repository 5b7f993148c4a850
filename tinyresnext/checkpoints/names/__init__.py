"""Whose key names a checkpoint has, and how they become torchvision's.

`schemes` recognises the system by its names; `module_tree` reads trees of numbers, as Torch7 nests
its modules; `layouts` says in which order each system keeps the axes of a weight.
"""
