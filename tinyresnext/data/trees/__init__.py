"""Images in folders, on a disk or in an archive.

Read `folders` first. `tree` finds the levels: splits, classes, images. `listing` says what is in
one folder, wherever it is, and `zips` and `tars` read archives. `sources` finds the images that
typed paths stand for, without labels.
"""
