"""Durable state: one database a room, SQLite or PostgreSQL."""
