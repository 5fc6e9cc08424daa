"""Exported models: programs that run without this library's layers, and the bundle around them."""
