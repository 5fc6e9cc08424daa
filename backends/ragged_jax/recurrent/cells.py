"""A step of each recurrent layer, and its derivatives.

Each function takes a step of a batch, or all steps at once: arrays `(..., features)`. Every cell
has a pair (h, c); a cell without c has one of no features and passes it on.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid
from jax.numpy import tanh


class Cell:
    """The equations of a cell; gates are in torch's order.

    Args:
        adds_products: whether only the sum of `from_x` and `from_h` matters, so that terms that are
            known before the first step can be added for all steps at once.
    """

    adds_products = True

    @staticmethod
    def fwd(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Return the new h and c, and the values that the derivatives need beside h.

        Args:
            from_x: `x @ weight_ih.T + bias_ih (..., gates * hidden)`.
            from_h: `h @ weight_hh.T + bias_hh (..., gates * hidden)`.
            h: of the step before.
            c: of the step before.
        """
        raise NotImplementedError

    @staticmethod
    def h(kept: Array) -> Array:
        """Return h, of a cell that keeps what it is made of."""
        raise NotImplementedError

    @staticmethod
    def partials(kept: Array, h: Array, h_before: Array, c_before: Array) -> tuple[Array, ...]:
        """Return the partial derivatives of a step, from what `fwd` gave and read."""
        raise NotImplementedError

    @staticmethod
    def jvp(partials: Any, from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Return the tangents of h and c, linear in those of `fwd`'s arguments."""
        raise NotImplementedError


class LSTM(Cell):
    """Long short-term memory: i, f and o are gates, g is the candidate for c."""

    @staticmethod
    def fwd(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Keep i, f, g, o and c."""
        i, f, g, o = _split(from_x + from_h, 4)
        i, f, g, o = sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)
        c = f * c + i * g
        return o * tanh(c), c, _join(i, f, g, o, c)

    @staticmethod
    def h(kept: Array) -> Array:
        """Return the product of o and c's tanh."""
        *_, o, c = _split(kept, 5)
        return o * tanh(c)

    @staticmethod
    def partials(kept: Array, h: Array, h_before: Array, c_before: Array) -> tuple[Array, ...]:
        """Differentiate c by the sums in i, f and g, h by that in o and by c, and c by c before."""
        i, f, g, o, c = _split(kept, 5)
        by_i, by_f, by_g = g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)
        tanh_c = tanh(c)
        by_o, by_c = tanh_c * o * (1 - o), o * (1 - tanh_c * tanh_c)
        return _join(by_i, by_f, by_g, by_o), by_c, f

    @staticmethod
    def jvp(partials: Any, from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Sum the tangents of c's gates, and of o and c for h."""
        by_sums, by_c, f = partials
        of_i, of_f, of_g, of_o = _split(by_sums * (from_x + from_h), 4)
        c = f * c + of_i + of_f + of_g
        return of_o + by_c * c, c


class GRU(Cell):
    """Gated recurrent unit: r resets h in the candidate n, z keeps h."""

    adds_products = False  # r acts on n's product with h alone

    @staticmethod
    def fwd(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Keep r, z, n and the product that r scales."""
        (x_r, x_z, x_n), (h_r, h_z, h_n) = _split(from_x, 3), _split(from_h, 3)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = tanh(x_n + r * h_n)
        return (1 - z) * n + z * h, c, _join(r, z, n, h_n)

    @staticmethod
    def partials(kept: Array, h: Array, h_before: Array, c_before: Array) -> tuple[Array, ...]:
        """Differentiate n's sum by r's, and h by the sums in z and n; r and z are partials too."""
        r, z, n, h_n = _split(kept, 4)
        by_r, by_z, by_n = h_n * r * (1 - r), (h_before - n) * z * (1 - z), (1 - z) * (1 - n * n)
        return by_r, by_z, by_n, r, z

    @staticmethod
    def jvp(partials: Any, from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Sum the tangents of h by z, n and h."""
        by_r, by_z, by_n, r, z = partials
        (x_r, x_z, x_n), (h_r, h_z, h_n) = _split(from_x, 3), _split(from_h, 3)
        of_n = x_n + r * h_n + by_r * (x_r + h_r)
        return by_n * of_n + by_z * (x_z + h_z) + z * h, c


class RNN(Cell):
    """A plain recurrent cell, whose derivatives need h alone."""

    @staticmethod
    def jvp(partials: Any, from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Scale the tangent of the sum."""
        (by_sum,) = partials
        return by_sum * (from_x + from_h), c


class TanhRNN(RNN):
    """h = tanh(...)."""

    @staticmethod
    def fwd(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Keep nothing."""
        return tanh(from_x + from_h), c, h[..., :0]

    @staticmethod
    def partials(kept: Array, h: Array, h_before: Array, c_before: Array) -> tuple[Array, ...]:
        """Differentiate h by the sum."""
        return (1 - h * h,)


class ReluRNN(RNN):
    """h = relu(...)."""

    @staticmethod
    def fwd(from_x: Array, from_h: Array, h: Array, c: Array) -> tuple[Array, Array, Array]:
        """Keep nothing."""
        return jax.nn.relu(from_x + from_h), c, h[..., :0]

    @staticmethod
    def partials(kept: Array, h: Array, h_before: Array, c_before: Array) -> tuple[Array, ...]:
        """Differentiate h by the sum: 0 at 0, as `jax.nn.relu`."""
        return ((h > 0).astype(h.dtype),)


CELLS: dict[str, type[Cell]] = {
    "LSTM": LSTM,
    "GRU": GRU,
    "RNN_TANH": TanhRNN,
    "RNN_RELU": ReluRNN,
}


def _split(array: Array, count: int) -> list[Array]:
    return jnp.split(array, count, axis=-1)


def _join(*parts: Array) -> Array:
    return jnp.concatenate(parts, -1)
