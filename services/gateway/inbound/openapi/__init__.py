"""The description of the REST endpoints."""
