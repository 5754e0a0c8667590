"""Versions, aliases, gates, deployments, rollouts and rollback, remembered as one history."""
