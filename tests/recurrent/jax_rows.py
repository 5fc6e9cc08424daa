"""Functions of rows dealt out over two devices: right numbers, and every row stays where it is.

`jax_devices.py` runs them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import ragged
from ragged import losses

COUNTS = [3, 0, 5, 2]
X = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
X[np.arange(5) >= np.array(COUNTS)[:, None]] = np.nan
WEIGHTS = [1.0, 2.0, 3.0, 4.0]
ROWWISE = {
    "align": lambda x, n: ragged.align_sequences(x, n, source="left", target="right", max_length=6),
    "elements": lambda x, n: losses.mse(x, x * 2, lengths=n, weights=WEIGHTS, reduction="none"),
    "gradient": lambda x, n: jax.grad(
        lambda x: losses.mae(ragged.flip_sequences(x, n), 0 * x, lengths=n)
    )(x),
}
WHOLE = {
    "mean": lambda x, n: losses.mse(x, x * 2, lengths=n),
    "packed": lambda x, n: ragged.pack_sequences(x, COUNTS).data,
}


FUNCTIONS: dict[str, Any] = ROWWISE | WHOLE


@cache
def expected_of(name: str) -> np.ndarray:
    """What a function makes of rows on one device."""
    return np.asarray(jax.jit(lambda: FUNCTIONS[name](X, COUNTS))())


def check_functions(kind: AxisType) -> None:
    """Call them outside of jit, `align_sequences` within too."""
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(kind,))
    sharding = NamedSharding(mesh, PartitionSpec("rows"))
    x, counts = jax.device_put((X, np.array(COUNTS, np.int32)), sharding)
    # JAX takes no tokens across explicitly sharded rows.
    names = [name for name in FUNCTIONS if kind != AxisType.Explicit or name != "packed"]
    expected = {name: expected_of(name) for name in names}
    with jax.set_mesh(mesh):
        for name in names:
            function = FUNCTIONS[name]
            for call in [function, jax.jit(function)] if name == "align" else [function]:
                found = call(x, counts if name in ROWWISE else COUNTS)
                np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6)
                if name in ROWWISE:
                    assert found.sharding.is_equivalent_to(sharding, found.ndim), name
        mask = ragged.create_padding_mask(counts, 5)
        assert mask.sharding.is_equivalent_to(sharding, 2)
        np.testing.assert_array_equal(mask, np.arange(5) < np.array(COUNTS)[:, None])
