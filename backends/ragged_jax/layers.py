"""Blocks that the models share, on JAX.

Blocks with `num_copies` are independent copies, each with its own parameters: their parameters and
their input have one more axis, the first.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from ragged.backend import load_backend
from ragged.errors import OptionError
from ragged.models.categories import Variables, table_rows
from ragged.ops.interpolation import interpolation_matrix
from ragged.recurrent import init
from ragged_jax.arrays import asarray, name
from ragged_jax.tokens import Tokens


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
    def is_on(self) -> bool:
        """Whether anything is dropped: in training, at a rate above 0."""
        return self.rate > 0 and not self.deterministic

    def words(self) -> Array:
        """Draw a seed of two words, uint32 `(2,)`."""
        return jax.random.key_data(self.rngs())[:2]

    def __call__(self, x: Array) -> Array:
        """Drop elements in training and scale the others up."""
        if not self.is_on:
            return x
        if self.rate == 1:  # all are dropped
            return jnp.zeros_like(x)
        threshold = jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        bits = hashed_bits(self.words(), x.shape)
        return jnp.where(bits >= threshold, x / (1 - self.rate), 0)


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
        weight = self.weight[...]
        flat = x if weight.ndim == 2 else x.reshape(len(x), x[0, ..., 0].size, x.shape[-1])
        y = (flat @ weight.mT).reshape(*x.shape[:-1], weight.shape[-2])
        return y if self.bias is None else y + spread(self.bias[...], y)


class LayerNorm(nnx.Module):
    """`(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the features."""

    def __init__(self, size: int, *, num_copies: int | None = None) -> None:
        shape = (size,) if num_copies is None else (num_copies, size)
        self.weight = nnx.Param(jnp.ones(shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(shape, jnp.float32))

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

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        return jax.nn.glu(self.linear(self.dropout(x)))


class AddNorm(nnx.Module):
    """`LayerNorm(x + y)`; trainable: y is scaled by `2 * sigmoid(scale)`, at first by 1."""

    def __init__(self, size: int, *, trainable: bool = False) -> None:
        self.scale = nnx.Param(jnp.zeros(size, jnp.float32)) if trainable else None
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
        return self.add_norm(self.gate(x), residual)


class Interpolation(nnx.Module):
    """Stretch the features by linear interpolation, scale them by `2 * sigmoid(scale)`, norm."""

    def __init__(self, inputs: int, outputs: int, *, num_copies: int | None = None) -> None:
        shape = (outputs,) if num_copies is None else (num_copies, outputs)
        self.sizes = (inputs, outputs)
        self.scale = nnx.Param(jnp.zeros(shape, jnp.float32))
        self.norm = LayerNorm(outputs, num_copies=num_copies)

    def __call__(self, x: Array) -> Array:
        """Map `(..., inputs)` to `(..., outputs)`."""
        matrix = jnp.asarray(interpolation_matrix(*self.sizes), x.dtype)
        stretched = x @ matrix
        return self.norm(stretched * 2 * jax.nn.sigmoid(spread(self.scale[...], stretched)))


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
        self, x: Array, context: Array | None = None, tokens: Tokens | None = None
    ) -> Array:
        """Map tokens, `(..., inputs)`, to outputs, with a context `(batch, context_size)`."""
        hidden = self.hidden(x)
        if context is not None and tokens is not None:
            hidden = hidden + tokens.spread(self.context(context))
        gated = self.gate(self.output(jax.nn.elu(hidden)))
        return self.norm(gated + (x if self.residual is None else self.residual(x)))


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


class VariableSelection(nnx.Module):
    """Sum the features' embeddings at every step, weighted by a softmax.

        p_i    = Linear_i(x_i), or x_i, embedded       v_i = GRN_i(p_i)
        w      = softmax(GRN([p_1, ..., p_F], context))
        output = sum_i w_i * v_i

    Source: B. Lim and others, Temporal Fusion Transformers (2021), equations 6 to 8.
    """

    def __init__(
        self,
        variables: Variables,
        hidden_continuous_size: int,
        hidden_size: int,
        dropout: float = 0.0,
        *,
        context_size: int | None = None,
        rng: np.random.Generator,
    ) -> None:
        small, numbers = hidden_continuous_size, len(variables.numbers)
        features = numbers + len(variables.categories)
        self.variables, self.size = variables, small
        self.linears = Linear(1, small, num_copies=numbers, rng=rng) if numbers else None
        self.grns = GRN(
            small,
            min(small, hidden_size),
            hidden_size,
            dropout,
            interpolate=True,
            num_copies=features,
            rng=rng,
        )
        if features > 1:
            self.weights = GRN(
                features * small,
                min(hidden_size, features),
                features,
                dropout,
                context_size=context_size,
                interpolate=True,
                rng=rng,
            )

    def __call__(
        self, x: Array, context: Array | None = None, tokens: Tokens | None = None
    ) -> tuple[Array, Array]:
        """Map tokens, `(..., features)`, to `(..., hidden_size)` and the weights.

        Of the features the numbers stand before the embedded labels; the weights have their order.
        """
        projected = self._project(x)
        values = self.grns(projected)
        if len(values) == 1:
            return values[0], jnp.ones_like(x[..., :1])
        together = jnp.concatenate(list(projected), -1)
        weights = jax.nn.softmax(self.weights(together, context, tokens), -1)
        order = np.array(self.variables.order) if self.variables.categories else slice(None)
        return jnp.einsum("...f,f...d->...d", weights, values), weights[..., order]

    def _project(self, x: Array) -> Array:
        """Give each feature its own width, `(features, ..., hidden_continuous_size)`."""
        count, parts = len(self.variables.numbers), []
        if self.linears is not None:
            parts.append(self.linears(jnp.moveaxis(x[..., :count], -1, 0)[..., None]))
        if self.variables.categories:
            embedded = x[..., count:].reshape(*x.shape[:-1], -1, self.size)
            parts.append(jnp.moveaxis(embedded, -2, 0))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def hashed_bits(words: Array, shape: tuple[int, ...]) -> Array:
    """Draw uint32 of random bits, by hashing each element's place with the words of a seed.

    Source: the function lowbias32 of C. Wellons, Hash Prospector (2018), once for each word.
    """
    bits = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
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


def spread(parameter: Array, like: Array) -> Array:
    """Expand a parameter to the axes of `like`; num_copies, if it has them, stay its first axis.

    The gradient of half precision is summed over all tokens in float32.
    """
    if parameter.ndim == 1:  # for jax_numpy_rank_promotion="raise"
        spread = jnp.expand_dims(parameter, tuple(range(like.ndim - 1)))
    else:
        spread = parameter.reshape(len(parameter), *(1 for _ in like.shape[2:]), -1)
    if parameter.dtype.itemsize >= 4:
        return spread
    return jnp.broadcast_to(spread.astype(jnp.float32), like.shape).astype(parameter.dtype)
