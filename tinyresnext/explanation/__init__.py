"""Explain what the aggregation of a ResNeXt did to one image.

`recorded` runs the network once and keeps every value. `paths` splits a block into the addends of
Equations 2 and 3 of the paper, `effects` says what each of them does to a class, and `maps` where
in the image the evidence is. `explain` puts all of it into an `Explanation`, and `report` writes
that as one HTML page. The room reaches a device only through `tinyresnext.ops.contract`.
`explanation` is what is returned.
"""
