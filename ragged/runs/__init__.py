"""A run: its configuration, parsed, and the folder that keeps it."""
