"""The promises that every layer and model keeps, one test each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import EMULATED, PADDING_VALUES, POLICIES, normal
from ragged_conformance.evaluation import Results, compiled, forward
from ragged_conformance.oracle import padding_mask
from ragged_conformance.runner import Runner, lengths_of, runner
from ragged_conformance.subjects import SUBJECTS, Batch, marked
from ragged_conformance.tolerances import MODEL, assert_all_close, assert_close


@pytest.fixture(params=marked(SUBJECTS))
def tested(request: pytest.FixtureRequest, adapter: Adapter) -> Runner:
    """The layer or model under test on the backend under test."""
    return runner(adapter, SUBJECTS[request.param])


@pytest.fixture
def distinct(request: pytest.FixtureRequest, tested: Runner) -> Runner:
    """One whose program no other one has on JAX, which compiles each shape for seconds."""
    is_related = tested.adapter.name == "jax" and tested.subject in RELATIVES
    if is_related and not request.config.getoption("exhaustive"):
        pytest.skip("another model's program has all of its operations")
    return tested


# Layers alone test the schedules; models forward their lengths to them.
LAYERS = {name: one for name, one in SUBJECTS.items() if not one.operation.startswith("models.")}
ALL_POLICIES = {name: one for name, one in SUBJECTS.items() if not one.forwards_lengths}
# Each has the graph of another one, or a part of it, up to a scale, a nonlinearity or the cell.
RELATED = ("RNN_TANH", "PFTemporalFusionTransformer", "XTFT")
COMPILED = {name: subject for name, subject in SUBJECTS.items() if name not in RELATED}
RELATIVES = [SUBJECTS[name] for name in RELATED if name not in LAYERS]
DISTINCT = {name: subject for name, subject in COMPILED.items() if name != "LSTM"}
by_policy = pytest.mark.parametrize(
    ("name", "policy"),
    [
        pytest.param(name, policy, marks=pytest.mark.operation(subject.operation))
        for name, subject in SUBJECTS.items()
        for policy in (POLICIES if name in ALL_POLICIES else ("auto",))
    ],
)


def test_alone_as_in_the_batch(adapter: Adapter, distinct: Runner) -> None:
    tested, subject = distinct, distinct.subject
    together, _ = tested.evaluate(tested.batch)
    for row in range(4):
        one = subject.batch.rows([row])
        alone = tested.run(one.trimmed(), dict.fromkeys(one.lengths))
        for name, value in alone.items():
            expected = together[name][[row]]
            if name in subject.sequences:
                expected = expected[:, : one.lengths[subject.sequences[name]][0]]
            assert_close(value, expected, adapter.dtype, subject.kind, f"{name} of row {row}")


@pytest.mark.parametrize("name", marked(LAYERS))
def test_gradients_of_a_batch_are_the_sum_of_its_rows(adapter: Adapter, name: str) -> None:
    subject = SUBJECTS[name]
    initial, call = adapter.functional(runner(adapter, subject).module)

    def gradients_of(batch: Batch) -> Results:
        def total(parameters: Any) -> Any:
            outputs = subject.call(
                lambda *a: call(parameters, *a), adapter.arrays(batch.arrays), batch.lengths
            )
            return sum((output**2).sum() for output in outputs.values())

        return forward(adapter, lambda leaves: adapter.differentiate(total, leaves))(initial)

    rows = [gradients_of(subject.batch.rows([row]).trimmed()) for row in range(4)]
    summed = {name: np.sum([row[name] for row in rows], axis=0) for name in initial}
    assert_all_close(gradients_of(subject.batch), summed, adapter.dtype)


@pytest.mark.parametrize("layer", marked(LAYERS))
def test_empty_row_returns_its_state_and_zeros(adapter: Adapter, layer: str) -> None:
    tested = runner(adapter, SUBJECTS[layer])
    mixed, empty = tested.batch.filled(np.nan), tested.batch.emptied().filled(np.nan)
    for batch, rows in ((mixed, [2]), (empty, [0, 1, 2, 3])):
        actual, _ = tested.evaluate(batch)
        assert (actual["y"][rows] == 0).all()
        for name in actual.keys() - {"y"}:
            np.testing.assert_array_equal(actual[name][rows], batch.arrays[name][rows])


def test_all_empty_batch_has_zero_outputs_and_finite_gradients(tested: Runner) -> None:
    batch = tested.batch.emptied().filled(np.nan)
    actual, gradients = tested.evaluate(batch)
    assert all((actual[name] == 0).all() for name in tested.subject.sequences)
    for name, value in gradients.items():
        assert np.isfinite(value).all(), name
        assert name not in batch.lengths or (value == 0).all(), name


@by_policy
def test_padding_cannot_speak(adapter: Adapter, name: str, policy: str) -> None:
    if adapter.name == "jax" and policy in EMULATED:
        pytest.skip(f"JAX packs by {EMULATED[policy]}")
    tested = runner(adapter, SUBJECTS[name])
    clean = tested.batch.filled(0.0)
    lengths = None if tested.subject.forwards_lengths else lengths_of(clean, policy)
    expected, expected_gradients = tested.evaluate(clean, lengths)
    for output, source in tested.subject.sequences.items():
        padding = ~padding_mask(clean.lengths[source], clean.arrays[source].shape[1])
        assert (expected[output][padding] == 0).all(), f"{output} at padding"
    for value in PADDING_VALUES:
        padded = clean.filled(value)
        actual, gradients = tested.evaluate(padded, lengths)
        for output in expected:
            np.testing.assert_array_equal(actual[output], expected[output], f"{output}, {value}")
        for source, gradient in expected_gradients.items():
            np.testing.assert_array_equal(gradients[source], gradient, f"{source}, {value}")
        for source, n in padded.lengths.items():
            padding = ~padding_mask(n, padded.arrays[source].shape[1])
            assert (gradients[source][padding] == 0).all(), f"of {source} at padding, {value}"


def test_width_is_kept_and_more_padding_changes_nothing(adapter: Adapter, distinct: Runner) -> None:
    subject, wide = distinct.subject, distinct.subject.batch.widened(3)
    expected, _ = distinct.evaluate(distinct.batch)
    for name, value in distinct.run(wide).items():
        if name in subject.sequences:
            width = wide.arrays[subject.sequences[name]].shape[1]
            assert value.shape[1] == width
            assert (value[:, -3:] == 0).all()
            value = value[:, :-3]
        assert_close(value, expected[name], adapter.dtype, subject.kind, name)


@pytest.mark.operation("Lengths")
@pytest.mark.parametrize("name", marked(ALL_POLICIES))
def test_policy_and_form_of_lengths_change_no_number(adapter: Adapter, name: str) -> None:
    tested = runner(adapter, SUBJECTS[name])
    batch, kind = tested.batch, tested.subject.kind
    expected, expected_gradients = tested.evaluate(batch)
    policies = [each for each in POLICIES if adapter.name != "jax" or each not in EMULATED]
    forms: dict[str, Any] = {policy: lengths_of(batch, policy) for policy in policies}
    forms["native"] = adapter.arrays(batch.lengths)
    for form, lengths in forms.items():
        actual, gradients = tested.evaluate(batch, lengths)
        for output in expected:
            assert_close(actual[output], expected[output], adapter.dtype, kind, form)
        assert_all_close(gradients, expected_gradients, adapter.dtype)
    lists = {name: n.tolist() for name, n in batch.lengths.items()}
    for output, value in tested.run_uncompiled(batch, lists).items():
        assert_close(value, expected[output], adapter.dtype, kind, "list")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        pytest.param(name, form, marks=pytest.mark.operation(subject.operation))
        for name, subject in ALL_POLICIES.items()
        for form in (("traced", "Lengths") if name == "LSTM" else ("traced",))
        if name in COMPILED
    ],
)
def test_jit_changes_no_number(name: str, jax_adapter: Adapter, form: str) -> None:
    """Of outputs and all gradients in one program; below `nnx.jit` takes outputs and `Lengths`.

    A layer's are compared with those of single operations, a model's, of more than a hundred, with
    those of one program that XLA does not optimise.
    """
    import jax

    adapter, subject = jax_adapter, SUBJECTS[name]
    if adapter.dtype == "float64":
        pytest.skip("float32 shows it, and what is compiled in float64 equals the oracle")
    batch = subject.batch.filled(np.nan)
    initial, call = adapter.functional(runner(adapter, SUBJECTS[name]).module)
    lengths = adapter.arrays(batch.lengths) if form == "traced" else lengths_of(batch, "auto")

    def total(parameters: Any, arrays: Any, lengths: Any) -> Any:
        outputs = subject.call(lambda *a: call(parameters, *a), arrays, lengths)
        return sum((output**2).sum() for output in outputs.values()), outputs

    function = jax.grad(total, argnums=(0, 1), has_aux=True)
    arguments = initial, adapter.arrays(batch.arrays), lengths
    plain = function if name in LAYERS else compiled(adapter, function)
    results = jax.jit(function)(*arguments), plain(*arguments)
    for actual, expected in zip(*map(jax.tree.leaves, results), strict=True):
        assert_close(
            adapter.to_numpy(actual), adapter.to_numpy(expected), adapter.dtype, subject.kind
        )


@pytest.mark.parametrize("name", marked(DISTINCT))
def test_nnx_jit_changes_no_number(name: str, jax_adapter: Adapter) -> None:
    from flax import nnx

    adapter, subject = jax_adapter, SUBJECTS[name]
    if adapter.dtype == "float64":
        pytest.skip("float32 shows it, and fully optimised programs take seconds to compile")
    tested, batch = runner(adapter, subject), subject.batch.filled(np.nan)
    run = nnx.jit(lambda module, arrays, lengths: subject.call(module, arrays, lengths))
    actual = run(tested.module, adapter.arrays(batch.arrays), lengths_of(batch, "auto"))
    for output, expected in tested.run(batch).items():
        one = adapter.to_numpy(actual[output])
        assert_close(one, expected, adapter.dtype, subject.kind, output)


# A warning of the code of torch's compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("name", marked(COMPILED))
def test_torch_compile_changes_no_number_and_serves_every_batch(
    name: str, torch_adapter: Adapter
) -> None:
    import torch
    from torch._dynamo.eval_frame import _debug_get_cache_entry_list

    adapter, subject = torch_adapter, SUBJECTS[name]
    module, rng = runner(adapter, subject).module, np.random.default_rng(0)

    class Doubled(torch.nn.Module):
        """A module of the user's own around the one under test."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, arrays: Any, lengths: Any) -> Any:
            outputs = subject.call(self.inner, arrays, lengths)
            return {name: 2 * value for name, value in outputs.items()}

    def evaluate(run: Any, batch: Batch, *, backward: bool) -> tuple[Results, Results]:
        arrays = {n: x.requires_grad_() for n, x in adapter.arrays(batch.arrays).items()}
        outputs = run(arrays, adapter.arrays(batch.lengths))
        leaves, grads = {**arrays, **dict(module.named_parameters())}, tuple[Any, ...]()
        if backward:
            total = sum((output**2).sum() for output in outputs.values())
            grads = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        results = {name: adapter.to_numpy(value) for name, value in outputs.items()}
        return results, dict(zip(leaves, map(adapter.to_numpy, grads), strict=False))

    # All other models consist of layers and attention: their forward graph is enough.
    differentiated = (0, 25, 49) if name in ("LSTM", "GRU", "AttentionLSTM") else ()
    eager, backend = Doubled(), "aot_eager" if differentiated else "eager"
    compiled = torch.compile(eager, fullgraph=True, dynamic=True, backend=backend)
    sizes = rng.integers(2, 12, (48, 3)).tolist()
    batches = [_drawn(subject.batch, rng, *size) for size in ([7, 11, 9], *sizes)]
    # One layer's states lie otherwise in its last batch, for which torch records another program.
    turned = name == "RNN_RELU"
    last = subject.batch.filled(np.nan)
    try:
        for i, batch in enumerate([*batches, last if turned else last.laid_out()]):
            # A module's floats are constants, as without dynamic=True: else torch records twice.
            constants = torch._dynamo.config.patch(specialize_float=True)
            with constants, torch.set_grad_enabled(bool(differentiated)):
                actual, expected = (
                    evaluate(run, batch, backward=i in differentiated) for run in (compiled, eager)
                )
            for output in expected[0]:
                what = f"{output} of batch {i}"
                assert_close(actual[0][output], expected[0][output], adapter.dtype, MODEL, what)
            assert_all_close(actual[1], expected[1], adapter.dtype)
        programs = len(_debug_get_cache_entry_list(Doubled.forward.__code__))
    finally:
        torch.compiler.reset()
    assert programs == 1 + turned, "one for all batches whose memory is laid out alike"


def _drawn(batch: Batch, rng: np.random.Generator, rows: int, *widths: int) -> Batch:
    """A batch like another one, of other sizes and lengths, with NaN at padding."""
    sizes = dict(zip(batch.lengths, widths, strict=False))
    lengths = {name: rng.integers(0, width + 1, rows) for name, width in sizes.items()}
    shapes = {name: x.shape[1:] for name, x in batch.arrays.items()}
    shapes |= {name: (width, *shapes[name][1:]) for name, width in sizes.items()}
    arrays = {name: rng.normal(size=(rows, *shape)) for name, shape in shapes.items()}
    return Batch(arrays, lengths).filled(np.nan)


def test_order_is_kept(adapter: Adapter, tested: Runner) -> None:
    order = np.array([2, 0, 3, 1])
    (expected, _), (actual, _) = map(tested.evaluate, (tested.batch, tested.batch.rows(order)))
    for name, value in actual.items():
        assert_close(value, expected[name][order], adapter.dtype, tested.subject.kind, name)


BAD_LENGTHS: Mapping[str, tuple[Any, str]] = {
    "negative": ([1, -2, 0, 3], r"is -2 at row 1; expected lengths of 0"),
    "above the width": ([1, 9, 0, 3], r"is 9 at row 1; expected at most the width \d"),
    "not integer": ([1.0, 2.0, 0.0, 3.0], r"is of dtype float64; expected integers"),
    "boolean": ([True, False, True, True], r"is of dtype bool; expected integers"),
    "a scalar": (3, r"is of shape \(\); expected shape \(batch,\)"),
    "a matrix": ([[1], [2], [0], [3]], r"is of shape \(4, 1\); expected shape"),
    "too few": ([1, 2, 3], r"is 3 lengths; expected 4, one for each row"),
    "ragged": ([[1], [2, 3]], r"is \[\[1\], \[2, 3\]\]; exp"),
    "for another width": (ragged.Lengths([1, 2, 0, 3], 9), r"is Lengths made for width"),
}
LENGTHS_OF = {"past": "encoder_lengths", "future": "decoder_lengths"}  # else "lengths"


@pytest.mark.operation("Lengths")
@pytest.mark.parametrize("bad", BAD_LENGTHS)
def test_bad_lengths_are_refused_at_the_door(adapter: Adapter, tested: Runner, bad: str) -> None:
    subject, (lengths, message) = tested.subject, BAD_LENGTHS[bad]
    for argument in subject.batch.lengths:
        all_lengths = {**subject.batch.lengths, argument: lengths}
        # The form of every refusal: function, argument, value, expected value, remedy.
        expected = rf"^\w+\(\): `{LENGTHS_OF.get(argument, 'lengths')}` {message}.*\. \w.*"
        with pytest.raises(ragged.RaggedError, match=expected) as it:
            subject.call(tested.module, adapter.arrays(subject.batch.arrays), all_lengths)
        assert isinstance(it.value, ValueError)


@pytest.mark.operation("LSTM", "flip_sequences", "losses.mse")
def test_mixed_frameworks_are_refused(both: tuple[Adapter, Adapter]) -> None:
    torch, jax = both
    x, other = torch.array(normal(2, 3)), jax.array(np.array([1, 2]))
    with pytest.raises(TypeError, match=r"flip_sequences\(\): .*`x` of torch, `lengths` of jax"):
        ragged.flip_sequences(x, other)
    with pytest.raises(TypeError, match=r"mse\(\): arrays of several frameworks"):
        ragged.losses.mse(x, jax.array(normal(2, 3)))
    for adapter, stranger in ((torch, jax), (jax, torch)):
        with ragged.use_backend(adapter.name):
            layer = adapter.prepare(ragged.LSTM(2, 3, seed=0))
        with pytest.raises(TypeError, match="several frameworks"):
            layer(stranger.array(normal(1, 2, 2)), [2])


@pytest.mark.operation("LSTM")
def test_wrong_state_is_refused(adapter: Adapter) -> None:
    layer = adapter.prepare(ragged.LSTM(2, 3, seed=0))
    x, state = adapter.array(normal(4, 5, 2)), adapter.array(normal(1, 3, 3))
    with pytest.raises(ragged.RaggedError, match=r"LSTM\(\): `state \(h\)` is of shape \(1, 3,"):
        layer(x, None, (state, state))
