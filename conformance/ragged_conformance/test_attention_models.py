"""The models with attention: forecasts, what explains them, and gradients against the oracle."""

import functools
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.data import Sample, Series, collate
from ragged_conformance import evaluation, oracle, oracle_models
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import fill_padding, normal
from ragged_conformance.tolerances import DEEP, HALF, MODEL, assert_all_close, assert_close

WIDTH, HORIZON, PAST, FUTURE, SIZE = 5, 4, 3, 3, 4
LENGTHS: dict[str, tuple[list[int], list[int]]] = {
    "mixed": ([3, 5, 1, 4], [4, 2, 1, 3]),
    "full": ([5, 5, 5, 5], [4, 4, 4, 4]),
    "length 0": ([3, 0, 5, 0], [4, 2, 0, 0]),
    "only pasts full": ([5, 5, 5, 5], [1, 0, 4, 2]),
    "only futures full": ([1, 5, 0, 3], [4, 4, 4, 4]),
}
ROOM = (
    20,
    12,
)  # for the tokens of cases with shorter futures, in a program that computes them alone
# A LayerNorm over a few nearly equal values is nearly a step function: rounding the parameters to 8
# bits reverses its gradient. So every norm is over three values or more, and of the first six seeds
# each is the one for which, in float64, such a rounding changes the gradients least.
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "AttentionLSTM": ("AttentionLSTM", {"num_layers": 1, "seed": 5}),
    "AttentionLSTM, bridge, ungated, all seen": (
        "AttentionLSTM",
        {"decoder_hidden_size": 6, "gated": False, "causal": False},
    ),
    "TransformerLSTM": ("TransformerLSTM", {"num_layers": 1, "seed": 2}),
    "TransformerLSTM, shared, all seen": (
        "TransformerLSTM",
        {"num_blocks": 1, "share_lstm": True, "causal": False, "seed": 1},
    ),
    "TemporalFusionTransformer": ("TemporalFusionTransformer", {"context_length": 4, "seed": 2}),
    "TemporalFusionTransformer, statics, left, all seen": (
        "TemporalFusionTransformer",
        {
            "context_length": 5,
            "static_features": 3,
            "encoder_alignment": "left",
            "causal": False,
            "num_layers": 1,
            "seed": 5,
        },
    ),
    "PFTemporalFusionTransformer": (
        "PFTemporalFusionTransformer",
        {"reference_length": 5, "seed": 2},
    ),
    "XTFT": ("XTFT", {"seed": 1}),
    "XTFT, one feature": ("XTFT", {"past_features": 1, "future_features": 1, "num_layers": 1}),
}

# Of which another configuration has the same modules. In float64, where bounds are tight, JAX
# differentiates all but those of which two others have every operation, up to a scale.
SCALED = "PFTemporalFusionTransformer"
COMPOSED = (SCALED, "TemporalFusionTransformer")  # of the XTFT and the one with statics
VARIANTS = (*COMPOSED, "TransformerLSTM, shared, all seen", "XTFT, one feature")


def parametrize_configurations(cases: Any) -> Any:
    """Parametrise a test by configurations, each marked with the model that it proves."""
    marked = [
        pytest.param(case, marks=pytest.mark.operation(f"models.{CONFIGURATIONS[case][0]}"))
        for case in cases
    ]
    return pytest.mark.parametrize("configuration", marked)


configurations = parametrize_configurations(CONFIGURATIONS)


def arguments(configuration: str) -> tuple[Any, dict[str, Any]]:
    """A model's class and its arguments."""
    name, options = CONFIGURATIONS[configuration]
    keywords = {
        "past_features": PAST, "future_features": FUTURE, "hidden_size": SIZE, "num_heads": 2,
        "output_size": 2, "seed": 0, **options,
    }  # fmt: skip
    return getattr(ragged.models, name), keywords


def make(configuration: str, **changed: Any) -> Any:
    """A model of the chosen backend."""
    model, keywords = arguments(configuration)
    return model(**{**keywords, **changed})


def describe(configuration: str) -> Any:
    """A model's description."""
    model, keywords = arguments(configuration)
    return model.describe(**keywords)


def inputs(configuration: str, case: str, value: float = float("nan")) -> dict[str, np.ndarray]:
    """Past and future with a value at padding, and static values where the model takes them."""
    config, (encoder, decoder) = describe(configuration), LENGTHS[case]
    rows = len(encoder)
    past = normal(rows, WIDTH, config.past_features)
    future = normal(rows, HORIZON, config.future_features, seed=1)
    arrays = {
        "past": fill_padding(past, encoder, value, config.encoder_alignment),
        "future": fill_padding(future, decoder, value),
    }
    if getattr(config, "static_features", 0):
        arrays["static"] = normal(rows, config.static_features, seed=2)
    return arrays


def lengths_of(case: str) -> dict[str, list[int]]:
    """The lengths as arguments."""
    return dict(zip(("encoder_lengths", "decoder_lengths"), LENGTHS[case], strict=True))


def skip_what_others_show(
    adapter: Adapter,
    configuration: str,
    pytestconfig: pytest.Config,
    in_float64: tuple[str, ...] = COMPOSED,
) -> None:
    """Skip what JAX compiles for seconds: in float64 those named, elsewhere all variants."""
    is_on_cpu = (adapter.name, adapter.device) == ("jax", "cpu")
    is_shown = configuration in (in_float64 if adapter.dtype == "float64" else VARIANTS)
    if is_on_cpu and is_shown and not pytestconfig.getoption("exhaustive"):
        pytest.skip("another model, or float64, where a bound is tight, shows it")


def room_of(adapter: Adapter, case: str) -> dict[str, tuple[int, int]]:
    """The room for tokens as an argument, on JAX, where there is room for a case's."""
    fits = all(sum(n) <= most for n, most in zip(LENGTHS[case], ROOM, strict=True))
    return {"token_capacity": ROOM} if fits and adapter.name == "jax" else {}


@functools.cache
def parameters_of(configuration: str) -> dict[str, np.ndarray]:
    """Parameters none of which is 0 or 1, unlike initial biases and norms."""
    initial = ragged.get_backend().get_parameters(make(configuration))
    return {
        name: value.astype(float) + 0.25 * normal(*value.shape, seed=i)
        for i, (name, value) in enumerate(sorted(initial.items()))
    }


@functools.cache
def expected_of(configuration: str, case: str) -> dict[str, np.ndarray]:
    """The oracle's results."""
    arguments: Any = {**inputs(configuration, case, 0.0), **lengths_of(case)}
    return oracle_models.run(describe(configuration), parameters_of(configuration), **arguments)


def prepared(adapter: Adapter, configuration: str, **changed: Any) -> Any:
    """A model with the oracle's parameters."""
    model = adapter.prepare(make(configuration, **changed))
    adapter.backend.set_parameters(model, parameters_of(configuration))
    return model


def forecast(
    adapter: Adapter,
    configuration: str,
    arrays: dict[str, np.ndarray],
    lengths: dict[str, list[int]],
    **options: Any,
) -> dict[str, np.ndarray]:
    """Run a model; results that are None are left out."""
    widths = {"encoder_lengths": WIDTH, "decoder_lengths": HORIZON}
    padded_lengths = {name: ragged.Lengths(value, widths[name]) for name, value in lengths.items()}
    run = program(adapter, configuration, *options.items())
    return run(adapter.arrays(arrays), padded_lengths)


@functools.cache
def program(adapter: Adapter, configuration: str, *options: tuple[str, Any]) -> Any:
    """A model as a function of arrays and lengths, compiled once on JAX."""
    kwargs = dict(options)
    changed = {name: kwargs.pop(name) for name in ("encoder_alignment",) if name in kwargs}
    with ragged.use_backend(adapter.name):
        model = prepared(adapter, configuration, **changed)

    def run(arrays: Any, lengths: Any) -> Any:
        outputs = model(**arrays, **lengths, **kwargs)._asdict()
        return {name: value for name, value in outputs.items() if value is not None}

    return evaluation.forward(adapter, run)


@pytest.mark.parametrize("case", LENGTHS)
@configurations
def test_forecast_equals_the_oracle(adapter: Adapter, configuration: str, case: str) -> None:
    expected = expected_of(configuration, case)
    is_compiled = (adapter.name, adapter.device) == ("jax", "cpu")
    if not is_compiled:  # else the program that gives gradients shows it
        fused = forecast(adapter, configuration, inputs(configuration, case), lengths_of(case))
        assert_close(fused["output"], expected["output"], adapter.dtype, MODEL, "output")
    has_room = not is_compiled or configuration not in VARIANTS  # else one program is enough
    options = {"need_weights": True, **(room_of(adapter, case) if has_room else {})}
    explained = forecast(
        adapter, configuration, inputs(configuration, case), lengths_of(case), **options
    )
    assert set(explained) == set(expected)
    for name, value in expected.items():
        actual = explained[name]
        if name in ("past_selection", "future_selection"):
            encoder, decoder = LENGTHS[case]
            actual = fill_padding(actual, encoder if name == "past_selection" else decoder, 0.0)
        assert_close(actual, value, adapter.dtype, MODEL, name)


@functools.cache
def oracle_slopes(configuration: str) -> tuple[np.ndarray, Any, Any]:
    """The weights of the sum, the directions, and the sum's slopes along them."""
    config, batch = describe(configuration), inputs(configuration, "length 0", 0.0)
    parameters = parameters_of(configuration)

    def outputs(**values: Any) -> np.ndarray:
        arrays: Any = {**{name: values.pop(name) for name in batch}, **lengths_of("length 0")}
        return oracle_models.run(config, values, **arrays)["output"]

    values = {**batch, **parameters}
    weight = normal(*outputs(**values).shape, seed=7)
    directions = {
        name: normal(*value.shape, seed=100 + i) for i, (name, value) in enumerate(values.items())
    }
    derivatives = oracle.slopes(lambda **v: (outputs(**v) * weight).sum(), values, directions)
    return weight, directions, derivatives


@configurations
def test_gradients_equal_the_oracle(
    adapter: Adapter, configuration: str, pytestconfig: pytest.Config
) -> None:
    skip_what_others_show(adapter, configuration, pytestconfig)
    is_repeated = adapter.dtype == "float32" and configuration in COMPOSED
    if is_repeated and adapter.device == "cpu" and not pytestconfig.getoption("exhaustive"):
        pytest.skip("others have its operations, and float64, where a bound is tight, its gradient")
    weight, directions, expected = oracle_slopes(configuration)
    initial, call = adapter.functional(prepared(adapter, configuration))
    arrays, native = adapter.arrays(inputs(configuration, "length 0")), adapter.array(weight)
    options = {**lengths_of("length 0"), **room_of(adapter, "length 0")}

    def total(values: Any, _: Any) -> Any:
        parameters = {name: values[name] for name in initial}
        input_values = {name: values[name] for name in arrays}
        output = call(parameters, **input_values, **options).output
        return (output * native).sum(), {"output": output}

    outputs, gradients = evaluation.evaluator(adapter, total)({**arrays, **initial}, {})
    forecast = expected_of(configuration, "length 0")["output"]
    assert_close(outputs["output"], forecast, adapter.dtype, MODEL, "output")
    assert set(gradients) == set(expected)
    terms = {name: value * directions[name] for name, value in gradients.items()}
    actual = {name: term.sum() for name, term in terms.items()}
    if adapter.dtype in HALF:  # terms that cancel leave their rounding, so these are the measure
        sizes = {name: max(1.0, np.abs(term).sum()) for name, term in terms.items()}
        actual, expected = (
            {name: slopes[name] / size for name, size in sizes.items()}
            for slopes in (actual, expected)
        )
    assert_all_close(actual, expected, adapter.dtype, DEEP)


@parametrize_configurations(name for name in CONFIGURATIONS if "Temporal" in name or name == "XTFT")
def test_the_side_of_the_past_changes_nothing(
    adapter: Adapter, configuration: str, pytestconfig: pytest.Config
) -> None:
    skip_what_others_show(adapter, configuration, pytestconfig)
    needed = describe(configuration).encoder_alignment
    other = {"left": "right", "right": "left"}[needed]
    original, lengths = inputs(configuration, "length 0", 0.0), lengths_of("length 0")
    encoder = lengths["encoder_lengths"]
    past = oracle.align(original["past"], encoder, needed, other)
    moved = {**original, "past": fill_padding(past, encoder, alignment=other)}
    run = functools.partial(forecast, adapter, configuration, need_weights=True)
    one, two = run(original, lengths), run(moved, lengths, encoder_alignment=other)
    for name, value in one.items():
        assert_close(two[name], value, adapter.dtype, MODEL, name)


@parametrize_configurations(CONFIGURATIONS)
def test_the_future_beyond_a_step_is_not_seen_before_it(
    adapter: Adapter, configuration: str
) -> None:
    causal = describe(configuration).causal
    arrays, lengths = inputs(configuration, "full"), lengths_of("full")
    # On JAX with the weights, by the program that the oracle's test has compiled.
    run = functools.partial(forecast, adapter, configuration, need_weights=adapter.name == "jax")
    before = run(arrays, lengths)["output"]
    for step in range(HORIZON):
        changed = arrays["future"].copy()
        changed[:, step] += 100.0
        moved = {**arrays, "future": changed}
        after = run(moved, lengths)["output"]
        if causal:
            assert_close(after[:, :step], before[:, :step], adapter.dtype, MODEL, f"before {step}")
        if adapter.dtype in HALF:  # which may round away what is seen
            continue
        if not causal and step:
            assert (np.abs(after - before)[:, :step] > 1e-6).any()
        assert (np.abs(after - before)[:, step] > 1e-6).any()


def batch_of(configuration: str, case: str, alignment: str) -> Any:
    """The case's rows as a data module would batch them."""
    arrays, rows = inputs(configuration, case, 0.0), []
    for i, (context, horizon) in enumerate(zip(*LENGTHS[case], strict=True)):
        side = describe(configuration).encoder_alignment
        past, future = oracle.valid_part(arrays["past"][i], context, side), arrays["future"][i]
        event = Series(str(i), np.arange(float(context + horizon)), {})
        rows.append(Sample(past, future[:horizon], future[:horizon, :1], event, context))
    return collate(rows, batch_size=len(rows), encoder_alignment=alignment, shapes=64)


@parametrize_configurations(name for name in CONFIGURATIONS if "," not in name)
def test_interpretation_is_that_of_the_oracle_and_of_its_own_side(
    adapter: Adapter, configuration: str, pytestconfig: pytest.Config
) -> None:
    skip_what_others_show(adapter, configuration, pytestconfig, (SCALED,))
    model, side = prepared(adapter, configuration), describe(configuration).encoder_alignment
    actual = model.interpret(batch_of(configuration, "length 0", side))
    expected = expected_of(configuration, "length 0")
    assert set(actual) == {*expected, "encoder_lengths", "decoder_lengths"} - {"output"}
    for name in set(expected) - {"output"}:
        assert_close(actual[name], expected[name], adapter.dtype, MODEL, name)
    assert (actual["encoder_lengths"].tolist(), actual["decoder_lengths"].tolist()) == LENGTHS[
        "length 0"
    ]
    other = {"left": "right", "right": "left"}[side]
    message = f"`batch` is {other} aligned in its encoder part; expected {side} aligned.*Set data"
    with pytest.raises(ragged.RaggedError, match=message):
        model.interpret(batch_of(configuration, "length 0", other))


@pytest.mark.operation("models.AttentionLSTM", "models.TemporalFusionTransformer")
def test_wrong_arguments_are_refused(adapter: Adapter) -> None:
    refused: list[tuple[str, dict[str, Any], str]] = [
        ("AttentionLSTM", {"num_heads": 3}, "`hidden_size` is 4; expected a multiple of num_heads"),
        ("AttentionLSTM", {"decoder_hidden_size": 3}, "`decoder_hidden_size` is 3; expected a mul"),
        ("TransformerLSTM", {"num_blocks": 0}, "`num_blocks` is 0; expected 1 or more"),
        ("XTFT", {"encoder_alignment": "top"}, "`encoder_alignment` is 'top'; expected 'left'"),
        ("XTFT", {"dropout": 1.0}, r"`dropout` is 1\.0; expected 0 or more, below 1"),
        ("PFTemporalFusionTransformer", {"reference_length": 0}, "`reference_length` is 0; exp"),
        ("TemporalFusionTransformer", {"static_features": -1}, "`static_features` is -1; expec"),
    ]
    for configuration, changed, message in refused:
        with pytest.raises(ragged.RaggedError, match=message):
            make(configuration, **changed)
    statics = "TemporalFusionTransformer, statics, left, all seen"
    model, arrays = prepared(adapter, statics), adapter.arrays(inputs(statics, "full"))
    for static, got in ((None, "missing"), (arrays["static"][:, :1], r"of shape \(4, 1\)")):
        with pytest.raises(ragged.RaggedError, match=rf"`static` is {got}; expected .*\(4, 3\)"):
            model(**{**arrays, "static": static})
    if adapter.name == "jax":
        for capacity, got in (((7, 6), r"at least \[8, 6\]"), (8, "2 numbers of tokens")):
            with pytest.raises(ragged.RaggedError, match=f"`token_capacity` is .* expected {got}"):
                model(**arrays, **lengths_of("length 0"), token_capacity=capacity)
