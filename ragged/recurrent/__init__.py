"""Recurrent layers: sizes, parameter names, initial values, checks, implementations."""
