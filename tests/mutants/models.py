"""Faults in the models, whose mirrored files read alike on both backends."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import forecast

CALL = {"torch": "forward", "jax": "__call__"}


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's models."""
    call = f"ragged_{backend}.models.encoder_decoder_lstm:EncoderDecoderLSTM.{CALL[backend]}"
    return (
        fault(
            "decoder does not get the encoder's state",
            call,
            "self.decoder(future, decoder, (h, c))",
            "self.decoder(future, decoder)",
            forecast("one layer-mixed"),
        ),
        fault(
            "decoder gets h and c swapped",
            call,
            "self.decoder(future, decoder, (h, c))",
            "self.decoder(future, decoder, (c, h))",
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
            "encoder runs over padding",
            call,
            "self.encoder(past, encoder)",
            "self.encoder(past)",
            forecast("one layer-mixed"),
        ),
        fault(
            "forecast at padding not 0",
            call,
            "zero_padding(backend, self.head(decoded), decoder)",
            "self.head(decoded)",
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
    )
