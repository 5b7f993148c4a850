"""What every room needs of the operating system: whole files, a home for what can be made again, and the version."""
