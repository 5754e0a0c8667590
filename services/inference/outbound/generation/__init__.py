"""Models that generate: one graph, its key-value cache, and a thread that decodes all requests of it together."""
