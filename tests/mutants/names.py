"""Node ids of conformance tests, `{backend}` standing for the backend's name."""

from __future__ import annotations

CLASSIFICATION = "test_classification_losses.py::test"
REFUSALS = "test_promises.py::test_bad_lengths_are_refused_at_the_door"


def mask(case: str) -> str:
    """Name a test of masks."""
    return f"test_masks.py::test_mask_equals_the_oracle_and_gives_its_lengths_back{_on(case)}"


def align(case: str) -> str:
    """Name a test of alignment."""
    return f"test_alignment.py::test_align_equals_the_oracle{_on(case)}"


def flip(case: str) -> str:
    """Name a test of flipping."""
    return f"test_alignment.py::test_flip_equals_the_oracle{_on(case)}"


def pack(case: str) -> str:
    """Name a test of packing."""
    return f"test_packing.py::test_pack_equals_the_oracle_and_unpacks{_on(case)}"


def forward(lengths: str, options: str = "one layer", cell: str = "LSTM") -> str:
    """Name a test of a recurrent layer's outputs and state."""
    case = f"{cell}, {options}-{lengths}"
    return f"test_recurrent.py::test_outputs_and_state_equal_the_oracle{_on(case)}"


def gradients(options: str = "one layer", cell: str = "LSTM") -> str:
    """Name a test of a recurrent layer's gradients."""
    return f"test_recurrent.py::test_gradients_equal_the_oracle{_on(f'{cell}, {options}')}"


def lstm_gradients(options: str) -> str:
    """Name a test of an LSTM's gradients."""
    return gradients(options)


def refused(test: str, case: str) -> str:
    """Name a test of what recurrent layers refuse."""
    return f"test_recurrent.py::test_{test}_are_refused{_on(case)}"


def transformed(transformation: str, problem: str) -> str:
    """Name a test of a transformation of torch or JAX."""
    return f"test_transformations.py::test_{{backend}}[{transformation}-{problem}]"


def recorded_resets(start: str) -> str:
    """Name a test of a compiled program that is given resets."""
    return f"test_resets.py::test_one_program_serves_all_resets{_on(start)}"


def mapped_resets(case: str) -> str:
    """Name a test of resets that `vmap` maps: with kernels or without, and what they reset to."""
    return f"test_resets.py::test_resets_are_mapped_and_differentiated_again{_on(case)}"


def forecast(case: str) -> str:
    """Name a test of the EncoderDecoderLSTM's outputs."""
    return f"test_encoder_decoder_lstm.py::test_forecast_equals_the_oracle{_on(case)}"


def row_normalization(kind: str) -> str:
    """Name a test of a model that normalises rows."""
    return f"test_row_normalization.py::test_forecast_equals_the_oracle{_on(kind)}"


def embeddings(model: str) -> str:
    """Name a test of a model with labels among its features."""
    return f"test_embeddings.py::test_forecast_and_gradients_equal_the_oracle{_on(model)}"


def attention(name: str, configuration: str, case: str = "") -> str:
    """Name a test of the models with attention."""
    case = f"-{case}" if case else ""
    return f"test_attention_models.py::test_{name}{_on(configuration + case)}"


def loss(name: str, case: str = "lengths-none") -> str:
    """Name a test of a loss's values."""
    return f"test_losses.py::test_values_equal_the_oracle{_on(f'{name}-{case}')}"


def gradient_of_loss(name: str) -> str:
    """Name a test of a loss's gradient."""
    return f"test_losses.py::test_gradients_equal_the_oracle{_on(f'{name}-mean')}"


def nothing_valid(case: str) -> str:
    """Name a test of a loss over nothing."""
    return f"test_losses.py::test_nothing_valid_gives_zero_with_zero_gradient{_on(case)}"


def cross_entropy(case: str) -> str:
    """Name a test of cross entropy's values and gradient."""
    return f"{CLASSIFICATION}_cross_entropy_equals_the_oracle{_on(case)}"


def binary_cross_entropy(case: str) -> str:
    """Name a test of binary cross entropy's values and gradient."""
    return f"{CLASSIFICATION}_binary_cross_entropy_equals_the_oracle{_on(case)}"


def large_logits(name: str) -> str:
    """Name a test of logits that overflow where they are exponentiated."""
    case = _on(f"10000.0-{name}")
    return f"{CLASSIFICATION}_large_logits_neither_overflow_nor_lose_the_loss{case}"


def refused_target(case: str) -> str:
    """Name a test of what cross entropies refuse."""
    return f"{CLASSIFICATION}_what_has_no_cross_entropy_is_refused{_on(case)}"


def dropout(name: str, case: str = "") -> str:
    """Name a test of dropout."""
    return f"test_dropout.py::test_{name}[{{backend}}{case}]"


def explain(policy: str) -> str:
    """Name a test of what `explain` prints."""
    return f"test_explain.py::test_explain_names_what_runs_and_why_the_others_do_not{_on(policy)}"


def _on(case: str) -> str:
    return f"[{{backend}}-{case}]"
