"""The few native things that tests need of each framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragged.backend import Backend, load_backend

Array = Any
Function = Callable[..., Any]


@dataclass(frozen=True)
class Adapter:
    """One backend at one dtype on one device."""

    name: str
    dtype: str
    device: str

    @property
    def backend(self) -> Backend:
        """The backend under test."""
        return load_backend(self.name)

    def array(self, values: Any) -> Array:
        """Make a native array: floats in the dtype under test, all else as it is."""
        raise NotImplementedError

    def arrays(self, values: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Make native arrays by name."""
        return {name: self.array(value) for name, value in values.items()}

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host in float64, booleans and integers as they are."""
        host = self.backend.to_numpy(array)
        return host.astype(np.float64) if host.dtype.kind == "f" else host

    def prepare(self, module: Any) -> Any:
        """Move a module to the dtype and device, and into inference mode."""
        module = self.backend.place(module, device=self.device, dtype=self.dtype)
        module.eval()
        return module

    def gradients(self, function: Function, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Differentiate `function(**values)`, a scalar, by each value."""
        raise NotImplementedError

    def functional(self, module: Any) -> tuple[dict[str, Array], Function]:
        """Split a module into parameters by name and `call(parameters, *args, **kwargs)`."""
        raise NotImplementedError


class TorchAdapter(Adapter):
    """PyTorch."""

    def array(self, values: Any) -> Array:
        """Make a tensor."""
        import torch

        host = np.array(values)
        dtype = getattr(torch, self.dtype) if host.dtype.kind == "f" else None
        return torch.from_numpy(host).to(self.device, dtype)

    def gradients(self, function: Function, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Differentiate by autograd."""
        import torch

        leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
        found = torch.autograd.grad(
            function(**leaves), list(leaves.values()), materialize_grads=True
        )
        return {name: self.to_numpy(g) for name, g in zip(leaves, found, strict=True)}

    def functional(self, module: Any) -> tuple[dict[str, Array], Function]:
        """Split a module."""
        from torch.func import functional_call

        def call(parameters: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
            return functional_call(module, dict(parameters), args, kwargs)

        return {name: p.detach().clone() for name, p in module.named_parameters()}, call


class JaxAdapter(Adapter):
    """JAX, with flax's nnx modules."""

    def array(self, values: Any) -> Array:
        """Make an array."""
        import jax

        host = np.asarray(values)
        dtype = self.dtype if host.dtype.kind == "f" else jax.dtypes.canonicalize_dtype(host.dtype)
        device = jax.devices("gpu" if self.device == "cuda" else self.device)[0]
        return jax.device_put(host.astype(dtype), device)

    def gradients(self, function: Function, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Differentiate by `jax.grad`."""
        import jax

        found = jax.grad(lambda leaves: function(**leaves))(dict(values))
        return {name: self.to_numpy(g) for name, g in found.items()}

    def functional(self, module: Any) -> tuple[dict[str, Array], Function]:
        """Split a module."""
        import jax
        from flax import nnx

        graph, params, rest = nnx.split(module, nnx.Param, ...)
        leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(params))
        names = [".".join(str(key.key) for key in path) for path, _ in leaves]
        structure = jax.tree.structure(params)

        def call(parameters: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
            state = jax.tree.unflatten(structure, [parameters[name] for name in names])
            return nnx.merge(graph, state, rest)(*args, **kwargs)

        return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}, call


ADAPTERS: dict[str, type[Adapter]] = {"torch": TorchAdapter, "jax": JaxAdapter}
