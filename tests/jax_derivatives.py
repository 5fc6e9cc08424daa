"""Compare derivatives of every kind: the layer as an operator beside the scan that JAX knows.

python jax_derivatives.py: float64 by JAX_ENABLE_X64=1; RAGGED_KERNELS=0 leaves out our kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax_layers import LENGTHS, assert_equal, like, make_inputs, squares, total

from ragged.kernels import find_compiler

PARAMETERS, X, STATE = EVERYTHING = make_inputs()
Function = Callable[..., jax.Array]


def pull(function: Function) -> Any:
    return jax.grad(function, (0, 1, 2))(*EVERYTHING)


def push(function: Function) -> Any:
    return jax.jvp(function, EVERYTHING, TANGENTS)


def push_of_frozen(function: Function) -> Any:
    return jax.linearize(lambda state: function(PARAMETERS, X, state), STATE)[1](TANGENTS[2])


def pull_twice(function: Function) -> Any:
    return jax.grad(lambda *a: squares(jax.grad(function)(*a)), (0, 2))(*EVERYTHING)


def push_pull(function: Function) -> Any:
    return jax.jvp(jax.grad(function, (0, 1, 2)), EVERYTHING, TANGENTS)[1]


def pull_push(function: Function) -> Any:
    return jax.grad(lambda state: jax.jvp(lambda p: function(p, X, state), *MOVED)[1])(STATE)


def hessians(function: Function) -> Any:
    def of_h(h: jax.Array) -> jax.Array:
        return function(PARAMETERS, X, (h, STATE[1]))

    return jax.hessian(of_h)(STATE[0]), jax.jacrev(jax.jacrev(of_h))(STATE[0])


def rematerialise(function: Function) -> Any:
    return jax.grad(jax.checkpoint(function))(*EVERYTHING)


def members(function: Function) -> Any:
    each = jax.vmap(jax.value_and_grad(function, (0, 1)), (0, None, 0))
    return each(MEMBERS[0], X, MEMBERS[2])


def samples(function: Function) -> Any:
    each = jax.vmap(jax.grad(function), (None, 0, None, 0))
    return each(PARAMETERS, MEMBERS[1], STATE, jnp.stack([LENGTHS, LENGTHS[::-1]]))


def shared_weights(function: Function) -> Any:
    each = jax.vmap(jax.vmap(function, (None, 0, None)), (None, None, 0))
    return jax.grad(lambda *a: each(*a).sum(), (0, 1, 2))(PARAMETERS, *MEMBERS[1:])


def layers(function: Function) -> Any:
    def loss(weights: Any) -> jax.Array:
        def layer(carry: jax.Array, own: Any) -> tuple[jax.Array, None]:
            return function({**PARAMETERS, **own}, carry * X, STATE), None

        return jax.lax.scan(layer, jnp.ones(()), weights)[0]

    weights = {"weight_hh_l0": MEMBERS[0]["weight_hh_l0"], "bias_ih_l0": MEMBERS[0]["bias_ih_l0"]}
    return jax.grad(loss)(weights)


def without_jit(function: Function) -> Any:
    with jax.disable_jit():
        return function(*EVERYTHING)


TANGENTS = like(EVERYTHING)
MOVED = ((PARAMETERS,), (TANGENTS[0],))
MEMBERS = jax.tree.map(lambda a: jnp.stack([a, a * 0.5]), EVERYTHING)
ALWAYS = (pull, push, pull_twice, push_pull, shared_weights)
WITH_KERNELS = (
    *(push_of_frozen, pull_push, hessians, rematerialise, members, samples, layers, without_jit),
)

assert jnp.ones(()).dtype == "float64"
for derive in (*ALWAYS, *(WITH_KERNELS if find_compiler() else ())):
    functions = total("auto"), total("never")
    if derive is without_jit:
        found, expected = map(derive, functions)
    else:
        found, expected = (jax.jit(lambda f=f, derive=derive: derive(f))() for f in functions)
    assert_equal(found, expected, derive.__name__)
