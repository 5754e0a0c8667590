"""Where events, timers and gRPC requests come in."""
