"""The command `ragged`, and `python -m ragged`."""

import sys
from importlib.util import find_spec

NEEDED = {"jsonargparse": "jsonargparse", "yaml": "PyYAML"}  # modules with their packages


def run() -> int:
    """Run the command line; 1 with the remedy where the extra it needs is not installed."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        print(
            f"ragged: error: the command line needs {' and '.join(missing)}. "
            "Install the extra: pip install 'ragged-sequences[train]'.",
            file=sys.stderr,
        )
        return 1
    from ragged.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
