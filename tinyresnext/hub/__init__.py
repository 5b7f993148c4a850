"""The published models: what is known of each, and how one comes onto this computer.

`catalogue` lists the published models; `manifest` reads them from ``weights/manifest.toml``, and
`entry` says what an entry has. `pull` finds, downloads, checks, converts and keeps a model, with
`caches` of other programs; `download` fetches one whole file into a `part`, checks it against what
is `wanted`, and `transfer` receives one answer of a server. `bundled` says where the bundled model
is.
"""
