"""What every room needs of the operating system and of untrusted values.

`files` reads any file safely, and `writing` replaces a file in one step, where nothing but a file
of our own has the name. `checks` checks whole numbers and the fields of JSON objects, `home` says
where files that can be made again are kept, and `version` holds the version, and says those of the
packages that compute. The room knows the errors only. `console` writes to standard error, and
`words` finds the nearest known word. `threads` lets threads work ahead, within bounds, and has a
lock that is free after a fork. `ranks` says what processes do that train together, and `mpi` is how
they do it.
"""
