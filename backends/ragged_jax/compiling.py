"""Compile whole programs so that the C library keeps their memory from one run to the next."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.errors import JaxRuntimeError
from jax.extend.core import ClosedJaxpr, Jaxpr

PIECES = "xla_multiheap_size_constraint_per_heap"
PIECE = 8 * 2**20  # bytes
KEPT = 2**25 - 2**16  # bytes; what takes more than 32 MiB glibc maps anew for each allocation
SETTINGS = "jax_enable_x64", "jax_default_matmul_precision"


def jit(
    function: Callable[..., Any],
    *,
    static_argnums: Sequence[int] = (),
    donate_argnums: Sequence[int] = (),
) -> Jitted:
    """Compile as `jax.jit` does, for a CPU with temporaries that stay in memory between runs.

    XLA allocates a program's temporaries as one block, anew in each run. Above 32 MiB the C library
    (glibc) hands the block back to the system at the end, and the next run pays for every page that
    it touches: 2 us each on a virtual machine, up to a third of a training step. Here the block is
    cut into pieces of 8 MiB, which glibc keeps if they are 63 MiB in all, and most of them if they
    are more. Numbers are the same, and so are programs on other devices.

    XLA cannot write such a program to disk, so where JAX has a persistent cache of programs
    (`jax_compilation_cache_dir`) they have one block, as ever.

    For whole training steps; called within a function that JAX traces, it is `jax.jit`.

    Args:
        function: of positional arguments, trees of arrays.
        static_argnums: places of hashable arguments that are constants of the program.
        donate_argnums: places of arguments whose memory the results may take.

    Returns:
        The function, compiled for each shape and dtype when it is first called with them; `lower`
        is that of `jax.jit`.

    Example:
        >>> import jax, jax.numpy as jnp, ragged, ragged_jax
        >>> with ragged.use_backend("jax"):
        ...     weights = ragged_jax.get_parameters(ragged.LSTM(3, 4, seed=0))
        >>> def loss(weights, x, lengths):
        ...     return ragged.lstm(weights, x, lengths)[0].sum()
        >>> step = ragged_jax.jit(jax.value_and_grad(loss))
        >>> value, gradients = step(weights, jnp.ones((2, 5, 3)), jnp.array([5, 2]))
        >>> gradients["weight_hh_l0"].shape
        (16, 4)
    """
    return Jitted(function, tuple(static_argnums), tuple(donate_argnums))


class Jitted:
    """A function and its programs; `jit` makes it."""

    def __init__(
        self, function: Callable[..., Any], static: tuple[int, ...], donated: tuple[int, ...]
    ) -> None:
        functools.update_wrapper(self, function)
        self.static_argnums = static
        self._plain = jax.jit(function, static_argnums=static, donate_argnums=donated)
        self.lower = self._plain.lower
        self._programs: dict[Any, Callable[..., Any] | None] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the program of these arguments, and compile it if it is the first time."""
        static = [arguments[place] for place in self.static_argnums]
        dynamic = [each for n, each in enumerate(arguments) if n not in self.static_argnums]
        leaves, tree = jax.tree.flatten(dynamic)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._plain(*arguments)
        key = *static, tree, *_settings(), *map(_kind, leaves)
        if key not in self._programs:
            has_pieces = _on_one_cpu(leaves) and not _is_kept_on_disk() and takes_pieces()
            self._programs[key] = _compile(self._plain.trace(*arguments)) if has_pieces else None
        program = self._programs[key]
        return self._plain(*arguments) if program is None else program(*dynamic)

    def _cache_size(self) -> int:
        """How many programs there are, by jax.jit's own name."""
        return len(self._programs)


def _compile(traced: Any) -> Callable[..., Any]:
    """Compile with pieces that hold the largest array at least, of which XLA else warns."""
    _use_a_block()
    size = max([PIECE, *_sizes(traced.jaxpr.jaxpr)])
    compiled: Callable[..., Any] = traced.lower().compile(compiler_options={PIECES: size})
    return compiled


@functools.cache
def _use_a_block() -> None:
    """Give glibc a block back: it keeps twice as much free as the largest that it has seen."""
    np.empty(KEPT, np.uint8)


@functools.cache
def takes_pieces() -> bool:
    """Whether this version's XLA has the option."""
    try:
        jax.jit(lambda: 0, compiler_options={PIECES: PIECE}).lower().compile()
    except JaxRuntimeError:
        return False
    return True


def _on_one_cpu(leaves: Sequence[Any]) -> bool:
    """Whether a program of these arguments runs on one CPU device."""
    used = set[jax.Device]().union(*(x.devices() for x in leaves if isinstance(x, jax.Array)))
    platforms = {device.platform for device in used} or {jax.default_backend()}
    return len(used) < 2 and platforms == {"cpu"}


def _is_kept_on_disk() -> bool:
    """Whether JAX writes its programs to a cache, which XLA refuses with several pieces."""
    names = "jax_enable_compilation_cache", "jax_compilation_cache_dir"
    return all(getattr(jax.config, name) for name in names)


def _settings() -> tuple[Any, ...]:
    """What a program depends on in the settings of JAX."""
    return tuple(getattr(jax.config, name) for name in SETTINGS)


def _kind(leaf: Any) -> tuple[Any, ...]:
    """What a program depends on in an argument; `jax.typeof` takes 20 times as long."""
    if isinstance(leaf, jax.Array):
        return leaf.aval, leaf.sharding
    return (jax.typeof(leaf),)


def _sizes(jaxpr: Jaxpr) -> Iterator[int]:
    """Give the bytes of each array that a program computes."""
    for equation in jaxpr.eqns:
        for variable in equation.outvars:
            shape = getattr(variable.aval, "shape", ())
            yield math.prod(shape) * getattr(getattr(variable.aval, "dtype", None), "itemsize", 0)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: isinstance(x, (Jaxpr, ClosedJaxpr))
        ):
            if isinstance(inner, (Jaxpr, ClosedJaxpr)):
                yield from _sizes(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
