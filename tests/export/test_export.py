"""Exported models: one program that forecasts batches of every size as the model does."""

from __future__ import annotations

import functools
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import ragged
from ragged.backend import load_backend, use_backend
from ragged.errors import (
    ArtefactError,
    LengthsError,
    MissingExtraError,
    OptionError,
    ShapeError,
)
from ragged.export.program import FORMATS, Exported, Input, load_exported

# Torch warns of its own code, in its exporters.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]

TOLERANCES = {"float64": (1e-10, 1e-12), "float32": (1e-4, 1e-5)}
PAST, FUTURE = 2, 1
SIZES = {"hidden_size": 4, "num_layers": 1, "seed": 0}
LEFT = {"num_heads": 2, "encoder_alignment": "left"}
MODELS = {
    "EncoderDecoderLSTM": {
        "decoder_hidden_size": 3,
        "head_hidden_size": 5,
        "row_normalization": "seasonal",
        "season": 2,
    },
    "AttentionLSTM": {"num_heads": 2, "cardinalities": (3, 0)},
    "TransformerLSTM": {"num_heads": 2, "num_blocks": 1},
    "TemporalFusionTransformer": {
        **LEFT,
        "context_length": 6,
        "static_features": 2,
        "cardinalities": (3, 0),
        "static_cardinalities": (0, 2),
    },
    "PFTemporalFusionTransformer": {**LEFT, "reference_length": 6},
    "XTFT": {**LEFT, "row_normalization": "last_value"},
}
LEVELS = {"TemporalFusionTransformer": (0.9, 0.1)}  # of the quantiles that a model forecasts
# ONNX translates operator by operator, and each other model is of the operators of these.
IN_ONNX = ("EncoderDecoderLSTM", "TemporalFusionTransformer")
# Widths and lengths of each case: the program was made for none of them.
COMMON = {
    "ragged, ties, all full": ((6, 5), [6, 0, 1, 4, 4, 6], [5, 3, 0, 1, 1, 5]),
    "one row of one step": ((1, 1), [1], [1]),
}
CASES = {
    **COMMON,
    "one long among many short": ((9, 7), [9, *[1] * 7], [7, *[1] * 7]),
    "all equal": ((3, 4), [3, 3], [4, 4]),
    "all empty": ((3, 4), [0, 0], [0, 0]),
    "no context": ((0, 4), [0, 0], [4, 2]),
    "no horizon": ((3, 0), [3, 1], [0, 0]),
    "no rows": ((3, 4), [], []),
}


def inputs(case: str, dtype: str, static: int, *, padding: float = 0.0) -> dict[str, np.ndarray]:
    """What a program is fed with; every case begins with the same rows, as far as they reach."""
    widths, *lengths = CASES[case]
    rng, found = np.random.default_rng(0), {}
    for side, kind, features, width, counts in zip(
        ("past", "future"), ("encoder", "decoder"), (PAST, FUTURE), widths, lengths, strict=True
    ):
        values = rng.normal(size=(8, 9, features)).astype(dtype)[: len(counts), :width]
        values[..., 0] = np.round(2 * values[..., 0])  # labels, and what is none
        counts = np.array(counts, np.int64)
        values[np.arange(width) >= counts[:, None]] = padding
        found |= {side: values, f"{kind}_lengths": counts}
    statics = np.round(rng.normal(size=(8, static)))[: len(lengths[0])]
    return {**found, "static": statics} if static else found


def expected_of(backend, model, cases, dtype: str, static: int) -> dict[str, np.ndarray]:
    """What the model itself forecasts, all cases in one batch: a row's neighbours do not count."""
    given = [inputs(case, dtype, static) for case in cases]
    counts = [len(each["past"]) for each in given]

    def joined(name: str) -> np.ndarray:
        arrays = [each[name] for each in given]
        if name in ("past", "future"):
            arrays = [np.pad(a, ((0, 0), (0, 9 - a.shape[1]), (0, 0))) for a in arrays]
        return np.concatenate(arrays)

    batch = SimpleNamespace(
        past=joined("past"),
        future=joined("future"),
        encoder_lengths=ragged.Lengths(joined("encoder_lengths"), 9),
        decoder_lengths=ragged.Lengths(joined("decoder_lengths"), 9),
        static=joined("static") if static else None,
        encoder_alignment="left",
        token_capacity=None,
    )
    output = np.asarray(backend.predict(model, batch).output)
    parts = np.split(output, np.cumsum(counts)[:-1])
    return {c: part[:, : CASES[c][0][1]] for c, part in zip(cases, parts, strict=True)}


@functools.cache
def model_of(kind: str, backend: str, dtype: str):
    """A model, one for all formats of its backend."""
    with use_backend(backend) as chosen:
        model = getattr(ragged.models, kind)(PAST, FUTURE, output_size=2, **SIZES, **MODELS[kind])
        return chosen.to(model, device="cpu", dtype=dtype)


@functools.cache
def recording():
    """What records a model of torch's, once for both formats that are written from it."""
    from ragged_torch import export

    return functools.cache(export.record)


@pytest.mark.parametrize(
    ("kind", "format"), [(k, f) for k in MODELS for f in FORMATS], indirect=["format"]
)
def test_one_file_forecasts_batches_of_every_size_as_the_model_does(
    kind, format, tmp_path, pytestconfig, monkeypatch
):
    if format == "onnx" and kind not in IN_ONNX and not pytestconfig.getoption("exhaustive", False):
        pytest.skip("torch records it, and ONNX has each operator of it in the others")
    if FORMATS[format].backend == "torch":
        monkeypatch.setattr("ragged_torch.export.record", recording())
    assert_forecasts_as_the_model(kind, format, tmp_path)


def test_a_file_of_float64_keeps_it(need, tmp_path):
    need("jax")
    import jax

    with jax.enable_x64(True):
        assert_forecasts_as_the_model("EncoderDecoderLSTM", "stablehlo", tmp_path, "float64")


def assert_forecasts_as_the_model(kind, format, folder, dtype="float32"):
    """Export a model, and compare what the file forecasts of each case, whatever is at padding."""
    path = folder / FORMATS[format].file
    static = MODELS[kind].get("static_features", 0)
    cases = CASES if kind == "EncoderDecoderLSTM" else COMMON
    given = functools.partial(inputs, dtype=dtype, static=static)
    with use_backend(FORMATS[format].backend) as backend:
        model = model_of(kind, FORMATS[format].backend, dtype)
        levels = LEVELS.get(kind, ())
        backend.export_model(model, path, format=format, quantiles=levels)
        expected = expected_of(backend, model, cases, dtype, static)
        if levels:
            assert any((output[..., 0] < output[..., 1]).any() for output in expected.values())
            expected = {c: -np.sort(-output, axis=-1) for c, output in expected.items()}
    program = load_exported(path, format=format)
    assert program.inputs["past"] == Input(("batch", "encoder_time", PAST), dtype)
    for case in cases:
        found = program(**given(case))
        np.testing.assert_allclose(found, expected[case], *TOLERANCES[dtype], err_msg=case)
    first = next(iter(cases))
    garbage = given(first, padding=np.nan)
    found = program(**garbage)
    np.testing.assert_array_equal(found, program(**given(first)))
    assert (found[np.arange(5) >= garbage["decoder_lengths"][:, None]] == 0).all()


def test_the_models_in_onnx_have_each_operator_of_the_others(need):
    need("torch")
    operators = {kind: operators_of(kind) for kind in MODELS}
    known = set().union(*(operators[kind] for kind in IN_ONNX))
    assert {kind: each - known for kind, each in operators.items() if each - known} == {}


def operators_of(kind: str) -> set[str]:
    """The operators that torch records of a model."""
    program = recording()(model_of(kind, "torch", "float32"), LEVELS.get(kind, ()))
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


EXPORTED = {name: Input(("batch",), "int32") for name in ("encoder_lengths", "decoder_lengths")}
EXPORTED |= {"past": Input(("batch", "encoder_time", 3), "float32")}
EXPORTED |= {"future": Input(("batch", "decoder_time", 2), "float32")}
STATIC = {"static": Input(("batch", 1), "float32")}


@pytest.mark.parametrize(
    ("changed", "more", "error", "said"),
    [
        ({"past": np.zeros((2, 3, 4))}, {}, ShapeError, "`past` is of shape (2, 3, 4); expected "),
        ({"past": np.zeros((2, 3))}, {}, ShapeError, "expected (batch, encoder_time, 3). Give the"),
        ({"past": np.zeros((3, 3, 3))}, {}, ShapeError, "`past` is of 3 rows; expected 2, as"),
        ({"encoder_lengths": [3]}, {}, ShapeError, "`encoder_lengths` is of 1 rows; expected 2"),
        (
            {"encoder_lengths": [4, 1]},
            {},
            LengthsError,
            "is 4 at row 0; expected at most the width",
        ),
        ({"decoder_lengths": [0, -1]}, {}, LengthsError, "is -1 at row 1; expected lengths of 0"),
        ({"decoder_lengths": [0.5, 1]}, {}, LengthsError, "of dtype float64; expected integers"),
        ({"static": np.zeros((2, 1))}, {}, ShapeError, "`static` is given; expected left out"),
        ({}, STATIC, ShapeError, "`static` is missing; expected given"),
        ({"static": np.zeros((2, 2))}, STATIC, ShapeError, "expected (batch, 1)"),
    ],
)
def test_an_exported_model_refuses_what_it_cannot_take(changed, more, error, said):
    program = Exported(lambda arrays: pytest.fail("it ran"), {**EXPORTED, **more})
    given = {"past": np.zeros((2, 3, 3)), "future": np.zeros((2, 4, 2)), **changed}
    with pytest.raises(error, match=re.escape(said)):
        program(**given)


def test_a_program_of_other_inputs_is_refused():
    with pytest.raises(ArtefactError, match=r"the program takes \['past'\]; expected \['decoder_l"):
        Exported(lambda arrays: arrays["past"], {"past": EXPORTED["past"]})


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_format_of_another_backend_is_refused(name, need, tmp_path):
    need(name)
    backend, other = load_backend(name), {"torch": "stablehlo", "jax": "onnx"}[name]
    said = (
        rf"export_model\(\): `format` is '{other}'; expected one of \(.*\), which backend '{name}'"
    )
    with pytest.raises(OptionError, match=said):
        backend.export_model(None, tmp_path / "model", format=other)
    with pytest.raises(OptionError, match=said):
        backend.load_exported(tmp_path / "model", format=other)


@pytest.mark.parametrize(
    ("format", "package"), [("stablehlo", "flatbuffers"), ("onnx", "onnxruntime")]
)
def test_a_missing_package_is_told_with_its_extra(format, package, need, monkeypatch, tmp_path):
    need("jax")
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"`format` is \.{format}; expected {package}.*pip install 'ragged-sequences\[export\]'"
    with pytest.raises(MissingExtraError, match=said):
        load_exported(tmp_path / FORMATS[format].file, format=format)
