"""What the handlers' ports stand for: the database, the replicas, the other services."""
