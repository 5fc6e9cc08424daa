"""One training step and one prediction of a forecasting model, on JAX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree

from ragged.losses import MaskedLoss
from ragged.models.base import Forecast
from ragged.models.modules import check_batch
from ragged.training import optimizers
from ragged.training.cuda_graphs import warn_without_graphs
from ragged.training.optimizers import Optimizer
from ragged.training.precision import LossScale, compute_dtype, param_dtype, ramped_decay
from ragged_jax.arrays import to_numpy
from ragged_jax.compiling import jit
from ragged_jax.distributed import ProcessGroup
from ragged_jax.parameters import named, to
from ragged_jax.precision import use_tf32

# torch's names, which checkpoints use: optax's.
SLOTS = {"exp_avg": "mu", "exp_avg_sq": "nu", "momentum_buffer": "trace"}


class TrainingStep:
    """A model, its loss and its optimiser, advanced batch by batch.

    Args:
        model: a forecasting module.
        loss: one of `ragged.losses`, or a function with their interface.
        optimizer: the optimiser's constants.
        max_grad_norm: largest global norm of the gradient; None = any.
        ema_decay: decay of a running average of the parameters, which is then evaluated and saved
            in their place; None = none.
        seed: seed of dropout; step n draws from (seed, n), so that a resumed run draws the same.
        device: "cpu" or "cuda".
        dtype: "float32" or "float64"; "bfloat16" or "float16" compute with fewer bits and keep the
            parameters in float32; "tf32" is float32 with products of fewer bits.
        devices: how many devices share each batch.
        use_cuda_graphs: a warning says that XLA alone decides what is launched together.
    """

    def __init__(
        self,
        model: nnx.Module,
        loss: MaskedLoss[...],
        optimizer: Optimizer,
        *,
        max_grad_norm: float | None = 1.0,
        ema_decay: float | None = None,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
        devices: int = 1,
        use_cuda_graphs: bool = False,
    ) -> None:
        if use_cuda_graphs:
            warn_without_graphs("XLA decides what it launches together")
        self.model = to(model, device=device, dtype=param_dtype(dtype))
        self.loss, self.constants = loss, optimizer
        self.ema_decay = ema_decay
        self.seed, self.dtype = seed, compute_dtype(dtype)
        self._allows_tf32 = dtype == "tf32"
        self.steps = 0
        self.scale = LossScale.of(dtype)
        self.workers = ProcessGroup(device, devices)
        self._key = self.workers.replicate(jax.random.key(seed))
        self.optimizer = create_optimizer(optimizer, max_grad_norm)
        self.model.eval()
        self._inference, _, _ = nnx.split(self.model, nnx.Param, ...)
        self.model.train()
        self._training, params, self._rest = nnx.split(self.model, nnx.Param, ...)
        self._params = self.workers.replicate(params)
        self._moments = self.workers.replicate(self._first_moments())
        self._averaged = None if ema_decay is None else jax.tree.map(jnp.copy, self._params)
        self._differentiate = jit(self._differentiated, static_argnums=(2,))
        self._add = jax.jit(partial(jax.tree.map, jnp.add), donate_argnums=0)
        self._apply = jax.jit(self._applied, donate_argnums=(0, 1, 2))
        self._evaluate = jit(self._evaluated, static_argnums=(2,))

    def step(self, *batches: Any, rate: float | None = None) -> float:
        """Make one step on one batch, or on several as if they were one, and wait for it.

        Args:
            batches: host batches; the loss is the mean over their valid elements.
            rate: the learning rate; by default the optimiser's own.

        Returns:
            The mean loss before the step.
        """
        return float(self.launch(*batches, rate=rate))

    def launch(self, *batches: Any, rate: float | None = None) -> SupportsFloat:
        """Make a step as `step` does, but do not wait for a device: `float` of the loss does.

        With "float16" the host waits once a step, to learn whether a gradient has overflowed.
        """
        key = self._fold_in(self._key, self.steps)
        elements = max(1, sum(batch.count for batch in batches))
        count = self._number(elements / self.scale.value)
        numbers = self._numbers(self.constants.learning_rate if rate is None else rate)
        with use_tf32(self._allows_tf32):
            state, loss, finite = self._run(batches, key, count, numbers)
        self._params, self._moments, self._averaged = state
        if self.dtype != "float16":
            self.steps += 1
            return loss
        unscaled = float(loss) / self.scale.value
        self.scale.update(bool(finite))
        self.steps += bool(finite)
        return unscaled

    def _run(
        self,
        batches: Sequence[Any],
        key: Array,
        count: Array,
        numbers: tuple[Array, Array, Array],
    ) -> tuple[Any, Array, Array]:
        first, *others = batches
        loss, gradients = self._differentiate(self._params, *self._arrays(first), key, count)
        for part, batch in enumerate(others, 1):
            part_loss, own = self._differentiate(
                self._params, *self._arrays(batch), self._fold_in(key, part), count
            )
            loss, gradients = loss + part_loss, self._add(gradients, own)
        state, finite = self._apply(*self._state, gradients, numbers)
        return state, loss, finite

    def evaluate(self, batch: Any) -> tuple[float, float]:
        """Return the sum of the losses and of the weights of one batch, in inference mode."""
        with use_tf32(self._allows_tf32):
            total, count = self._evaluate(self._kept, *self._arrays(batch))
        return float(total), float(count)

    def module(self) -> nnx.Module:
        """Return the model with its current parameters, averaged if they are."""
        kept = jax.tree.map(self.workers.unreplicate, self._kept)  # ours will be donated
        nnx.update(self.model, kept)
        return self.model

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy the optimiser's state to the host under canonical names."""
        state = {"steps": np.array(self.steps)}
        for slot in self.constants.slots:
            moments = optax.tree_utils.tree_get(self._moments, SLOTS[slot])
            leaves = named(_split(moments, self._params))
            state |= {f"{slot}.{n}": to_numpy(leaf[...]).copy() for n, leaf in leaves.items()}
        if self._averaged is not None:
            leaves = named(self._params)
            state |= {f"parameter.{n}": to_numpy(leaf[...]).copy() for n, leaf in leaves.items()}
        if self.dtype == "float16":
            state["loss_scale"] = self.scale.state
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Undo `state_dict`."""
        self.steps = int(state["steps"])
        fresh = self._first_moments()
        for slot in self.constants.slots if self.steps else ():
            values = _join(self._filled(f"{slot}.", state))
            fresh = optax.tree_utils.tree_set(fresh, **{SLOTS[slot]: values})
        if "exp_avg" in self.constants.slots:
            fresh = optax.tree_utils.tree_set(fresh, count=jnp.asarray(self.steps, jnp.int32))
        self._moments = self.workers.replicate(fresh)
        if self._averaged is not None:
            self._params = self.workers.replicate(self._filled("parameter.", state))
        if self.dtype == "float16":
            self.scale.load(state["loss_scale"])

    @property
    def _state(self) -> tuple[Any, Any, Any]:
        return self._params, self._moments, self._averaged

    def _first_moments(self) -> Any:
        """The optimiser's state before the first step; it sees all parameters as one vector."""
        return self.optimizer.init(_join(self._params))

    def _filled(self, prefix: str, state: Mapping[str, np.ndarray]) -> Any:
        """Copy arrays of a `state_dict` into the places of the parameters."""
        params = jax.tree.map(lambda leaf: leaf, self._params)  # in places of their own
        for name, leaf in named(params).items():
            old = leaf[...]
            value = jnp.asarray(state[f"{prefix}{name}"], old.dtype)
            leaf[...] = jax.device_put(value, old.sharding)
        return params

    @property
    def _kept(self) -> Any:
        """The parameters that are evaluated and saved."""
        return self._params if self._averaged is None else self._averaged

    def _number(self, value: float) -> Array:
        number: Array = self.workers.replicate(np.asarray(value, param_dtype(self.dtype)))
        return number

    def _fold_in(self, key: Array, number: int) -> Array:
        return jax.random.fold_in(key, self.workers.replicate(np.uint32(number)))

    def _numbers(self, rate: float) -> tuple[Array, Array, Array]:
        """The learning rate, the average's decay and the loss's scale: they may change."""
        decay = 0.0 if self.ema_decay is None else ramped_decay(self.ema_decay, self.steps)
        return self._number(rate), self._number(decay), self._number(self.scale.value)

    def _differentiated(
        self,
        params: Any,
        batch: tuple[Any, ...],
        capacity: tuple[int, ...] | None,
        key: Array,
        count: Array,
    ) -> tuple[Array, Any]:
        """Return the sum of a batch's losses over `count`, and its gradient."""

        def objective(params: Any, batch: tuple[Any, ...], key: Array) -> Array:
            model = nnx.merge(self._training, self._cast(params), self._rest, copy=True)
            nnx.reseed(model, dropout=key)
            return self._total(model, batch, capacity)[0] / count

        differentiate = jax.value_and_grad(objective)
        result: tuple[Array, Any] = self.workers.all_reduce(differentiate)(params, batch, key)
        return result

    def _applied(
        self,
        params: Any,
        moments: Any,
        averaged: Any,
        gradients: Any,
        numbers: tuple[Array, Array, Array],
    ) -> tuple[Any, Array]:
        """Update the parameters, unless the gradient has overflowed.

        As one vector they take a fraction of the operations, so that a model of many small arrays
        is compiled in seconds.
        """
        rate, decay, scale = numbers
        weights, as_params = ravel_pytree(params)
        gradient, _ = ravel_pytree(gradients)
        finite = jnp.asarray(True)
        if self.dtype == "float16":
            gradient = gradient / scale
            finite = jnp.isfinite(gradient).all()
        updates, moved = self.optimizer.update(gradient, moments, weights)
        new = as_params(optax.apply_updates(weights, -rate * updates))
        old = params, moments, averaged
        if averaged is not None:
            averaged = optax.incremental_update(new, averaged, 1 - decay)
        state = new, moved, averaged
        if self.dtype == "float16":
            state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), state, old)
        return state, finite

    def _evaluated(
        self, params: Any, batch: tuple[Any, ...], capacity: tuple[int, ...] | None
    ) -> tuple[Array, Array]:
        def total_and_count(params: Any, batch: tuple[Any, ...], _: Any) -> tuple[Array, Array]:
            model = nnx.merge(self._inference, self._cast(params), self._rest)
            return self._total(model, batch, capacity)

        result: tuple[Array, Array] = self.workers.all_reduce(total_and_count)(params, batch, None)
        return result

    def _total(
        self, model: nnx.Module, batch: tuple[Any, ...], capacity: tuple[int, ...] | None
    ) -> tuple[Array, Array]:
        """Return the sum of the losses and of the weights."""
        arrays, static, target, loss_lengths = batch
        output = model(*arrays, **static, token_capacity=capacity).output
        lengths = arrays[3] if loss_lengths is None else loss_lengths
        return self.loss.total_and_count(output, target, lengths=lengths)

    def _cast(self, params: Any) -> Any:
        return jax.tree.map(lambda value: value.astype(self.dtype), params)

    def _arrays(self, batch: Any) -> tuple[tuple[Any, ...], tuple[int, ...] | None]:
        """Return the model's arguments and the target on the devices, and the room for tokens."""
        check_batch(self.model.config, batch)
        arrays = self.workers.shard_batch(batch, self.dtype, param_dtype(self.dtype))
        return arrays, token_capacity(batch, self.workers.device, self.workers.count)


@jax.jit
def _join(params: Any) -> Array:
    """Make parameters one vector, by one program; operation by operation, each shape is another."""
    return ravel_pytree(params)[0]


@jax.jit
def _split(vector: Array, params: Any) -> Any:
    """Undo `_join`, of `params`."""
    return ravel_pytree(params)[1](vector)


def create_optimizer(own: Optimizer, max_grad_norm: float | None) -> optax.GradientTransformation:
    """Build optax's optimiser with an optimiser's constants, all but the learning rate."""
    clip = optax.identity() if max_grad_norm is None else optax.clip_by_global_norm(max_grad_norm)
    match own:
        case optimizers.Adam():
            moments = optax.scale_by_adam(own.beta1, own.beta2, own.epsilon)
            decay = optax.add_decayed_weights(getattr(own, "weight_decay", 0.0))
            return optax.chain(clip, moments, decay)
        case optimizers.SGD():
            decay = optax.add_decayed_weights(own.weight_decay)
            if not own.momentum:
                return optax.chain(clip, decay)
            return optax.chain(clip, decay, optax.trace(own.momentum, own.nesterov))
    raise optimizers.unknown(own)


def predict(module: nnx.Module, batch: Any, *, need_weights: bool = False) -> Forecast:
    """Return the forecast of a host batch in inference mode, on the host.

    It runs where the module is, in its dtype; the module's mode is kept.
    """
    check_batch(module.config, batch)
    weight = jax.tree.leaves(nnx.state(module, nnx.Param))[0]
    model = nnx.merge(*nnx.split(module))
    model.eval()
    (device,) = weight.devices()

    def put(array: np.ndarray) -> Array:
        return jax.device_put(np.asarray(array, weight.dtype), device)

    lengths = batch.encoder_lengths, batch.decoder_lengths
    static = {} if batch.static is None else {"static": put(batch.static)}
    arrays = put(batch.past), put(batch.future), *lengths
    capacity = token_capacity(batch, device)
    forecast = _run(model, arrays, static, need_weights, capacity)
    return Forecast(*(None if array is None else to_numpy(array) for array in forecast))


def token_capacity(batch: Any, device: jax.Device, devices: int = 1) -> tuple[int, ...] | None:
    """Return the room for tokens of a batch's program; None = for all steps.

    Devices other than a CPU, and several that share the rows, run padded rows.
    """
    is_alone = device.platform == "cpu" and devices == 1
    capacity: tuple[int, ...] = batch.token_capacity
    return capacity if is_alone else None


@partial(nnx.jit, static_argnums=(3, 4))
def _run(
    model: nnx.Module,
    arrays: tuple[Any, ...],
    static: dict[str, Array],
    need_weights: bool,
    capacity: tuple[int, ...] | None,
) -> Forecast:
    options = {"need_weights": True} if need_weights else {}
    forecast: Forecast = model(*arrays, **static, **options, token_capacity=capacity)
    return forecast
