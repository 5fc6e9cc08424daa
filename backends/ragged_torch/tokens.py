"""The tokens of a batch, in which all blocks of the models compute."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import zero_padding
from ragged.ops.tokens import (
    joined_lengths,
    joined_order,
    joined_places,
    joined_token_places,
    token_offsets,
    token_places,
    token_rows,
)
from ragged_torch.arrays import has_values, name
from ragged_torch.transforms import in_memory


class Tokens(Protocol):
    """Where the tokens of rows lie: `(tokens, features)` or `(batch, time, features)`."""

    def spread(self, rows: Tensor) -> Tensor:
        """Give each token what its row has, `(batch, features)`."""


class Steps(NamedTuple):
    """The steps of rows: the valid ones alone, `(tokens, features)`, row after row, or padded rows.

    Padded rows are taken where every step is valid, and where a program has to fit lengths that
    nobody has read: under a compiler or a transformation, and on a device. What the blocks make of
    padding reaches no valid step, and `pad` leaves it out.

    Args:
        lengths: of the rows.
        like: a tensor on their device.
        places: of the valid steps among all, `(tokens,)`; None = the rows are padded.
        rows: the row of each token.
        offsets: where each row begins, and where the last one ends.
    """

    lengths: Lengths
    like: Tensor
    places: Tensor | None = None
    rows: Tensor | None = None
    offsets: Tensor | None = None

    @classmethod
    def compact(cls, lengths: Lengths, like: Tensor) -> Steps:
        """Lay out the valid steps alone, of lengths that can be read."""
        found = (find(lengths) for find in (token_places, token_rows, token_offsets))
        return cls(lengths, like, *map(torch.from_numpy, found))

    def take(self, x: Tensor) -> Tensor:
        """Turn `(batch, time, features)` into tokens; padding may hold anything."""
        if self.places is None:
            return zero_padding(load_backend(name), x, self.lengths)
        return x.flatten(0, 1).index_select(0, self.places)

    def pad(self, x: Tensor) -> Tensor:
        """Turn tokens into `(batch, time, features)`, exactly 0 at padding."""
        if self.places is None:
            return zero_padding(load_backend(name), x, self.lengths)
        batch, width = self.lengths.batch, self.lengths.width
        zeros = x.new_zeros(batch * width, x.shape[1])
        return zeros.index_copy_(0, self.places, x).unflatten(0, (batch, width))

    def spread(self, rows: Tensor) -> Tensor:
        """Give each token what its row has, `(batch, features)`."""
        return rows[:, None] if self.rows is None else rows.index_select(0, self.rows)

    def run(self, layer: nn.Module, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Run a recurrent layer over the tokens of each row."""
        if self.places is None:
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
        order: the place of each key in its padded row; None = they lie row after row.
        places: where among the keys each of the tokens given stands, likewise.
        encoder: lengths of the first part of rows of keys whose second part are the queries' steps;
            None = they have one part.
        causal: a step of the queries sees no step of them but those before it.
    """

    queries: Steps
    keys: Lengths
    order: Tensor | None = None
    places: Tensor | None = None
    encoder: Lengths | None = None
    causal: bool = False

    @property
    def layout(self) -> str:
        """How queries and keys lie."""
        return "padded" if self.queries.places is None else "jagged"

    def arrange(self, memory: Tensor) -> Tensor:
        """Put keys in the order of their rows; what stands behind a row's end is never read."""
        if self.places is not None:  # every key is written: its gradient is read, not added up
            return torch.empty_like(memory).index_copy_(0, self.places, memory)
        if self.order is None:
            return memory
        return memory.gather(1, self.order[..., None].expand(-1, -1, memory.shape[-1]))

    def explain(self, weights: Tensor) -> Tensor:
        """Give the weights of keys, `(batch, heads, time, keys)`, to the steps they stand for."""
        if self.encoder is None or self.encoder.is_full:
            return weights
        lengths = self.encoder, self.queries.lengths
        places = joined_places(load_backend(name), *lengths, like=weights)[:, None, None]
        return weights.gather(-1, places.expand(*weights.shape[:3], -1))


class BothSides(NamedTuple):
    """The encoder's steps, and after them the decoder's, on the axis of tokens or of time."""

    encoder: Steps
    decoder: Steps

    @classmethod
    def of(
        cls, past: Tensor, future: Tensor, encoder: Lengths, decoder: Lengths, *others: Tensor
    ) -> BothSides:
        """Choose the layout of a model's inputs, left aligned.

        Args:
            past: `(batch, encoder_time, features)`.
            future: `(batch, decoder_time, features)`.
            encoder, decoder: the lengths of both.
            others: what else the model computes with.
        """
        can_read = past.is_cpu and has_values(past) and in_memory(past, future, *others)
        is_traced = encoder.is_traced or decoder.is_traced
        if not can_read or is_traced or (encoder.is_full and decoder.is_full):
            return cls(Steps(encoder, past), Steps(decoder, future))
        return cls(Steps.compact(encoder, past), Steps.compact(decoder, future))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Separate the encoder's tokens from the decoder's."""
        places = self.encoder.places
        first = self.encoder.lengths.width if places is None else len(places)
        before, behind = x.split([first, x.shape[-2] - first], -2)
        return before, behind

    def spread(self, rows: Tensor) -> Tensor:
        """Give each token what its row has, `(batch, features)`."""
        if self.encoder.rows is None or self.decoder.rows is None:
            return rows[:, None]
        return rows.index_select(0, torch.cat([self.encoder.rows, self.decoder.rows]))

    def visible_to_encoder(self) -> Visible:
        """Let each step of the encoder see all of the encoder's."""
        return Visible(self.encoder, self.encoder.lengths)

    def visible_to_decoder(self, *, causal: bool) -> Visible:
        """Let each step of the decoder see the encoder's, and the decoder's, if causal its past."""
        (encoder, decoder), like = self, self.decoder.like
        lengths, backend = (encoder.lengths, decoder.lengths), load_backend(name)
        keys = joined_lengths(backend, *lengths, like=like)
        order = places = None
        if encoder.places is not None:
            places = torch.from_numpy(joined_token_places(*lengths))
        elif not encoder.lengths.is_full:
            order = joined_order(backend, *lengths, like=like)
        return Visible(decoder, keys, order, places, encoder.lengths, causal)
