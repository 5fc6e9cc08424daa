"""Recurrent layers on JAX: the modules, one file an implementation, and the choice among them."""
