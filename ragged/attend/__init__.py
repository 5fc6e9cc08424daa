"""Attention over rows of different lengths: a call, its checks, and who runs it."""
