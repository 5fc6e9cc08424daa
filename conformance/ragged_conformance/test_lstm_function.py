"""`ragged.lstm` on parameters of one's own: all a backend without modules needs to show."""

import pytest

import ragged
from ragged_conformance import oracle
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import (
    INPUTS,
    LENGTHS,
    LSTM_OPTIONS,
    WIDTH,
    fill_padding,
    lstm_parameters,
    lstm_state,
    normal,
)
from ragged_conformance.tolerances import LAYER, assert_close


@pytest.mark.operation("lstm")
@pytest.mark.parametrize("case", ["mixed", "length 0"])
@pytest.mark.parametrize("options", LSTM_OPTIONS)
def test_function_equals_the_oracle(adapter: Adapter, options: str, case: str) -> None:
    parameters = lstm_parameters(LSTM_OPTIONS[options])
    x = fill_padding(normal(4, WIDTH, INPUTS), LENGTHS[case])
    state = lstm_state(LSTM_OPTIONS[options], 4)
    y, (h, c) = ragged.lstm(
        adapter.arrays(parameters),
        adapter.array(x),
        LENGTHS[case],
        (adapter.array(state[0]), adapter.array(state[1])),
    )
    expected, (expected_h, expected_c) = oracle.lstm(parameters, x, LENGTHS[case], state)
    for name, found, value in (("y", y, expected), ("h", h, expected_h), ("c", c, expected_c)):
        assert_close(adapter.to_numpy(found), value, adapter.dtype, LAYER, name)
