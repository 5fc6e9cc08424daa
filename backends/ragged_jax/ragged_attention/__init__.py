"""Attention over rows of different lengths, on JAX."""
