"""Faults in training: dropout, the optimiser and its step."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import dropout

CALL = {"torch": "forward", "jax": "__call__"}
LAYER = {
    "torch": "ragged_torch.recurrent.layers:Recurrent",
    "jax": "ragged_jax.recurrent.layers:Recurrent",
}
RATE = {"torch": "self.dropout.p", "jax": "self.dropout.rate"}
ALWAYS = {
    "torch": "nn.functional.dropout(y, self.dropout.p)",
    "jax": "nnx.Dropout(self.dropout.rate, rngs=nnx.Rngs(0))(y)",
}
COMPARED = {  # in dropout: what, and as what
    "torch": ("ragged_torch.layers:Dropout.forward", "torch.ge(bits", "torch.lt(bits"),
    "jax": ("ragged_jax.layers:drop", "bits >= ", "bits < "),
}
ONE_STEP = {"torch": "torch.ones_like(y[:, :1])", "jax": "jnp.ones_like(y[:, :1])"}
BETWEEN_LAYERS = (
    "test_recurrent.py::test_between_layers_acts_there_and_nowhere_else[{backend}-LSTM]"
)
DROPS = "test_training_steps.py::test_seed_and_number_of_a_step_decide_what_it_drops[{backend}]"
DROPS_NOTHING = "test_training_steps.py::test_evaluation_and_prediction_drop_nothing[{backend}]"
FORMULA = "test_training_steps.py::test_steps_equal_the_formula[{backend}-AdamW]"
MOMENTUM = "test_training_steps.py::test_steps_equal_the_formula[{backend}-momentum]"
PARTS = "test_training_steps.py::test_parts_of_a_batch_are_one_step[{backend}]"
AVERAGE = "test_training_steps.py::test_the_average_lags_behind[{backend}]"
TRAJECTORY = "test_trajectory.py::test_backends_follow_one_trajectory[EncoderDecoderLSTM]"


def between_layers(backend: str, name: str, new: str, *caught_by: str) -> Fault:
    """Make a fault in what a recurrent layer does between its layers."""
    call = f"{LAYER[backend]}.{CALL[backend]}"
    end = {"torch": "\n", "jax": ",\n"}[backend]
    return fault(name, call, f"self.dropout{end}", f"lambda y: {new}{end}", *caught_by)


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's dropout."""
    mlp = f"ragged_{backend}.layers:MLP.{CALL[backend]}"
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
            "ragged.recurrent.call:stack_layers",
            "if layer and between_layers",
            "if between_layers",
            BETWEEN_LAYERS,
        ),
        fault(
            "dropout after the last layer too",
            "ragged.recurrent.call:stack_layers",
            "    return x, tuple(concat",
            "    x = between_layers(x) if between_layers else x\n    return x, tuple(concat",
            BETWEEN_LAYERS,
        ),
        fault(
            "rate of what is dropped taken for that of what is kept",
            f"{LAYER[backend]}.__init__",
            "self.dropout = Dropout(",
            "self.dropout = Dropout(1 - ",
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
            *COMPARED[backend],
            dropout("rate_and_scale"),
        ),
        *(fault(name, *how, test) for name, (test, *how) in OPTIMIZER[backend].items()),
    )


STEPS = {
    "torch": (
        fault(
            "every step drops the same",
            "ragged_torch.training:TrainingStep._differentiate",
            "(self.seed, self.steps, part",
            "(self.seed, 0, part",
            DROPS,
        ),
        fault(
            "seed of dropout ignored",
            "ragged_torch.training:TrainingStep._differentiate",
            "(self.seed, self.steps, part",
            "(0, self.steps, part",
            DROPS,
        ),
        fault(
            "dropout in evaluation",
            "ragged_torch.training:TrainingStep.evaluate",
            "self.averaged.eval()",
            "self.averaged.train()",
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
            "ragged_jax.training:TrainingStep.launch",
            "_fold_in(self._key, self.steps)",
            "_fold_in(self._key, 0)",
            DROPS,
        ),
        fault(
            "seed of dropout ignored",
            "ragged_jax.training:TrainingStep.__init__",
            "replicate(jax.random.key(seed))",
            "replicate(jax.random.key(0))",
            DROPS,
        ),
        fault(
            "dropout in evaluation",
            "ragged_jax.training:TrainingStep._evaluated",
            "nnx.merge(self._inference, self._cast(params), self._rest)",
            "nnx.merge(self._training, self._cast(params), self._rest, copy=True)",
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


TORCH, JAX = (f"ragged_{backend}.training:TrainingStep" for backend in ("torch", "jax"))
TORCH_OPTIMIZER, JAX_OPTIMIZER = (
    f"ragged_{backend}.training:create_optimizer" for backend in ("torch", "jax")
)
CLIP = "_clip(gradients, self.max_grad_norm)"
MEAN = (
    "self.loss.total_and_count(output, placed.target, lengths=placed.loss_lengths)",
    "self.loss.total_and_count(output, placed.target)",
)
RATE_GIVEN = "self.constants.learning_rate if rate is None else rate"

# By the test that sees it: each fault's place, what stands there, and what takes its place.
OPTIMIZER: dict[str, dict[str, tuple[str, str, str, str]]] = {
    "torch": {
        "gradient not clipped": (FORMULA, f"{TORCH}._advance", CLIP, "pass"),
        "gradients clipped parameter by parameter": (
            FORMULA,
            f"{TORCH}._advance",
            CLIP,
            "[_clip([gradient], self.max_grad_norm) for gradient in gradients]",
        ),
        "gradients of all steps added up": (
            FORMULA,
            f"{TORCH}.launch",
            "self.optimizer.zero_grad(set_to_none=self._graphs is None)",
            "pass",
        ),
        "weight decay forgotten": (
            FORMULA,
            TORCH_OPTIMIZER,
            'getattr(own, "weight_decay", 0.0)',
            "0.0",
        ),
        "weight decay added to the gradient": (
            FORMULA,
            TORCH_OPTIMIZER,
            "chosen(\n",
            "torch.optim.Adam(\n",
        ),
        "beta2 taken for beta1": (FORMULA, TORCH_OPTIMIZER, "betas=(own.beta1", "betas=(own.beta2"),
        "epsilon of Adam ignored": (FORMULA, TORCH_OPTIMIZER, "eps=own.epsilon", "eps=1e-8"),
        "learning rate kept constant": (
            FORMULA,
            f"{TORCH}.launch",
            RATE_GIVEN,
            "self.constants.learning_rate",
        ),
        "momentum dampened": (
            MOMENTUM,
            TORCH_OPTIMIZER,
            "momentum=own.momentum",
            "momentum=own.momentum, dampening=0.5",
        ),
        "training's mean taken over padding": (FORMULA, f"{TORCH}._total", *MEAN),
        "each part of a batch normalised by itself": (
            PARTS,
            f"{TORCH}._differentiate",
            "self._backward(self._place(shard), count)",
            "self._backward(self._place(shard), shard.count)",
        ),
        "average without its ramp": (
            AVERAGE,
            f"{TORCH}._update",
            "ramped_decay(self.ema_decay, self.steps)",
            "self.ema_decay",
        ),
        "evaluation of what is not averaged": (
            AVERAGE,
            f"{TORCH}.evaluate",
            "_Computed(self.averaged",
            "_Computed(self.model",
        ),
    },
    "jax": {
        "gradient not clipped": (
            FORMULA,
            JAX_OPTIMIZER,
            "optax.clip_by_global_norm(max_grad_norm)",
            "optax.identity()",
        ),
        "gradient clipped element by element": (
            FORMULA,
            JAX_OPTIMIZER,
            "optax.clip_by_global_norm(max_grad_norm)",
            "optax.clip(max_grad_norm)",
        ),
        "weight decay forgotten": (
            FORMULA,
            JAX_OPTIMIZER,
            'getattr(own, "weight_decay", 0.0)',
            "0.0",
        ),
        "beta2 taken for beta1": (FORMULA, JAX_OPTIMIZER, "(own.beta1", "(own.beta2"),
        "epsilon of Adam ignored": (FORMULA, JAX_OPTIMIZER, "own.epsilon", "1e-8"),
        "learning rate kept constant": (
            FORMULA,
            f"{JAX}.launch",
            RATE_GIVEN,
            "self.constants.learning_rate",
        ),
        "momentum forgotten": (
            MOMENTUM,
            JAX_OPTIMIZER,
            "if not own.momentum",
            "if True",
        ),
        "training's mean taken over padding": (
            FORMULA,
            f"{JAX}._total",
            "target, lengths=lengths)",
            "target)",
        ),
        "the last part of a batch forgotten": (
            PARTS,
            f"{JAX}._run",
            "self._add(gradients, own)",
            "gradients",
        ),
        "average without its ramp": (
            AVERAGE,
            f"{JAX}._numbers",
            "ramped_decay(self.ema_decay, self.steps)",
            "self.ema_decay",
        ),
        "evaluation of what is not averaged": (
            AVERAGE,
            f"{JAX}.evaluate",
            "self._kept",
            "self._params",
        ),
    },
}

BETWEEN = (
    fault("torch does not clip the gradient", f"{TORCH}._advance", CLIP, "pass", TRAJECTORY),
    fault(
        "jax forgets the weight decay",
        JAX_OPTIMIZER,
        'getattr(own, "weight_decay", 0.0)',
        "0.0",
        TRAJECTORY,
    ),
)
