"""The use cases of the monitor, a file a noun."""
