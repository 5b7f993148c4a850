"""The primitive operations, and their spellings. Nothing in here knows of models, images or files."""
