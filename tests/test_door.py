"""What is given to layers, models, losses and packing: one dtype and device, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest

import ragged
from ragged.errors import (
    ArgumentError,
    DeviceError,
    DtypeError,
    LengthsError,
    OptionError,
    RaggedError,
    ShapeError,
)

LENGTHS = [2, 5, 3]
PATHS = [(policy, kernels) for policy in ("auto", "rule", "always", "never") for kernels in "01"]
X = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)


@pytest.fixture(params=["torch", "jax"])
def own(request):
    """Make an array of the backend from NumPy's; its `name` is the backend's."""
    if request.param == "torch":
        torch = pytest.importorskip("torch")

        def make(value, dtype="float32"):
            return torch.tensor(np.array(value)).to(getattr(torch, dtype))

    else:
        pytest.importorskip("flax")
        import jax.numpy as jnp

        def make(value, dtype="float32"):
            return jnp.asarray(np.array(value)).astype(dtype)

    make.name = request.param
    with ragged.use_backend(request.param):
        yield make


def host(array) -> np.ndarray:
    return np.asarray(ragged.get_backend().to_numpy(array))


@pytest.fixture
def paths(monkeypatch):
    """Run a call on every path: each policy, with and without our kernels."""

    def _paths(call):
        found = []
        for policy, kernels in PATHS:
            monkeypatch.setenv("RAGGED_KERNELS", kernels)
            found.append(call(ragged.Lengths(LENGTHS, 5, policy)))
        return found

    return _paths


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_numbers_that_are_not_floating_are_refused_on_every_path(own, paths, dtype):
    layer = ragged.LSTM(2, 3, seed=0)
    parameters = {n: own(v) for n, v in ragged.get_backend().get_parameters(layer).items()}
    x, state = own(X, dtype), own(np.ones((1, 3, 3)), dtype)

    def call(lengths):
        with pytest.raises(DtypeError, match=rf"LSTM\(\): `x` is of dtype .*{dtype}; expected a"):
            layer(x, lengths)
        with pytest.raises(DtypeError, match="`state"):
            layer(own(X), lengths, (own(np.ones((1, 3, 3))), state))
        with pytest.raises(DtypeError, match=r"lstm\(\): `x`"):
            ragged.lstm(parameters, x, lengths)
        with pytest.raises(DtypeError, match=r"`parameters\['bias_hh_l0'\]`"):
            ragged.lstm({**parameters, "bias_hh_l0": own(np.ones(12), dtype)}, own(X), lengths)

    paths(call)
    values = np.ones_like(X).astype(dtype)
    for given in (values, values.tolist()):
        with pytest.raises(DtypeError, match="`x` is"):
            layer(given)


def test_torch_refuses_other_dtypes_and_devices_as_its_own_layer_does(paths):
    torch = pytest.importorskip("torch")
    import ragged_torch

    layer, x = ragged_torch.Recurrent("LSTM", 2, 3, seed=0, batch_first=True), torch.tensor(X)
    state = (torch.zeros(1, 3, 3), torch.zeros(1, 3, 3, dtype=torch.float64))
    parameters = dict(layer.named_parameters())
    halved = {**parameters, "weight_hh_l0": parameters["weight_hh_l0"].half()}
    moved = {**parameters, "bias_hh_l0": parameters["bias_hh_l0"].to("meta")}

    def call(lengths):
        for refused in (
            lambda: layer(x.double(), lengths),
            lambda: layer(x.bfloat16(), lengths),
            lambda: layer(x, lengths, state),
            lambda: ragged.lstm(halved, x, lengths),
        ):
            with pytest.raises(DtypeError, match=r"beside others of torch\.float32; expected one"):
                refused()
        with pytest.raises(DeviceError, match="`x` is on meta beside others on cpu; expected one"):
            layer(x.to("meta"), lengths)
        with pytest.raises(DeviceError, match=r"`state \(h\)` is on meta"):
            layer(x, lengths, (state[0].to("meta"), state[0]))
        with pytest.raises(DeviceError, match=r"`parameters\['bias_hh_l0'\]` is on meta"):
            ragged.lstm(moved, x, lengths)
        with torch.autocast("cpu"):
            y, _ = layer(x.bfloat16(), lengths, (state[0], state[0].bfloat16()))
            with pytest.raises(DtypeError, match="float64"):
                layer(x.double(), lengths)
        return y.float()

    expected = layer(x, LENGTHS)[0]
    for found in paths(call):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def test_jax_promotes_to_one_dtype_on_every_path(paths, monkeypatch):
    pytest.importorskip("flax")
    import jax.numpy as jnp
    import ragged_jax

    monkeypatch.setitem(globals(), "PATHS", [("auto", "1"), ("auto", "0"), ("always", "1")])
    layer, x = ragged_jax.LSTM(2, 3, seed=0), jnp.asarray(X).astype("bfloat16")
    state = tuple(jnp.full((1, 3, 3), 0.5, "float16") for _ in "hc")
    wide = tuple(each.astype("float32") for each in state)
    expected, _ = layer(x.astype("float32"), LENGTHS, wide)
    for y, (h, c) in paths(lambda lengths: layer(x, lengths, state)):
        assert {y.dtype, h.dtype, c.dtype} == {jnp.dtype("float32")}
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_lists_and_numpys_arrays_take_the_layers_dtype(own):
    layer = ragged.LSTM(2, 3, seed=0)
    expected, _ = layer(own(X))
    for given in (
        X.tolist(),
        X.astype(np.float64),
        X.astype(np.longdouble),
        X.astype(">f4"),
        memoryview(X),
    ):
        found, _ = layer(given)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(host(found), host(expected))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda h: (h, h, h), "`state` is a tuple of 3; expected the pair"),
        (lambda h: h, "`state` is a"),
        (lambda h: (h, None), "`state` is a pair with None"),
        (lambda h: {"h": h, "c": h}, "`state` is a dict"),
        (lambda h: "hc", "`state` is 'hc'"),
        (lambda h: [0.0, 0.0], r"`state \(h\)` is of shape \(\)"),
    ],
)
def test_a_state_that_is_no_pair_is_refused(own, state, message):
    layer, h = ragged.LSTM(2, 3, seed=0), own(np.zeros((1, 3, 3)))
    with pytest.raises(ShapeError, match=message):
        layer(own(X), LENGTHS, state(h))
    np.testing.assert_array_equal(host(layer(own(X), None, [h, h])[0]), host(layer(own(X))[0]))


MODELS = {
    "EncoderDecoderLSTM": {},
    "AttentionLSTM": {"num_heads": 1},
    "TransformerLSTM": {"num_heads": 1},
    "PFTemporalFusionTransformer": {
        "num_heads": 1,
        "reference_length": 5,
        "static_features": 1,
        "output_size": 1,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_models_take_what_their_layers_take(own, name):
    model = getattr(ragged.models, name)(
        2, 1, hidden_size=4, num_layers=1, dropout=0.0, seed=0, **MODELS[name]
    )
    sides = {"past": X, "future": np.ones((3, 2, 1), np.float32)}
    if "static_features" in MODELS[name]:
        sides["static"] = np.ones((3, 1), np.float32)
    arrays = {argument: own(value) for argument, value in sides.items()}
    if own.name == "torch":
        expected = model(**arrays).output
        np.testing.assert_array_equal(host(model(**sides).output), host(expected))
    for argument, value in sides.items():
        for dtype in ("int32", "bool", "complex64"):
            with pytest.raises(DtypeError, match=rf"{name}\(\): `{argument}` is of dtype"):
                model(**{**arrays, argument: own(value, dtype)})
        other = {**arrays, argument: own(value, "bfloat16")}
        if own.name == "torch":
            with pytest.raises(DtypeError, match=r"bfloat16 beside others of torch\.float32"):
                model(**other)
            with pytest.raises(DeviceError, match=rf"`{argument}` is on meta beside"):
                model(**{**arrays, argument: arrays[argument].to("meta")})
        else:
            import jax

            made = jax.eval_shape(lambda given: model(**given).output, other)
            assert made.dtype == "float32"


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool"])
def test_losses_of_integers_are_computed_in_floating_point(own, dtype):
    prediction, target = np.array([[5, 0, 1]]), np.array([[3, 1, 1]])
    for make in (own, lambda value, dtype: value.astype(dtype)):
        one, other = make(prediction, dtype), make(target, dtype)
        one_host, other_host = prediction.astype(dtype), target.astype(dtype)
        error = other_host.astype(float) - one_host.astype(float)
        for loss, expected in (("mae", abs(error)), ("mse", error**2)):
            found = getattr(ragged.losses, loss)(one, other, reduction="none")
            assert "float32" in str(found.dtype)
            np.testing.assert_allclose(host(found), expected)
        mixed = ragged.losses.mse(own(prediction), other, weights=make(np.ones((1, 3)), dtype))
        np.testing.assert_allclose(host(mixed), ((prediction - other_host) ** 2).mean())


def test_a_loss_has_the_widest_dtype_and_refuses_what_is_not_real(own):
    x = own(X)
    assert ragged.losses.mse(own(X, "bfloat16"), x).dtype == x.dtype
    assert ragged.losses.mse(own(X, "float16"), own(X, "float16")).dtype == x.dtype
    with pytest.raises(DtypeError, match=r"mse\(\): `target` is of dtype .*complex64"):
        ragged.losses.mse(x, own(X, "complex64"))
    with pytest.raises(DtypeError, match="`weights` is of dtype"):
        ragged.losses.mse(x, x, weights=own(X, "complex64"))
    if own.name == "torch":
        assert ragged.losses.mse(own(X, "float64"), x).dtype == own(X, "float64").dtype
        for sides in ((x.to("meta"), x), (x, x.to("meta"))):
            with pytest.raises(DeviceError, match="on meta"):
                ragged.losses.mse(*sides)
        with pytest.raises(DeviceError, match="`weights` is on meta"):
            ragged.losses.mse(x, x, weights=x.to("meta"))


def rows_of(x, lengths, width):
    """What unpacking has to give."""
    expected = np.zeros((len(lengths), width, x.shape[2]), x.dtype)
    for row, length in enumerate(lengths):
        expected[row, :length] = x[row, :length]
    return expected


@pytest.mark.parametrize("batch", [3, 17, 40])
def test_torchs_own_packed_sequences_are_unpacked_in_their_order(batch):
    torch = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence

    rng = np.random.default_rng(batch)
    lengths, x = rng.integers(1, 4, batch), rng.normal(size=(batch, 4, 2))
    expected = torch.tensor(rows_of(x, lengths, 5))
    x, count = torch.tensor(x, requires_grad=True), torch.tensor(lengths)
    packed = pack_padded_sequence(x, count, batch_first=True, enforce_sorted=False)
    rows = pack_sequence([x[b, :n] for b, n in enumerate(lengths)], enforce_sorted=False)
    for each in (packed, rows, packed.to(torch.float32)):
        found = ragged.unpack_to_fixed_length(each, lengths, 5)
        torch.testing.assert_close(found, expected.to(found.dtype))
    (gradient,) = torch.autograd.grad(ragged.unpack_to_fixed_length(packed, count, 5).sum(), x)
    steps = torch.arange(4)[None, :, None] < count[:, None, None]
    torch.testing.assert_close(gradient, steps.expand_as(x).double())

    order = torch.argsort(count, descending=True)
    ordered = pack_padded_sequence(x[order], count[order], batch_first=True)
    assert ordered.unsorted_indices is None
    found = ragged.unpack_to_fixed_length(ordered, count[order], 5)
    torch.testing.assert_close(found, expected[order])

    layer = torch.nn.LSTM(2, 3, batch_first=True, dtype=torch.float64)
    through, _ = layer(packed)
    padded, _ = torch.nn.utils.rnn.pad_packed_sequence(through, batch_first=True, total_length=5)
    torch.testing.assert_close(ragged.unpack_to_fixed_length(through, count, 5), padded)
    with pytest.raises(LengthsError, match="in the order of the rows"):
        ragged.unpack_to_fixed_length(packed, np.roll(lengths, 1), 5)


def test_what_is_no_packed_sequence_is_refused(own):
    packed = ragged.pack_sequences(own(X), LENGTHS)
    for given in (own(X), X, None, "packed", (1, 2, 3, 4), {"data": X}):
        with pytest.raises(ArgumentError, match=r"`packed` is .*; expected what a packed"):
            ragged.unpack_to_fixed_length(given, LENGTHS, 5)
    backwards = type(packed)(packed.data, packed.batch_sizes, None, own([0, 1, 7], "int32"))
    with pytest.raises(ArgumentError, match="`packed` is inconsistent"):
        ragged.unpack_to_fixed_length(backwards, LENGTHS, 5)


REFUSED = {
    "an alignment": (lambda x: ragged.flip_sequences(x, LENGTHS, alignment=["left"]), OptionError),
    "lengths of text": (lambda x: ragged.flip_sequences(x, "253"), LengthsError),
    "lengths of objects": (lambda x: ragged.LSTM(2, 3)(x, np.array(LENGTHS, object)), LengthsError),
    "masked lengths": (
        lambda x: ragged.flip_sequences(x, np.ma.masked_array(LENGTHS, [0, 1, 0])),
        LengthsError,
    ),
    "a width of text": (lambda x: ragged.Lengths([1], "2"), OptionError),
    "a width of a boolean": (lambda x: ragged.create_padding_mask([1], True), OptionError),
    "a width beyond memory": (lambda x: ragged.create_padding_mask([1], 10**18), OptionError),
    "a length beyond memory": (lambda x: ragged.create_padding_mask([10**12]), OptionError),
    "an output beyond memory": (
        lambda x: ragged.align_encoder_sequences(x, LENGTHS, 10**10),
        OptionError,
    ),
    "a layer beyond memory": (lambda x: ragged.LSTM(2**20, 2**20), OptionError),
    "a size of text": (lambda x: ragged.LSTM("2", 3), OptionError),
    "a flag of text": (lambda x: ragged.LSTM(2, 3, bidirectional="False"), OptionError),
    "a rate of text": (lambda x: ragged.LSTM(2, 3, dropout="0.1"), OptionError),
    "a negative seed": (lambda x: ragged.LSTM(2, 3, seed=-1), OptionError),
    "a model's size of text": (
        lambda x: ragged.models.EncoderDecoderLSTM(2, 1, hidden_size="8"),
        OptionError,
    ),
    "a model's size of floats": (lambda x: ragged.models.EncoderDecoderLSTM(2.0, 1), OptionError),
    "dates": (lambda x: ragged.pack_sequences(np.zeros((3, 5), "M8[s]"), LENGTHS), DtypeError),
    "text": (lambda x: ragged.losses.mse("a", x), DtypeError),
    "a ragged list": (lambda x: ragged.losses.mse([[1.0], [1.0, 2.0]], x), ShapeError),
    "a module": (lambda x: ragged.losses.mse(ragged.LSTM(2, 3), x), DtypeError),
    "a reduction": (lambda x: ragged.losses.mse(x, x, reduction=x), OptionError),
    "a delta of text": (lambda x: ragged.losses.huber(x, x, delta="1"), OptionError),
    "parameters": (lambda x: ragged.lstm([x], x), ArgumentError),
    "parameters without axes": (
        lambda x: ragged.lstm({"weight_ih_l0": 1.0, "weight_hh_l0": 1.0}, x),
        ShapeError,
    ),
    "a policy": (lambda x: ragged.explain(LENGTHS, policy=None), OptionError),
    "a backend": (lambda x: ragged.set_backend(["torch"]), RaggedError),
    "a path": (lambda x: ragged.load(3), ArgumentError),
    "an infinite scale": (
        lambda x: ragged.attention(*[x[:, :, None]] * 3, scale=np.inf),
        OptionError,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_of_another_type_are_refused_by_name(own, case):
    call, error = REFUSED[case]
    with pytest.raises(error, match=r"\(\): `.*` is .*; expected .*\. "):
        call(own(X))


def test_a_model_names_itself_where_arguments_are_missing_or_unknown():
    with pytest.raises(ArgumentError, match=r"^XTFT\(\): missing .*'future_features'. See help\("):
        ragged.models.XTFT(2)
    with pytest.raises(ArgumentError, match=r"^XTFT\(\): .* unexpected .*'hiden_size'. See help\("):
        ragged.models.XTFT(2, 1, hiden_size=4)


def test_integers_that_jax_has_no_dtype_for_are_refused():
    pytest.importorskip("flax")
    with ragged.use_backend("jax"), pytest.raises(DtypeError, match="beyond int32"):
        ragged.flip_sequences(np.array([[2**40, 1]]), [2])


def test_unsigned_lengths_are_shown_as_they_are():
    lengths = np.array([2**64 - 1], np.uint64)
    with pytest.raises(LengthsError, match=f"is {2**64 - 1} at row 0; expected at most the width"):
        ragged.Lengths(lengths, 5)
    with pytest.raises(LengthsError, match=f"is {2**64 - 1} at row 0; expected at most"):
        ragged.should_use_packing(lengths)


def test_symbols_pass_for_widths():
    torch = pytest.importorskip("torch")

    class Moved(torch.nn.Module):
        def forward(self, x, lengths):
            mask = ragged.create_padding_mask(lengths, x.shape[1])
            wider = ragged.align_encoder_sequences(x, lengths, x.shape[1] + 1)
            levels = ragged.losses.quantile(x, x[..., 0], lengths=lengths, quantiles=(0.3, 0.7))
            return mask, wider, levels

    batch, time = torch.export.Dim("batch"), torch.export.Dim("time")
    sizes = ({0: batch, 1: time}, {0: batch})
    program = torch.export.export(
        Moved(), (torch.tensor(X), torch.tensor(LENGTHS)), dynamic_shapes=sizes, strict=True
    )
    x, lengths = torch.ones(4, 7, 2), torch.tensor([1, 0, 3, 7])
    for found, expected in zip(program.module()(x, lengths), Moved()(x, lengths), strict=True):
        torch.testing.assert_close(found, expected)
