"""One training step and one prediction of a forecasting model, on JAX."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from ragged.losses import MaskedLoss
from ragged.models.base import Forecast, check_batch
from ragged.optimizer import AdamW
from ragged_jax.arrays import to_numpy
from ragged_jax.parameters import find_device, named, place

SLOTS = {"exp_avg": "mu", "exp_avg_sq": "nu"}  # torch's names, which checkpoints use: optax's


class TrainingStep:
    """A model, its loss and its optimiser, advanced batch by batch.

    Args:
        model: a forecasting module.
        loss: one of `ragged.losses`, or what is called as they are.
        optimizer: the optimiser's constants.
        seed: seed of dropout; step n draws from (seed, n), so that a resumed run draws the same.
        device: "cpu" or "cuda".
        dtype: "float32" or "float64".
    """

    def __init__(
        self,
        model: nnx.Module,
        loss: MaskedLoss,
        optimizer: AdamW,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        self.model = place(model, device=device, dtype=dtype)
        self.loss = loss
        self.seed, self.device, self.dtype = seed, device, dtype
        self.steps = 0
        self.optimizer = create_optimizer(optimizer)
        self.model.eval()
        self._inference, _, _ = nnx.split(self.model, nnx.Param, ...)
        self.model.train()
        self._training, self._params, self._rest = nnx.split(self.model, nnx.Param, ...)
        self._moments = self._committed(self.optimizer.init(self._params))
        self._update = jax.jit(self._update_once, donate_argnums=(0, 1))
        self._evaluate = jax.jit(self._total_and_count)

    def step(self, batch: Any) -> float:
        """Advance by one batch and return its mean loss before the step."""
        key = jax.random.fold_in(jax.random.key(self.seed), self.steps)
        arrays = self._arrays(batch)
        self._params, self._moments, loss = self._update(self._params, self._moments, arrays, key)
        self.steps += 1
        return float(loss)

    def evaluate(self, batch: Any) -> tuple[float, float]:
        """Return the sum of the losses and of the weights of one batch, in inference mode."""
        total, count = self._evaluate(self._params, self._arrays(batch))
        return float(total), float(count)

    def module(self) -> nnx.Module:
        """Return the model with its current parameters."""
        nnx.update(self.model, jax.tree.map(jnp.copy, self._params))  # ours will be donated
        return self.model

    def state(self) -> dict[str, np.ndarray]:
        """Copy the optimiser's state to the host under canonical names."""
        state = {"steps": np.array(self.steps)}
        for slot, moments in SLOTS.items():
            found = named(optax.tree_utils.tree_get(self._moments, moments))
            state |= {f"{slot}.{n}": to_numpy(leaf[...]).copy() for n, leaf in found.items()}
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Undo `state`."""
        self.steps = int(state["steps"])
        fresh = self.optimizer.init(self._params)
        for slot, moments in SLOTS.items() if self.steps else ():
            tree = optax.tree_utils.tree_get(fresh, moments)
            for name, leaf in named(tree).items():
                old = leaf[...]
                value = jnp.asarray(state[f"{slot}.{name}"], old.dtype)
                leaf[...] = jax.device_put(value, old.sharding)
        counted = optax.tree_utils.tree_set(fresh, count=jnp.asarray(self.steps, jnp.int32))
        self._moments = self._committed(jax.tree.map(jnp.copy, counted))  # donated once each

    def _committed(self, moments: Any) -> Any:
        """Pin the moments to the device, as a step returns them, lest it is compiled twice."""
        return jax.device_put(moments, find_device(self.device))

    def _update_once(
        self, params: Any, moments: Any, batch: tuple[Any, ...], key: Array
    ) -> tuple[Any, Any, Array]:
        def objective(params: Any) -> Array:
            model = nnx.merge(self._training, params, self._rest, copy=True)
            nnx.reseed(model, dropout=key)
            past, future, target, encoder_lengths, decoder_lengths = batch
            output = model(past, future, encoder_lengths, decoder_lengths).output
            return self.loss(output, target, lengths=decoder_lengths)

        loss, gradients = jax.value_and_grad(objective)(params)
        updates, moments = self.optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), moments, loss

    def _total_and_count(self, params: Any, batch: tuple[Any, ...]) -> tuple[Array, Array]:
        model = nnx.merge(self._inference, params, self._rest)
        past, future, target, encoder_lengths, decoder_lengths = batch
        output = model(past, future, encoder_lengths, decoder_lengths).output
        return self.loss.total_and_count(output, target, lengths=decoder_lengths)

    def _arrays(self, batch: Any) -> tuple[Any, ...]:
        check_batch(self.model.config, batch)
        device = find_device(self.device)
        floats = (batch.past, batch.future, batch.target)
        arrays = (_array(array, device, self.dtype) for array in floats)
        return (*arrays, batch.encoder_lengths, batch.decoder_lengths)


def create_optimizer(optimizer: AdamW) -> optax.GradientTransformation:
    """Build optax's AdamW with the given constants."""
    clip = optimizer.gradient_clip
    return optax.chain(
        optax.identity() if clip is None else optax.clip_by_global_norm(clip),
        optax.adamw(
            _learning_rate(optimizer),
            b1=optimizer.beta1,
            b2=optimizer.beta2,
            eps=optimizer.epsilon,
            weight_decay=optimizer.weight_decay,
        ),
    )


def _learning_rate(optimizer: AdamW) -> Any:
    """Return the constant, or `AdamW.rate` as optax writes it."""
    if optimizer.decay_steps is None:
        return optimizer.learning_rate
    return optax.cosine_decay_schedule(optimizer.learning_rate, optimizer.decay_steps)


def predict(module: nnx.Module, batch: Any, *, need_weights: bool = False) -> Forecast:
    """Return the forecast of a host batch in inference mode, on the host.

    It runs where the module is, in its dtype; the module's mode is kept.
    """
    check_batch(module.config, batch)
    weight = jax.tree.leaves(nnx.state(module, nnx.Param))[0]
    model = nnx.merge(*nnx.split(module))
    model.eval()
    (device,) = weight.devices()
    arrays = [_array(array, device, weight.dtype) for array in (batch.past, batch.future)]
    found = _run(model, *arrays, batch.encoder_lengths, batch.decoder_lengths, need_weights)
    return Forecast(*(None if array is None else to_numpy(array) for array in found))


@partial(nnx.jit, static_argnums=5)
def _run(
    model: nnx.Module,
    past: Array,
    future: Array,
    encoder_lengths: Any,
    decoder_lengths: Any,
    need_weights: bool,
) -> Forecast:
    asked = {"need_weights": True} if need_weights else {}
    return model(past, future, encoder_lengths, decoder_lengths, **asked)


def _array(array: np.ndarray, device: jax.Device, dtype: Any) -> Array:
    return jax.device_put(np.asarray(array, dtype), device)
