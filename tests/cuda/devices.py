"""Print the backends that see a CUDA device, and fail if there is none."""

import sys

from ragged.backend import available_backends, load_backend

if __name__ == "__main__":
    found = [name for name in available_backends() if "cuda" in load_backend(name).devices()]
    print(*found)
    if not found:
        sys.exit(f"no CUDA device is seen by any of: {', '.join(available_backends())}")
