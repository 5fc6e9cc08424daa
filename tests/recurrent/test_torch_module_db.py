"""PyTorch's own cases for its recurrent layers, run on `torch.nn` and on ours, outcome by outcome.

They come from the database that its tests of all modules read (`torch.testing._internal`).
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch.testing._internal imports it")

import ragged_torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402

TYPES = {nn.RNN: ragged_torch.RNN, nn.LSTM: ragged_torch.LSTM, nn.GRU: ragged_torch.GRU}
OPTIONS = {"device": "cpu", "dtype": torch.float64, "requires_grad": True}
of_each_layer = pytest.mark.parametrize("kind", TYPES)


@functools.cache
def database() -> dict[Any, Any]:
    """What torch tests of each layer; to import it takes as long as torch itself, so tests do."""
    from torch.testing._internal.common_modules import module_db

    # Importing it forbids the process to set torch's flags.
    setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)
    return {info.module_cls: info for info in module_db if info.module_cls in TYPES}


def cases(kind: Any, training: bool) -> list[Any]:
    """Every case of a layer."""
    info = database()[kind]
    return list(info.module_inputs_func(info, training=training, **OPTIONS))


def tensors(value: Any) -> list[Any]:
    """All floating tensors of a result or an argument."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, (tuple, list)):
        return [tensor for each in value for tensor in tensors(each)]
    return [value] if isinstance(value, torch.Tensor) else []


def outcome(kind: Any, training: bool, case: Any, state: Any = None) -> tuple[Any, Any]:
    """Outputs, states and all gradients, or the error; and the state_dict."""
    made, given = case.constructor_input, copy.deepcopy(case.forward_input)
    torch.manual_seed(0)
    layer = kind(*made.args, dtype=torch.float64, **made.kwargs).train(training)
    if state is not None:
        layer.load_state_dict(state)
    results = tensors(layer(*given.args, **given.kwargs))
    inputs = [t for t in tensors((given.args, list(given.kwargs.values()))) if t.requires_grad]
    leaves = [*inputs, *layer.parameters()]
    loss = sum(each.square().sum() for each in results)
    gradients = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    return [*results, *gradients], layer.state_dict()


def test_the_database_has_cases_of_every_layer() -> None:
    assert database().keys() == TYPES.keys()
    assert sum(len(cases(kind, training)) for kind in TYPES for training in (True, False)) > 100


@of_each_layer
@pytest.mark.parametrize("training", [True, False])
def test_outcomes_are_torchs(kind: Any, training: bool) -> None:
    for number, case in enumerate(cases(kind, training)):
        expected, state = outcome(kind, training, case)
        found, own = outcome(TYPES[kind], training, case)
        assert list(own) == list(state), number
        assert all(map(torch.equal, own.values(), state.values())), number
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(
                one, other, rtol=1e-9, atol=1e-11, msg=lambda said, n=number: f"case {n}: {said}"
            )


@of_each_layer
def test_refusals_are_torchs(kind: Any) -> None:
    info = database()[kind]
    refused = info.module_error_inputs_func(info, training=True, **OPTIONS)
    assert refused
    for case in refused:
        given = case.module_error_input
        for each in (kind, TYPES[kind]):
            with pytest.raises(case.error_type):  # noqa: PT012 - the constructor may refuse
                layer = each(*given.constructor_input.args, **given.constructor_input.kwargs)
                layer(*given.forward_input.args, **given.forward_input.kwargs)
