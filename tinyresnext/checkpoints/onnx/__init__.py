"""ONNX graphs: to a network of ours by their structure, and back.

Read `steps` first: it turns the nodes of a graph into the few operations that a ResNeXt has, each
with all its attributes. `architecture` finds from them which network it may be. `follow` is a
backend: the network's own `forward` is given to it and looks up every call in the graph. So a graph
is accepted only if it computes what `forward` does, and names tell nothing. `read` brings them
together. `operators` and `constants` are the nodes that are known, with their `attributes`;
`values` is what they are made into, and `external` opens the files beside a graph. `write` is the
way back, also for quantised networks, which are not read.
"""
