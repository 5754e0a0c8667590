"""Serves what the registry wants served: loads versions, batches requests by length, answers, and tells what it did."""
