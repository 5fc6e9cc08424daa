"""Our flax modules where flax's own go: constructors under transformations, streams, Linen."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp
import ragged_jax
from flax import nnx
from ragged_jax.layers import drop, hashed_bits
from ragged_jax.variable_selection import VariableSelection

import ragged
from ragged.backend import use_backend
from ragged.errors import ShapeError
from ragged.models.categories import Variables

X, LENGTHS = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32), [3, 5]
SIZES: dict[str, Any] = {"hidden_size": 4, "num_layers": 2, "dropout": 0.5}
MODELS: dict[str, dict[str, Any]] = {
    "EncoderDecoderLSTM": {"head_hidden_size": 4},
    "XTFT": {"num_heads": 2},
}


@pytest.fixture(autouse=True)
def _on_jax():
    with use_backend("jax"):
        yield


def layer_of(rngs: nnx.Rngs, **options: Any) -> ragged_jax.LSTM:
    return ragged_jax.LSTM(3, 3, rngs=rngs, **options)


def assert_equal_states(one: nnx.Module, other: nnx.Module) -> None:
    leaves = [jax.tree.leaves(nnx.state(module, nnx.Param)) for module in (one, other)]
    for found, expected in zip(*leaves, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def streams(module: nnx.Module) -> list[tuple[int, ...]]:
    nodes = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.RngStream)]
    return [tuple(jax.random.key_data(node.key[...]).tolist()) for node in nodes]


def test_streams_may_be_traced():
    expected = layer_of(nnx.Rngs(7))
    assert_equal_states(nnx.jit(layer_of)(nnx.Rngs(7)), expected)
    abstract = nnx.eval_shape(layer_of, nnx.Rngs(7))
    assert abstract.weight_ih_l0.shape == (12, 3)
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(nnx.state(expected))])
    assert 0.9 * 3**-0.5 < np.abs(values).max() < 3**-0.5  # the distribution of a seed's values
    assert abs(values.mean()) < 0.1
    y, _ = expected(X, LENGTHS)
    assert (np.asarray(y)[0, 3:] == 0).all()


def test_an_ensemble_made_by_vmap_runs_under_vmap_and_scan():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs: nnx.Rngs) -> ragged_jax.LSTM:
        return layer_of(rngs, num_layers=2, dropout=0.5)

    @nnx.vmap(in_axes=(0, None, None))
    def together(layer: ragged_jax.LSTM, x: Any, lengths: Any) -> Any:
        return layer(x, lengths)[0]

    @nnx.scan(in_axes=(nnx.Carry, 0, None), out_axes=nnx.Carry)
    def stacked(x: Any, layer: ragged_jax.LSTM, lengths: Any) -> Any:
        return layer(x, lengths)[0]

    lengths, x = ragged.Lengths(LENGTHS, 5), jnp.asarray(X)
    layers = make(nnx.Rngs(0))
    one, two = together(layers, x, lengths), together(layers, x, lengths)
    assert (one != two).any()
    layers.eval()
    definition, state = nnx.split(layers)

    @jax.jit
    def alone(place: int, x: Any) -> Any:
        layer = nnx.merge(definition, jax.tree.map(lambda leaf: leaf[place], state))
        return layer(x, lengths)[0]

    below, each = x, np.asarray(together(layers, x, lengths))
    for place in range(3):
        np.testing.assert_allclose(each[place], alone(place, x), rtol=1e-5, atol=1e-6)
        below = alone(place, below)
    np.testing.assert_allclose(stacked(x, layers, lengths), below, rtol=1e-5, atol=1e-6)


def test_a_layer_goes_into_linen():
    keys = {"params": jax.random.key(0)}
    module = nnx.bridge.to_linen(ragged_jax.LSTM, 3, 4)
    (y, _), variables = module.init_with_output(keys, X, LENGTHS)
    again, _ = module.apply(variables, X, LENGTHS)
    np.testing.assert_array_equal(y, again)
    assert (np.asarray(y)[0, 3:] == 0).all()
    dropping = nnx.bridge.to_linen(ragged_jax.LSTM, 3, 4, num_layers=2, dropout=0.5)
    variables = dropping.init({**keys, "dropout": jax.random.key(1)}, X)
    one, two = (
        dropping.apply(variables, X, rngs={"dropout": jax.random.key(seed)})[0] for seed in (0, 1)
    )
    assert (one != two).any()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_module_moves_to_another_dtype_without_a_program_for_each_shape(dtype, caplog):
    layer = layer_of(nnx.Rngs(0), num_layers=2)
    weights = layer.weight_ih_l0
    weights[...] = weights[...].at[0, :2].set(jnp.array([1e9, -1e9]))  # infinite in float16
    given = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))]
    with jax.log_compiles():
        ragged.get_backend().to(layer, device="cpu", dtype=dtype)
        assert not compiled(caplog)
        moved = jax.tree.leaves(nnx.state(layer, nnx.Param))
        expected = [jnp.asarray(value).astype(dtype) for value in given]
        assert compiled(caplog), "what is counted is counted"
    for leaf, value in zip(moved, expected, strict=True):
        np.testing.assert_array_equal(leaf, value, strict=True)
    traced = jax.jit(lambda layer: ragged.get_backend().to(layer, device="cpu", dtype="float32"))
    assert traced(layer).weight_ih_l0.dtype == jnp.float32


def compiled(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What JAX says that it has compiled."""
    return [each.message for each in caplog.records if "Compiling" in each.message]


def test_no_stream_is_asked_for_where_nothing_drops():
    layer = layer_of(nnx.Rngs(params=0), num_layers=2)
    assert streams(layer) == []
    assert streams(ragged.models.XTFT(3, 2, seed=0, **{**SIZES, "dropout": 0.0})) == []
    assert len(streams(layer_of(nnx.Rngs(0), dropout=0.5))) == 1  # of the default stream
    with pytest.raises(ragged.errors.OptionError, match=r"streams \['params'\]; expected a stream"):
        layer_of(nnx.Rngs(params=0), dropout=0.5)
    with pytest.raises(ragged.errors.OptionError, match=r"is a int; expected flax\.nnx\.Rngs"):
        layer_of(0)  # type: ignore[arg-type]


def test_seeds_say_the_same_on_both_backends_and_streams_are_flaxs():
    assert_equal_states(ragged_jax.LSTM(3, 3, seed=0), ragged_jax.LSTM(3, 3, seed=0))
    given = ragged_jax.LSTM(3, 3, seed=0, rngs=nnx.Rngs(1))
    assert_equal_states(given, ragged_jax.LSTM(3, 3, seed=0))


@pytest.mark.parametrize("kind", MODELS)
def test_all_places_of_a_fresh_model_drop_independently(kind):
    def model_of(seed: int) -> nnx.Module:
        return getattr(ragged.models, kind)(3, 2, seed=seed, **SIZES, **MODELS[kind])

    model, again, other = model_of(0), model_of(0), model_of(1)
    found = streams(model)
    assert len(set(found)) == len(found) > 2
    assert found == streams(again) != streams(other)
    assert not set(found) & set(streams(other))
    assert found == streams(nnx.clone(model)) == streams(copy.deepcopy(model))
    nnx.reseed(model, dropout=3)
    reseeded = streams(model)
    assert len(set(reseeded)) == len(found)
    nnx.reseed(other, dropout=3)
    assert streams(other) == reseeded
    assert type(nnx.eval_shape(lambda: model_of(0))) is type(model)
    assert_equal_states(nnx.jit(lambda: model_of(0))(), again)


def test_two_equal_inputs_of_a_model_are_dropped_by_two_draws():
    """Encoder and decoder of one seed, on the same steps: their masks differ by the numbers."""
    model = ragged.models.EncoderDecoderLSTM(3, 3, seed=0, **SIZES)
    ones = jnp.ones((16, 8, 4))
    encoder, decoder = model.encoder.dropout(ones), model.decoder.dropout(ones)
    alike = float((encoder == decoder).mean())
    assert abs(alike - 0.5) < 6 * (0.25 / ones.size) ** 0.5


def test_all_may_drop():
    for rate in (1.0, 1 - 2**-20):
        dropped = ragged_jax.layers.Dropout(rate)(jnp.ones(64))
        np.testing.assert_array_equal(dropped, 0)
    layer = ragged_jax.LSTM(3, 4, 2, dropout=1.0, seed=0)
    gradient = jax.grad(lambda x: layer(x, LENGTHS)[0].sum())(jnp.asarray(X))
    np.testing.assert_array_equal(gradient, 0)


def test_variables_selected_one_by_one_drop_as_all_at_once_do():
    """Each at places of its own: the sum of all side by side, of which one draw drops."""
    rng = np.random.default_rng(0)
    block = VariableSelection(Variables((0, 0, 0)), 4, 6, 0.5, rng=rng)
    x, again = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), nnx.clone(block)
    selected, weights = nnx.jit(lambda block, x: block(x))(block, x)

    @nnx.jit
    def select_one_by_one(block, x):
        words = block.grns.gate.dropout.words()
        projected = jnp.moveaxis(block._project(x), -2, 0)
        return block.grns(projected, drop=partial(drop, words=words, rate=0.5))

    expected = np.einsum("tf,ftd->td", weights, select_one_by_one(again, x))
    np.testing.assert_allclose(selected, expected, rtol=1e-5, atol=1e-6)


def test_bits_of_dropout_are_even_and_independent():
    keys, count = jax.random.split(jax.random.key(0), 64), 1 << 14
    bits = np.asarray(
        jax.vmap(lambda key: hashed_bits(jax.random.key_data(key)[:2], (count,)))(keys)
    )
    deviations = 5 / np.sqrt(bits.size)  # of a mean of independent draws
    for shift in range(32):
        assert abs((bits >> shift & 1).mean() - 0.5) < 0.5 * deviations
    drawn = (bits / 2**32 - 0.5) * np.sqrt(12)
    for lag in (1, 2, 64):
        assert abs((drawn[:, lag:] * drawn[:, :-lag]).mean()) < deviations
    between = drawn @ drawn.T / count - np.eye(len(keys))
    assert abs(between).max() < 5 / np.sqrt(count)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "None"), (1.0, r"1\.0"), (np.ones(1), r"of shape \(1,\)")]
)
def test_parameters_that_no_longer_fit_are_refused(value, said):
    message = rf"LSTM\(\): `parameters\['bias_hh_l0'\]` is {said}; expected shape \(12,\)"
    for replacement in (value, nnx.Param(value)):
        layer = ragged_jax.LSTM(3, 3, seed=0)
        layer.bias_hh_l0 = replacement
        with pytest.raises(ShapeError, match=message):
            layer(X, LENGTHS)
