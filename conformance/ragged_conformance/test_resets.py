"""Resets: rows whose state is reset inside give what their episodes give as rows."""

import importlib
import itertools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import INPUTS, WIDTH, fill_padding, normal
from ragged_conformance.recurrent import LAYERS, Layer, arrays_of, as_state, marked
from ragged_conformance.tolerances import LAYER, MODEL, assert_all_close, assert_close

NAMES = (
    "LSTM, bidirectional",
    "LSTM, everything",
    "GRU, two layers, bidirectional",
    "RNN_TANH, two layers, bidirectional",
)
layers = pytest.mark.parametrize("name", marked({name: LAYERS[name] for name in NAMES}))
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


def run_as_rows(
    adapter: Adapter, layer: Layer, parameters: Any, x: Any, parts: list[Any], case: str, start: str
) -> tuple[Any, list[Any]]:
    """Run every episode of arrays as a row, differentiably: y, and the states that leave rows."""
    rows, firsts, _ = np.array(episodes(case)).T
    steps = np.minimum(firsts[:, None] + np.arange(WIDTH), WIDTH - 1)
    enters, leaves = crossings(layer, case, start)
    scale = adapter.array(enters.astype(float))
    initial = as_state(part[:, rows] * scale for part in parts)
    call = parameters, x[rows[:, None], steps], lengths_of(case), initial
    y, *finals = arrays_of(layer.function(*call))
    ends = [part[at] for final in finals for part, at in zip(final, leaves, strict=True)]
    return y, ends


@cases
@starts
@layers
def test_episodes_are_rows_of_their_own(
    adapter: Adapter, name: str, start: str, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = LAYERS[name]
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


@starts
@layers
def test_gradients_are_those_of_rows_of_their_own(adapter: Adapter, name: str, start: str) -> None:
    layer = LAYERS[name]
    arrays = {"x": fill_padding(normal(len(LENGTHS), WIDTH, INPUTS), LENGTHS)}
    arrays |= layer.state(len(LENGTHS)) | layer.parameters()
    rows, firsts, _ = np.array(episodes("mixed")).T
    steps = np.minimum(firsts[:, None] + np.arange(WIDTH), WIDTH - 1)
    loss_weights = adapter.array(normal(len(LENGTHS), WIDTH, 2 * layer.output, seed=8))

    def split(values: dict[str, Any]) -> tuple[dict[str, Any], Any, Any]:
        parameters = {n: v for n, v in values.items() if n not in ("x", *layer.states)}
        return parameters, values["x"], [values[part] for part in layer.states]

    def with_resets(**values: Any) -> Any:
        parameters, x, parts = split(values)
        options = {"resets": adapter.array(resets_of("mixed")), "start": start}
        y, final = layer.function(parameters, x, LENGTHS, as_state(parts), **options)
        return (y * loss_weights).sum() + sum((part**2).sum() for part in arrays_of((y, final))[1:])

    def alone(**values: Any) -> Any:
        parameters, x, parts = split(values)
        y, ends = run_as_rows(adapter, layer, parameters, x, parts, "mixed", start)
        total = (y * loss_weights[rows[:, None], steps]).sum()
        return total + sum((part**2).sum() for part in ends)

    inputs = adapter.arrays(arrays)
    actual, expected = adapter.gradients(with_resets, inputs), adapter.gradients(alone, inputs)
    assert_all_close(actual, expected, adapter.dtype)
    assert_close(actual["x"], expected["x"], adapter.dtype, MODEL)


@starts
@layers
def test_states_of_every_episode_come_by_offsets(adapter: Adapter, name: str, start: str) -> None:
    """Episodes as rows that lie end to end: what a call with resets computes, and all states."""
    layer, case = LAYERS[name], "mixed"
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


@pytest.mark.parametrize("name", marked({NAMES[0]: LAYERS[NAMES[0]]}, module=False))
@starts
def test_one_program_serves_all_resets(adapter: Adapter, name: str, start: str) -> None:
    layer = LAYERS[name]
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


@starts
@pytest.mark.parametrize("kernels", ["1", "0"])
def test_resets_are_mapped_and_differentiated_again(
    adapter: Adapter, kernels: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    if adapter.name not in ("torch", "jax"):
        pytest.skip(f"the suite knows no transformations of {adapter.name!r}")
    transforms: Any = importlib.import_module({"torch": "torch.func", "jax": "jax"}[adapter.name])
    grad, vmap, jit = transforms.grad, transforms.vmap, getattr(transforms, "jit", lambda run: run)
    layer = Layer("GRU", {"bidirectional": True})
    parameters = adapter.arrays(layer.parameters())
    x = adapter.array(normal(len(LENGTHS), WIDTH, INPUTS))
    (initial,) = map(adapter.array, layer.state(len(LENGTHS)).values())

    def energy(x: Any, state: Any, resets: Any) -> Any:
        if isinstance(resets, str):
            told = parameters, x, [state], resets, start
            y, ends = run_as_rows(adapter, layer, *told)
            return (y**3).sum() + sum((part**2).sum() for part in ends)
        y, final = layer.function(parameters, x, LENGTHS, state, resets=resets, start=start)
        return (y**3).sum() + (final**2).sum()

    def curvature(x: Any, state: Any, resets: Any) -> Any:
        of_x, of_state = grad(energy, (0, 1))(x, state, resets)
        return (of_x**2).sum() + (of_state**2).sum()

    names = ("mixed", "every step")
    resets = adapter.array(np.stack([resets_of(case) for case in names]))
    mapped = jit(vmap(grad(curvature, (0, 1)), (None, None, 0)))(x, initial, resets)
    for k, case in enumerate(names):
        expected = jit(grad(lambda x, s, c=case: curvature(x, s, c), (0, 1)))(x, initial)
        for one, each in zip(mapped, expected, strict=True):
            got = adapter.to_numpy(one[k])
            assert_close(got, adapter.to_numpy(each), adapter.dtype, MODEL, case)


@layers
def test_resets_of_another_kind_are_refused(adapter: Adapter, name: str) -> None:
    layer = LAYERS[name]
    module = adapter.prepare(layer.build(seed=0))
    x = adapter.array(normal(2, 3, INPUTS))
    for resets in (np.zeros((2, 3)), np.zeros((3, 2), bool)):
        with pytest.raises(
            ragged.errors.ShapeError, match=r"`resets` is .*; expected bool of shape"
        ):
            module(x, resets=adapter.array(resets))
    with pytest.raises(ragged.errors.OptionError, match=r"`start` is 'last'"):
        module(x, resets=adapter.array(np.zeros((2, 3), bool)), start="last")
