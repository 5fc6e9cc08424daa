"""Faults in training: dropout, the optimiser and its step."""

from __future__ import annotations

from tests.sabotage.faults import Fault, fault
from tests.sabotage.names import dropout

CALL = {"torch": "forward", "jax": "__call__"}
RATE = {"torch": "self.dropout.p", "jax": "self.dropout.rate"}
ALWAYS = {
    "torch": "nn.functional.dropout(y, self.dropout.p)",
    "jax": "jnp.where(jax.random.bernoulli(self.dropout.rngs(), 0.6, y.shape), y / 0.6, 0)",
}
ONE_STEP = {"torch": "torch.ones_like(y[:, :1])", "jax": "jnp.ones_like(y[:, :1])"}
BETWEEN_LAYERS = "test_lstm.py::test_between_layers_acts_there_and_nowhere_else[{backend}]"
DROPS = "test_training_steps.py::test_seed_and_number_of_a_step_decide_what_it_drops[{backend}]"
DROPS_NOTHING = "test_training_steps.py::test_evaluation_and_prediction_drop_nothing[{backend}]"
FORMULA = "test_training_steps.py::test_steps_equal_the_formula[{backend}]"
TRAJECTORY = "test_trajectory.py::test_backends_follow_one_trajectory[EncoderDecoderLSTM]"


def between_layers(backend: str, name: str, new: str, *caught_by: str) -> Fault:
    """Make a fault in what an LSTM does between its layers."""
    call = f"ragged_{backend}.lstm:LSTM.{CALL[backend]}"
    return fault(name, call, "self.dropout,\n", f"lambda y: {new},\n", *caught_by)


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's dropout."""
    mlp = f"ragged_{backend}.blocks:MLP.{CALL[backend]}"
    return (
        between_layers(
            backend,
            "dropout in inference",
            ALWAYS[backend],
            dropout("inference_is_that_of_no_dropout", "-LSTM"),
        ),
        between_layers(
            backend,
            "what is kept not scaled up",
            f"self.dropout(y) * (1 - {RATE[backend]})",
            dropout("rate_and_scale"),
        ),
        between_layers(
            backend,
            "all steps of a row drop the same units",
            f"y * self.dropout({ONE_STEP[backend]})",
            dropout("rate_and_scale"),
        ),
        between_layers(
            backend,
            "no dropout between layers",
            "y",
            dropout("rate_and_scale"),
        ),
        fault(
            "dropout before the first layer too",
            "ragged.lstm:stack_layers",
            "if layer and between_layers",
            "if between_layers",
            BETWEEN_LAYERS,
        ),
        fault(
            "dropout after the last layer too",
            "ragged.lstm:stack_layers",
            "    return x, (concat",
            "    x = between_layers(x) if between_layers else x\n    return x, (concat",
            BETWEEN_LAYERS,
        ),
        fault(
            "rate of what is dropped taken for that of what is kept",
            f"ragged_{backend}.lstm:LSTM.__init__",
            "self.dropout = Dropout(dropout",
            "self.dropout = Dropout(1 - dropout",
            dropout("rate_and_scale"),
        ),
        fault(
            "no dropout in the MLP",
            mlp,
            "self.dropout(",
            "(",
            dropout("all_places_of_the_model_drop_independently"),
        ),
        *STEPS[backend],
        fault(
            "what is to be dropped kept, and the rest dropped",
            f"ragged_{backend}.blocks:Dropout.{CALL[backend]}",
            "bits >= ",
            "bits < ",
            dropout("rate_and_scale"),
        ),
        *(fault(name, *change, FORMULA) for name, change in OPTIMIZER[backend].items()),
    )


STEPS = {
    "torch": (
        fault(
            "every step drops the same",
            "ragged_torch.training:TrainingStep.step",
            "(self.seed, self.steps, self.device)",
            "(self.seed, 0, self.device)",
            DROPS,
        ),
        fault(
            "seed of dropout ignored",
            "ragged_torch.training:TrainingStep.step",
            "(self.seed, self.steps, self.device)",
            "(0, self.steps, self.device)",
            DROPS,
        ),
        fault(
            "dropout in evaluation",
            "ragged_torch.training:TrainingStep.evaluate",
            "self.model.eval()",
            "self.model.train()",
            DROPS_NOTHING,
        ),
        fault(
            "dropout in prediction",
            "ragged_torch.training:predict",
            "module.eval()",
            "module.train()",
            DROPS_NOTHING,
        ),
    ),
    "jax": (
        fault(
            "every step drops the same",
            "ragged_jax.training:TrainingStep.step",
            "key(self.seed), self.steps)",
            "key(self.seed), 0)",
            DROPS,
        ),
        fault(
            "seed of dropout ignored",
            "ragged_jax.training:TrainingStep.step",
            "key(self.seed), self.steps)",
            "key(0), self.steps)",
            DROPS,
        ),
        fault(
            "dropout in evaluation",
            "ragged_jax.training:TrainingStep._total_and_count",
            "nnx.merge(self._inference, params, self._rest)",
            "nnx.merge(self._training, params, self._rest, copy=True)",
            DROPS_NOTHING,
        ),
        fault(
            "dropout in prediction",
            "ragged_jax.training:predict",
            "model.eval()",
            "model.train()",
            DROPS_NOTHING,
        ),
    ),
}


TORCH = "ragged_torch.training:TrainingStep"
JAX = "ragged_jax.training:create_optimizer"
CLIP = "_clip(gradients, self.constants.gradient_clip)"

OPTIMIZER: dict[str, dict[str, tuple[str, str, str]]] = {
    "torch": {
        "gradient not clipped": (f"{TORCH}.step", CLIP, "pass"),
        "gradients clipped parameter by parameter": (
            f"{TORCH}.step",
            CLIP,
            "[_clip([gradient], self.constants.gradient_clip) for gradient in gradients]",
        ),
        "gradients of all steps added up": (f"{TORCH}.step", "self.optimizer.zero_grad()", "pass"),
        "weight decay forgotten": (
            f"{TORCH}.__init__",
            "weight_decay=optimizer.weight_decay",
            "weight_decay=0.0",
        ),
        "weight decay added to the gradient": (
            f"{TORCH}.__init__",
            "torch.optim.AdamW",
            "torch.optim.Adam",
        ),
        "beta2 taken for beta1": (
            f"{TORCH}.__init__",
            "betas=(optimizer.beta1",
            "betas=(optimizer.beta2",
        ),
        "epsilon of Adam ignored": (f"{TORCH}.__init__", "eps=optimizer.epsilon", "eps=1e-8"),
        "learning rate kept constant": (
            f"{TORCH}.step",
            "self.constants.rate(self.steps)",
            "self.constants.learning_rate",
        ),
        "learning rate a step late": (
            f"{TORCH}.step",
            "rate(self.steps)",
            "rate(max(self.steps - 1, 0))",
        ),
        "training's mean taken over padding": (
            f"{TORCH}.step",
            "self.loss(*self._forecast(batch), lengths=batch.decoder_lengths)",
            "self.loss(*self._forecast(batch))",
        ),
    },
    "jax": {
        "gradient not clipped": (JAX, "optax.clip_by_global_norm(clip)", "optax.identity()"),
        "gradient clipped element by element": (
            JAX,
            "optax.clip_by_global_norm(clip)",
            "optax.clip(clip)",
        ),
        "weight decay forgotten": (
            JAX,
            "weight_decay=optimizer.weight_decay",
            "weight_decay=0.0",
        ),
        "beta2 taken for beta1": (JAX, "b1=optimizer.beta1", "b1=optimizer.beta2"),
        "epsilon of Adam ignored": (JAX, "eps=optimizer.epsilon", "eps=1e-8"),
        "learning rate kept constant": (
            "ragged_jax.training:_learning_rate",
            "if optimizer.decay_steps is None:",
            "if True:",
        ),
        "training's mean taken over padding": (
            "ragged_jax.training:TrainingStep._update_once",
            "self.loss(output, target, lengths=decoder_lengths)",
            "self.loss(output, target)",
        ),
    },
}

BETWEEN = (
    fault("torch does not clip the gradient", f"{TORCH}.step", CLIP, "pass", TRAJECTORY),
    fault(
        "jax forgets the weight decay",
        JAX,
        "weight_decay=optimizer.weight_decay",
        "weight_decay=0.0",
        TRAJECTORY,
    ),
)
