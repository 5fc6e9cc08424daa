"""Both backends: the same initial parameters to the bit, the same forecasts and gradients."""

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import HIDDEN, INPUTS
from ragged_conformance.recurrent import LAYERS
from ragged_conformance.runner import runner
from ragged_conformance.subjects import (
    ATTENTION,
    SUBJECTS,
    Subject,
    marked,
    recurrent_subject,
)
from ragged_conformance.tolerances import DEEP, MODEL, assert_all_close

ALL = {
    **{name: recurrent_subject(layer.mode, **layer.options) for name, layer in LAYERS.items()},
    **SUBJECTS,
}


@pytest.mark.parametrize("name", marked(ALL))
def test_equal_seeds_give_equal_parameters_to_the_bit(
    both: tuple[Adapter, Adapter], name: str
) -> None:
    torch, jax = (parameters(adapter, ALL[name]) for adapter in both)
    assert set(torch) == set(jax)
    for parameter, value in torch.items():
        np.testing.assert_array_equal(value, jax[parameter], parameter, strict=True)


def parameters(adapter: Adapter, subject: Subject) -> dict[str, np.ndarray]:
    """The initial parameters, as built."""
    with ragged.use_backend(adapter.name):
        return adapter.backend.get_parameters(subject.build())


@pytest.mark.operation("LSTM")
def test_other_seeds_give_other_parameters(adapter: Adapter) -> None:
    one, two, again = (
        adapter.backend.get_parameters(ragged.LSTM(INPUTS, HIDDEN, seed=seed)) for seed in (0, 1, 0)
    )
    for name in one:
        assert (one[name] != two[name]).any()
        np.testing.assert_array_equal(one[name], again[name])
        assert (np.abs(one[name]) <= HIDDEN**-0.5).all()


@pytest.mark.operation("LSTM")
def test_parameters_travel_between_backends(both: tuple[Adapter, Adapter]) -> None:
    for source, target in (both, both[::-1]):
        with ragged.use_backend(source.name):
            values = source.backend.get_parameters(ragged.LSTM(INPUTS, HIDDEN, seed=0))
        with ragged.use_backend(target.name):
            module = ragged.LSTM(INPUTS, HIDDEN, seed=1)
        target.backend.set_parameters(module, values)
        for name, value in target.backend.get_parameters(module).items():
            np.testing.assert_array_equal(value, values[name], strict=True)


@pytest.mark.parametrize("name", marked(SUBJECTS))
def test_outputs_and_gradients_agree(both: tuple[Adapter, Adapter], name: str) -> None:
    subject = SUBJECTS[name]
    torch, jax = (
        tested.evaluate(tested.batch.filled(np.nan))
        for tested in (runner(adapter, subject) for adapter in both)
    )
    kinds = MODEL, DEEP if name in ATTENTION else MODEL  # of values and gradients
    for actual, expected, kind in zip(jax, torch, kinds, strict=True):
        assert_all_close(actual, expected, both[0].dtype, kind)
