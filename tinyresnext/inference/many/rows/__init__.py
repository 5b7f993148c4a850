"""The rows of a run on the disk, and the file that is made of them.

Read `journal` first: it keeps the rows, so that a run can go on after it was stopped or killed.
`forms` says how a row is written and read, `settings` what rows depend on, and `stopped` what is
said where results cannot be written. `assembled` makes the HDF5 file of a run of `features`.
"""
