"""ONNX files as messages of protobuf: what a graph says, and where its numbers lie.

Read `wire` first: it says what a protobuf is, reads its fields one by one, and writes them.
`tensor` finds and decodes numbers, `model` reads nodes. Nothing here knows of networks. `write`
makes a file of messages.
"""
