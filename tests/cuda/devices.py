"""Print the backends that see a CUDA device, say why others do not, and fail if there is none."""

import sys

from benchmarks.machine import find_frameworks

if __name__ == "__main__":
    found, reasons = find_frameworks("cuda")
    print(*found)
    for name, reason in reasons.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    if not found:
        sys.exit(f"no CUDA device is seen by any of: {', '.join(reasons)}")
