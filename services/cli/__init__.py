"""The `millrace` command, and the launcher of the embedded default."""
