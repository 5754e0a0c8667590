"""The `millrace` command, the launcher of the embedded default, and the demo."""
