"""PyTorch's own cases for its recurrent layers, run on `torch.nn` and on ours, outcome by outcome.

They come from the database that its tests of all modules read (`torch.testing._internal`).
"""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest", reason="torch.testing._internal imports it")

import ragged_torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence  # noqa: E402
from torch.testing._internal.common_modules import module_db  # noqa: E402

# Importing it forbids the process to set torch's flags.
setattr(torch.backends, "__allow_nonbracketed_mutation_flag", True)

TYPES = {nn.RNN: ragged_torch.RNN, nn.LSTM: ragged_torch.LSTM, nn.GRU: ragged_torch.GRU}
INFOS = [info for info in module_db if info.module_cls in TYPES]
OPTIONS = {"device": "cpu", "dtype": torch.float64, "requires_grad": True}


def cases() -> Any:
    """Every case, by the layer and its options."""
    for info in INFOS:
        for training in (True, False):
            inputs = info.module_inputs_func(info, training=training, **OPTIONS)
            for k, each in enumerate(inputs):
                name = f"{info.module_cls.__name__}-{'train' if training else 'eval'}-{k}"
                yield pytest.param(info.module_cls, training, each, id=name)


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
    assert {info.module_cls for info in INFOS} == set(TYPES)
    assert len(list(cases())) > 100


@pytest.mark.parametrize(("kind", "training", "case"), list(cases()))
def test_outcomes_are_torchs(kind: Any, training: bool, case: Any) -> None:
    expected, state = outcome(kind, training, case)
    found, own = outcome(TYPES[kind], training, case)
    assert list(own) == list(state)
    assert all(map(torch.equal, own.values(), state.values()))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def errors() -> Any:
    """Every case that torch refuses."""
    for info in INFOS:
        if info.module_error_inputs_func is None:
            continue
        made = info.module_error_inputs_func(info, training=True, **OPTIONS)
        for k, each in enumerate(made):
            yield pytest.param(info.module_cls, each, id=f"{info.module_cls.__name__}-{k}")


@pytest.mark.parametrize(("kind", "case"), list(errors()))
def test_refusals_are_torchs(kind: Any, case: Any) -> None:
    made, given = case.module_error_input.constructor_input, case.module_error_input.forward_input
    for each in (kind, TYPES[kind]):
        with pytest.raises(case.error_type):  # noqa: PT012 - the constructor may be what refuses
            layer = each(*made.args, **made.kwargs)
            layer(*given.args, **given.kwargs)
