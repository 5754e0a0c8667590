"""Plumbing without business words: every room stands on it, it knows none of them."""
