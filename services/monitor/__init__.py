"""Watches what is served: drift of the inputs, quality against a champion, and objectives of service."""
