"""Faults in the models, whose mirrored files read alike on both backends."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import embeddings, forecast, row_normalization

ROWS = "ragged.models.row_normalization"
CALL = {"torch": "forward", "jax": "__call__"}

# What a backend's `Steps` has to know of the rows, and what takes its place.
LENGTHS = {
    "torch": ('"offsets": self.offsets', '"offsets": (self.offsets > 0) * len(x)'),
    "jax": ("layer(x, self.lengths, state)", "layer(x, None, state)"),
}
SELECTED = {
    "torch": ("x.new_zeros(", "x.new_ones("),
    "jax": ("zero_padding(load_backend(name), x, self.lengths)", "x"),
}
# Every label reads the row before its own.
SHIFTED = {
    "torch": ("embedding(rows, wide)", "embedding(rows, wide.roll(1, 0))"),
    "jax": ("wide.at[rows]", "jnp.roll(wide, 1, 0).at[rows]"),
}


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's models."""
    call = f"ragged_{backend}.models.encoder_decoder_lstm:EncoderDecoderLSTM.{CALL[backend]}"
    return (
        fault(
            "decoder does not get the encoder's state",
            call,
            "decoder.run(self.decoder, future, (h, c))",
            "decoder.run(self.decoder, future)",
            forecast("one layer-mixed"),
        ),
        fault(
            "decoder gets h and c swapped",
            call,
            "decoder.run(self.decoder, future, (h, c))",
            "decoder.run(self.decoder, future, (c, h))",
            forecast("one layer-mixed"),
        ),
        fault(
            "bridges of h and c swapped",
            call,
            "self.bridge_h(h), self.bridge_c(c)",
            "self.bridge_c(h), self.bridge_h(c)",
            forecast("bridge-mixed"),
        ),
        fault(
            "rows run beyond their lengths",
            f"ragged_{backend}.tokens:Steps.run",
            *LENGTHS[backend],
            forecast("one layer-mixed"),
        ),
        fault(
            "forecast at padding not 0",
            f"ragged_{backend}.tokens:Steps.pad",
            *SELECTED[backend],
            forecast("one layer-mixed"),
        ),
        fault(
            "dropout of 1 taken",
            "ragged.models.config:check_rate",
            "if not 0 <= value < 1:",
            "if False:",
            "test_encoder_decoder_lstm.py::test_wrong_sizes_are_refused[{backend}]",
        ),
        fault(
            "activation of the MLP forgotten",
            f"ragged_{backend}.layers:MLP.{CALL[backend]}",
            "relu(self.hidden(x))",
            "tanh(self.hidden(x))" if backend == "torch" else "soft_sign(self.hidden(x))",
            forecast("MLP head-mixed"),
        ),
        fault(
            "normalisation of rows not undone",
            f"ragged_{backend}.models.base:ForecastingModel.undo_rows",
            "rows.undo(padded)",
            "padded",
            row_normalization("standard"),
        ),
        fault(
            "padding counted in a row's mean",
            f"{ROWS}:_mean",
            "xp.astype(lengths.to(backend, x), x.dtype)",
            "xp.astype(0 * lengths.to(backend, x) + x.shape[1], x.dtype)",
            row_normalization("standard"),
        ),
        fault(
            "padding shifted with the row",
            f"{ROWS}:normalize_rows",
            "zero_padding(backend, x - mean, encoder)",
            "x - mean",
            row_normalization("standard"),
        ),
        fault(
            "last value taken from the wrong side",
            f"{ROWS}:_last",
            "steps == lengths.to(backend, x)[:, None] - 1",
            "steps == lengths.width - lengths.to(backend, x)[:, None]",
            row_normalization("last_value"),
        ),
        fault(
            "covariates normalised in place of the targets",
            f"{ROWS}:normalize_rows",
            "past[..., :others], zero_padding(backend, past[..., others:], encoder)",
            "past[..., targets:], zero_padding(backend, past[..., :targets], encoder)",
            row_normalization("last_value"),
        ),
        fault(
            "a season counted from the end of the padding",
            f"{ROWS}:_season_before",
            "count - season + steps % season",
            "encoder.width - season + steps % season",
            row_normalization("seasonal"),
        ),
        fault(
            "outputs of one target moved by another's level",
            f"{ROWS}:RowScale.undo",
            "by_target + self.location[..., None]",
            "by_target + self.location[..., None, :]",
            row_normalization("last_value"),
        ),
        fault(
            "an unknown label read as the first one",
            "ragged.models.categories:table_rows",
            "xp.zeros_like(x)",
            "xp.ones_like(x)",
            embeddings("EncoderDecoderLSTM"),
        ),
        fault(
            "labels shifted by one",
            f"ragged_{backend}.layers:Embedding.{CALL[backend]}",
            *SHIFTED[backend],
            embeddings("EncoderDecoderLSTM"),
        ),
        fault(
            "selections of labels in another order than the features",
            f"ragged_{backend}.variable_selection:VariableSelection.{CALL[backend]}",
            "weights[..., order]",
            "weights",
            embeddings("TemporalFusionTransformer"),
        ),
    )
