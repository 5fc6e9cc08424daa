"""The oracle of the models with attention: NumPy, one row at a time, from the equations.

As in `oracle`, a row is cut to its lengths first, so that nothing here handles padding, and all is
analytic. Parameters have the names that they have in the modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ragged_conformance import oracle
from ragged_conformance.oracle import (
    Arrays,
    Ints,
    inside,
    linear,
    lstm_step,
    pad,
    run_row,
    sigmoid,
    valid_part,
)

Row = dict[str, np.ndarray]
Model = Callable[..., Row]


def layer_norm(parameters: Arrays, x: np.ndarray) -> np.ndarray:
    """Bring the features to mean 0 and variance 1, then scale and shift them."""
    size = x.shape[-1]
    centred = x - x.sum(-1, keepdims=True) / size
    variance = (centred**2).sum(-1, keepdims=True) / size
    return centred / np.sqrt(variance + 1e-5) * parameters["weight"] + parameters["bias"]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Exponentials over their sum."""
    shares = np.exp(scores - scores.real.max())
    return shares / shares.sum()


def glu(parameters: Arrays, x: np.ndarray) -> np.ndarray:
    """Gate one half of a Linear with the other."""
    both = linear(parameters, "linear", x)
    half = both.shape[-1] // 2  # slices: np.split takes ten times as long
    return both[..., :half] * sigmoid(both[..., half:])


def add_norm(parameters: Arrays, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """LayerNorm of the sum; y is scaled where there is a scale."""
    if "scale" in parameters:
        y = y * 2 * sigmoid(parameters["scale"])
    return layer_norm(inside(parameters, "norm"), x + y)


def gate_add_norm(parameters: Arrays, x: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Gate x, add the residual, norm."""
    gated = glu(inside(parameters, "gate"), x)
    return add_norm(inside(parameters, "add_norm"), gated, residual)


def interpolate(x: np.ndarray, size: int) -> np.ndarray:
    """Interpolate the last axis linearly to a size, both ends aligned."""
    points = []
    for j in range(size):
        position = j * (x.shape[-1] - 1) / (size - 1) if size > 1 else 0.0
        left = min(int(position), max(x.shape[-1] - 2, 0))
        right, share = min(left + 1, x.shape[-1] - 1), position - left
        points.append((1 - share) * x[..., left] + share * x[..., right])
    return np.stack(points, axis=-1)


def grn(parameters: Arrays, x: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
    """The gated residual network of one set of parameters."""
    hidden = linear(parameters, "hidden", x)
    if context is not None:
        hidden = hidden + context @ parameters["context.weight"].T
    hidden = np.where(hidden.real > 0, hidden, np.exp(hidden) - 1)
    y = glu(inside(parameters, "gate"), linear(parameters, "output", hidden))
    residual = x
    if "residual.scale" in parameters:
        scale = 2 * sigmoid(parameters["residual.scale"])
        stretched = interpolate(x, y.shape[-1]) * scale
        residual = layer_norm(inside(parameters, "residual.norm"), stretched)
    elif "residual.weight" in parameters:
        residual = linear(parameters, "residual", x)
    return layer_norm(inside(parameters, "norm"), y + residual)


class Features(NamedTuple):
    """The features of one row's steps: `(steps, 1)` of numbers, `(steps, size)` of labels."""

    numbers: dict[int, np.ndarray]
    labels: dict[int, np.ndarray]

    @property
    def joined(self) -> np.ndarray:
        """The numbers, and behind them the embedded labels."""
        return np.concatenate([*self.numbers.values(), *self.labels.values()], axis=-1)


def embed(parameters: Arrays, x: np.ndarray, cardinalities: Ints) -> Features:
    """Replace each label of `(steps, features)` by its row of a table; row 0 is of no label."""
    features = Features({}, {})
    for place in range(x.shape[-1]):
        count = cardinalities[place] if place < len(cardinalities) else 0
        if not count:
            features.numbers[place] = x[:, place : place + 1]
            continue
        table, rows = parameters[f"embeddings.{len(features.labels)}.weight"], []
        for value in x[:, place].real:
            rows.append(table[int(value) if value in range(1, count) else 0])
        features.labels[place] = np.array(rows, table.dtype).reshape(-1, table.shape[1])
    return features


def select_variables(
    parameters: Arrays, features: Features, context: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Weigh features by a softmax: those of some steps to `(steps, size)` and the weights."""
    projected, values = {}, {}
    for i, (place, x) in enumerate(features.numbers.items()):
        projection = {name: value[i] for name, value in inside(parameters, "linears").items()}
        projected[place] = x @ projection["weight"].T + projection["bias"]
    projected |= features.labels
    for i, (place, x) in enumerate(projected.items()):
        grn_parameters = {name: value[i] for name, value in inside(parameters, "grns").items()}
        values[place] = grn(grn_parameters, x)
    if len(values) == 1:
        (value,) = values.values()
        return value, np.ones((len(value), 1))
    together = np.concatenate(list(projected.values()), axis=-1)
    scores = grn(inside(parameters, "weights"), together, context)
    weights = np.stack([softmax(step) for step in scores]) if len(scores) else scores
    by_place = dict(zip(projected, weights.T, strict=True))
    selected = sum(by_place[place][:, None] * value for place, value in values.items())
    return selected, np.stack([by_place[place] for place in sorted(by_place)], axis=-1)


def attend(
    parameters: Arrays, query: np.ndarray, memory: np.ndarray, visible: Callable[[int], list[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Interpretable attention, query by query; `visible(i)` lists the steps visible to query i."""
    q, v = linear(parameters, "query", query), linear(parameters, "value", memory)
    k = memory @ parameters["key.weight"].T
    size = v.shape[-1]
    heads = q.shape[-1] // size
    weights = np.zeros((heads, len(query), len(memory)), np.result_type(q, k))
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(query)):
            steps = visible(i)
            if steps:
                weights[head, i, steps] = softmax(k[steps, part] @ q[i, part] / np.sqrt(size))
    return linear(parameters, "output", weights.mean(0) @ v), weights


def visible_to_decoder(encoder: int, decoder: int, causal: bool) -> Callable[[int], list[int]]:
    """Let decoder step i attend to the encoder and to the decoder's earlier steps, or to all."""
    return lambda i: list(range(encoder + (i if causal else decoder)))


def visible_to_all(steps: int) -> Callable[[int], list[int]]:
    """Let every step attend to all."""
    return lambda i: list(range(steps))


def run_lstm(
    parameters: Arrays, x: np.ndarray, state: Any, layers: int, size: int
) -> tuple[np.ndarray, Any]:
    """Run an LSTM over a row from a state, zeros if there is none."""
    h, c = (np.zeros((layers, size)),) * 2 if state is None else state
    y, finals = run_row(lstm_step, parameters, x, (h, c))
    hs, cs = zip(*finals, strict=True)
    return y, (np.stack(hs), np.stack(cs))


def attention_lstm(parameters: Arrays, past: np.ndarray, future: np.ndarray, config: Any) -> Row:
    """One row of the AttentionLSTM."""
    past, future = (embed(parameters, x, config.cardinalities).joined for x in (past, future))
    layers, size = config.num_layers, config.decoder_hidden_size or config.hidden_size
    e, (h, c) = run_lstm(inside(parameters, "encoder"), past, None, layers, config.hidden_size)
    if "bridge_h.weight" in parameters:
        h, c = linear(parameters, "bridge_h", h), linear(parameters, "bridge_c", c)
        e = linear(parameters, "bridge_y", e)
    d, _ = run_lstm(inside(parameters, "decoder"), future, (h, c), layers, size)
    visible = visible_to_decoder(len(past), len(future), config.causal)
    a, weights = attend(inside(parameters, "attention"), d, np.concatenate([e, d]), visible)
    join = gate_add_norm if config.gated else add_norm
    output = linear(parameters, "head", join(inside(parameters, "join"), a, d))
    return {"output": output, "attention": weights}


def transformer_lstm(parameters: Arrays, past: np.ndarray, future: np.ndarray, config: Any) -> Row:
    """One row of the TransformerLSTM."""
    past, future = (embed(parameters, x, config.cardinalities).joined for x in (past, future))
    layers, size = config.num_layers, config.hidden_size
    e = grn(inside(parameters, "past_embedding"), past)
    d = grn(inside(parameters, "future_embedding"), future)
    y, state = run_lstm(inside(parameters, "encoder"), e, None, layers, size)
    e = e + y
    decoder = inside(parameters, "encoder" if config.share_lstm else "decoder")
    y, _ = run_lstm(decoder, d, state, layers, size)
    d = d + y
    visible, attention = visible_to_decoder(len(past), len(future), config.causal), []
    for i in range(config.num_blocks):
        block = inside(parameters, f"blocks.{i}")
        attended, _ = attend(inside(block, "encoder_attention"), e, e, visible_to_all(len(past)))
        e = gate_add_norm(inside(block, "encoder_join"), attended, e)
        a, weights = attend(inside(block, "decoder_attention"), d, np.concatenate([e, d]), visible)
        d = gate_add_norm(inside(block, "decoder_join"), a, d)
        attention.append(weights)
    return {"output": linear(parameters, "head", d), "attention": np.concatenate(attention)}


def temporal_fusion(
    parameters: Arrays,
    past: np.ndarray,
    future: np.ndarray,
    config: Any,
    static: np.ndarray | None = None,
) -> Row:
    """One row of the TemporalFusionTransformer, its PF relative or the XTFT."""
    layers, size = config.num_layers, config.hidden_size
    row: Row = {}
    selected: Row = {}
    selection = enrichment = state = None
    values = static_values(config, len(past), static)
    if values is not None:
        statics = inside(parameters, "static")
        features = embed(statics, values[None], (0, *config.static_cardinalities))
        s, weights = select_variables(inside(statics, "variables"), features)
        selection, h, c, enrichment = (
            grn(inside(statics, name), s)[0] for name in ("selection", "h", "c", "enrichment")
        )
        state = np.stack([h] * layers), np.stack([c] * layers)
        row["static_selection"] = weights[0]
    for name, x in {"past_selection": past, "future_selection": future}.items():
        features = embed(parameters, x, config.cardinalities)
        selected[name], row[name] = select_variables(inside(parameters, name), features, selection)
    xe, xd = selected.values()
    e, state = run_lstm(inside(parameters, "encoder"), xe, state, layers, size)
    d, _ = run_lstm(inside(parameters, "decoder"), xd, state, layers, size)
    join = inside(parameters, "lstm_join")
    e, d = gate_add_norm(join, e, xe), gate_add_norm(join, d, xd)
    a = np.concatenate([e, d])
    if enrichment is not None:
        a = grn(inside(parameters, "enrichment"), a, enrichment)
    query = a[len(e) :]
    visible = visible_to_decoder(len(past), len(future), config.causal)
    mixed, row["attention"] = attend(inside(parameters, "attention"), query, a, visible)
    mixed = gate_add_norm(inside(parameters, "attention_join"), mixed, query)
    mixed = grn(inside(parameters, "feed_forward"), mixed)
    mixed = gate_add_norm(inside(parameters, "output_join"), mixed, d)
    return {**row, "output": linear(parameters, "head", mixed)}


def static_values(config: Any, length: int, static: np.ndarray | None) -> np.ndarray | None:
    """The values that are constant over a row: its length, scaled, and the user's values."""
    if hasattr(config, "context_length"):
        scaled = 2 * length / config.context_length - 1
    elif hasattr(config, "reference_length"):
        scaled = length / config.reference_length
    else:
        return None
    return np.concatenate([[scaled], [] if static is None else static])


def normalized_row(
    past: np.ndarray, config: Any
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Normalise the targets of one row's context, step by step, and return what undoes it."""
    kind, targets, season = config.row_normalization, config.target_features, config.season
    past, first, undone = past.copy(), past.shape[1] - targets, []
    for target in range(targets):
        column = past[:, first + target].copy()
        if not len(column) or kind in (None, "none"):
            undone.append((lambda step: 0.0, 1.0))
            continue
        mean, scale = sum(column) / len(column), 1.0
        if kind != "last_value" and any(column != column[0]):
            scale = np.sqrt(sum((value - mean) ** 2 for value in column) / len(column))
        shift = mean if kind == "standard" else column[-1]
        past[:, first + target] = (column - shift) / scale
        undone.append((_location(kind, column, mean, season), scale))

    def undo(output: np.ndarray) -> np.ndarray:
        count, result = output.shape[1] // targets, output.astype(np.result_type(output, past))
        for step in range(len(output)):
            for i in range(output.shape[1]):
                location, scale = undone[i // count]
                result[step, i] = output[step, i] * scale + location(step)
        return result

    return past, undo


def _location(kind: str, column: np.ndarray, mean: Any, season: int) -> Callable[[int], Any]:
    """Return what each step of a forecast is shifted by."""
    if kind == "seasonal" and len(column) >= season:
        return lambda step: column[len(column) - season + step % season]
    return lambda step: mean if kind == "standard" else column[-1]


MODELS: Mapping[str, Model] = {
    "AttentionLSTM": attention_lstm,
    "TransformerLSTM": transformer_lstm,
    "TemporalFusionTransformer": temporal_fusion,
    "PFTemporalFusionTransformer": temporal_fusion,
    "XTFT": temporal_fusion,
}


def run(
    config: Any,
    parameters: Arrays,
    past: np.ndarray,
    future: np.ndarray,
    encoder_lengths: Ints,
    decoder_lengths: Ints,
    static: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Run a model row by row and pad its results, the encoder's side left aligned."""
    model, rows = MODELS[config.model], []
    for i, (context, horizon) in enumerate(zip(encoder_lengths, decoder_lengths, strict=True)):
        static_row = {} if static is None else {"static": static[i]}
        valid = valid_part(past[i], context, config.encoder_alignment)
        valid, undo = normalized_row(valid, config)
        row = model(parameters, valid, future[i, :horizon], config, **static_row)
        row["output"] = undo(row["output"])
        rows.append(padded(row, past.shape[1], future.shape[1], context))
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def encoder_decoder_lstm(
    config: Any,
    parameters: Arrays,
    past: np.ndarray,
    future: np.ndarray,
    encoder_lengths: Ints,
    decoder_lengths: Ints,
) -> np.ndarray:
    """Run an EncoderDecoderLSTM of a configuration row by row."""
    outputs = []
    for row, (context, horizon) in enumerate(zip(encoder_lengths, decoder_lengths, strict=True)):
        valid, undo = normalized_row(past[row, :context], config)
        e, d = (
            embed(parameters, x, config.cardinalities).joined[None]
            for x in (valid, future[row, :horizon])
        )
        output = oracle.encoder_decoder_lstm(parameters, e, d, [context], [horizon])
        outputs.append(pad(undo(output[0]), future.shape[1], "left"))
    return np.stack(outputs) if outputs else np.zeros((0, future.shape[1], config.output_size))


def padded(row: Row, encoder: int, decoder: int, context: int) -> Row:
    """Pad a row's results with zeros."""
    widths = {"output": decoder, "future_selection": decoder, "past_selection": encoder}
    results = {n: pad(v, widths[n], "left") if n in widths else v for n, v in row.items()}
    weights = row["attention"]
    wide = np.zeros((len(weights), decoder, encoder + decoder), weights.dtype)
    steps = weights.shape[1]
    wide[:, :steps, :context] = weights[..., :context]
    wide[:, :steps, encoder : encoder + steps] = weights[..., context:]
    return {**results, "attention": wide}
