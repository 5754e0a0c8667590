"""The doors of the registry: events and gRPC, translated to the same handlers."""
