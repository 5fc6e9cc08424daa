"""Lets pytest find the suite's options wherever it is installed.

Pytest loads this module in every session of the environment, so it imports nothing and adds
nothing unless the suite itself is asked for: `pytest --pyargs ragged_conformance`.
"""

from __future__ import annotations

from typing import Any


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Load the suite's plugin if one of the arguments is the suite or a part of it."""
    if any(arg.split("::")[0].split(".")[0] == "ragged_conformance" for arg in args):
        early_config.pluginmanager.import_plugin("ragged_conformance.plugin")
