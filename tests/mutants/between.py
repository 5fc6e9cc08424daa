"""Faults of one backend that only a comparison with the other can see."""

from __future__ import annotations

from tests.mutants.mutant import fault

AGREE = "test_backends_agree.py"
EQUAL_SEEDS = f"{AGREE}::test_equal_seeds_give_equal_parameters_to_the_bit"
MIXTURE = "test_promises.py::test_mixed_frameworks_are_refused"

FAULTS = (
    fault(
        "arrays of two frameworks taken by a function",
        "ragged.backend:backend_of",
        "if len(set(owners.values())) > 1:",
        "if False:",
        MIXTURE,
    ),
    fault(
        "arrays of another framework taken by a module",
        "ragged.backend:check_frameworks",
        "if set(owners.values()) - {backend.name}:",
        "if False:",
        MIXTURE,
    ),
    fault(
        "torch ignores its seed",
        "ragged_torch.parameters:draw_seed",
        "return seed",
        "return 1",
        f"{EQUAL_SEEDS}[LSTM, one layer]",
    ),
    fault(
        "jax ignores its seed",
        "ragged_jax.recurrent.layers:Recurrent.__init__",
        "init.generator(seed)",
        "init.generator(1)",
        f"{EQUAL_SEEDS}[LSTM, one layer]",
    ),
    fault(
        "jax starts the biases of Linear at 0",
        "ragged_jax.layers:Linear.__init__",
        'asarray(values["bias"])',
        'asarray(0 * values["bias"])',
        f"{EQUAL_SEEDS}[EncoderDecoderLSTM]",
    ),
    fault(
        "jax transposes its parameters",
        "ragged_jax.parameters:get_parameters",
        ".copy()",
        ".T.copy()",
        f"{EQUAL_SEEDS}[LSTM, one layer]",
    ),
    fault(
        "jax names its parameters by slashes",
        "ragged_jax.parameters:named",
        '".".join',
        '"/".join',
        f"{EQUAL_SEEDS}[EncoderDecoderLSTM]",
    ),
    fault(
        "torch names the second bias otherwise",
        "ragged_torch.parameters:get_parameters",
        "{name: to_numpy",
        '{name.replace("bias_hh", "bias_recurrent"): to_numpy',
        f"{EQUAL_SEEDS}[LSTM, one layer]",
    ),
    fault(
        "load leaves the initial values",
        "ragged.io.checkpoint:Checkpoint.create_model",
        "backend.set_parameters(module, self.parameters)",
        "pass",
        "test_checkpoints.py::test_the_other_backend_loads_what_one_saved[EncoderDecoderLSTM]",
    ),
    fault(
        "jax does not take parameters over",
        "ragged_jax.parameters:set_parameters",
        "jax.device_put(value,",
        "jax.device_put(old,",
        f"{AGREE}::test_parameters_travel_between_backends",
    ),
    fault(
        "torch does not take parameters over",
        "ragged_torch.parameters:set_parameters",
        "value.copy_",
        "value.clone().copy_",
        f"{AGREE}::test_parameters_travel_between_backends",
    ),
)
