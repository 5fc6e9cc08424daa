"""What the third party tells the conformance suite of its backend."""

from __future__ import annotations

import os

from ragged_conformance.adapter import Adapter
from ragged_conformance.known_limits import Limit


class NumpyAdapter(Adapter):
    limits = tuple(
        Limit("numpy", test, "not written yet", "https://example.org/1")
        for test in os.environ.get("NUMPY_BACKEND_LIMITS", "").split()
    )
