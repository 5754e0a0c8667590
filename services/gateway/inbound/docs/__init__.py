"""The page on which the REST door can be read and tried: `/docs/`."""
