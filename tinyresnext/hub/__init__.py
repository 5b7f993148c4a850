"""The published models: what is known of each, and how one comes onto this computer.

`catalogue` reads the list in ``weights/manifest.toml``; `pull` finds, downloads, checks, converts
and keeps a model; `download` fetches one whole file and `transfer` one answer of a server.
`bundled` says where the bundled model is.
"""
