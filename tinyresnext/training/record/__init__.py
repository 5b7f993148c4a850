"""What a run leaves on disk, so that a person can follow it and it resumes to the same bits.

Read `folder` first, which says which files there are. `state` is everything that resuming needs,
`log` the lines about each epoch, which `curve` draws, and `contents` what the model file says.
`begin` begins or goes on, and says how after an early end; `silent` is for the ranks that write
nothing.
"""
