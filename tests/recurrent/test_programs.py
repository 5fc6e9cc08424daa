"""What JAX compiles: a program for each bucket, whatever the model, and none for each batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("flax")

import chex
import jax
import ragged_jax
from ragged_jax import training

import ragged
from ragged import losses
from ragged.backend import use_backend
from ragged.data import RaggedDataset, batches
from ragged.training.optimizers import AdamW

MOST = 8  # programs of an epoch
SIZES = {"hidden_size": 4, "num_layers": 1, "seed": 0}
MODELS: dict[str, dict[str, Any]] = {
    "EncoderDecoderLSTM": {},
    "AttentionLSTM": {"num_heads": 2},
    "TransformerLSTM": {"num_heads": 2, "num_blocks": 1},
    "TemporalFusionTransformer": {"num_heads": 2, "context_length": 24, "output_size": 1},
    "XTFT": {"num_heads": 2, "output_size": 1},
}


@pytest.fixture(autouse=True)
def _on_jax():
    with use_backend("jax"):
        yield


def model_of(kind: str, seed: int = 0) -> Any:
    return getattr(ragged.models, kind)(2, 1, **{**SIZES, **MODELS[kind], "seed": seed})


def rows_of(pairs: np.ndarray, side: str = "left") -> RaggedDataset:
    """Rows of the given context and horizon lengths, filled with noise."""
    rng = np.random.default_rng(0)
    made = [
        [rng.normal(size=(steps[place], features)) for steps in pairs.tolist()]
        for place, features in ((0, 2), (1, 1), (1, 1))
    ]
    rows = RaggedDataset.from_arrays(made[0], made[1], target=made[2])
    return RaggedDataset(rows.rows, side)


def drawn(count: int, *most: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, np.array(most) + 1, (count, len(most)))


class Traced:
    """A training step that is traced for each batch by jit's own cache, and not run.

    What jit's cache does not find is traced, and what is traced is a program; `limit` of them are
    let through. What jit's cache finds depends on what a program is given and not on what is in it:
    only with `whole` is each traced to its end.
    """

    def __init__(self, model: Any, limit: int = MOST, *, whole: bool = True) -> None:
        self.step = ragged_jax.TrainingStep(model, losses.mse, AdamW())
        chex.clear_trace_counter()  # which goes by the function's name
        real = self.step._differentiated

        def traced(*arguments: Any) -> Any:
            return real(*arguments) if whole else arguments[0]

        once = chex.assert_max_traces(traced, n=limit)
        self.programs = 0

        def counted(*arguments: Any) -> Any:
            self.programs += 1
            return once(*arguments)

        program = jax.jit(counted, static_argnums=2)

        def differentiate(*arguments: Any) -> Any:
            program.eval_shape(*arguments)
            return 0.0, arguments[0]

        self.step._differentiate = differentiate
        self.step._apply = lambda *arguments: (arguments[:3], True)

    def epoch(self, rows: RaggedDataset, batch_size: int, epoch: int = 0) -> int:
        made = 0
        for batch in batches(rows, batch_size, shuffle_seed=0, epoch=epoch):
            self.step.step(batch)
            made += 1
        return made


@pytest.mark.parametrize("kind", MODELS)
def test_an_epoch_of_200_batches_compiles_few_programs(kind):
    model = model_of(kind)
    rows = rows_of(drawn(800, 24, 16), model.config.encoder_alignment)
    traced = Traced(model, whole=kind == "EncoderDecoderLSTM")
    assert traced.epoch(rows, 4) == 200
    assert traced.programs <= 4  # one for each bucket
    traced.epoch(rows, 4, epoch=1)
    assert traced.programs <= 4


def test_neither_does_one_without_kernels(monkeypatch):
    """Where a schedule is fixed in each program."""
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    test_an_epoch_of_200_batches_compiles_few_programs("EncoderDecoderLSTM")


@pytest.mark.parametrize(
    ("pairs", "batch_size", "most"),
    [
        (drawn(200, 3, 3), 1, 4),  # a batch is full by chance, on either side or both
        (drawn(400, 2, 3), 2, 4),
        (np.full((398, 2), 5), 2, 1),
        (np.full((399, 2), 5), 2, 2),  # the last batch is filled up
        (np.where(np.arange(800)[:, None] % 200, 1, 24) * np.ones((1, 2), int), 4, 4),
    ],
    ids=["single rows", "pairs of rows", "all equal", "all equal, one left over", "few long"],
)
def test_no_lengths_compile_a_program_for_each_batch(pairs, batch_size, most):
    traced = Traced(model_of("EncoderDecoderLSTM"))
    traced.epoch(rows_of(pairs), batch_size)
    assert traced.programs <= most


def test_what_is_traced_is_what_is_compiled():
    rows, models = rows_of(drawn(80, 24, 16)), [model_of("EncoderDecoderLSTM") for _ in range(2)]
    traced = Traced(models[0])
    traced.epoch(rows, 4)
    step = ragged_jax.TrainingStep(models[1], losses.mse, AdamW())
    for batch in batches(rows, 4, shuffle_seed=0):
        step.step(batch)
    assert step._differentiate._cache_size() == traced.programs <= 4
    assert step._apply._cache_size() == 1


def test_no_shape_of_a_parameter_is_a_program_of_its_own(caplog):
    """To make a step, to save it and to load it takes few, whatever the model."""
    model = model_of("TemporalFusionTransformer")
    shapes = {value.shape for value in ragged_jax.get_parameters(model).values()}
    training._join.clear_cache()  # an equal model may have been trained before
    with jax.log_compiles():
        step = ragged_jax.TrainingStep(model, losses.mse, AdamW())
        step.load_state_dict({**step.state_dict(), "steps": np.array(1)})
    compiled = [each.message for each in caplog.records if each.message.startswith("Compiling")]
    assert any("_join" in message for message in compiled)
    assert len(compiled) <= MOST < len(shapes), compiled


def test_batches_in_a_fixed_order_compile_a_program_for_each_shape():
    """Those of validation and of a forecast, whose rows are not in buckets."""
    traced, shapes = Traced(model_of("EncoderDecoderLSTM")), set()
    for batch in batches(rows_of(drawn(3200, 24, 16)), 16):
        traced.step.step(batch)
        shapes.add((batch.past.shape, batch.future.shape))
    assert traced.programs == len(shapes) <= 4


def test_counting_can_fail():
    """Where every width is a shape, and a shape a program, the limit stops them."""
    traced = Traced(model_of("EncoderDecoderLSTM"), limit=2)
    rows = rows_of(drawn(40, 24, 16))
    wide, *others = batches(rows, 2, shapes=8)
    traced.step.step(wide)
    with pytest.raises(AssertionError, match="is traced > 2 times"):
        list(map(traced.step.step, others))


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_less_room_than_tokens_is_an_error_or_nan(monkeypatch, kernels):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    model = model_of("EncoderDecoderLSTM")
    model.eval()
    run = jax.jit(lambda *arrays: model(*arrays, token_capacity=(6, 5)).output)
    inputs, horizons = (np.ones((3, 4, 2)), np.ones((3, 3, 1))), np.array([3, 1, 1])
    inputs = tuple(each.astype(np.float32) for each in inputs)
    expected = model(*inputs, [4, 0, 2], horizons).output
    np.testing.assert_allclose(run(*inputs, np.array([4, 0, 2]), horizons), expected, rtol=1e-6)
    refused = (ValueError, jax.errors.JaxRuntimeError)  # jit's fast path raises the former
    for contexts in ([4, 1, 2], [5, 0, 1]):
        if kernels == "1":
            with pytest.raises(refused, match="not all between 0 and the width"):
                jax.block_until_ready(run(*inputs, np.array(contexts), horizons))
        else:
            found = run(*inputs, np.array(contexts), horizons)
            assert np.isnan(found[np.arange(3) < horizons[:, None]]).all()
