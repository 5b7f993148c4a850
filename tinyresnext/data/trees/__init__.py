"""Images in folders, on a disk or in an archive.

Read `folders` first. `tree` finds the levels: splits, classes, images. `listing` says what is in
one folder, wherever it is; `zips` and `tars` read archives, and `gzipped` unpacks what is
compressed. `decoding` makes the data set of what was found. `sources` finds the images that typed
paths stand for, without labels, `archives` those of them that are in archives, and `labelled` those
that have labels, where no data set is made of them.
"""
