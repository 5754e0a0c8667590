"""Starts a broker and the five services on one machine, watches them and stops them."""
