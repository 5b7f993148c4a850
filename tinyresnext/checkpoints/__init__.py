"""Checkpoints of other systems: from their names and shapes to a network of ours, and back.

Read `convert` first: it names the steps. `readers` open the containers, `names` translate key
names, `infer` finds the architecture from shapes, `beside` reads what lies beside the weights,
`export` writes checkpoints for others, and `onnx` reads and writes graphs. The room knows networks
and images, and computes nothing. `imagenet` has the names of its classes, `notes` what a conversion
says, and `carried` what our own exports hold beside their tensors.
"""
