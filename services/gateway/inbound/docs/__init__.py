"""The page on which REST can be read and tried: `/docs/`."""
