"""The promises that every layer and model keeps, one test each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import ragged
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import EMULATED, POLICIES, WILD, fill_padding, normal
from ragged_conformance.oracle import padding_mask
from ragged_conformance.subjects import SUBJECTS, Batch, Subject, marked
from ragged_conformance.tolerances import assert_all_close, assert_close

Results = dict[str, np.ndarray]


@pytest.fixture(params=marked(SUBJECTS))
def subject(request: pytest.FixtureRequest) -> Subject:
    """The layer or model under test."""
    return SUBJECTS[request.param]


def run(adapter: Adapter, subject: Subject, module: Any, batch: Batch, lengths: Any = None) -> Any:
    """Run a module on a batch and copy its outputs to the host."""
    arrays = adapter.arrays(batch.arrays)
    found = subject.call(module, arrays, batch.lengths if lengths is None else lengths)
    return {name: adapter.to_numpy(value) for name, value in found.items()}


def module_of(adapter: Adapter, subject: Subject) -> Any:
    """Build the module under test."""
    return adapter.prepare(subject.build())


def gradients(
    adapter: Adapter, subject: Subject, module: Any, batch: Batch, lengths: Any = None
) -> Results:
    """Differentiate a weighted sum of the outputs and a masked loss by inputs and parameters."""
    own, call = adapter.functional(module)
    lengths = batch.lengths if lengths is None else lengths

    def total(**values: Any) -> Any:
        parameters = {name: values[name] for name in own}
        outputs = subject.call(lambda *a: call(parameters, *a), values, lengths)
        result = 0.0
        for name, output in outputs.items():
            result = result + (output * adapter.array(normal(*output.shape, seed=8))).sum()
            if name in subject.sequences:
                n = batch.lengths[subject.sequences[name]]
                target = adapter.array(fill_padding(normal(*output.shape, seed=9), n))
                result = result + ragged.losses.mse(output, target, lengths=n)
        return result

    return adapter.gradients(total, {**adapter.arrays(batch.arrays), **own})


def test_alone_as_in_the_batch(adapter: Adapter, subject: Subject) -> None:
    module = module_of(adapter, subject)
    together = run(adapter, subject, module, subject.batch)
    for row in range(4):
        one = subject.batch.rows([row])
        alone = run(adapter, subject, module, one.trimmed(), dict.fromkeys(one.lengths))
        for name, value in alone.items():
            expected = together[name][[row]]
            if name in subject.sequences:
                expected = expected[:, : one.lengths[subject.sequences[name]][0]]
            assert_close(value, expected, adapter.dtype, subject.kind, f"{name} of row {row}")


@pytest.mark.operation("LSTM")
def test_gradients_of_a_batch_are_the_sum_of_its_rows(adapter: Adapter) -> None:
    subject = SUBJECTS["LSTM"]
    module = module_of(adapter, subject)
    own, call = adapter.functional(module)

    def of(batch: Batch) -> Results:
        def total(**parameters: Any) -> Any:
            outputs = subject.call(
                lambda *a: call(parameters, *a), adapter.arrays(batch.arrays), batch.lengths
            )
            return sum((output**2).sum() for output in outputs.values())

        return adapter.gradients(total, own)

    rows = [of(subject.batch.rows([row]).trimmed()) for row in range(4)]
    summed = {name: np.sum([row[name] for row in rows], axis=0) for name in own}
    assert_all_close(of(subject.batch), summed, adapter.dtype)


@pytest.mark.operation("LSTM")
def test_empty_row_returns_its_state_and_zeros(adapter: Adapter) -> None:
    subject = SUBJECTS["LSTM"]
    module = module_of(adapter, subject)
    mixed, empty = subject.batch.filled(np.nan), subject.batch.emptied().filled(np.nan)
    for batch, rows in ((mixed, [2]), (empty, [0, 1, 2, 3])):
        found = run(adapter, subject, module, batch)
        assert (found["y"][rows] == 0).all()
        for name in ("h", "c"):
            np.testing.assert_array_equal(found[name][rows], batch.arrays[name][rows])


def test_all_empty_batch_has_zero_outputs_and_finite_gradients(
    adapter: Adapter, subject: Subject
) -> None:
    module, batch = module_of(adapter, subject), subject.batch.emptied().filled(np.nan)
    found = run(adapter, subject, module, batch)
    assert all((found[name] == 0).all() for name in subject.sequences)
    for name, value in gradients(adapter, subject, module, batch).items():
        assert np.isfinite(value).all(), name
        assert name not in batch.lengths or (value == 0).all(), name


@pytest.mark.parametrize("policy", POLICIES)
def test_padding_cannot_speak(adapter: Adapter, subject: Subject, policy: str) -> None:
    if adapter.name == "jax" and policy in EMULATED:
        pytest.skip(f"JAX packs by {EMULATED[policy]}")
    module, clean = module_of(adapter, subject), subject.batch.filled(0.0)
    lengths = lengths_of(clean, policy)
    expected = run(adapter, subject, module, clean, lengths)
    expected_gradients = gradients(adapter, subject, module, clean, lengths)
    for output, name in subject.sequences.items():
        width = clean.arrays[name].shape[1]
        padding = ~padding_mask(clean.lengths[name], width)
        assert (expected[output][padding] == 0).all(), f"{output} at padding"
    for value in WILD:
        wild = clean.filled(value)
        found = run(adapter, subject, module, wild, lengths)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name], f"{name}, {value}")
        found = gradients(adapter, subject, module, wild, lengths)
        for name in expected_gradients:
            np.testing.assert_array_equal(found[name], expected_gradients[name], f"{name}, {value}")
        for name, n in wild.lengths.items():
            padding = ~padding_mask(n, wild.arrays[name].shape[1])
            assert (found[name][padding] == 0).all(), f"gradient of {name} at padding, {value}"


def lengths_of(batch: Batch, policy: str) -> dict[str, ragged.Lengths]:
    """The batch's lengths with a policy."""
    return {
        name: ragged.Lengths(n, batch.arrays[name].shape[1], policy=policy)
        for name, n in batch.lengths.items()
    }


def test_width_is_kept_and_more_padding_changes_nothing(adapter: Adapter, subject: Subject) -> None:
    module, wide = module_of(adapter, subject), subject.batch.widened(3)
    expected, found = (run(adapter, subject, module, b) for b in (subject.batch, wide))
    for name, value in found.items():
        if name in subject.sequences:
            width = wide.arrays[subject.sequences[name]].shape[1]
            assert value.shape[1] == width
            assert (value[:, -3:] == 0).all()
            value = value[:, :-3]
        assert_close(value, expected[name], adapter.dtype, subject.kind, name)


@pytest.mark.operation("Lengths")
def test_policy_and_form_of_lengths_change_no_number(adapter: Adapter, subject: Subject) -> None:
    module, batch = module_of(adapter, subject), subject.batch
    expected = run(adapter, subject, module, batch)
    expected_gradients = gradients(adapter, subject, module, batch)
    forms: dict[str, Any] = {policy: lengths_of(batch, policy) for policy in POLICIES}
    forms["list"] = {name: n.tolist() for name, n in batch.lengths.items()}
    forms["native"] = adapter.arrays(batch.lengths)
    for form, lengths in forms.items():
        found = run(adapter, subject, module, batch, lengths)
        for name in expected:
            assert_close(found[name], expected[name], adapter.dtype, subject.kind, form)
        assert_all_close(
            gradients(adapter, subject, module, batch, lengths), expected_gradients, adapter.dtype
        )


@pytest.mark.parametrize("form", ["traced", "Lengths"])
def test_jit_changes_no_number(subject: Subject, jax_adapter: Adapter, form: str) -> None:
    import jax

    adapter, batch = jax_adapter, subject.batch.filled(np.nan)
    own, call = adapter.functional(module_of(adapter, subject))
    lengths = adapter.arrays(batch.lengths) if form == "traced" else lengths_of(batch, "auto")

    def forward(parameters: Any, arrays: Any, lengths: Any) -> Any:
        return subject.call(lambda *a: call(parameters, *a), arrays, lengths)

    def total(parameters: Any, arrays: Any, lengths: Any) -> Any:
        return sum((o**2).sum() for o in forward(parameters, arrays, lengths).values())

    arguments = own, adapter.arrays(batch.arrays), lengths
    for function in (forward, jax.grad(total, argnums=(0, 1))):
        eager, jitted = function(*arguments), jax.jit(function)(*arguments)
        pairs = zip(jax.tree.leaves(jitted), jax.tree.leaves(eager), strict=True)
        for found, expected in pairs:
            assert_close(
                adapter.to_numpy(found), adapter.to_numpy(expected), adapter.dtype, subject.kind
            )


# Torch warns of its own code here, in the compiler.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_torch_compile_changes_no_number(subject: Subject, torch_adapter: Adapter) -> None:
    import torch

    adapter, batch = torch_adapter, subject.batch.filled(np.nan)
    module = module_of(adapter, subject)

    class Doubled(torch.nn.Module):
        """A module of the user's own around the one under test."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, arrays: Any, lengths: Any) -> Any:
            outputs = subject.call(self.inner, arrays, lengths)
            return {name: 2 * value for name, value in outputs.items()}

    try:
        compiled = torch.compile(Doubled())(adapter.arrays(batch.arrays), batch.lengths)
    finally:
        torch.compiler.reset()
    for name, expected in run(adapter, subject, module, batch).items():
        found = adapter.to_numpy(compiled[name])
        assert_close(found, 2 * expected, adapter.dtype, subject.kind, name)


def test_order_is_kept(adapter: Adapter, subject: Subject) -> None:
    module, order = module_of(adapter, subject), np.array([2, 0, 3, 1])
    expected = run(adapter, subject, module, subject.batch)
    found = run(adapter, subject, module, subject.batch.rows(order))
    for name, value in found.items():
        assert_close(value, expected[name][order], adapter.dtype, subject.kind, name)


BAD_LENGTHS: Mapping[str, tuple[Any, str]] = {
    "negative": ([1, -2, 0, 3], r"`lengths` is -2 at row 1; expected lengths of 0"),
    "above the width": ([1, 9, 0, 3], r"`lengths` is 9 at row 1; expected at most the width \d"),
    "not integer": ([1.0, 2.0, 0.0, 3.0], r"`lengths` is of dtype float64; expected integers"),
    "boolean": ([True, False, True, True], r"`lengths` is of dtype bool; expected integers"),
    "a scalar": (3, r"`lengths` is of shape \(\); expected shape \(batch,\)"),
    "a matrix": ([[1], [2], [0], [3]], r"`lengths` is of shape \(4, 1\); expected shape"),
    "too few": ([1, 2, 3], r"`lengths` is 3 lengths; expected 4, one for each row"),
    "ragged": ([[1], [2, 3]], r"`lengths` is \[\[1\], \[2, 3\]\]; exp"),
    "for another width": (ragged.Lengths([1, 2, 0, 3], 9), r"`lengths` is Lengths made for width"),
}


@pytest.mark.operation("Lengths")
@pytest.mark.parametrize("bad", BAD_LENGTHS)
def test_bad_lengths_are_refused_at_the_door(adapter: Adapter, subject: Subject, bad: str) -> None:
    module, (lengths, message) = module_of(adapter, subject), BAD_LENGTHS[bad]
    for argument in subject.batch.lengths:
        given = {**subject.batch.lengths, argument: lengths}
        # The form of every refusal: function, argument, what came, what was expected, the remedy.
        with pytest.raises(ragged.RaggedError, match=rf"^\w+\(\): {message}.*\. \w.*") as it:
            run(adapter, subject, module, subject.batch, given)
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
