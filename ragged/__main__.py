"""`python -m ragged` is `ragged`."""

import sys

from ragged.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
