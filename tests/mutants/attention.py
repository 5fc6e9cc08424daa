"""Faults in attention and in the models that have it, whose mirrored files read alike."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import attention

CALL = {"torch": "forward", "jax": "__call__"}
XP = {"torch": "torch", "jax": "jnp"}
LSTM, BRIDGED = "AttentionLSTM", "AttentionLSTM, bridge, ungated, all seen"
TRANSFORMER, SHARED = "TransformerLSTM", "TransformerLSTM, shared, all seen"
PF, FUSION, SIMPLE = "PFTemporalFusionTransformer", "XTFT", "XTFT, one feature"


def seen_in(configuration: str, case: str = "mixed") -> str:
    """Name a test of a model's forecast."""
    return attention("forecast_equals_the_oracle", configuration, case)


def faults_of(backend: str) -> tuple[Fault, ...]:
    """Give the faults in a backend's blocks and models with attention."""
    call, xp = CALL[backend], XP[backend]
    functions = {"torch": "nn.functional", "jax": "jax.nn"}[backend]
    join = {"torch": "torch.cat", "jax": "jnp.concatenate"}[backend]
    blocks, models = f"ragged_{backend}.layers", f"ragged_{backend}.models"
    attend = f"ragged_{backend}.attention:InterpretableAttention.{call}"
    attention_lstm = f"{models}.attention_lstm:AttentionLSTM.{call}"
    transformer = f"{models}.transformer_lstm:TransformerLSTM.{call}"
    fusion = f"{models}.temporal_fusion_transformer:TemporalFusionTransformer.{call}"
    statics = f"{models}.temporal_fusion_transformer:StaticContexts.{call}"
    mask = "ragged.ops.masks:decoder_attention_mask"
    softmax = {"torch": "torch.softmax", "jax": "jax.nn.softmax"}[backend]
    return (
        fault("decoder step sees itself", mask, ":] < steps", ":] <= steps", seen_in(LSTM)),
        fault(
            "decoder step sees what comes after it",
            mask,
            "if causal:",
            "if False:",
            seen_in(LSTM),
            attention("the_future_beyond_a_step_is_not_seen_before_it", LSTM),
        ),
        fault("encoder's padding is seen", mask, "past & query", "past | query", seen_in(LSTM)),
        fault(
            "decoder's padding is seen",
            mask,
            "visible = future[:, None, :]",
            "visible = future[:, None, :] | True",
            seen_in(BRIDGED),
        ),
        fault(
            "encoder's steps see padding",
            "ragged.ops.masks:self_attention_mask",
            "valid[:, None, :] &",
            "(valid[:, None, :] | True) &",
            seen_in(TRANSFORMER),
        ),
        fault("scores not scaled", attend, "q * q.shape[-1] ** -0.5", "q * 1.0", seen_in(LSTM)),
        fault(
            "heads added up instead of averaged",
            attend,
            "self.weights_dropout(weights).mean(1)",
            "self.weights_dropout(weights).sum(1)",
            seen_in(LSTM),
        ),
        fault(
            "what sees nothing is given the mean of all",
            attend,
            f"{xp}.where(some, mixed, 0.0)",
            "mixed",
            seen_in(LSTM, "length 0"),
        ),
        fault(
            "keys of encoder and decoder in the other order",
            attention_lstm,
            f"{join}([e, d], 1)",
            f"{join}([d, e], 1)",
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
            "gate left out",
            f"{blocks}:GateAddNorm.{call}",
            "self.add_norm(self.gate(x), residual)",
            "self.add_norm(x, residual)",
            seen_in(LSTM),
        ),
        fault(
            "relu for elu",
            f"{blocks}:GRN.{call}",
            f"{functions}.elu(",
            f"{functions}.relu(",
            seen_in(TRANSFORMER),
        ),
        fault(
            "context forgotten",
            f"{blocks}:GRN.{call}",
            "if context is not None:",
            "if False:",
            seen_in(PF),
        ),
        fault(
            "interpolation not scaled",
            f"{blocks}:Interpolation.{call}",
            "spread(self.scale",
            "spread(0 * self.scale",
            seen_in(SIMPLE),
        ),
        fault(
            "variables weighed over time",
            f"{blocks}:VariableSelection.{call}",
            f"{softmax}(self.weights(together, context), -1)",
            f"{softmax}(self.weights(together, context), 1)",
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
            "(d, decoder, state)",
            "(d, decoder)",
            seen_in(SHARED),
        ),
        fault("contexts of h and c swapped", statics, "self.h(s)", "self.c(s)", seen_in(PF)),
        fault(
            "static contexts do not start the LSTM",
            fusion,
            "encoder, self._state(context)",
            "encoder",
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
