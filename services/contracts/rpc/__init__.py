"""Generated gRPC messages and stubs; `make contracts` writes them from `proto/`."""
