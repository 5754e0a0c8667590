"""Millrace: the five services, the words they share and the plumbing they stand on."""
