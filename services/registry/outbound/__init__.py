"""What the registry stands on: its database and the artifact store."""
