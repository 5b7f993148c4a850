"""Tables of images and their labels.

Begin with `table`, which makes a data set of one. `lines` reads it line by line, `columns` says
what its columns mean, and `paths` where its images are.
"""
