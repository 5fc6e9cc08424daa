"""Faults in the core, which both backends run on: masks, lengths, alignment, packing, layers."""

from __future__ import annotations

from tests.mutants.mutant import fault
from tests.mutants.names import (
    REFUSALS,
    align,
    flip,
    forward,
    gradients,
    lstm_gradients,
    mask,
    pack,
    refused,
)

CALL = "ragged.recurrent.call"
NO_NONLINEARITY = "test_recurrent.py::test_unknown_nonlinearities_are_refused[{backend}]"

MASKS = (
    fault(
        "mask one step too long",
        "ragged.ops.masks:padding_mask",
        "steps < count",
        "steps <= count",
        mask("mixed-left"),
    ),
    fault(
        "mask one step too short",
        "ragged.ops.masks:padding_mask",
        "steps < count",
        "steps < count - 1",
        mask("mixed-left"),
    ),
    fault(
        "right-aligned mask one step too long",
        "ragged.ops.masks:padding_mask",
        "steps >= lengths.width - count",
        "steps >= lengths.width - count - 1",
        mask("mixed-right"),
        align("mixed-right-left"),
    ),
    fault(
        "right-aligned mask one step too short",
        "ragged.ops.masks:padding_mask",
        "steps >= lengths.width - count",
        "steps > lengths.width - count",
        mask("mixed-right"),
    ),
    fault(
        "padding multiplied away instead of selected away",
        "ragged.ops.alignment:zero_padding",
        "backend.xp.where(mask, x, backend.xp.zeros_like(x))",
        "x * mask",
        align("mixed-left-left"),
    ),
    fault(
        "lengths_from_mask takes holes",
        "ragged.ops.masks:lengths_from_mask",
        "if backend.has_values(mask):",
        "if False:",
        "test_masks.py::test_mask_with_a_hole_is_refused[{backend}]",
    ),
    fault(
        "lengths_from_mask counts numbers",
        "ragged.ops.masks:lengths_from_mask",
        'if mask.ndim != 2 or "bool" not in str(mask.dtype):',
        "if False:",
        "test_masks.py::test_mask_of_numbers_is_refused[{backend}]",
    ),
    fault(
        "unknown alignment taken for the right side",
        "ragged.ops.masks:check_alignment",
        "if not isinstance(alignment, str) or alignment not in ALIGNMENTS:",
        "if False:",
        "test_masks.py::test_unknown_alignment_is_refused[{backend}]",
    ),
)

LENGTHS = (
    fault(
        "lengths clamped to the width",
        "ragged.lengths:check_values",
        "most = np.iinfo(",
        "values = np.clip(values, None, width)\n    most = np.iinfo(",
        f"{REFUSALS}[LSTM-{{backend}}-above the width]",
    ),
    fault(
        "negative lengths taken for 0",
        "ragged.lengths:check_values",
        "most = np.iinfo(",
        "values = np.clip(values, 0, None)\n    most = np.iinfo(",
        f"{REFUSALS}[LSTM-{{backend}}-negative]",
    ),
    fault(
        "fractional lengths cut down to integers",
        "ragged.lengths:_check_dtype",
        'if "int" not in dtype:',
        "if False:",
        f"{REFUSALS}[LSTM-{{backend}}-not integer]",
        f"{REFUSALS}[LSTM-{{backend}}-boolean]",
    ),
    fault(
        "lengths for another width cut to this one",
        "ragged.lengths:Lengths._check",
        "if self.width != width:",
        "if False:",
        f"{REFUSALS}[LSTM-{{backend}}-for another width]",
    ),
    fault(
        "unknown policy taken",
        "ragged.lengths:Lengths.__init__",
        'as_choice("Lengths", "policy", policy, POLICIES)',
        "policy",
        "test_recurrent.py::test_unknown_policy_is_refused[{backend}]",
    ),
    fault(
        "equal rows taken for full ones",
        "ragged.lengths:Lengths.is_full",
        "(self.host == self.width)",
        "(self.host == self.host[:1])",
        flip("all equal, padded-left"),
    ),
)

ALIGNMENT = (
    fault(
        "sides of the source swapped",
        "ragged.ops.alignment:align_sequences",
        'begin = {"left": 0 * count, "right": width - count}',
        'begin = {"right": 0 * count, "left": width - count}',
        align("mixed-right-left"),
    ),
    fault(
        "valid steps taken from one step beside",
        "ragged.ops.alignment:align_sequences",
        "steps + shift,",
        "steps + shift + 1,",
        align("mixed-left-left"),
    ),
    fault(
        "flipped with the padding",
        "ragged.ops.alignment:flip",
        'count - 1 if alignment == "left"',
        'lengths.width - 1 if alignment == "left"',
        flip("mixed-left"),
    ),
    fault(
        "rows truncated to max_length",
        "ragged.lengths:Lengths.widened",
        "if longest > width:",
        "self = Lengths(self.host.clip(max=width), width)\n        if False:",
        "test_alignment.py::test_nothing_is_truncated_or_guessed[{backend}]",
    ),
    fault(
        "encoder rows packed where they lie",
        "ragged.ops.packing:pack_encoder_sequences",
        'if alignment == "right":',
        "if False:",
        "test_packing.py::test_encoder_rows_are_moved_left_first[{backend}]",
    ),
)

PACKING = (
    fault(
        "empty rows packed too",
        "ragged.ops.packing:PackingOrder.rows",
        "np.flatnonzero(self.lengths.host)",
        "np.arange(len(self.lengths.host))",
        pack("length 0"),
    ),
    fault(
        "shortest row first",
        "ragged.ops.packing:PackingOrder.sorted_indices",
        "np.argsort(-self",
        "np.argsort(self",
        pack("mixed"),
    ),
    fault(
        "rows packed in the order given",
        "ragged.ops.packing:PackingOrder.source",
        "self.rows[self.sorted_indices]",
        "self.rows",
        pack("mixed"),
    ),
    fault(
        "ties in reverse",
        "ragged.ops.packing:PackingOrder.sorted_indices",
        'np.argsort(-self.lengths.host[self.rows], kind="stable")',
        "np.lexsort((-self.rows, -self.lengths.host[self.rows]))",
        pack("ties"),
    ),
    fault(
        "unsorted_indices not inverted",
        "ragged.ops.packing:PackingOrder.unsorted_indices",
        'np.argsort(self.sorted_indices, kind="stable")',
        "self.sorted_indices",
        pack("mixed"),
    ),
    fault(
        "batch sizes one step too long",
        "ragged.ops.packing:PackingOrder.batch_sizes",
        "(len(self.lengths) - ended)[:-1]",
        "len(self.lengths) - ended",
        pack("mixed"),
    ),
    fault(
        "order not restored by unpacking",
        "ragged.ops.packing:PackedRows.__init__",
        "if unsorted_indices is not None:",
        "if False:",
        pack("mixed"),
    ),
    fault(
        "padding unpacked to a copy of the first step",
        "ragged.ops.packing:gather",
        "xp.concat([zero, data])",
        "xp.concat([data[:1], data])",
        pack("mixed"),
    ),
    fault(
        "other lengths unpacked than were packed",
        "ragged.ops.packing:PackedRows.source",
        "if nonempty.tolist() != self.lengths.tolist():",
        "if False:",
        "test_packing.py::test_other_lengths_than_the_packed_ones_are_refused[{backend}]",
    ),
    fault(
        "the rule packs at a spread of exactly a tenth",
        "ragged.ops.packing:should_use_packing",
        "10 * (longest - shortest) > longest",
        "10 * (longest - shortest) >= longest",
        "test_packing.py::test_stated_packing_rule[lengths5]",
    ),
    fault(
        "the rule packs nine rows, not eight",
        "ragged.ops.packing:should_use_packing",
        "len(values) >= 8",
        "len(values) > 8",
        "test_packing.py::test_stated_packing_rule[lengths10]",
    ),
)

LSTM = (
    fault(
        "initial state ignored",
        f"{CALL}:validate_and_call",
        "backend.run_recurrent(shape, parameters, x, valid, states,",
        "backend.run_recurrent(shape, parameters, x, valid, None,",
        forward("mixed"),
        forward("mixed", cell="GRU"),
        lstm_gradients("one layer"),
    ),
    fault(
        "every layer starts from the first one's state",
        f"{CALL}:stack_layers",
        "tuple(part[rows] for part in state)",
        "tuple(part[:count] for part in state)",
        forward("mixed", "two layers"),
    ),
    fault(
        "states returned from the last layer down",
        f"{CALL}:stack_layers",
        "finals.append(final)",
        "finals.insert(0, final)",
        forward("mixed", "two layers"),
    ),
    fault(
        "h and c returned swapped",
        f"{CALL}:stack_layers",
        "finals.append(final)",
        "finals.append(final[::-1])",
        forward("mixed"),
    ),
    fault(
        "directions' parameters swapped",
        "ragged.recurrent.shape:RecurrentShape.directions",
        '("", "_reverse")',
        '("_reverse", "")',
        forward("mixed", "bidirectional"),
    ),
    fault(
        "width cut to the longest row",
        f"{CALL}:validate_and_call",
        "if not batch_first:",
        "y = y[:, : int(valid.host.max(initial=0))]\n    if not batch_first:",
        forward("all equal, padded"),
    ),
    fault(
        "inputs centred on their batch",
        f"{CALL}:validate_and_call",
        "backend.run_recurrent(shape, parameters, x, valid",
        "backend.run_recurrent(shape, parameters, x - x.mean(), valid",
        "test_recurrent.py::test_state_is_zero_and_rows_are_full_if_not_given"
        "[{backend}-LSTM, one layer]",
    ),
)

CELLS = (
    fault(
        "relu taken for tanh",
        "ragged.recurrent.layers:rnn",
        "NONLINEARITIES[nonlinearity]",
        'NONLINEARITIES["tanh"]',
        gradients(cell="RNN_RELU"),
        "test_recurrent_function.py::test_function_equals_the_oracle"
        "[{backend}-RNN_RELU, one layer-mixed]",
    ),
    fault(
        "relu built as tanh",
        "ragged.recurrent.layers:RNN",
        "NONLINEARITIES[nonlinearity],",
        'NONLINEARITIES["tanh"],',
        forward("mixed", cell="RNN_RELU"),
    ),
    fault(
        "unknown nonlinearity taken",
        "ragged.recurrent.layers:rnn",
        'as_choice("rnn", "nonlinearity", nonlinearity, tuple(NONLINEARITIES))',
        'nonlinearity = nonlinearity if nonlinearity in NONLINEARITIES else "tanh"',
        NO_NONLINEARITY,
    ),
    fault(
        "a pair taken for a GRU's state",
        f"{CALL}:_take_apart",
        "if isinstance(state, tuple):",
        "state = state[0] if isinstance(state, tuple) else state\n        if False:",
        refused("states_of_another_form", "GRU-pair"),
        refused("states_of_another_form", "RNN_TANH-half a pair"),
    ),
    fault(
        "h alone taken for an LSTM's state",
        f"{CALL}:_take_apart",
        "if not isinstance(state, (tuple, list)) or len(state) != 2:",
        "state = state if isinstance(state, (tuple, list)) else (state, state)\n    if False:",
        refused("states_of_another_form", "LSTM-h alone"),
    ),
    fault(
        "a projection taken by a GRU",
        "ragged.recurrent.shape:RecurrentShape.__post_init__",
        'if self.proj_size and self.mode != "LSTM":',
        "if False:",
        refused("wrong_shapes", "GRU"),
    ),
)

INITIAL = (
    fault(
        "seed ignored",
        "ragged.recurrent.init:generator",
        "default_rng(seed)",
        "default_rng()",
        "test_backends_agree.py::test_other_seeds_give_other_parameters[{backend}]",
    ),
    fault(
        "one seed for all",
        "ragged.recurrent.init:generator",
        "default_rng(seed)",
        "default_rng(0)",
        "test_backends_agree.py::test_other_seeds_give_other_parameters[{backend}]",
    ),
    fault(
        "initial values bounded by the input size",
        "ragged.recurrent.init:recurrent_values",
        "shape.hidden_size**-0.5",
        "shape.input_size**-0.5",
        "test_backends_agree.py::test_other_seeds_give_other_parameters[{backend}]",
    ),
)

FAULTS = (*MASKS, *LENGTHS, *ALIGNMENT, *PACKING, *LSTM, *CELLS, *INITIAL)
