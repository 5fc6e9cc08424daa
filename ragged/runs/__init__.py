"""A run: its configuration and its folder."""
