"""Loads the suite's options early enough for pytest's command line."""

pytest_plugins = ["ragged_conformance.plugin"]
