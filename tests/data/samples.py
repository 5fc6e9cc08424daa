"""Samples for the tests of batches, and what those refuse."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged.data import Sample, Series


def refuses(error: type[Exception], message: str):
    return pytest.raises(error, match=re.escape(message))


def row(context: int, horizon: int, value: float = 1.0) -> Sample:
    event = Series("r", np.arange(float(context + horizon)), {})
    return Sample(
        np.full((context, 3), value),
        np.full((horizon, 2), value + 1),
        np.full((horizon, 1), value + 2),
        event,
        context,
    )
