"""Forgetting what the frameworks compiled from the product, before and after a fault."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

# JAX's caches that hold its own operations, each with the program of a shape: most of what a test
# compiles. The second is by a function's traced form, and finds none that is traced anew.
OPERATIONS = ("xla_primitive_callable", "_pjit_lower")


def forget_programs() -> None:
    """Drop what the frameworks compiled, and what the suite computed from the product once."""
    if jax := sys.modules.get("jax"):
        try:
            _forget_all_but_operations()
        except (ImportError, AttributeError):  # other versions of JAX have other caches
            jax.clear_caches()
    if "torch._dynamo" in sys.modules:  # to import it takes longer than many faults
        sys.modules["torch"].compiler.reset()
    for name, module in list(sys.modules.items()):
        if name.startswith("ragged_conformance."):
            for value in list(vars(module).values()):
                if isinstance(value, functools._lru_cache_wrapper) and _runs_product(value):
                    value.cache_clear()


@functools.cache
def _runs_product(function: Callable[..., Any]) -> bool:
    """Whether the product computes what it keeps: by an adapter, which no oracle takes."""
    return "adapter" in inspect.signature(function).parameters


def _forget_all_but_operations() -> None:
    """Do as `jax.clear_caches`, but for what JAX traced of functions of its own."""
    from jax._src import pjit, util
    from jax._src.interpreters.partial_eval import trace_to_jaxpr

    pjit._cpp_pjit_cache_fun_only.clear()
    pjit._cpp_pjit_cache_explicit_attributes.clear()
    pjit._jax.PjitFunctionCache.clear_all()
    for cache, function in list(util._caches.items()):  # function: "<function NAME at 0x...>"
        if cache is not trace_to_jaxpr and function.split()[1] not in OPERATIONS:
            cache.cache_clear()
    for reference, *_ in trace_to_jaxpr.cache_keys():
        if not _is_operation(traced := reference()):
            trace_to_jaxpr.evict_weakref(traced)


def _is_operation(function: Callable[..., Any]) -> bool:
    """Whether a function is JAX's own, and holds no other."""
    is_own = getattr(function, "__module__", "").startswith("jax.")
    is_primitive = hasattr(function, "_apply_primitive")
    return is_own and (is_primitive or "<locals>" not in function.__qualname__)
