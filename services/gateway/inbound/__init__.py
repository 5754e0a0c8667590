"""Wire forms in: each becomes the same command for the same handler."""
