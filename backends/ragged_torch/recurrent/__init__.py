"""Recurrent layers on torch: the modules, one file an implementation, and the choice among them."""
