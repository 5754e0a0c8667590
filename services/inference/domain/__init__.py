"""Pure rules of serving: batching, the lifecycle of a version, what to load and unload, what to report."""
