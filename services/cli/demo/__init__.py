"""The demonstration: real text, real services, the whole story from one command."""
