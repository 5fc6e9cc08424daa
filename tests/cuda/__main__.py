"""Run pytest with the pretended device: `python -m tests.cuda tests/cuda`."""

import sys

from tests.cuda import pretended_device

if __name__ == "__main__":
    pretended_device.load()  # before pytest's plugins import torch

    import pytest

    code = pytest.main(sys.argv[1:])
    print(f"products in TF32: {pretended_device.counts['TF32']}")
    sys.exit(code)
