"""Units of work, and the SQL databases that carry them out."""
