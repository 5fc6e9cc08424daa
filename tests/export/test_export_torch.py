"""What `export_model` leaves alone and refuses on torch, and a user's own layer as ONNX."""

from __future__ import annotations

import numpy as np
import pytest
from ragged_conformance.tolerances import MODEL, assert_close

import ragged

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")

PAST, FUTURE = 2, 1
# Torch warns of its own code, in the exporter.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def test_a_float64_model_is_exported_as_it_is_and_left_alone(tmp_path):
    with ragged.use_backend("torch"):
        model = ragged.models.EncoderDecoderLSTM(
            PAST, FUTURE, hidden_size=4, num_layers=2, decoder_hidden_size=3, seed=0
        )
    model.double().train()
    path = tmp_path / "model.pt2"
    ragged_torch.export_model(model, path, format="torch")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    rng, lengths = np.random.default_rng(0), {"encoder_lengths": [5, 0, 1]}
    lengths["decoder_lengths"] = [1, 6, 0]
    past, future = (rng.normal(size=(3, n, size)) for n, size in ((5, PAST), (6, FUTURE)))
    found = ragged_torch.load_exported(path, format="torch")(past=past, future=future, **lengths)
    with torch.no_grad():
        sides = torch.from_numpy(past), torch.from_numpy(future)
        expected = model.eval()(*sides, *lengths.values()).output
    assert_close(found, expected.numpy(), "float64", MODEL)
    with pytest.raises(ragged.RaggedError, match=r"`module` is of torch.float64; expected float32"):
        ragged_torch.export_model(model, tmp_path / "model.onnx", format="onnx")


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


def test_a_users_own_layer_goes_to_onnx_with_its_state():
    onnx_files = pytest.importorskip("ragged_torch.onnx_files")
    onnxruntime = pytest.importorskip("onnxruntime")
    layer = ragged_torch.Recurrent(
        "LSTM", PAST, 4, num_layers=2, bidirectional=True, bias=False, seed=0
    )
    own, rng = Own(layer).requires_grad_(False), np.random.default_rng(0)
    example = {name: torch.from_numpy(array) for name, array in layer_inputs(rng, 3, 5).items()}
    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    shapes = {"x": {0: batch, 1: time}, "lengths": {0: batch}, "h": {1: batch}, "c": {1: batch}}
    program = torch.export.export(own, (), example, dynamic_shapes=shapes, strict=False)
    content = onnx_files.to_onnx(program, outputs=["y", "h_last", "c_last"])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for rows, width in ((6, 9), (1, 1), (3, 4)):
        given = layer_inputs(rng, rows, width)
        native = {name: torch.from_numpy(array) for name, array in given.items()}
        expected = own(**native)
        for found in (program.module()(**native), session.run(None, given)):
            for one, other in zip(found, expected, strict=True):
                assert_close(np.asarray(one), other.numpy(), "float32")


def test_projections_have_no_onnx():
    onnx_files = pytest.importorskip("ragged_torch.onnx_files")
    own = Own(ragged_torch.Recurrent("LSTM", PAST, 4, proj_size=3, seed=0)).requires_grad_(False)
    x, h, c = torch.zeros(2, 3, PAST), torch.zeros(1, 2, 3), torch.zeros(1, 2, 4)
    program = torch.export.export(own, (x, torch.tensor([3, 1]), h, c), strict=False)
    with pytest.raises(ragged.RaggedError, match=r"`proj_size` is above 0; expected none, as in"):
        onnx_files.to_onnx(program)


def test_resets_have_no_onnx():
    onnx_files = pytest.importorskip("ragged_torch.onnx_files")
    layer = ragged_torch.GRU(PAST, 4, batch_first=True).requires_grad_(False)
    given = {"resets": torch.zeros(2, 3, dtype=torch.bool)}
    program = torch.export.export(layer, (torch.zeros(2, 3, PAST),), given, strict=False)
    with pytest.raises(ragged.RaggedError, match=r"`resets` is given; expected none, as in"):
        onnx_files.to_onnx(program)
    (translate,) = onnx_files.translations().values()
    with pytest.raises(ragged.RaggedError, match=r"`resets` is given; expected none, as in"):
        translate(*[None] * 9, "GRU", False, False, object())
