"""Durable work: leased jobs and timers."""
