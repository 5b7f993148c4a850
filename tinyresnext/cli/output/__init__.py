"""What commands print and write: text for people, tables for programs, progress at a terminal.

Only `report` imports other rooms at once; the rest is quick to import. `tables` is for programs,
`results` puts an accuracy beside others'. `progress` and `interrupt` are for a person at a
terminal.
"""
