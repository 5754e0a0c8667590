"""The trainer's pure rules."""
