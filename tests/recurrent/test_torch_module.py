"""The torch layer as a module among torch's own: whatever may stand where a parameter was."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

import ragged

torch = pytest.importorskip("torch")
ragged_torch = pytest.importorskip("ragged_torch")

nn, fake = torch.nn, torch._subclasses
parametrize, parametrizations = nn.utils.parametrize, nn.utils.parametrizations
prune = pytest.importorskip("torch.nn.utils.prune")
Dropout = pytest.importorskip("ragged_torch.layers").Dropout

LENGTHS = [5, 0, 2, 4]
SIZES = {"num_layers": 2, "bidirectional": True}


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 5, 3, generator=generator, dtype=torch.float64)


def build(**options):
    return ragged_torch.Recurrent("LSTM", 3, 3, seed=0, dtype=torch.float64, **{**SIZES, **options})


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
    twin = nn.utils.skip_init(ragged_torch.Recurrent, "LSTM", 3, 3, **SIZES, dtype=torch.float64)
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


MODELS = {
    "EncoderDecoderLSTM": {"head_hidden_size": 3},
    "TransformerLSTM": {"num_heads": 2},
    "TemporalFusionTransformer": {"num_heads": 2, "context_length": 5},
    "XTFT": {"num_heads": 2},
}


def build_model(kind, **options):
    with ragged.use_backend("torch"):
        make = getattr(ragged.models, kind)
        return make(
            3, 2, **{"hidden_size": 4, "seed": 0, "dropout": 0.0, **MODELS[kind], **options}
        )


def forecast(model, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    past, future = (torch.randn(4, 5, n, generator=generator).to(dtype) for n in (3, 2))
    return model(past, future, LENGTHS, [4, 3, 0, 5]).output


@pytest.mark.parametrize("kind", MODELS)
def test_models_are_made_where_and_as_torch_would_make_its_own(kind):
    real = build_model(kind)
    with torch.device("meta"):
        empty = build_model(kind)
    assert all(p.is_meta for p in empty.parameters())
    empty.to_empty(device="cpu").load_state_dict(real.state_dict())
    torch.testing.assert_close(forecast(empty), forecast(real))
    try:
        torch.set_default_dtype(torch.float64)
        double = build_model(kind)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(double.state_dict(), real.double().state_dict(), rtol=0, atol=1e-7)
    torch.testing.assert_close(forecast(double, torch.float64), forecast(real, torch.float64))


@pytest.mark.parametrize("kind", MODELS)
def test_layers_of_models_are_tied_pruned_and_normed_as_torchs(kind):
    model, plain = build_model(kind).double(), build_model(kind).double()
    linears = [
        [m for m in each.modules() if type(m).__name__ == "Linear" and m.weight.ndim == 2]
        for each in (model, plain)
    ]
    targets = [
        (model.encoder, "weight_hh_l0", plain.encoder),
        (model.decoder, "weight_ih_l0", plain.decoder),
        *((one, "weight", other) for one, other in zip(*linears, strict=True)),
    ]
    for number, (module, name, twin) in enumerate(targets):
        if number % 2:
            prune.random_unstructured(module, name, 0.5)
        else:
            parametrizations.orthogonal(module, name)
        with torch.no_grad():
            getattr(twin, name).copy_(getattr(module, name))
    for each in (model, plain):
        each.decoder.bias_hh_l0 = each.encoder.bias_hh_l0
    torch.testing.assert_close(forecast(model, torch.float64), forecast(plain, torch.float64))


def test_a_layer_takes_torchs_defaults_and_arguments():
    values = ragged_torch.Recurrent("LSTM", 3, 3, seed=0).state_dict()
    try:
        torch.set_default_dtype(torch.float64)
        layer = ragged_torch.Recurrent("LSTM", 3, 3, seed=0)
        y, _ = layer([[[1.0, 2.0, 3.0]]], [1])
    finally:
        torch.set_default_dtype(torch.float32)
    assert y.dtype == layer.weight_ih_l0.dtype == torch.float64
    for name, value in layer.state_dict().items():
        assert torch.equal(value, values[name].double())
    assert (
        ragged_torch.Recurrent("LSTM", 3, 3, dtype=torch.bfloat16).weight_ih_l0.dtype
        == torch.bfloat16
    )
    assert ragged_torch.Recurrent("LSTM", 3, 3, device="meta").weight_ih_l0.is_meta
    with torch.device("meta"):
        assert ragged_torch.Recurrent("LSTM", 3, 3).weight_ih_l0.is_meta
        y, _ = layer.float()(torch.ones(2, 5, 3, device="cpu"), [5, 1])  # as if no device were set
    assert y.device.type == "cpu"


def test_a_layer_made_and_run_under_fake_tensors_has_shapes_alone():
    with fake.FakeTensorMode():
        layer = ragged_torch.Recurrent("LSTM", 3, 3, 2, bidirectional=True)
        y, (h, _) = layer(torch.ones(4, 5, 3), torch.tensor(LENGTHS))
        y.sum().backward()
        assert layer.weight_hh_l0.grad.shape == (12, 3)
    assert isinstance(y, fake.FakeTensor)
    assert (y.shape, h.shape) == ((4, 5, 6), (4, 4, 3))


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_time_first_outputs_and_states_are_contiguous(kernels, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    layer = build(batch_first=False)
    for lengths in (LENGTHS, None, [0, 0, 0, 0]):
        y, (h, c) = layer(inputs().transpose(0, 1), lengths)
        assert y.view(-1, 6).shape == (20, 6)
        parameters, x = dict(layer.named_parameters()), inputs().transpose(0, 1)
        assert ragged.lstm(parameters, x, lengths, batch_first=False)[0].is_contiguous()
        assert h.is_contiguous()
        assert c.is_contiguous()


@pytest.mark.parametrize("rate", [1.5, -0.1, True, "0.5", None, float("nan")])
def test_rates_of_dropout_that_are_no_number_from_0_to_1_are_refused(rate):
    with pytest.raises(ragged.errors.OptionError, match=r"LSTM\(\): `dropout` is .*; expected"):
        ragged_torch.Recurrent("LSTM", 3, 3, dropout=rate)


@pytest.mark.parametrize("rate", [0, 1e-7, 0.5, 1 - 1e-7, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dropout_at_any_rate_is_torchs(rate, dtype):
    x = torch.ones(64, 3, dtype=dtype).requires_grad_()
    for x_own in (x, x[:0]):
        found = []
        for module in (Dropout(rate), nn.Dropout(rate)):
            torch.manual_seed(0)
            y = module(x_own)
            (grad,) = torch.autograd.grad(y.sum(), x, materialize_grads=True)
            assert (y == 0).logical_or((y * (1 - rate) - 1).abs() < 1e-3).all()
            found.append([(v != 0).double().mean() for v in (y, grad) if v.numel()])
        for one, other in zip(*found, strict=True):
            assert abs(one - other) < 0.25
    assert Dropout(rate)(x.to("meta")).is_meta


@pytest.mark.parametrize("randomness", ["different", "same"])
def test_dropout_draws_for_the_rows_of_vmap_as_it_is_told(randomness):
    model = build_model("EncoderDecoderLSTM", dropout=0.5, num_layers=2)
    weights = {name: value.detach() for name, value in model.named_parameters()}
    past, future = torch.ones(2, 2, 5, 3), torch.ones(2, 2, 5, 2)

    def gradients(past, future):
        def total(weights):
            batch = past, future, [3, 5], [4, 5]
            return (torch.func.functional_call(model, weights, batch).output ** 2).sum()

        return torch.func.grad(total)(weights)

    found = torch.vmap(gradients, randomness=randomness)(past, future)
    alike = [torch.equal(*value) for value in found.values()]
    assert all(alike) if randomness == "same" else not any(alike)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.vmap(gradients)(past, future)


def test_a_layer_that_drops_all_between_its_layers_is_finite():
    layer = build(dropout=1.0)
    y, (h, _) = layer(inputs(), LENGTHS)
    (grad,) = torch.autograd.grad(y.sum() + h.sum(), layer.weight_ih_l0)
    assert torch.isfinite(y).all()
    assert torch.isfinite(grad).all()


def test_lengths_as_a_tensor_are_read_inside_of_transformations():
    layer, x = build(), inputs()

    def total(lengths):
        return torch.func.grad(lambda x: layer(x, lengths)[0].sin().sum())(x)

    torch.testing.assert_close(total(torch.tensor(LENGTHS)), total(LENGTHS))


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own code
def test_a_users_module_goes_to_onnx_as_it_is():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    layer, x = (
        ragged_torch.Recurrent("LSTM", 3, 3, 2, bidirectional=True, seed=0).eval(),
        inputs().float(),
    )
    program = torch.onnx.export(
        layer,
        (x, torch.tensor(LENGTHS)),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({0: torch.export.Dim("rows"), 1: torch.export.Dim("steps")}, None),
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [each.name for each in session.get_inputs()]
    lengths = torch.tensor([2, 7, 0, 1])
    x = torch.cat([x, 2 * x[:, :2]], 1)
    x[0, 2:] = x[2] = torch.nan
    given = dict(zip(names, (x.numpy(), lengths.numpy()), strict=True))
    y, (h, c) = layer(x, lengths)
    for found, expected in zip(session.run(None, given), (y, h, c), strict=True):
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-5, atol=1e-6)
