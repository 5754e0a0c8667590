"""Who calls: keys, principals and their roles."""
