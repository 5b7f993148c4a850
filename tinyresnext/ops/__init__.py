"""The primitive operations, spelled three ways. Nothing in here knows of models, images or files."""
