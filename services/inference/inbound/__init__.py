"""Doors: events from the registry and the gRPC service."""
