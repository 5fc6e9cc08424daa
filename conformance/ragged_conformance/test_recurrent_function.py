"""Layers as functions of parameters: all that is tested of a backend without modules."""

import pytest

from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import INPUTS, LENGTHS, WIDTH, fill_padding, normal
from ragged_conformance.recurrent import LAYERS, arrays_of, as_state, marked, named
from ragged_conformance.tolerances import LAYER, assert_close


@pytest.mark.parametrize("case", ["mixed", "length 0"])
@pytest.mark.parametrize("name", marked(LAYERS, module=False))
def test_function_equals_the_oracle(adapter: Adapter, name: str, case: str) -> None:
    layer = LAYERS[name]
    parameters, state = layer.parameters(), layer.state(4).values()
    x = fill_padding(normal(4, WIDTH, INPUTS), LENGTHS[case])
    actual = layer.function(
        adapter.arrays(parameters),
        adapter.array(x),
        LENGTHS[case],
        as_state(map(adapter.array, state)),
    )
    expected = named(layer.oracle(parameters, x, LENGTHS[case], as_state(state)))
    for (what, value), array in zip(expected.items(), arrays_of(actual), strict=True):
        assert_close(adapter.to_numpy(array), value, adapter.dtype, LAYER, what)
