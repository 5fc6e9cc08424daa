"""A case, and how outcomes are told and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import ragged_torch
import torch
from ragged_conformance.tolerances import MODEL, assert_close
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

Outcomes = Callable[[Any], Iterator[Any]]
NAMES = ("RNN", "GRU", "LSTM")
ARGUMENTS = {  # what torch's message says, and the argument that ours then names
    "hidden": "hx",
    "input": "input",
    "nonlinearity": "nonlinearity",
    "proj_size": "proj_size",
}


class Case(NamedTuple):
    """A test of PyTorch, and what comes of it.

    Args:
        file: of PyTorch's repository.
        test: its name.
        covers: what it is about.
        outcome: "equal", or why it differs or does not run.
        run: our case, which fails where the outcome is another one; None = there is none.
    """

    file: str
    test: str
    covers: str
    outcome: str
    run: Callable[[], None] | None


class Cases:
    """The cases of a file of ours, in the order in which they are declared."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.listed: list[Case] = []

    def equal(self, test: str, covers: str, file: str | None = None) -> Callable[[Outcomes], None]:
        """Declare a generator of outcomes, which are the same on either module."""

        def declare(outcomes: Outcomes) -> None:
            self._add(test, covers, "equal", partial(assert_equal, outcomes), file)

        return declare

    def differs(
        self, test: str, covers: str, why: str, file: str | None = None
    ) -> Callable[[Callable[[], None]], None]:
        """Declare a case that asserts by itself in what ours and torch's differ."""

        def declare(run: Callable[[], None]) -> None:
            self._add(test, covers, f"differs: {why}", run, file)

        return declare

    def not_run(self, test: str, covers: str, why: str, file: str | None = None) -> None:
        """Declare a test that no layer takes part in."""
        self._add(test, covers, f"not run: {why}", None, file)

    def _add(self, test: str, covers: str, outcome: str, run: Any, file: str | None) -> None:
        self.listed.append(Case(file or self.file, test, covers, outcome, run))


def assert_equal(outcomes: Outcomes) -> None:
    """Compare the outcomes of torch's layers and ours, under the same seed."""
    expected, found = (list(_seeded(outcomes, module)) for module in (nn, ragged_torch))
    assert expected, "a case has outcomes"
    assert_same(found, expected)


def _seeded(outcomes: Outcomes, module: ModuleType) -> Iterator[Any]:
    torch.manual_seed(0)
    return outcomes(module)


def assert_same(found: Any, expected: Any) -> None:
    """Compare values of any kind: tensors in the maximum norm, errors by type and argument."""
    if isinstance(expected, Exception):
        _assert_same_error(found, expected)
        return
    assert type(found) is type(expected), f"{type(found)}, not {type(expected)}"
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()))
    elif isinstance(expected, Tensor):
        assert (found.dtype, found.device) == (expected.dtype, expected.device)
        assert found.requires_grad == expected.requires_grad
        if not expected.is_floating_point():
            assert torch.equal(found, expected)
        elif expected.is_meta:
            assert found.shape == expected.shape
        else:
            values = (each.detach().double().numpy() for each in (found, expected))
            assert_close(*values, str(expected.dtype).removeprefix("torch."), MODEL)
    else:
        assert found == expected


def _assert_same_error(found: Any, expected: Exception) -> None:
    assert isinstance(found, type(expected)), f"{found!r}, not {type(expected)}"
    if str(found) == str(expected):  # both are torch's own
        return
    said = str(expected).lower()
    named = [argument for word, argument in ARGUMENTS.items() if word in said]
    assert not named or f"`{named[0]}" in str(found), f"{found}; torch says {expected}"


def refused(call: Callable[[], Any]) -> Exception:
    """Give the error of a call."""
    try:
        result = call()
    except Exception as error:
        return error
    raise AssertionError(f"not refused, but gives {result}")


def build(module: Any, name: str, *sizes: Any, **options: Any) -> nn.Module:
    """Build a layer in float64."""
    return getattr(module, name)(*sizes, **{"dtype": torch.float64, **options})


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Draw values that require a gradient."""
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def state(layer: Any, batch: int, draw: Callable[..., Tensor] = normal) -> Any:
    """Draw initial states."""
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    h = draw(count, batch, layer.proj_size or layer.hidden_size)
    return (h, draw(count, batch, layer.hidden_size)) if layer.mode == "LSTM" else h


def tensors(value: Any) -> list[Tensor]:
    """All tensors of an argument or a result."""
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, (tuple, list)):
        return [tensor for each in value for tensor in tensors(each)]
    return [value] if isinstance(value, Tensor) else []


def outcome(layer: nn.Module, given: Any, hx: Any = None, leaves: Any = None) -> list[Any]:
    """Outputs, states, and the gradients of all inputs and parameters by any loss.

    Args:
        layer: to be run.
        given: its input.
        hx: its initial states.
        leaves: whose gradients are told beside the parameters'; None = the inputs'.
    """
    y, final = layer(given, hx)
    results = tensors((y, final))
    loss = sum((torch.randn(each.shape, dtype=each.dtype) * each).sum() for each in results)
    inputs = tensors((given, hx)) if leaves is None else leaves
    return [y, final, *torch.autograd.grad(loss, [*inputs, *layer.parameters()])]
