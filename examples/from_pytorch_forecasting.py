"""pytorch-forecasting's temporal fusion transformer, and ours with its weights: one forecast."""

import re
from collections import defaultdict

import numpy as np
import pandas
import torch
from pytorch_forecasting import QuantileLoss, TemporalFusionTransformer, TimeSeriesDataSet
from torch.nn.utils.rnn import pack_padded_sequence

import ragged

QUANTILES = [0.1, 0.5, 0.9]
SIZES = {"hidden_size": 8, "hidden_continuous_size": 16, "dropout": 0.0, "output_size": 3}
# The names of its parameters, in parts, and ours.
RENAMED = {
    r"static_variable_selection": "static.variables",
    r"static_context_variable_selection": "static.selection",
    r"static_context_initial_hidden_lstm": "static.h",
    r"static_context_initial_cell_lstm": "static.c",
    r"static_context_enrichment": "static.enrichment",
    r"encoder_variable_selection": "past_selection",
    r"decoder_variable_selection": "future_selection",
    r"single_variable_grns\.\w+": "grns",
    r"prescalers\.\w+": "linears",
    r"flattened_grn": "weights",
    r"lstm_(encoder|decoder)": r"\1",
    r"post_lstm_gate_encoder\.fc": "lstm_join.gate.linear",
    r"post_lstm_add_norm_encoder": "lstm_join.add_norm",
    r"static_enrichment": "enrichment",
    r"multihead_attn": "attention",
    r"q_layers\.\d+": "query",
    r"k_layers\.\d+": "key",
    r"v_layer": "value",
    r"w_h": "output",
    r"post_attn_gate_norm": "attention_join",
    r"pos_wise_ff": "feed_forward",
    r"pre_output_gate_norm": "output_join",
    r"output_layer": "head",
    r"fc1": "hidden",
    r"fc2": "output",
    r"resample_norm\.mask": "residual.scale",
    r"resample_norm": "residual",
    r"gate_norm\.add_norm\.norm": "norm",
    r"(gate_norm\.)?glu\.fc": "gate.linear",
}


def copy_weights(theirs: torch.nn.Module, ours: torch.nn.Module) -> None:
    found = defaultdict(list)
    for name, value in theirs.state_dict().items():
        for pattern, new in RENAMED.items():
            name = re.sub(rf"(?<![^.]){pattern}(?![^.])", new, name)
        found[name].append(value)
    found["attention.output.bias"] = [torch.zeros(ours.config.hidden_size)]  # it has none
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            join = torch.stack if re.search(r"\.(grns|linears)\.", name) else torch.cat
            parameter.copy_(join(found[name]))


rng = np.random.default_rng(0)
frame = pandas.concat(
    pandas.DataFrame({"well": well, "step": np.arange(steps), "rain": rng.random(steps)})
    for well, steps in {"a": 30, "b": 12, "c": 7}.items()
)
frame["level"] = frame.groupby("well")["rain"].cumsum()

# you wrote
dataset = TimeSeriesDataSet(
    frame.reset_index(drop=True),
    time_idx="step",
    target="level",
    group_ids=["well"],
    min_encoder_length=1,
    max_encoder_length=8,
    min_prediction_length=1,
    max_prediction_length=4,
    time_varying_known_reals=["rain"],
    time_varying_unknown_reals=["level"],
    target_normalizer=None,
)
theirs = TemporalFusionTransformer.from_dataset(
    dataset, lstm_layers=1, attention_head_size=2, loss=QuantileLoss(QUANTILES), **SIZES
).eval()
x, (target, _) = next(iter(dataset.to_dataloader(train=False, batch_size=64)))
old = theirs(x)["prediction"]
packed = pack_padded_sequence(target, x["decoder_lengths"], True, enforce_sorted=False)
old_loss = theirs.loss(old, packed)

# you write
with ragged.use_backend("torch"):
    ours = ragged.models.TemporalFusionTransformer(
        2, 1, num_layers=1, num_heads=2, context_length=8, encoder_alignment="left", **SIZES
    ).eval()
copy_weights(theirs, ours)
past = x["encoder_cont"][..., [dataset.reals.index(name) for name in theirs.encoder_variables]]
future = x["decoder_cont"][..., [dataset.reals.index(name) for name in theirs.decoder_variables]]
lengths = x["decoder_lengths"]
new = ours(past, future, x["encoder_lengths"], lengths).output
new_loss = ragged.losses.quantile(new, target, quantiles=QUANTILES, lengths=lengths)

valid = ragged.create_padding_mask(lengths)
torch.testing.assert_close(new[valid], old[valid], rtol=1e-4, atol=1e-5)
torch.testing.assert_close(2 * new_loss, old_loss)
print(len(new), "windows,", int(valid.sum()), "steps")  # 64 windows, 242 steps
