"""The registry's use cases, a file per noun."""
