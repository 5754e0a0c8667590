"""The use cases of inference, a file per noun."""
