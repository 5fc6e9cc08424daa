"""The torch layer as a module among torch's own: whatever may stand where a parameter was."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

LENGTHS = [5, 0, 2, 4]
SIZES = {"num_layers": 2, "bidirectional": True}


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)


def build(**options):
    return ragged_torch.LSTM(3, 3, seed=0, dtype=torch.float64, **{**SIZES, **options})


def reference_of(layer):
    """Run nn.LSTM row by row with the tensors that stand where the layer's parameters are."""
    shape = layer.shape
    peer = nn.LSTM(
        *(shape.input_size, shape.hidden_size, shape.num_layers, shape.bias, True, 0.0),
        *(shape.bidirectional, shape.proj_size),
        dtype=torch.float64,
    )
    names = shape.parameter_shapes()

    def run(x, lengths):
        values = {name: getattr(layer, name) for name in names}
        rows, finals = [], []
        for row, length in zip(x, lengths, strict=True):
            if length:
                y, state = torch.func.functional_call(peer, values, (row[None, :length],))
            else:
                y = row.new_zeros(1, 0, shape.output_size * len(shape.directions))
                state = tuple(row.new_zeros(size) for size in shape.state_shapes(1))
            rows.append(nn.functional.pad(y, (0, 0, 0, x.shape[1] - length))[0])
            finals.append(state)
        hs, cs = zip(*finals, strict=True)
        return torch.stack(rows), torch.cat(hs, 1), torch.cat(cs, 1)

    return run


def assert_runs_its_attributes(layer, leaves=None):
    """Compare outputs and the gradients of every parameter with nn.LSTM row by row."""
    leaves = leaves or [p for p in layer.parameters() if p.requires_grad]
    y, (h, c) = layer(inputs(), lengths=LENGTHS)
    results = [(y, h, c), reference_of(layer)(inputs(), LENGTHS)]
    grads = [
        torch.autograd.grad(
            sum(v.cos().sum() for v in found), leaves, retain_graph=True, materialize_grads=True
        )
        for found in results
    ]
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def tie_layers(layer):
    for end in ("", "_reverse"):
        setattr(layer, f"weight_hh_l1{end}", getattr(layer, f"weight_hh_l0{end}"))


def tie_directions(layer):
    for name in layer.shape.parameter_shapes():
        if name.endswith("_reverse"):
            setattr(layer, name, getattr(layer, name.removesuffix("_reverse")))


def tie_biases(layer):
    layer.bias_hh_l0 = layer.bias_ih_l0


def norm_weights(layer):
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(layer, "weight_hh_l0")


def parametrize_weights(layer):
    parametrizations.weight_norm(layer, "weight_ih_l0")
    parametrizations.spectral_norm(layer, "weight_hh_l1").eval()
    parametrizations.orthogonal(layer, "weight_hh_l0")


def prune_weights(layer):
    prune.random_unstructured(layer, "weight_hh_l0", 0.5)
    prune.l1_unstructured(layer, "bias_ih_l1_reverse", 0.5)


def drop_weights(layer):
    """Do as the WeightDrop of AWD-LSTM: a plain tensor stands where the parameter was."""
    raw = layer.weight_hh_l0
    del layer.weight_hh_l0
    layer.register_parameter("raw", raw)
    mask = torch.arange(raw.numel()).view_as(raw) % 2
    layer.weight_hh_l0 = raw * mask


def add_parameters(layer):
    layer.register_parameter("scale", nn.Parameter(torch.ones(3)))
    layer.head = nn.Linear(3, 3)


def freeze_some(layer):
    layer.weight_ih_l0.requires_grad_(False)
    nn.utils.clip_grad_norm_(layer.parameters(), 1.0)


@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize(
    "change",
    [
        *(tie_layers, tie_directions, tie_biases, norm_weights, parametrize_weights),
        *(prune_weights, drop_weights, add_parameters, freeze_some),
    ],
)
def test_a_call_runs_what_stands_where_its_parameters_were(change, kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    layer = build()
    change(layer)
    assert_runs_its_attributes(layer)


def test_cached_parametrizations_run_once():
    layer = build()
    parametrizations.weight_norm(layer, "weight_hh_l0")
    with parametrize.cached():
        assert_runs_its_attributes(layer)


def save(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def assign(layer):
    twin = build(device="meta")
    twin.load_state_dict(layer.state_dict(), assign=True)
    return twin


def skip_init(layer):
    twin = nn.utils.skip_init(ragged_torch.LSTM, 3, 3, **SIZES, dtype=torch.float64)
    twin.load_state_dict(layer.state_dict())
    return twin


@pytest.mark.parametrize(
    "twin",
    [
        *(copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer)), save),
        *(assign, skip_init, lambda layer: layer.share_memory(), nn.DataParallel),
        lambda layer: layer.float().double(),
    ],
)
def test_copies_are_the_same_layer(twin):
    layer = build()
    copied = twin(layer)
    copied = getattr(copied, "module", copied)
    assert_runs_its_attributes(copied)
    torch.testing.assert_close(copied(inputs(), LENGTHS)[0], layer(inputs(), LENGTHS)[0])


def test_replicas_whose_parameters_are_plain_tensors_give_gradients_to_the_original():
    layer = build()
    replica = layer._replicate_for_data_parallel()  # what nn.DataParallel makes on each device
    for name, parameter in layer.named_parameters():
        setattr(replica, name, parameter * 1.0)
    assert_runs_its_attributes(replica, list(layer.parameters()))
