"""The tokens of a batch, in which all blocks of the models compute."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import zero_padding
from ragged.ops.tokens import joined_lengths, joined_order, joined_places
from ragged_jax.arrays import gather_steps, name


class Tokens(Protocol):
    """Where the tokens of rows lie: `(batch, time, features)`."""

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""


class Steps(NamedTuple):
    """The steps of padded rows, as a program of JAX has to fit lengths that nobody has read.

    What the blocks make of padding reaches no valid step, and `pad` leaves it out.

    Args:
        lengths: of the rows.
        like: an array on their device.
    """

    lengths: Lengths
    like: Array

    def pad(self, x: Array) -> Array:
        """Set padding to exactly 0."""
        padded: Array = zero_padding(load_backend(name), x, self.lengths)
        return padded

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""
        return rows[:, None]

    def run(self, layer: nnx.Module, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Run a recurrent layer over the tokens of each row."""
        y, state = layer(x, self.lengths, state)
        return y, state


class Visible(NamedTuple):
    """What the queries of each row attend to.

    Args:
        queries: the steps that attend.
        keys: lengths of the rows of keys.
        order: the place of each key in its padded row; None = they lie one after the other.
        encoder: lengths of the first part of rows of keys whose second part are the queries' steps;
            None = they have one part.
        causal: a step of the queries sees no step of them but those before it.
    """

    queries: Steps
    keys: Lengths
    order: Array | None = None
    encoder: Lengths | None = None
    causal: bool = False

    def arrange(self, memory: Array) -> Array:
        """Put keys in the order of their rows; what stands behind a row's end is never read."""
        return memory if self.order is None else gather_steps(memory, self.order)

    def explain(self, weights: Array) -> Array:
        """Give the weights of keys, `(batch, heads, time, keys)`, to the steps they stand for."""
        if self.encoder is None or self.encoder.is_full:
            return weights
        lengths = self.encoder, self.queries.lengths
        places = joined_places(load_backend(name), *lengths, like=weights)[:, None, None]
        return jnp.take_along_axis(weights, places, -1, mode="promise_in_bounds")


class BothSides(NamedTuple):
    """The encoder's steps, and after them the decoder's, on the axis of time."""

    encoder: Steps
    decoder: Steps

    def split(self, x: Array) -> tuple[Array, Array]:
        """Separate the encoder's tokens from the decoder's."""
        first = self.encoder.lengths.width
        return x[:, :first], x[:, first:]

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""
        return rows[:, None]

    def visible_to_encoder(self) -> Visible:
        """Let each step of the encoder see all of the encoder's."""
        return Visible(self.encoder, self.encoder.lengths)

    def visible_to_decoder(self, *, causal: bool) -> Visible:
        """Let each step of the decoder see the encoder's, and the decoder's, if causal its past."""
        (encoder, decoder), like = self, self.decoder.like
        lengths, backend = (encoder.lengths, decoder.lengths), load_backend(name)
        keys = joined_lengths(backend, *lengths, like=like)
        order = None
        if not encoder.lengths.is_full:
            order = joined_order(backend, *lengths, like=like)
        return Visible(decoder, keys, order, encoder.lengths, causal)
