"""The monitor's doors: events, timers and gRPC."""
