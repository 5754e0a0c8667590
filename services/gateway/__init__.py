"""Every endpoint for people and programs: keys, limits, routing between versions."""
