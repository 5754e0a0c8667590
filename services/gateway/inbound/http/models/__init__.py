"""The wire models of the REST control API, generated from proto/: one module a .proto."""
