"""Images in folders, on a disk or in a zip archive.

Read `folders` first. `tree` finds the levels: splits, classes, images. `listing` says what is in
one folder, wherever it is, and `zips` reads archives.
"""
