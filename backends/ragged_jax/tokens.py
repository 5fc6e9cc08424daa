"""The tokens of a batch, in which all blocks of the models compute."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Where the tokens of rows lie: `(tokens, features)` or `(batch, time, features)`."""

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""


class Steps(NamedTuple):
    """The steps of rows: the valid ones alone, `(tokens, features)`, row after row, or padded rows.

    A program has room for a fixed number of tokens, its capacity; padded rows are taken where none
    is given. What the blocks make of padding, or beyond the last row's end, where tokens are 0 at
    first, reaches no valid step, and `pad` leaves it out.

    Args:
        lengths: of the rows.
        like: an array on their device.
        places: of the tokens among all steps, `(capacity,)`; None = the rows are padded.
        rows: the row of each token; beyond the last one, the number of rows.
        offsets: where each row begins, and where the last one ends.
        fits: whether there is room for the tokens of all sides; without, `pad` gives NaN.
    """

    lengths: Lengths
    like: Array
    places: Array | None = None
    rows: Array | None = None
    offsets: Array | None = None
    fits: Array | None = None

    @classmethod
    def compact(cls, lengths: Lengths, like: Array, capacity: int, fits: Array) -> Steps:
        """Lay out the valid steps alone, of which there is room for `capacity`."""
        count = lengths.to(load_backend(name), like)
        ends = jnp.cumsum(count, dtype=count.dtype)
        offsets = jnp.concatenate([jnp.zeros_like(ends[:1]), ends])
        tokens = jnp.arange(capacity, dtype=count.dtype)
        rows = jnp.searchsorted(ends, tokens, side="right").astype(count.dtype)
        places = rows * lengths.width + tokens - offsets[rows]
        return cls(lengths, like, places, rows, offsets, fits)

    def take(self, x: Array) -> Array:
        """Turn `(batch, time, features)` into tokens; padding may hold anything."""
        if self.places is None:
            padded: Array = zero_padding(load_backend(name), x, self.lengths)
            return padded
        return x.reshape(-1, x.shape[2]).at[self.places].get(mode="fill", fill_value=0)

    def pad(self, x: Array) -> Array:
        """Turn tokens into `(batch, time, features)`, exactly 0 at padding."""
        if self.offsets is not None and self.fits is not None:
            steps = jnp.arange(self.lengths.width, dtype=self.offsets.dtype)
            x = x.at[self.offsets[:-1, None] + steps].get(mode="clip")
            x = jnp.where(self.fits, x, jnp.nan)
        padded: Array = zero_padding(load_backend(name), x, self.lengths)
        return padded

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""
        return rows[:, None] if self.rows is None else rows.at[self.rows].get(mode="clip")

    def run(self, layer: nnx.Module, x: Array, state: Any = None) -> tuple[Array, Any]:
        """Run a recurrent layer over the tokens of each row."""
        if self.offsets is None:
            y, state = layer(x, self.lengths, state)
        else:
            ends = {"offsets": self.offsets, "max_length": self.lengths.width}
            y, state = layer(x, state=state, **ends)
        return y, state


class Visible(NamedTuple):
    """What the queries of each row attend to.

    Args:
        queries: the steps that attend.
        keys: lengths of the rows of keys.
        order: the place of each key among the tokens given, or in its padded row; None = they lie
            row after row.
        encoder: lengths of the first part of rows of keys whose second part are the queries' steps;
            None = they have one part.
        causal: a step of the queries sees no step of them but those before it.
    """

    queries: Steps
    keys: Lengths
    order: Array | None = None
    encoder: Lengths | None = None
    causal: bool = False

    @property
    def layout(self) -> str:
        """How queries and keys lie."""
        return "padded" if self.queries.places is None else "jagged"

    def arrange(self, memory: Array) -> Array:
        """Put keys in the order of their rows; what stands behind a row's end is never read."""
        if self.order is None:
            return memory
        if memory.ndim == 2:
            return memory.at[self.order].get(mode="promise_in_bounds")
        return gather_steps(memory, self.order)

    def explain(self, weights: Array) -> Array:
        """Give the weights of keys, `(batch, heads, time, keys)`, to the steps they stand for."""
        if self.encoder is None or self.encoder.is_full:
            return weights
        lengths = self.encoder, self.queries.lengths
        places = joined_places(load_backend(name), *lengths, like=weights)[:, None, None]
        return jnp.take_along_axis(weights, places, -1, mode="promise_in_bounds")


class BothSides(NamedTuple):
    """The encoder's steps, and after them the decoder's, on the axis of tokens or of time."""

    encoder: Steps
    decoder: Steps

    @classmethod
    def of(
        cls,
        past: Array,
        future: Array,
        encoder: Lengths,
        decoder: Lengths,
        capacity: Sequence[int] | None = None,
    ) -> BothSides:
        """Choose the layout of a model's inputs, left aligned.

        Args:
            past: `(batch, encoder_time, features)`.
            future: `(batch, decoder_time, features)`.
            encoder, decoder: the lengths of both.
            capacity: the tokens that each side has room for; None = all steps.
        """
        if capacity is None or 0 in capacity:
            return cls(Steps(encoder, past), Steps(decoder, future))
        first, second = capacity
        fits = has_room(encoder, past, first) & has_room(decoder, future, second)
        return cls(
            Steps.compact(encoder, past, first, fits), Steps.compact(decoder, future, second, fits)
        )

    def split(self, x: Array) -> tuple[Array, Array]:
        """Separate the encoder's tokens from the decoder's."""
        places = self.encoder.places
        first = self.encoder.lengths.width if places is None else len(places)
        return x[..., :first, :], x[..., first:, :]

    def spread(self, rows: Array) -> Array:
        """Give each token what its row has, `(batch, features)`."""
        if self.encoder.rows is None or self.decoder.rows is None:
            return rows[:, None]
        both = jnp.concatenate([self.encoder.rows, self.decoder.rows])
        return rows.at[both].get(mode="clip")

    def visible_to_encoder(self) -> Visible:
        """Let each step of the encoder see all of the encoder's."""
        return Visible(self.encoder, self.encoder.lengths)

    def visible_to_decoder(self, *, causal: bool) -> Visible:
        """Let each step of the decoder see the encoder's, and the decoder's, if causal its past."""
        (encoder, decoder), like = self, self.decoder.like
        lengths, backend = (encoder.lengths, decoder.lengths), load_backend(name)
        keys = joined_lengths(backend, *lengths, like=like)
        order = None
        if encoder.rows is not None and decoder.rows is not None:
            order = jnp.argsort(jnp.concatenate([encoder.rows, decoder.rows]), stable=True)
        elif not encoder.lengths.is_full:
            order = joined_order(backend, *lengths, like=like)
        return Visible(decoder, keys, order, encoder.lengths, causal)


def has_room(lengths: Lengths, like: Array, capacity: int) -> Array:
    """Whether lengths are lengths of padded rows, and of no more tokens than the capacity."""
    count = lengths.to(load_backend(name), like)
    return ((count >= 0) & (count <= lengths.width)).all() & (count.sum() <= capacity)
