"""Torch's models as files: programs of torch, and ONNX in onnxruntime."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ragged_conformance.tolerances import MODEL, assert_close

import ragged

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")
export = pytest.importorskip("ragged_torch.export")

SMALL = {"hidden_size": 4, "num_layers": 1, "seed": 0}
ATTENTION = {**SMALL, "num_heads": 2, "output_size": 2}
MODELS = {
    "EncoderDecoderLSTM": {**SMALL, "num_layers": 2, "decoder_hidden_size": 3},
    "AttentionLSTM": ATTENTION,
    "TransformerLSTM": {**ATTENTION, "num_blocks": 1},
    "TemporalFusionTransformer": {**ATTENTION, "context_length": 5, "static_features": 2},
    "PFTemporalFusionTransformer": {**ATTENTION, "reference_length": 5},
    "XTFT": ATTENTION,
}
PAST, FUTURE = 2, 1
# Torch warns of its own code, in the exporter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def build(name, **changed):
    with ragged.use_backend("torch"):
        return getattr(ragged.models, name)(PAST, FUTURE, **{**MODELS[name], **changed})


def inputs(model, rows, encoder_time, decoder_time, seed=0):
    """A batch with lengths 0, 1 and full on both sides, NaN at padding."""
    rng = np.random.default_rng(seed)
    widths = {"past": encoder_time, "future": decoder_time}
    choices = {name: [0, 1, width, width] for name, width in widths.items()}
    lengths = {name: np.resize(choices[name], rows) for name in widths}
    lengths["future"] = lengths["future"][::-1].copy()  # length 0 beside each other one
    found = {}
    for name, features in (("past", PAST), ("future", FUTURE)):
        found[name] = rng.normal(size=(rows, widths[name], features)).astype(np.float32)
        steps, count = np.arange(widths[name])[None, :], lengths[name][:, None]
        right = name == "past" and model.config.encoder_alignment == "right"
        valid = steps >= widths[name] - count if right else steps < count
        found[name][~valid] = np.nan
    found |= {"encoder_lengths": lengths["past"], "decoder_lengths": lengths["future"]}
    if statics := getattr(model.config, "static_features", 0):
        found["static"] = rng.normal(size=(rows, statics)).astype(np.float32)
    return found


def eagerly(model, given):
    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in given.items()}).output


SIZES = [(4, 6, 7), (9, 8, 3), (1, 1, 1), (5, 1, 4), (6, 3, 1), (2, 4, 5)]


@pytest.mark.parametrize("name", MODELS)
def test_exported_model_equals_the_model(name, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    model = build(name)
    model.train()
    program = export.record(model)  # which takes most of the time, once for both formats
    monkeypatch.setattr(export, "record", lambda module: program)
    for format, suffix in (("torch", ".pt2"), ("onnx", ".onnx")):
        ragged_torch.export_model(model, tmp_path / f"model{suffix}", format=format)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.pt2"]
    assert model.training, "the module is left as it is"
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.eval()
    for format, suffix in (("torch", ".pt2"), ("onnx", ".onnx")):
        run = ragged_torch.load_exported(tmp_path / f"model{suffix}", format=format)
        for rows, *times in SIZES:
            given = inputs(model, rows, *times, seed=rows)
            found, expected = run(**given), eagerly(model, given).numpy()
            assert_close(found, expected, "float32", MODEL, f"{format} of {rows, times}")
            padding = np.arange(times[1])[None, :] >= given["decoder_lengths"][:, None]
            assert (found[padding] == 0).all()
        if name == "EncoderDecoderLSTM":
            refusals(run, given)


def refusals(run, given):
    """What an exported model refuses at its door; lists are as good as arrays."""
    lists = {**given, "encoder_lengths": given["encoder_lengths"].tolist()}
    np.testing.assert_array_equal(run(**lists), run(**given))
    with pytest.raises(
        ragged.RaggedError, match=r"exported model\(\): `inputs` is named \['past'\]"
    ):
        run(past=given["past"])
    with pytest.raises(ragged.RaggedError, match=r"`lengths` is 99 at row 0; expected at most"):
        run(**{**given, "decoder_lengths": [99, 1]})
    with pytest.raises(ragged.RaggedError, match=r"`lengths` is 3 lengths; expected 2"):
        run(**{**given, "encoder_lengths": [1, 1, 1]})
    with pytest.raises(ragged.RaggedError, match=r"`past` is of shape \(4, 2\); expected \(batch"):
        run(**{**given, "past": given["past"][0]})


def test_float64_model_is_exported_as_it_is_by_torch_alone(tmp_path):
    model = build("EncoderDecoderLSTM").double().eval()
    path = tmp_path / "model.pt2"
    ragged_torch.export_model(model, path, format="torch")
    given = inputs(model, 4, 5, 6)
    found = ragged_torch.load_exported(path, format="torch")(**given)
    given = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in given.items()}
    assert_close(found, eagerly(model, given).numpy(), "float64", MODEL)
    with pytest.raises(ragged.RaggedError, match=r"`module` is of torch.float64; expected float32"):
        ragged_torch.export_model(model, path, format="onnx")


def test_unknown_format_is_refused(tmp_path):
    message = r"export_model\(\): `format` is 'jpeg'; expected one of \('torch', 'onnx'\)"
    with pytest.raises(ragged.RaggedError, match=message):
        ragged_torch.export_model(build("XTFT"), tmp_path / "model", format="jpeg")
    with pytest.raises(ragged.RaggedError, match=r"load_exported\(\): `format` is 'stablehlo'"):
        ragged_torch.load_exported(tmp_path / "model", format="stablehlo")


def test_onnx_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.delattr(ragged_torch, "onnx_files", raising=False)
    monkeypatch.delitem(sys.modules, "ragged_torch.onnx_files", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ragged.errors.MissingExtraError, match=r"ragged-sequences\[export\]"):
        ragged_torch.load_exported(tmp_path / "model.onnx", format="onnx")


class Own(torch.nn.Module):
    """A user's module around a layer, with the state it starts from."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, lengths, h, c):
        y, (h, c) = self.layer(x, lengths, (h, c))
        return y, h, c


def layer_inputs(rng, rows, width):
    x = rng.normal(size=(rows, width, PAST)).astype(np.float32)
    lengths = np.resize([0, 1, width], rows)
    x[np.arange(width)[None, :] >= lengths[:, None]] = np.nan
    h, c = rng.normal(size=(2, 4, rows, 4)).astype(np.float32)
    return {"x": x, "lengths": lengths, "h": h, "c": c}


def test_a_users_own_layer_goes_to_onnx_with_its_state(tmp_path):
    onnx_files = pytest.importorskip("ragged_torch.onnx_files")
    layer = ragged_torch.LSTM(PAST, 4, num_layers=2, bidirectional=True, bias=False, seed=0)
    own, rng = Own(layer).requires_grad_(False), np.random.default_rng(0)
    example = {name: torch.from_numpy(array) for name, array in layer_inputs(rng, 3, 5).items()}
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    shapes = {"x": {0: batch, 1: time}, "lengths": {0: batch}, "h": {1: batch}, "c": {1: batch}}
    program = torch.export.export(own, (), example, dynamic_shapes=shapes, strict=False)
    onnx_files.write(program, str(tmp_path / "own.onnx"), ["y", "h_last", "c_last"])
    session = onnx_files.start(str(tmp_path / "own.onnx"))
    for rows, width in ((6, 9), (1, 1), (3, 4)):
        given = layer_inputs(rng, rows, width)
        native = {name: torch.from_numpy(array) for name, array in given.items()}
        expected = own(**native)
        for found in (program.module()(**native), session.run(None, given)):
            for one, other in zip(found, expected, strict=True):
                assert_close(np.asarray(one), other.numpy(), "float32")


def test_projections_have_no_onnx(tmp_path):
    onnx_files = pytest.importorskip("ragged_torch.onnx_files")
    own = Own(ragged_torch.LSTM(PAST, 4, proj_size=3, seed=0)).requires_grad_(False)
    x, h, c = torch.zeros(2, 3, PAST), torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)
    program = torch.export.export(own, (x, torch.tensor([3, 1]), h, c), strict=False)
    with pytest.raises(
        ragged.RaggedError, match=r"`proj_size` is above 0; expected 0: ONNX's LSTM"
    ):
        onnx_files.write(program, str(tmp_path / "own.onnx"), ["y", "h_last", "c_last"])
