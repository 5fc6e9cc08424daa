"""The step floor: the products that an LSTM's recurrence forces, and nothing else.

For each step, one `(rows alive, H) @ (H, 4H)` product forward and one `(rows alive, 4H) @ (4H, H)`
product backward, one after the other as the recurrence would; and the products of all tokens at
once: `x @ W_ih.T` forward, those of dx, dW_ih and dW_hh backward. No gates, no copies.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.passes import Run

GRAIN = 16  # JAX compiles shapes: rows alive are rounded up to a 16th of the batch


def rows_alive(lengths: np.ndarray) -> np.ndarray:
    """How many rows have each step, up to the longest row's last."""
    return (lengths[:, None] > np.arange(lengths.max())).sum(0)


def torch_floor(case: Case, lengths: np.ndarray, device: str) -> Run:
    """Time the products with torch, into arrays that are there already."""
    import torch

    rows = rows_alive(lengths).tolist()
    tokens, size = int(lengths.sum()), case.hidden

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=device) * size**-0.5

    h, gates = normal(case.batch, size), normal(case.batch, 4 * size)
    new_h, new_gates = torch.empty_like(h), torch.empty_like(gates)
    forward, backward = normal(size, 4 * size), normal(4 * size, size)
    of_tokens, h_before = normal(tokens, 4 * size), normal(tokens, size)
    layers = [(normal(tokens, n), normal(4 * size, n)) for n in case.layer_inputs]
    all_gates = torch.empty_like(of_tokens)
    outs = [(torch.empty_like(x), torch.empty_like(w)) for x, w in layers]
    of_hidden = torch.empty_like(backward)

    def run() -> float:
        for (x, weight), (dx, of_weight) in zip(layers, outs, strict=True):
            torch.mm(x, weight.T, out=all_gates)
            for count in rows:
                torch.mm(h[:count], forward, out=new_gates[:count])
            for count in reversed(rows):
                torch.mm(gates[:count], backward, out=new_h[:count])
            torch.mm(of_tokens, weight, out=dx)
            torch.mm(of_tokens.T, x, out=of_weight)
            torch.mm(of_tokens.T, h_before, out=of_hidden)
        if device == "cuda":
            torch.cuda.synchronize()
        return 0.0

    return run


class JaxFloor:
    """The same with JAX: its loops are compiled once for a case, whatever the lengths."""

    def __init__(self, case: Case, device: str) -> None:
        import jax
        import jax.numpy as jnp
        from jax import lax

        self.case, size = case, case.hidden
        self.device = jax.devices("gpu" if device == "cuda" else "cpu")[0]
        levels = {-(-case.batch * part // GRAIN) for part in range(1, GRAIN + 1)}
        self.levels = sorted(levels, reverse=True)

        # Each step's product needs the one before, or the compiler would make it only once. The
        # weights hold a rotation, so that values stay of one size however many steps there are.
        def forward(_: Any, gates: Any, weight: Any) -> Any:
            return gates[:, :size] @ weight

        def backward(_: Any, gates: Any, weight: Any) -> Any:
            return lax.dynamic_update_slice(gates, gates @ weight, (0, 0))

        def steps(weight: Any, steps: Any) -> Any:
            gates = jnp.full((case.batch, 4 * size), 0.01)
            for level, count in enumerate(self.levels):
                body = _with(forward, weight)
                gates = lax.fori_loop(0, steps[level], body, gates[:count])
            for level, count in reversed(list(enumerate(self.levels))):
                more = jnp.full((count - len(gates), 4 * size), 0.01)
                body = _with(backward, weight.T)
                gates = lax.fori_loop(0, steps[level], body, jnp.concatenate([gates, more]))
            return gates

        def tokens(x: Any, weight: Any, gates: Any, h: Any) -> Any:
            return x @ weight.T, gates @ weight, gates.T @ x, gates.T @ h

        self.steps, self.tokens = jax.jit(steps), jax.jit(tokens)

    def __call__(self, lengths: np.ndarray) -> Run:
        """Take lengths, ready to run."""
        import jax

        rng, size, count = np.random.default_rng(0), self.case.hidden, int(lengths.sum())

        def normal(*shape: int) -> Any:
            values = rng.normal(size=shape).astype(np.float32) * size**-0.5
            return jax.device_put(values, self.device)

        rotation, _ = np.linalg.qr(rng.normal(size=(size, size)))
        rest = rng.normal(size=(size, 3 * size)) * size**-0.5
        weight = np.concatenate([rotation, rest], 1).astype(np.float32)
        level = np.searchsorted(-np.array(self.levels), -rows_alive(lengths), side="right") - 1
        each = np.bincount(level, minlength=len(self.levels)).astype(np.int32)
        weight, each = jax.device_put((weight, each), self.device)
        gates, h = normal(count, 4 * size), normal(count, size)
        layers = [(normal(count, n), normal(4 * size, n)) for n in self.case.layer_inputs]

        def run() -> float:
            for layer in layers:
                jax.block_until_ready(self.steps(weight, each))
                jax.block_until_ready(self.tokens(*layer, gates, h))
            return 0.0

        return run


def _with(body: Any, weight: Any) -> Any:
    return lambda index, carry: body(index, carry, weight)
