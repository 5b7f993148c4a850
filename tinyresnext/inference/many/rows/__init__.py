"""The rows of a run on the disk, and the file that is made of them.

Read `journal` first: it keeps the rows, so that a run can go on after it was stopped or killed.
`forms` says how a row is written and read, and `settings` what rows depend on. `assembled` makes
the HDF5 file of a run of `features`.
"""
