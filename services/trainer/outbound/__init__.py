"""What the trainer stands on: its database, the registry, the artifact store and child processes."""
