"""What flax and JAX offer for rows of different lengths, on the same work as ours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import rnn

from benchmarks.passes import JaxPass, Work

Weights = tuple[np.ndarray, ...]
GATES = ("i", "f", "g", "o")


def flax_rnn(work: Work, cell: str) -> JaxPass:
    """`nnx.RNN` over "LSTMCell" or "OptimizedLSTMCell", layers stacked, states asked for."""
    make = {"LSTMCell": _lstm_cell, "OptimizedLSTMCell": _optimized_cell}[cell]
    rnns = [nnx.RNN(make(weights), return_carry=True, rngs=False) for weights in work.directions()]
    if work.case.bidirectional:
        pairs = zip(rnns[::2], rnns[1::2], strict=True)
        rnns = [nnx.Bidirectional(*pair, return_carry=True, rngs=False) for pair in pairs]
    graph, parameters, rest = nnx.split(nnx.List(rnns), nnx.Param, ...)
    zeros = jnp.zeros((work.case.batch, work.case.hidden))
    start = (zeros, zeros)

    def forward(parameters: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        cells = []
        for layer in nnx.merge(graph, parameters, rest):
            both = isinstance(layer, nnx.Bidirectional)
            initial = (start, start) if both else start
            carry, x = layer(x, initial_carry=initial, seq_lengths=lengths)
            cells += [own[0] for own in carry] if both else [carry[0]]
        return x, jnp.stack(cells)

    return JaxPass(forward, parameters, work.x, work.device)


def lstm_ref(work: Work) -> JaxPass:
    """`jax.experimental.rnn.lstm_ref`, the reference that comes with the cuDNN binding."""
    case = work.case
    parts = zip(*work.directions(), strict=True)
    parameters = [dict(enumerate(map(jnp.asarray, part))) for part in parts]
    state = jnp.zeros((case.layers * case.directions, case.batch, case.hidden))

    def forward(parameters: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        sizes = (case.inputs, case.hidden, case.layers, 0.0, case.bidirectional)
        y, _, c = rnn.lstm_ref(x, state, state, *parameters, lengths, *sizes)
        return y, c

    return JaxPass(forward, parameters, work.x, work.device)


def cudnn(work: Work) -> JaxPass:
    """`jax.experimental.rnn.lstm`: cuDNN, on a GPU only."""
    case = work.case
    directions = work.directions()
    pairs = [each[:2] for each in directions] + [each[2:] for each in directions]
    parameters = jnp.concatenate([jnp.ravel(part) for pair in pairs for part in pair])
    state = jnp.zeros((case.layers * case.directions, case.batch, case.hidden))

    def forward(parameters: Any, x: Any, lengths: Any) -> tuple[Any, Any]:
        sizes = (case.inputs, case.hidden, case.layers, 0.0, case.bidirectional)
        y, _, c = rnn.lstm(x, state, state, parameters, lengths, *sizes)
        return y, c

    return JaxPass(forward, parameters, work.x, work.device)


def lengths_for(work: Work, lengths: np.ndarray) -> Any:
    """Lengths as these peers take them: an argument of the program, not a part of it."""
    platform = "gpu" if work.device == "cuda" else "cpu"
    return jax.device_put(lengths.astype(np.int32), jax.devices(platform)[0])


def _lstm_cell(weights: Weights) -> nnx.LSTMCell:
    """One small product for each gate and side."""
    w_ih, w_hh, b_ih, b_hh = weights
    cell = nnx.LSTMCell(w_ih.shape[1], w_hh.shape[1], rngs=nnx.Rngs(0))
    parts = (np.split(part, 4) for part in (w_ih, w_hh, b_ih + b_hh))
    for gate, inputs, hidden, bias in zip(GATES, *parts, strict=True):
        getattr(cell, "if_" if gate == "f" else f"i{gate}").kernel[...] = jnp.asarray(inputs.T)
        getattr(cell, f"h{gate}").kernel[...] = jnp.asarray(hidden.T)
        getattr(cell, f"h{gate}").bias[...] = jnp.asarray(bias)
    return cell


def _optimized_cell(weights: Weights) -> nnx.OptimizedLSTMCell:
    """One product for all gates of a side."""
    w_ih, w_hh, b_ih, b_hh = weights
    cell = nnx.OptimizedLSTMCell(w_ih.shape[1], w_hh.shape[1], rngs=nnx.Rngs(0))
    cell.dense_i.kernel[...] = jnp.asarray(w_ih.T)
    cell.dense_h.kernel[...] = jnp.asarray(w_hh.T)
    cell.dense_h.bias[...] = jnp.asarray(b_ih + b_hh)
    return cell
