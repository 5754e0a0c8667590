"""How the trainer is reached: events and gRPC."""
