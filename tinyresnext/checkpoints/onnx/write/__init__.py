"""A model as an ONNX graph: the way back from what the rest of this folder reads.

`graph` is a backend that writes a node for each call of the network's own `forward`. `integers`
says what the graph of a quantised network has besides. `file` writes the file.
"""

from .file import OPSETS, write_onnx

__all__ = ["OPSETS", "write_onnx"]
