"""Resets: rows whose state is reset inside give what their episodes give as rows."""

import functools
import importlib
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import ragged
from ragged_conformance import evaluation
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import INPUTS, WIDTH, fill_padding, normal
from ragged_conformance.recurrent import LAYERS, Layer, arrays_of, as_state, marked
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close, assert_close

# Layers are stacked by one function for all cells, resets among what it passes on.
BOTH_WAYS: dict[str, Layer] = {
    "LSTM, bidirectional": LAYERS["LSTM, bidirectional"],
    "LSTM, everything": LAYERS["LSTM, everything"],
    "GRU, bidirectional": Layer("GRU", {"bidirectional": True}),
    "RNN_TANH, bidirectional": Layer("RNN_TANH", {"bidirectional": True}),
}
layers = pytest.mark.parametrize("name", marked(BOTH_WAYS))
starts = pytest.mark.parametrize("start", ["zeros", "initial"])
LENGTHS = [WIDTH, 0, 4, 1, 3]
RESETS: dict[str, list[set[int]]] = {  # of each row, before which steps
    "mixed": [{2, 4}, set(), {0, 1}, set(), {2}],
    "every step": [set(range(WIDTH)), set(), set(range(4)), {0}, set(range(3))],
    "none": [set()] * 5,
}
cases = pytest.mark.parametrize("case", RESETS)


def resets_of(case: str) -> np.ndarray:
    """The resets of a padded batch; those at padding are not read."""
    resets = np.zeros((len(LENGTHS), WIDTH), bool)
    for row, (length, steps) in enumerate(zip(LENGTHS, RESETS[case], strict=True)):
        resets[row, sorted(steps)] = True
        resets[row, length:] = True
    return resets


def episodes(case: str) -> list[tuple[int, int, int]]:
    """The row, the first step and the end of each episode."""
    spans = []
    for row, (length, steps) in enumerate(zip(LENGTHS, RESETS[case], strict=True)):
        cuts = [0, *sorted(steps - {0}), length]
        spans += [(row, *span) for span in itertools.pairwise(cuts)]
    return spans


def crossings(layer: Layer, case: str, start: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Where a row's initial state enters an episode, and which episode of each row is its last.

    The first is `(layers * directions, episodes, 1)`, the second has one for each of its rows.
    """
    rows, firsts = np.array([[row, begin] for row, begin, _ in episodes(case)]).T
    is_first, is_last = firsts == 0, np.append(rows[1:] != rows[:-1], True)
    goes_on = np.array([0 not in RESETS[case][row] for row in rows]) & is_first
    both = layer.depth // 2  # every layer here reads both ways
    enters = np.stack([goes_on, is_last] * both)[..., None] | (start == "initial")
    return enters, [is_last, is_first] * both


def run_episodes(
    layer: Layer,
    parameters: Any,
    x: np.ndarray,
    state: dict[str, np.ndarray],
    case: str,
    start: str,
) -> list[np.ndarray]:
    """Run every episode as a row by the oracle: y and the states of each."""
    spans = episodes(case)
    alone = np.zeros((len(spans), WIDTH, x.shape[2]))
    for k, (row, begin, end) in enumerate(spans):
        alone[k, : end - begin] = x[row, begin:end]
    initial = as_state(starts_of(layer, state, case, start))
    return list(arrays_of(layer.oracle(parameters, alone, lengths_of(case), initial)))


def lengths_of(case: str) -> list[int]:
    """The steps of each episode."""
    return [end - begin for _, begin, end in episodes(case)]


def starts_of(
    layer: Layer, state: dict[str, np.ndarray], case: str, start: str
) -> list[np.ndarray]:
    """The states that each episode starts from."""
    rows = np.array([row for row, *_ in episodes(case)])
    enters, _ = crossings(layer, case, start)
    return [part[:, rows] * enters for part in state.values()]


def run_alone(
    layer: Layer,
    parameters: Any,
    x: np.ndarray,
    state: dict[str, np.ndarray],
    case: str,
    start: str,
) -> list[np.ndarray]:
    """Run every episode as a row by the oracle: y, and the state that leaves each row."""
    y, *finals = run_episodes(layer, parameters, x, state, case, start)
    output = np.zeros((len(LENGTHS), WIDTH, y.shape[2]))
    for k, (row, begin, end) in enumerate(episodes(case)):
        output[row, begin:end] = y[k, : end - begin]
    _, leaves = crossings(layer, case, start)
    ends = [
        np.stack([part[leaving] for part, leaving in zip(f, leaves, strict=True)]) for f in finals
    ]
    return [output, *ends]


class Rows(NamedTuple):
    """Every episode as a row, as arrays of one shape for all cases: one program of JAX serves them.

    Args:
        rows: where the episodes lie in the batch, `(episodes, 1)`.
        steps: where they lie in these rows, `(episodes, width)`.
        lengths: of the episodes.
        enters: 1 where a row's initial state enters, `(layers * directions, episodes, 1)`.
        leaves: the episode that leaves each row, `(layers * directions, rows)`.
    """

    rows: Any
    steps: Any
    lengths: Any
    enters: Any
    leaves: Any


def rows_of(adapter: Adapter, layer: Layer, case: str, start: str) -> Rows:
    """The episodes of a case, and empty ones behind them, which leave no row."""
    spans, (enters, leaves) = episodes(case), crossings(layer, case, start)
    room = len(episodes("every step")) - len(spans)
    rows, firsts, ends = np.pad(np.array(spans), ((0, room), (0, 0))).T
    steps = np.minimum(firsts[:, None] + np.arange(WIDTH), WIDTH - 1)
    scale = np.pad(enters.astype(float), ((0, 0), (0, room), (0, 0)))
    last = np.array([np.flatnonzero(each) for each in leaves])
    return Rows(*map(adapter.array, (rows[:, None], steps, ends - firsts, scale, last)))


def run_as_rows(
    layer: Layer, parameters: Any, x: Any, parts: list[Any], told: Rows
) -> tuple[Any, list[Any]]:
    """Run every episode of arrays as a row, differentiably: y, and the states that leave rows."""
    initial = as_state(part[:, told.rows[:, 0]] * told.enters for part in parts)
    call = parameters, x[told.rows, told.steps], told.lengths, initial
    y, *finals = arrays_of(layer.function(*call))
    ends = [part[at] for final in finals for part, at in zip(final, told.leaves, strict=True)]
    return y, ends


@cases
@starts
@layers
def test_episodes_are_rows_of_their_own(
    adapter: Adapter, name: str, start: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = BOTH_WAYS[name]
    module = adapter.prepare(layer.build(seed=0))
    parameters = {
        parameter: value.astype(float)
        for parameter, value in adapter.backend.get_parameters(module).items()
    }
    x, state = normal(len(LENGTHS), WIDTH, INPUTS), layer.state(len(LENGTHS))
    expected = run_alone(layer, parameters, x, state, case, start)
    padded = adapter.array(fill_padding(x, LENGTHS))
    initial, resets = as_state(map(adapter.array, state.values())), adapter.array(resets_of(case))
    for policy in ("auto", "never"):
        lengths = ragged.Lengths(LENGTHS, WIDTH, policy=policy)
        actual = arrays_of(module(padded, lengths, initial, resets=resets, start=start))
        for array, value in zip(actual, expected, strict=True):
            assert_close(adapter.to_numpy(array), value, adapter.dtype, LAYER, policy)


def split(layer: Layer, values: dict[str, Any]) -> tuple[dict[str, Any], Any, list[Any]]:
    """Split arrays by name into the parameters, x and the states."""
    parameters = {n: v for n, v in values.items() if n not in ("x", *layer.states)}
    return parameters, values["x"], [values[part] for part in layer.states]


@functools.cache
def gradients_alone(adapter: Adapter, name: str) -> Callable[..., Any]:
    """Make `gradients(inputs, weights of y, rows)` of episodes as rows; compiled once on JAX."""
    layer = BOTH_WAYS[name]

    def total(values: dict[str, Any], loss_weights: Any, told: Rows) -> Any:
        y, ends = run_as_rows(layer, *split(layer, values), told)
        weighted = (y * loss_weights[told.rows, told.steps]).sum()
        return weighted + sum((part**2).sum() for part in ends)

    return evaluation.forward(
        adapter,
        lambda inputs, *others: adapter.differentiate(lambda v: total(v, *others), inputs),
    )


@starts
@layers
def test_gradients_are_those_of_rows_of_their_own(adapter: Adapter, name: str, start: str) -> None:
    layer = BOTH_WAYS[name]
    arrays = {"x": fill_padding(normal(len(LENGTHS), WIDTH, INPUTS), LENGTHS)}
    arrays |= layer.state(len(LENGTHS)) | layer.parameters()
    loss_weights = adapter.array(normal(len(LENGTHS), WIDTH, 2 * layer.output, seed=8))
    resets = adapter.array(resets_of("mixed"))

    def total(values: dict[str, Any]) -> Any:
        parameters, x, parts = split(layer, values)
        call = parameters, x, LENGTHS, as_state(parts)
        y, *finals = arrays_of(layer.function(*call, resets=resets, start=start))
        return (y * loss_weights).sum() + sum((part**2).sum() for part in finals)

    inputs, told = adapter.arrays(arrays), rows_of(adapter, layer, "mixed", start)
    run = evaluation.forward(adapter, lambda v: adapter.differentiate(total, v))
    expected = gradients_alone(adapter, name)(inputs, loss_weights, told)
    actual = run(inputs)
    assert_all_close(actual, expected, adapter.dtype)
    assert_close(actual["x"], expected["x"], adapter.dtype, MODEL)


@starts
@layers
def test_states_of_every_episode_come_by_offsets(adapter: Adapter, name: str, start: str) -> None:
    """Episodes as rows that lie end to end: what a call with resets computes, and all states."""
    layer, case = BOTH_WAYS[name], "mixed"
    module = adapter.prepare(layer.build(seed=0))
    parameters = {
        parameter: value.astype(float)
        for parameter, value in adapter.backend.get_parameters(module).items()
    }
    x, state = normal(len(LENGTHS), WIDTH, INPUTS), layer.state(len(LENGTHS))
    y, *finals = run_episodes(layer, parameters, x, state, case, start)
    valid = np.arange(WIDTH) < np.array(lengths_of(case))[:, None]
    tokens = x[np.arange(WIDTH) < np.array(LENGTHS)[:, None]]
    offsets = adapter.array(np.append(0, np.cumsum(lengths_of(case))))
    initial = as_state(map(adapter.array, starts_of(layer, state, case, start)))
    actual = arrays_of(module(adapter.array(tokens), None, initial, offsets=offsets))
    for array, value in zip(actual, [y[valid], *finals], strict=True):
        assert_close(adapter.to_numpy(array), value, adapter.dtype, LAYER)


def compiled(adapter: Adapter, function: Any) -> Any:
    """Compile a function of arrays to one program."""
    if adapter.name == "jax":
        import jax

        return jax.jit(function)
    if adapter.name == "torch":
        import torch

        return torch.compile(function, fullgraph=True, backend="aot_eager")
    return pytest.skip(f"the suite knows no compiler of {adapter.name!r}")


@pytest.mark.operation("lstm")
@starts
def test_one_program_serves_all_resets(adapter: Adapter, start: str) -> None:
    layer = BOTH_WAYS["LSTM, bidirectional"]
    parameters, lengths = layer.parameters(), adapter.array(np.array(LENGTHS))
    x, state = normal(len(LENGTHS), WIDTH, INPUTS), layer.state(len(LENGTHS))
    arrays = [adapter.arrays(parameters), adapter.array(fill_padding(x, LENGTHS))]
    initial = as_state(map(adapter.array, state.values()))

    def run(parameters: Any, x: Any, lengths: Any, state: Any, resets: Any) -> Any:
        return layer.function(parameters, x, lengths, state, resets=resets, start=start)

    program = compiled(adapter, run)
    for case in ("mixed", "every step"):
        actual = arrays_of(program(*arrays, lengths, initial, adapter.array(resets_of(case))))
        expected = run_alone(layer, parameters, x, state, case, start)
        for array, value in zip(actual, expected, strict=True):
            assert_close(adapter.to_numpy(array), value, adapter.dtype, LAYER, case)


MAPPED = BOTH_WAYS["GRU, bidirectional"]


def slopes_of_curvature(adapter: Adapter, energy: Callable[..., Any]) -> Callable[..., Any]:
    """Differentiate `energy(x, state, told)` by x and the state, and their squares again."""
    module = {"torch": "torch.func", "jax": "jax"}[adapter.name]
    grad = importlib.import_module(module).grad

    def curvature(x: Any, state: Any, told: Any) -> Any:
        of_x, of_state = grad(energy, (0, 1))(x, state, told)
        return (of_x**2).sum() + (of_state**2).sum()

    slopes: Callable[..., Any] = grad(curvature, (0, 1))
    return slopes


@functools.cache
def slopes_alone(adapter: Adapter) -> Callable[..., Any]:
    """Make `slopes(x, state, rows)` of episodes as rows; compiled once on JAX, without kernels."""
    parameters = adapter.arrays(MAPPED.parameters())

    def energy(x: Any, state: Any, told: Rows) -> Any:
        y, ends = run_as_rows(MAPPED, parameters, x, [state], told)
        return (y**3).sum() + sum((part**2).sum() for part in ends)

    return evaluation.compiled(adapter, slopes_of_curvature(adapter, energy))


@starts
@pytest.mark.parametrize("kernels", ["1", "0"])
def test_resets_are_mapped_and_differentiated_again(
    adapter: Adapter, kernels: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if adapter.name not in ("torch", "jax"):
        pytest.skip(f"the suite knows no transformations of {adapter.name!r}")
    if (adapter.name, kernels, start) == ("jax", "0", "zeros"):
        pytest.skip("the scan that kernels leave derivatives to starts from zeros too")
    parameters = adapter.arrays(MAPPED.parameters())
    x = adapter.array(normal(len(LENGTHS), WIDTH, INPUTS))
    (initial,) = map(adapter.array, MAPPED.state(len(LENGTHS)).values())
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    names = ("mixed", "every step")
    rows = [rows_of(adapter, MAPPED, case, start) for case in names]
    expected = [slopes_alone(adapter)(x, initial, told) for told in rows]

    def energy(x: Any, state: Any, resets: Any) -> Any:
        y, final = MAPPED.function(parameters, x, LENGTHS, state, resets=resets, start=start)
        return (y**3).sum() + (final**2).sum()

    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    vmap = importlib.import_module({"torch": "torch.func", "jax": "jax"}[adapter.name]).vmap
    run = vmap(slopes_of_curvature(adapter, energy), (None, None, 0))
    resets = adapter.array(np.stack([resets_of(case) for case in names]))
    mapped = evaluation.compiled(adapter, run)(x, initial, resets)
    for k, case in enumerate(names):
        for one, each in zip(mapped, expected[k], strict=True):
            got, value = adapter.to_numpy(one)[k], adapter.to_numpy(each)
            assert_close(got, value, adapter.dtype, MODEL, case)


@layers
def test_resets_of_another_kind_are_refused(adapter: Adapter, name: str) -> None:
    layer = BOTH_WAYS[name]
    module = adapter.prepare(layer.build(seed=0))
    x = adapter.array(normal(2, 3, INPUTS))
    for resets in (np.zeros((2, 3)), np.zeros((3, 2), bool)):
        with pytest.raises(
            ragged.errors.ShapeError, match=r"`resets` is .*; expected bool of shape"
        ):
            module(x, resets=adapter.array(resets))
    with pytest.raises(ragged.errors.OptionError, match=r"`start` is 'last'"):
        module(x, resets=adapter.array(np.zeros((2, 3), bool)), start="last")
