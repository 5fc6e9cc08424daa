"""Loops over the pieces of a schedule, with a backward pass of their own.

Tokens lie step after step, at each step the rows of its piece: an array `(capacity, features)`
that holds what is computed and nothing more. How many rows each piece runs is static, how many
steps it takes is read from the lengths as the program runs. So one program serves every batch of
a shape, and its time still follows the tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ragged.lengths import Stairs

State = tuple[Array, Array]
Weights = dict[str, Array]

HOLD = 1e4  # sigmoid(-HOLD) is exactly 0 and sigmoid(HOLD) exactly 1, in every float dtype
# Fused into what reads them, these would be computed again for every feature of a token, and a
# slice of the gates would keep the compiler from using vector instructions.
materialise = lax.optimization_barrier


class Layout(NamedTuple):
    """Where each token comes from and goes to; all traced.

    `order (batch,)` and `rank (batch,)` sort the rows and back; `starts (pieces + 1,)` is each
    piece's first step and `bases (pieces + 1,)` its first token. For each token: `source`, its
    place in the flat `(batch * time)` array, `valid`, whether its row has it, `previous`, its
    row's token before, counted behind the batch's initial states, and `mirror`, the token that
    its row reads there backwards. For each padded step: `place`, its token, and `mask`. `last
    (batch,)` is the last token of each sorted row.
    """

    order: Array
    rank: Array
    starts: Array
    bases: Array
    source: Array
    valid: Array
    previous: Array
    mirror: Array
    place: Array
    mask: Array
    last: Array


def make_layout(lengths: Array, width: int, stairs: Stairs) -> Layout:
    """Lay the tokens of a batch out along the stairs."""
    order = jnp.argsort(-lengths, stable=True)
    rank, counts = jnp.argsort(order), lengths[order]
    rows = jnp.array(stairs.rows)
    starts = jnp.concatenate([jnp.zeros_like(counts[:1]), counts[rows[1:]], counts[:1]])
    bases = jnp.concatenate([starts[:1], jnp.cumsum(jnp.diff(starts) * rows)])

    def piece_of(place: Array, edges: Array) -> Array:
        return jnp.minimum(jnp.searchsorted(edges[1:], place, side="right"), len(stairs.rows) - 1)

    def token(step: Array, row: Array) -> Array:
        piece = piece_of(step, starts)
        return bases[piece] + (step - starts[piece]) * rows[piece] + row

    tokens = jnp.arange(stairs.capacity)
    piece = piece_of(tokens, bases)
    step = starts[piece] + (tokens - bases[piece]) // rows[piece]
    row = (tokens - bases[piece]) % rows[piece]
    valid = (step < counts[row]) & (tokens < bases[-1])
    steps = jnp.arange(width)
    mask = (steps < lengths[:, None]).reshape(-1)
    place = token(steps, rank[:, None]).reshape(-1)
    return materialise(
        Layout(
            order=order,
            rank=rank,
            starts=starts,
            bases=bases,
            source=jnp.where(valid, order[row] * width + step, 0),
            valid=valid,
            previous=jnp.where(step == 0, row, len(lengths) + token(step - 1, row)),
            mirror=jnp.where(valid, token(counts[row] - 1 - step, row), 0),
            place=jnp.where(mask, place, 0),
            mask=mask,
            last=jnp.where(counts > 0, token(counts - 1, jnp.arange(len(counts))), 0),
        )
    )


@jax.custom_vjp
def move(x: Array, to: Array, known: Array, back: Array, wanted: Array) -> Array:
    """Take `x[to]` where `known`, else 0; `back` undoes `to` where `wanted`.

    Its backward pass is a gather too, where that of a gather would be a slow scatter.
    """
    return _take(x, to, known)


def _take(x: Array, to: Array, known: Array) -> Array:
    return jnp.where(known[:, None], x[to], 0)


def _move_forward(
    x: Array, to: Array, known: Array, back: Array, wanted: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _take(x, to, known), (back, wanted)


def _move_backward(where: tuple[Array, Array], gradient: Array) -> tuple[Array | None, ...]:
    return _take(gradient, *where), None, None, None, None


move.defvjp(_move_forward, _move_backward)


@partial(jax.jit, static_argnums=0)
def enter(stairs: Stairs, x: Array, lengths: Array) -> tuple[Array, Layout]:
    """Turn `x (batch, time, features)` into tokens."""
    at = make_layout(lengths, x.shape[1], stairs)
    flat = x.reshape(-1, x.shape[2])
    return move(flat, at.source, at.valid, at.place, at.mask), at


@partial(jax.jit, static_argnums=0)
def leave(width: int, tokens: Array, at: Layout) -> Array:
    """Undo `enter`, exactly 0 at padding."""
    flat = move(tokens, at.place, at.mask, at.source, at.valid)
    return flat.reshape(-1, width, tokens.shape[1])


@partial(jax.jit, static_argnums=0)
def run_layer(
    stairs: Stairs, weights: list[Weights], x: Array, state: State, at: Layout, lengths: Array
) -> tuple[Array, State]:
    """Run one layer in all its directions over tokens; the state is that of the sorted rows."""
    ys, hs, cs = [], [], []
    some = (lengths > 0)[at.order][:, None]
    for direction, own in enumerate(weights):
        mirror = (at.mirror, at.valid, at.mirror, at.valid)
        steps = move(x, *mirror) if direction else x
        h0, c0 = state[0][direction], state[1][direction]
        zeros = jnp.zeros(own["weight_ih"].shape[0], x.dtype)
        bias = own["bias_ih"] + own["bias_hh"] if "bias_ih" in own else zeros
        y, c = _recurrence(stairs.rows, steps, own["weight_ih"], own["weight_hh"], bias, h0, c0, at)
        hs.append(jnp.where(some, y[at.last], h0))
        cs.append(c)
        ys.append(move(y, *mirror) if direction else y)
    return jnp.concatenate(ys, -1), (jnp.stack(hs), jnp.stack(cs))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _recurrence(
    rows: tuple[int, ...],
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array,
    h0: Array,
    c0: Array,
    at: Layout,
) -> State:
    """Run one layer in one direction over tokens: y, and c after each row's last valid step."""
    return _forward(rows, x, weight_ih, weight_hh, bias, h0, c0, at, keep=False)[:2]


def _halved(gates: Array) -> Array:
    """Halve gates i, f and o: sigmoid(x) = tanh(x / 2) / 2 + 1 / 2, so one tanh serves all four."""
    half = jnp.array([0.5, 0.5, 1.0, 0.5], gates.dtype)
    return gates * jnp.repeat(half, gates.shape[-1] // 4)


def _opened(gate: Array) -> Array:
    return gate * 0.5 + 0.5


def _forward(
    rows: tuple[int, ...],
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array,
    h0: Array,
    c0: Array,
    at: Layout,
    *,
    keep: bool,
) -> tuple[Array, Array, Array, Array]:
    """Return y, the final c and, to keep, the gates' tanh and c of all tokens."""
    hold = jnp.repeat(jnp.array([-HOLD, HOLD, 0.0, -HOLD], x.dtype), h0.shape[1])
    gates = jnp.where(at.valid[:, None], x @ _halved(weight_ih.T) + _halved(bias), hold)
    recurrent = _halved(weight_hh.T)
    size = h0.shape[1]

    def step(index: Array, carry: Any, *, count: int, base: Array) -> Any:
        h, c, y, gates, cells = carry
        token = base + index * count
        opened = jnp.tanh(lax.dynamic_slice_in_dim(gates, token, count) + h @ recurrent)
        if keep:
            gates = materialise(lax.dynamic_update_slice_in_dim(gates, opened, token, 0))
            parts = [lax.dynamic_slice(gates, (token, k * size), (count, size)) for k in range(4)]
        else:
            parts = jnp.split(materialise(opened), 4, axis=-1)
        i, f, g, o = parts
        c = materialise(_opened(f) * c + _opened(i) * g)
        h = _opened(o) * jnp.tanh(c)
        y = lax.dynamic_update_slice_in_dim(y, h, token, 0)
        cells = lax.dynamic_update_slice_in_dim(cells, c, token, 0) if keep else cells
        return h, c, y, gates, cells

    y = jnp.zeros((len(x), size), x.dtype)
    carry = (h0, c0, y, gates, y if keep else y[:0])
    ended = []
    for piece, count in enumerate(rows):
        h, c, *buffers = carry
        ended.append(c[count:])
        body = partial(step, count=count, base=at.bases[piece])
        steps = at.starts[piece + 1] - at.starts[piece]
        carry = lax.fori_loop(0, steps, body, (h[:count], c[:count], *buffers))
    _, c, y, gates, cells = carry
    return y, jnp.concatenate([c, *ended[::-1]]), gates, cells


def _keep(rows: tuple[int, ...], *inputs: Any) -> tuple[State, Any]:
    y, c, gates, cells = _forward(rows, *inputs, keep=True)
    return (y, c), (inputs, y, gates, cells)


def _backward(rows: tuple[int, ...], kept: Any, gradients: State) -> tuple[Array | None, ...]:
    """Walk the pieces back; the loop makes the gates' gradients, products make the rest."""
    (x, weight_ih, weight_hh, _, h0, c0, at), y, gates, cells = kept
    grad_y, grad_c = gradients
    h_before = jnp.concatenate([h0, y])[at.previous]
    c_before = jnp.concatenate([c0, cells])[at.previous]
    by_c, c_by_h, forget = _slopes(gates, cells, c_before)

    def step(index: Array, carry: Any, *, count: int, end: Array) -> Any:
        dh, dc, found = carry
        token = end - (index + 1) * count
        now = partial(lax.dynamic_slice_in_dim, start_index=token, slice_size=count)
        dh = dh + now(grad_y)
        dc = dc + dh * now(c_by_h)
        dh, dc = materialise((dh, dc))
        of_gates = materialise(jnp.concatenate([dc, dc, dc, dh], -1))
        of_gates = materialise(now(by_c) * of_gates)
        found = lax.dynamic_update_slice_in_dim(found, of_gates, token, 0)
        return of_gates @ weight_hh, dc * now(forget), found

    carry = (jnp.zeros_like(h0[:0]), jnp.zeros_like(c0[:0]), jnp.zeros_like(gates))
    for piece in reversed(range(len(rows))):
        dh, dc, found = carry
        joining = slice(len(dh), rows[piece])
        dh = jnp.concatenate([dh, jnp.zeros_like(h0[joining])])
        dc = jnp.concatenate([dc, grad_c[joining]])
        body = partial(step, count=rows[piece], end=at.bases[piece + 1])
        steps = at.starts[piece + 1] - at.starts[piece]
        carry = lax.fori_loop(0, steps, body, (dh, dc, found))
    dh, dc, found = carry
    inputs = materialise(jnp.concatenate([h_before, x], -1).T)  # products want it contiguous
    of_weights = (inputs @ found).T
    size = h0.shape[1]
    return (
        found @ weight_ih,
        of_weights[:, size:],
        of_weights[:, :size],
        found.sum(0),
        dh,
        dc,
        None,
    )


def _slopes(gates: Array, cells: Array, c_before: Array) -> tuple[Array, Array, Array]:
    """The gates' slopes by c (gate o's by h), c's by h, and c's by the c before.

    One select over `(tokens, 4, hidden)`, which is vectorised; concatenated slices are not.
    """
    size = cells.shape[1]
    each = gates.reshape(-1, 4, size)
    tanh_c = jnp.tanh(cells)
    gate = lax.broadcasted_iota(jnp.int32, each.shape, 1)
    partner = jnp.where(gate == 2, _opened(each[:, :1]), tanh_c[:, None])
    partner = jnp.where(gate == 1, c_before[:, None], partner)
    partner = jnp.where(gate == 0, each[:, 2:3], partner)
    slope = jnp.where(gate == 2, 1.0, 0.25).astype(gates.dtype) * (1 - each * each)
    output = _opened(gates[:, 3 * size :])
    return (
        (partner * slope).reshape(gates.shape),
        output * (1 - tanh_c * tanh_c),
        _opened(gates[:, size : 2 * size]),
    )


_recurrence.defvjp(_keep, _backward)
