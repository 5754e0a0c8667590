"""The subcommands of `millrace`, one file a subject."""
