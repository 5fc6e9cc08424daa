"""Blocks that the models share, on JAX.

Blocks with `num_copies` are independent copies, each with its own parameters: their parameters and
their input have one more axis, the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.errors import OptionError
from ragged.models.categories import Variables, table_rows
from ragged.recurrent import init
from ragged_jax.arrays import asarray, name
from ragged_jax.gated_kernels import Parts, run_gate, run_grn, takes_kernels
from ragged_jax.parameters import spread, stretch_matrix
from ragged_jax.tokens import Tokens

Drop = Callable[[Array], Array]


class Dropout(nnx.Dropout):
    """Flax's dropout with its own stream, so that no caller has to pass one.

    An element's 32 bits are a hash of its place and of the stream's next key. That XLA computes
    where it drops, in a tenth of the time that the generator takes which draws for flax.

    Args:
        rate: the share that is dropped; 0 needs no stream and has none.
        rng: draws the initial values; a child of it seeds the stream, so that all layers of a model
            drop independently and later draws do not depend on dropout.
        rngs: flax's streams, whose "dropout" is forked, instead.
    """

    def __init__(
        self,
        rate: float,
        *,
        rng: np.random.Generator | None = None,
        rngs: nnx.Rngs | None = None,
    ) -> None:
        super().__init__(rate, rngs=None)
        if rate > 0 and rngs is not None:
            self.rngs = _dropout_stream(rngs).fork()
        elif rate > 0:
            (child,) = init.generator(rng).spawn(1)
            self.rngs = nnx.RngStream(int(child.integers(2**31)), tag="dropout")

    @property
    def rate_now(self) -> float:
        """The share that is dropped: 0 in inference."""
        return 0.0 if self.deterministic else self.rate

    def words(self) -> Array | None:
        """Draw a seed of two words, uint32 `(2,)`; None where nothing or all is dropped."""
        return jax.random.key_data(self.rngs())[:2] if 0 < self.rate_now < 1 else None

    def __call__(self, x: Array) -> Array:
        """Drop elements in training and scale the others up."""
        return drop(x, self.words(), self.rate_now)


class Linear(nnx.Module):
    """`x @ weight.T + bias` with `weight (outputs, inputs)`."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        initializer: init.Initializer = init.fan_in_uniform,
        bias: bool = True,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        values = init.linear_values(
            rng, inputs, outputs, initializer=initializer, bias=bias, num_copies=num_copies
        )
        self.weight = nnx.Param(asarray(values["weight"]))
        self.bias = nnx.Param(asarray(values["bias"])) if bias else None

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        y = multiply(x, self.weight[...].mT)
        return y if self.bias is None else y + spread(self.bias[...], y)


class LayerNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the features."""

    def __init__(self, size: int, *, num_copies: int | None = None) -> None:
        shape = (size,) if num_copies is None else (num_copies, size)
        self.weight = nnx.Param(asarray(np.ones(shape, np.float32)))
        self.bias = nnx.Param(asarray(np.zeros(shape, np.float32)))

    def __call__(self, x: Array) -> Array:
        """Normalise `(..., size)`."""
        centred = x - x.mean(-1, keepdims=True)
        y = centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return y * spread(self.weight[...], y) + spread(self.bias[...], y)


class MLP(nnx.Module):
    """Linear, relu, dropout, Linear."""

    def __init__(
        self, inputs: int, hidden: int, outputs: int, dropout: float, *, rng: np.random.Generator
    ) -> None:
        self.hidden = Linear(inputs, hidden, rng=rng)
        self.output = Linear(hidden, outputs, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return self.output(self.dropout(jax.nn.relu(self.hidden(x))))


class GLU(nnx.Module):
    """Gated linear unit: dropout, then `a * sigmoid(b)` with `[a, b] = Linear(x)`.

    Source: Y. N. Dauphin and others, Language Modeling with Gated Convolutional Networks (2017).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dropout: float = 0.0,
        *,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        self.dropout = Dropout(dropout, rng=rng)
        self.linear = Linear(
            inputs, 2 * outputs, initializer=init.xavier_uniform, num_copies=num_copies, rng=rng
        )

    def __call__(self, x: Array, drop: Drop | None = None) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`; `drop` stands in for its own dropout."""
        return jax.nn.glu(self.linear((drop or self.dropout)(x)))


class AddNorm(nnx.Module):
    """`LayerNorm(x + y)`; trainable: y is scaled by `2 * sigmoid(scale)`, at first by 1."""

    def __init__(self, size: int, *, trainable: bool = False) -> None:
        self.scale = nnx.Param(asarray(np.zeros(size, np.float32))) if trainable else None
        self.norm = LayerNorm(size)

    def __call__(self, x: Array, y: Array) -> Array:
        """Add and normalise `(..., size)`."""
        y = y if self.scale is None else y * 2 * jax.nn.sigmoid(self.scale[...])
        return self.norm(x + y)


class GateAddNorm(nnx.Module):
    """`AddNorm(GLU(x), residual)`."""

    def __init__(self, size: int, dropout: float = 0.0, *, rng: np.random.Generator) -> None:
        self.gate = GLU(size, size, dropout, rng=rng)
        self.add_norm = AddNorm(size)

    def __call__(self, x: Array, residual: Array) -> Array:
        """Gate x and add it to the residual, both `(..., size)`."""
        if x.shape == residual.shape and takes_kernels(parts := self.parts, x, residual):
            return run_gate(parts, x, residual)
        return self.add_norm(self.gate(x), residual)

    @property
    def parts(self) -> Parts:
        """The modules whose work kernels do."""
        gate, norm = self.gate, self.add_norm.norm
        return Parts(
            self,
            (self, gate, gate.dropout, gate.linear, self.add_norm, norm),
            (GateAddNorm, GLU, Dropout, Linear, AddNorm, LayerNorm),
        )


class Interpolation(nnx.Module):
    """Stretch the features by linear interpolation, scale them by `2 * sigmoid(scale)`, norm."""

    def __init__(self, inputs: int, outputs: int, *, num_copies: int | None = None) -> None:
        shape = (outputs,) if num_copies is None else (num_copies, outputs)
        self.scale = nnx.Param(asarray(np.zeros(shape, np.float32)))
        self.norm = LayerNorm(outputs, num_copies=num_copies)

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return self.norm(multiply(x, stretch_matrix(self.scale[...], x)))


class GRN(nnx.Module):
    """Gated residual network.

        y      = Linear(elu(Linear(x) + Linear(context)))
        output = LayerNorm(GLU(y) + residual(x))

    The residual is x itself, or a Linear of it where the sizes differ, or its interpolation.

    Source: B. Lim and others, Temporal Fusion Transformers (2021), equations 2 to 5.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        dropout: float = 0.0,
        *,
        context_size: int | None = None,
        interpolate: bool = False,
        num_copies: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        self.hidden = Linear(
            inputs, hidden, initializer=init.he_normal, num_copies=num_copies, rng=rng
        )
        if context_size is not None:
            xavier = init.xavier_uniform
            self.context = Linear(context_size, hidden, initializer=xavier, bias=False, rng=rng)
        self.output = Linear(
            hidden, outputs, initializer=init.he_normal, num_copies=num_copies, rng=rng
        )
        self.gate = GLU(outputs, outputs, dropout, num_copies=num_copies, rng=rng)
        stretch: nnx.Module | None = None
        if inputs != outputs and interpolate:
            stretch = Interpolation(inputs, outputs, num_copies=num_copies)
        elif inputs != outputs:
            stretch = Linear(inputs, outputs, num_copies=num_copies, rng=rng)
        self.residual = stretch
        self.norm = LayerNorm(outputs, num_copies=num_copies)

    def __call__(
        self,
        x: Array,
        context: Array | None = None,
        tokens: Tokens | None = None,
        drop: Drop | None = None,
    ) -> Array:
        """Map tokens, `(..., inputs)`, to outputs, with a context `(batch, context_size)`."""
        added = self.added(context, tokens)
        alone = drop is None and self.norm.weight.ndim == 1
        if alone and takes_kernels(parts := self.parts, x, added):
            return run_grn(parts, x, added)
        hidden = self.hidden(x)
        if added is not None:
            hidden = hidden + added
        gated = self.gate(self.output(jax.nn.elu(hidden)), drop)
        return self.norm(gated + (x if self.residual is None else self.residual(x)))

    def added(self, context: Array | None, tokens: Tokens | None) -> Array | None:
        """Give each token what its row's context adds to the hidden units."""
        if context is None or tokens is None:
            return None
        return tokens.spread(self.context(context))

    @property
    def is_stretched(self) -> bool:
        """Whether the residual is the interpolation of x."""
        return isinstance(self.residual, Interpolation)

    @property
    def parts(self) -> Parts:
        """The modules whose work kernels do; Linears of context and residual run by themselves."""
        gate = self.gate
        inner: Any = self.residual
        own = self, self.hidden, self.output, gate, gate.dropout, gate.linear, self.norm
        stretching = (inner, inner.norm) if self.is_stretched else ()
        kinds = GRN, Linear, Linear, GLU, Dropout, Linear, LayerNorm, Interpolation, LayerNorm
        return Parts(self, (*own, *stretching), kinds)


class Embedding(nnx.Module):
    """Learned rows `weight (rows, size)`: of each label its own, and row 0 of what is no label."""

    def __init__(self, rows: int, size: int, *, rng: np.random.Generator) -> None:
        self.weight = nnx.Param(asarray(init.embedding_values(rng, rows, size)))

    def __call__(self, x: Array) -> Array:
        """Map labels `(...)` to rows `(..., size)`; half precision sums its gradient in float32."""
        weight = self.weight[...]
        rows = table_rows(load_backend(name), x, len(weight))
        wide = weight.astype(jnp.float32) if weight.dtype.itemsize < 4 else weight
        return wide.at[rows].get(mode="promise_in_bounds").astype(weight.dtype)


class Embeddings(nnx.List[Embedding]):
    """A table of embeddings for each category among some features."""

    def __init__(self, variables: Variables, *, rng: np.random.Generator) -> None:
        super().__init__(Embedding(rows, size, rng=rng) for rows, size in variables.tables)

    def __call__(self, x: Array, variables: Variables) -> Array:
        """Map `(..., features)`, the first of those or all, to numbers, then embedded labels."""
        if not variables.categories:
            return x
        numbers = [x[..., place, None] for place in variables.numbers]
        tables = zip(self, variables.categories, strict=False)
        return jnp.concatenate([*numbers, *(table(x[..., place]) for table, place in tables)], -1)


def multiply(x: Array, matrix: Array) -> Array:
    """Multiply `(..., inputs)` by a matrix `(inputs, outputs)`, of each copy its own."""
    flat = x if matrix.ndim == 2 else x.reshape(len(x), x[0, ..., 0].size, x.shape[-1])
    return (flat @ matrix).reshape(*x.shape[:-1], matrix.shape[-1])


def drop(x: Array, words: Array | None, rate: float, first: Array | int = 0) -> Array:
    """Drop elements by a hash of their places, of which x has those from `first` on."""
    if words is None:
        return jnp.zeros_like(x) if rate else x
    threshold = jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
    bits = hashed_bits(words, x.shape, first)
    return jnp.where(bits >= threshold, x / (1 - rate), 0)


def hashed_bits(words: Array, shape: tuple[int, ...], first: Array | int = 0) -> Array:
    """Draw uint32 of random bits, by hashing each element's place with the words of a seed.

    Source: the function lowbias32 of C. Wellons, Hash Prospector (2018), once for each word.
    """
    bits = jnp.uint32(first) + jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    for word in words:
        bits = bits ^ word
        for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
            bits = (bits ^ (bits >> shift)) * jnp.uint32(factor)
        bits = bits ^ (bits >> 16)
    return bits


def _dropout_stream(rngs: nnx.Rngs) -> nnx.RngStream:
    try:
        return rngs["dropout"]
    except KeyError as error:
        got, expected = f"with streams {list(rngs)}", "a stream for dropout, or a default one"
        remedy = "Add one, nnx.Rngs(params=0, dropout=1), or set dropout to 0."
        raise OptionError.of("LSTM", "rngs", got, expected, remedy) from error
