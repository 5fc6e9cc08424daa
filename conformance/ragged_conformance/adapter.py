"""What the tests need of each framework itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar

import numpy as np

from ragged.backend import load_backend
from ragged.errors import MissingMemberError
from ragged.protocol import Backend
from ragged_conformance.known_limits import KNOWN_LIMITS, Limit

Array = Any
Function = Callable[..., Any]


@dataclass(frozen=True)
class Adapter:
    """One backend at one dtype on one device.

    It serves any backend that implements `ragged.protocol.Backend`. One that differentiates or has
    modules subclasses it and registers the class under the entry point group `ragged.conformance`,
    by the backend's name.
    """

    limits: ClassVar[tuple[Limit, ...]] = KNOWN_LIMITS

    name: str
    dtype: str
    device: str

    @property
    def backend(self) -> Backend:
        """The backend under test."""
        return load_backend(self.name)

    @property
    def device_name(self) -> str:
        """What the report calls the device."""
        return self.device

    def array(self, values: Any) -> Array:
        """Make a native array: floats in the dtype under test, others unchanged."""
        host = np.asarray(values)
        return self.backend.asarray(host, dtype=self.dtype if host.dtype.kind == "f" else None)

    def arrays(self, values: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Make native arrays by name."""
        return {name: self.array(value) for name, value in values.items()}

    def to_numpy(self, array: Array) -> np.ndarray:
        """Copy to the host, floats in float64, others unchanged."""
        host = self.backend.to_numpy(array)
        return host.astype(np.float64) if host.dtype.kind == "f" else host

    def prepare(self, module: Any) -> Any:
        """Move a module to the dtype and device, and into inference mode."""
        module = self.backend.to(module, device=self.device, dtype=self.dtype)
        module.eval()
        return module

    @contextmanager
    def training(self, module: Any, seed: int) -> Iterator[Any]:
        """Put a module into training mode, its dropout seeded, and back into inference mode."""
        with self.seeded(module, seed):
            module.train()
            try:
                yield module
            finally:
                module.eval()

    def seeded(self, module: Any, seed: int) -> AbstractContextManager[Any]:
        """Seed a module's dropout."""
        raise MissingMemberError(f"the conformance adapter of {self.name!r} has no `seeded`")

    def gradients(self, function: Function, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Differentiate `function(**values)`, a scalar, by each value."""
        gradients = self.differentiate(lambda leaves: function(**leaves), values)
        return {name: self.to_numpy(gradient) for name, gradient in gradients.items()}

    def differentiate(self, function: Function, values: Mapping[str, Any]) -> dict[str, Array]:
        """Differentiate `function(values)`, a scalar, by each value, into native arrays."""
        raise MissingMemberError(f"the conformance adapter of {self.name!r} has no `differentiate`")

    def functional(self, module: Any) -> tuple[dict[str, Array], Function]:
        """Split a module into parameters by name and `call(parameters, *args, **kwargs)`."""
        raise MissingMemberError(f"the conformance adapter of {self.name!r} has no `functional`")


class TorchAdapter(Adapter):
    """PyTorch."""

    @property
    def device_name(self) -> str:
        """A GPU's own name."""
        import torch

        has_name = self.device == "cuda" and torch.cuda.is_available()
        return f"cuda: {torch.cuda.get_device_name()}" if has_name else self.device

    def array(self, values: Any) -> Array:
        """Make a tensor."""
        import torch

        host = np.array(values)
        dtype = getattr(torch, self.dtype) if host.dtype.kind == "f" else None
        return torch.from_numpy(host).to(self.device, dtype)

    @contextmanager
    def seeded(self, module: Any, seed: int) -> Iterator[Any]:
        """Seed torch's generators, which dropout draws from, and restore them."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield

    def differentiate(self, function: Function, values: Mapping[str, Any]) -> dict[str, Array]:
        """Differentiate by autograd."""
        import torch

        leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
        grads = torch.autograd.grad(function(leaves), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, grads, strict=True))

    def functional(self, module: Any) -> tuple[dict[str, Array], Function]:
        """Split a module."""
        from torch.func import functional_call

        def call(parameters: Mapping[str, Array], *args: Any, **kwargs: Any) -> Any:
            return functional_call(module, dict(parameters), args, kwargs)

        return {name: p.detach().clone() for name, p in module.named_parameters()}, call


class JaxAdapter(Adapter):
    """JAX, with flax's nnx modules."""

    @property
    def device_name(self) -> str:
        """A GPU's own name."""
        has_name = self.device == "cuda" and "cuda" in self.backend.devices()
        return f"cuda: {self._device.device_kind}" if has_name else self.device

    @property
    def _device(self) -> Any:
        import jax

        return jax.devices("gpu" if self.device == "cuda" else self.device)[0]

    def array(self, values: Any) -> Array:
        """Make an array."""
        import jax

        host = np.asarray(values)
        dtype = self.dtype if host.dtype.kind == "f" else jax.dtypes.canonicalize_dtype(host.dtype)
        with np.errstate(over="ignore"):  # float16 has no 1e30, which becomes its infinity
            return jax.device_put(host.astype(dtype), self._device)

    def seeded(self, module: Any, seed: int) -> AbstractContextManager[Any]:
        """Seed the streams that the module's dropout draws from."""
        from flax import nnx

        nnx.reseed(module, dropout=seed)
        return nullcontext()

    def differentiate(self, function: Function, values: Mapping[str, Any]) -> dict[str, Array]:
        """Differentiate by `jax.grad`, operation by operation."""
        import jax

        # Under jit XLA makes a product with a mask a selection, which hides a NaN of padding.
        return jax.grad(function)(dict(values))

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
            # A copy: dropout counts its draws, and no trace may change another's counter.
            return nnx.merge(graph, state, rest, copy=True)(*args, **kwargs)

        return {name: leaf for name, (_, leaf) in zip(names, leaves, strict=True)}, call


ADAPTERS: dict[str, type[Adapter]] = {"torch": TorchAdapter, "jax": JaxAdapter}
ENTRY_POINT_GROUP = "ragged.conformance"


def make_adapter(name: str, dtype: str, device: str) -> Adapter:
    """Make the adapter of a backend: a bundled one, a registered one, or the plain `Adapter`."""
    return _adapter_type(name)(name, dtype, device)


@functools.cache  # reading the metadata of all distributions takes milliseconds, for every test
def _adapter_type(name: str) -> Callable[[str, str, str], Adapter]:
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        registered: Callable[[str, str, str], Adapter] = point.load()
        return registered
    return ADAPTERS.get(name, Adapter)
