"""Other people's files: read without running anything, renamed, understood; and written again."""
