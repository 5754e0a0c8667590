"""The demonstration: real text, real services, the whole loop from one command."""
