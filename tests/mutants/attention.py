"""Faults in attention and in the models that have it, whose mirrored files read alike."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import attention, transformed

CALL = {"torch": "forward", "jax": "__call__"}
LSTM, BRIDGED = "AttentionLSTM", "AttentionLSTM, bridge, ungated, all seen"
TRANSFORMER, SHARED = "TransformerLSTM", "TransformerLSTM, shared, all seen"
PF, FUSION = "PFTemporalFusionTransformer", "XTFT"
STATICS = "TemporalFusionTransformer, statics, left, all seen"


def seen_in(configuration: str, case: str = "mixed") -> str:
    """Name a test of a model's forecast."""
    return attention("forecast_equals_the_oracle", configuration, case)


def of_modules(backend: str, gate: str, grn: str) -> tuple[Fault, ...]:
    """Make faults of gated blocks' modules, whose work kernels do on a CPU where they can.

    Args:
        backend: whose modules.
        gate: the test that runs a gate by its modules.
        grn: the one that runs a gated residual network by them.
    """
    functions = {"torch": "nn.functional", "jax": "jax.nn"}[backend]
    blocks = f"ragged_{backend}.layers"
    return (
        fault(
            "gate left out",
            f"{blocks}:GateAddNorm.{CALL[backend]}",
            "self.add_norm(self.gate(x), residual)",
            "self.add_norm(x, residual)",
            gate,
        ),
        fault(
            "relu for elu",
            f"{blocks}:GRN.{CALL[backend]}",
            f"{functions}.elu(",
            f"{functions}.relu(",
            grn,
        ),
    )


# The lengths of keys, host's or traced, and what takes their place.
JOINED = {
    "torch": ("first.host + second.host", "first.host"),
    "jax": (
        "Lengths.unread(first.to(backend, like) + second.to(backend, like)",
        "Lengths.unread(first.to(backend, like)",
    ),
}

WEIGHED = "weights = weigh(of_weights, x, self.weights.added(context, tokens))"
WEIGHED_OVER_TIME = WEIGHED, f"{WEIGHED}; weights = weights / weights.sum(0)"

OF_TOKENS = {  # of the layout without padding
    "torch": (
        fault(
            "token taken from the row before its own",
            "ragged.ops.tokens:token_places",
            "* lengths.width -",
            "* (lengths.width - 1) -",
            seen_in(LSTM),
        ),
        fault(
            "context of another row spread",
            "ragged.ops.tokens:token_rows",
            "np.arange(lengths.batch)",
            "np.arange(lengths.batch)[::-1]",
            seen_in(PF),
        ),
        fault(
            "keys in the order of tokens, not of rows",
            "ragged.ops.tokens:joined_token_places",
            "np.arange(len(moves)) + moves",
            "np.arange(len(moves))",
            seen_in(LSTM),
        ),
        fault(
            "keys of full pasts left where they are",
            "ragged_torch.tokens:BothSides.visible_to_decoder",
            "if encoder.places is not None",
            "if not encoder.lengths.is_full and encoder.places is not None",
            seen_in(LSTM, "only pasts full"),
        ),
    ),
    "jax": (
        fault(
            "keys of the decoder taken from padding",
            "ragged.ops.tokens:joined_order",
            "steps + gap",
            "steps",
            seen_in(LSTM, "only futures full"),
        ),
        fault(
            "token taken from the row before its own",
            "ragged_jax.tokens:Steps.compact",
            "rows * lengths.width +",
            "rows * (lengths.width - 1) +",
            seen_in(LSTM),
        ),
        fault(
            "context of another row spread",
            "ragged_jax.tokens:BothSides.spread",
            "rows.at[both]",
            "rows.at[both + 1]",
            seen_in(STATICS),
        ),
        fault(
            "keys in the order of tokens, not of rows",
            "ragged_jax.tokens:BothSides.visible_to_decoder",
            "jnp.argsort(jnp.concatenate([encoder.rows, decoder.rows]), stable=True)",
            "jnp.arange(len(encoder.rows) + len(decoder.rows))",
            seen_in(LSTM),
        ),
    ),
}


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's blocks and models with attention."""
    call = CALL[backend]
    join = {"torch": "torch.cat", "jax": "jnp.concatenate"}[backend]
    blocks, models = f"ragged_{backend}.layers", f"ragged_{backend}.models"
    attend = f"ragged_{backend}.attention:InterpretableAttention.{call}"
    attention_lstm = f"{models}.attention_lstm:AttentionLSTM.{call}"
    transformer = f"{models}.transformer_lstm:TransformerLSTM.{call}"
    fusion = f"{models}.temporal_fusion_transformer:TemporalFusionTransformer.{call}"
    statics = f"{models}.temporal_fusion_transformer:StaticContexts.{call}"
    tokens = f"ragged_{backend}.tokens"
    return (
        fault("decoder step sees itself", attend, "diagonal=-1", "diagonal=0", seen_in(LSTM)),
        fault(
            "decoder step sees what comes after it",
            attend,
            "causal=visible.causal",
            "causal=False",
            seen_in(LSTM),
            attention("the_future_beyond_a_step_is_not_seen_before_it", LSTM),
        ),
        fault(
            "padding between encoder and decoder is seen",
            f"{tokens}:Visible.arrange",
            "if self.order is None",
            "if True",
            seen_in(LSTM) if backend == "jax" else transformed("func.functionalize", LSTM),
        ),
        fault(
            "decoder's steps are not among the keys",
            "ragged.ops.tokens:joined_lengths",
            *JOINED[backend],
            seen_in(BRIDGED),
        ),
        fault(
            "weights left at the places of rows end to end",
            f"{tokens}:Visible.explain",
            "if self.encoder is None or",
            "if True or",
            seen_in(LSTM),
        ),
        *OF_TOKENS[backend],
        fault(
            "keys of encoder and decoder in the other order",
            attention_lstm,
            f"{join}([e, d], -2)",
            f"{join}([d, e], -2)",
            seen_in(LSTM),
        ),
        fault(
            "bridges of the attention model swapped",
            attention_lstm,
            "self.bridge_h(h), self.bridge_c(c)",
            "self.bridge_c(h), self.bridge_h(c)",
            seen_in(BRIDGED),
        ),
        fault(
            "context forgotten",
            f"{blocks}:GRN.added",
            "if context is None or tokens is None:",
            "if True:",
            seen_in(PF),
        ),
        fault(
            "variables weighed over time",
            f"ragged_{backend}.variable_selection:VariableSelection._by_kernels",
            *WEIGHED_OVER_TIME,
            seen_in(FUSION),
        ),
        fault(
            "residual around the LSTM left out",
            transformer,
            "e = e + y",
            "e = y",
            seen_in(TRANSFORMER),
        ),
        fault(
            "shared LSTM starts anew at the decoder",
            transformer,
            "d, state)",
            "d)",
            seen_in(SHARED),
        ),
        fault("contexts of h and c swapped", statics, "self.h(s)", "self.c(s)", seen_in(PF)),
        fault(
            "static contexts do not start the LSTM",
            fusion,
            "xe, self._state(context)",
            "xe",
            seen_in(PF),
        ),
        fault(
            "length counted from the wrong scale",
            "ragged.models.temporal_fusion_transformer:PFTemporalFusionTransformerConfig.scaled",
            "length / self.reference_length",
            "length / (1 + self.reference_length)",
            seen_in(PF),
        ),
        fault(
            "right aligned past taken for left aligned",
            "ragged.models.modules:ModelModule.prepare_inputs",
            'config.encoder_alignment == "right"',
            "False",
            seen_in(FUSION),
            attention("the_side_of_the_past_changes_nothing", FUSION),
        ),
        fault(
            "batch on the other side taken",
            "ragged.models.modules:check_batch",
            "batch.encoder_alignment != required",
            "False",
            attention("interpretation_is_that_of_the_oracle_and_of_its_own_side", LSTM),
        ),
    )


TORCH = of_modules(
    "torch",
    transformed("func.functionalize", LSTM),
    transformed("func.functionalize", TRANSFORMER),
)
