"""Any number of images: mini-batches that threads prepare, runs that resume, other engines.

Read `batches` first: images are decoded while the network computes, and the size of the
mini-batches is found. `rows` keeps the rows of a run on the disk, so that it can go on after it was
killed, and `features` is such a run. `comparison` says how right a model is about each image.
`shards` shares images among the workers of Dask; what each of them does is in `worker`, and
`cluster` finds and checks them. `predictor` is a model for engines that pass batches between
processes. `logits` keeps what a model says of a data set, for a network that learns from it.
`quantise` makes a model of 8 bits, with the scales that it finds on some images.
"""
