"""Plain calls take a short way to the kernels, which gives what the long way gives."""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import ragged_torch  # noqa: E402
from ragged_torch.recurrent import cpp, direct  # noqa: E402

import ragged  # noqa: E402
from ragged import kernels  # noqa: E402
from ragged.errors import RaggedError, ShapeError  # noqa: E402

pytestmark = pytest.mark.skipif(not kernels.available(), reason="no kernels here")
CELLS = ("LSTM", "GRU", "RNN")
OPTIONS = {
    "plain": {},
    "stacked both ways": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False},
    "batch first": {"batch_first": True},
}


@pytest.fixture
def ways(monkeypatch):
    """Count the calls that go the short way, and close it on demand."""
    counted = {"short": 0, "closed": False}
    run_if_plain = direct.run_if_plain

    def run(*call, **options):
        result = None if counted["closed"] else run_if_plain(*call, **options)
        counted["short"] += result is not None
        return result

    monkeypatch.setattr(direct, "run_if_plain", run)
    return counted


def draw(*shape, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(sum(shape)).normal(size=shape)).to(dtype)


def build(cell, dtype=torch.float64, **options):
    return getattr(ragged_torch, cell)(3, 5, dtype=dtype, seed=0, **options)


def given_state(layer, batch, dtype=torch.float64):
    count = layer.num_layers * (1 + layer.bidirectional)
    h, c = draw(count, batch, 5, dtype=dtype), draw(count, batch, 5, dtype=dtype) / 2
    return (h, c) if layer.mode == "LSTM" else h


def flat(results):
    y, state = results
    return [y, *(state if isinstance(state, tuple) else (state,))]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", ["GRU", "RNN"])
def test_a_single_step_of_full_rows_is_torchs_own(ways, monkeypatch, cell, options):
    def refuse(*call):
        raise AssertionError("kernels run")

    layer, x = build(cell, **options), draw(2 if options.get("batch_first") else 1, 3, 3)
    x = x[:, :1] if layer.batch_first else x
    state = given_state(layer, x.shape[0 if layer.batch_first else 1])
    expected = flat(layer(torch.cat([x, x], 0 if not layer.batch_first else 1), state))
    forward = expected[0][:, :1] if layer.batch_first else expected[0][:1]
    monkeypatch.setattr(cpp, "run_arrays", refuse)
    found = flat(layer(x, state))
    assert ways["short"] == 2
    if not layer.bidirectional:
        torch.testing.assert_close(found[0], forward)
    ways["closed"] = True
    for short, long in zip(found, flat(layer(x, state)), strict=True):
        torch.testing.assert_close(short, long)


LENGTHS = {"full": None, "a list": [3, 1], "an array": np.array([0, 4])}
LENGTHS |= {"a tensor": torch.tensor([2, 3], dtype=torch.uint8), "Lengths": ragged.Lengths([4, 0])}


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_read_lengths_of_every_kind(ways, cell, lengths):
    layer, x = build(cell, num_layers=2, bidirectional=True), draw(4, 2, 3)
    if lengths is not None:
        for row, length in enumerate(np.asarray(lengths)):
            x[length:, row] = torch.nan

    def run():
        leaf = x.clone().requires_grad_()
        results = flat(layer(leaf, lengths=lengths))
        leaves = [leaf, *layer.parameters()]
        return results + list(torch.autograd.grad(sum((r**2).sum() for r in results), leaves))

    short = run()
    assert ways["short"] == 1
    ways["closed"] = True
    assert all(map(torch.equal, short, run()))
    assert all(torch.isfinite(result).all() for result in short)


def run_end_to_end(cell, offsets, *, beyond=0, with_state=False, **options):
    """Run a neutral layer over rows that lie end to end, and what is beyond them; gradients too."""
    with ragged.use_backend("torch"):
        layer = getattr(ragged, cell)(3, 5, seed=0, **options).double()
    x = draw(offsets[-1] + beyond, 3)
    x[offsets[-1] :] = torch.nan
    state = [draw(2 * layer.shape.num_layers, len(offsets) - 1, 5).requires_grad_()]
    state = tuple(state * len(layer.shape.cell.states)) if with_state else None
    state = state[0] if state and len(state) == 1 else state
    leaves = [x.requires_grad_(), *layer.parameters()]
    results = flat(layer(x, state=state, offsets=torch.tensor(offsets), max_length=4))
    return results + list(torch.autograd.grad(sum((r**2).sum() for r in results), leaves))


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("offsets", [[0, 3, 3, 7], [0, 4], [0, 1, 2, 3]])
@pytest.mark.parametrize("cell", CELLS)
def test_rows_that_lie_end_to_end_take_it_too(ways, cell, offsets, with_state):
    call = {"with_state": with_state, "num_layers": 2, "bidirectional": True, "beyond": 2}
    short = run_end_to_end(cell, offsets, **call)
    assert ways["short"] == 1
    ways["closed"] = True
    for found, expected in zip(short, run_end_to_end(cell, offsets, **call), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert ways["short"] == 1
    assert all(torch.isfinite(result).all() for result in short)


def test_torchs_interface_takes_it_for_offsets_too(ways):
    layer, x, offsets = build("LSTM", num_layers=2), draw(7, 3), torch.tensor([0, 3, 3, 7])
    short = flat(layer(x, offsets=offsets))
    assert ways["short"] == 1
    ways["closed"] = True
    assert all(map(torch.equal, short, flat(layer(x, offsets=offsets))))


ENDS = {
    "first": {"offsets": [1, 3]},
    "falling": {"offsets": [0, 3, 2]},
    "beyond the tokens": {"offsets": [0, 4, 9]},
    "a longer row": {"offsets": [0, 4], "max_length": 3},
    "no length": {"offsets": [0, 4], "max_length": -1},
    "no number": {"offsets": [0, 4], "max_length": "4"},
    "more than there is": {"offsets": [0, 4], "max_length": 2**40},
    "so many that they wrap": {"offsets": [0, 2**62, -(2**63), -(2**62), 0]},
    "lengths beside them": {"offsets": [0, 4], "lengths": [4]},
    "another state": {"offsets": [0, 4], "state": torch.zeros(1, 2, 5).double()},
}


@pytest.mark.parametrize("name", ENDS)
def test_both_ways_refuse_the_same_ends(ways, name):
    given, messages = dict(ENDS[name]), []
    given["offsets"] = torch.tensor(given["offsets"])
    with ragged.use_backend("torch"):
        layer = ragged.GRU(3, 5, seed=0).double()
    for ways["closed"] in (False, True):
        with pytest.raises(RaggedError) as caught:
            layer(draw(5, 3), **given)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_no_rows_at_all_lie_end_to_end(ways):
    with ragged.use_backend("torch"):
        layer = ragged.GRU(3, 5, seed=0).double()
    y, h = layer(draw(5, 3), offsets=torch.tensor([0]))
    assert (y.shape, y.abs().max(), h.shape) == ((5, 5), 0, (1, 0, 5))
    assert ways["short"] == 0


@pytest.mark.parametrize("lengths", [[5, 1], [-1, 2], [1, 2, 3], [1.5, 2], [[1, 2]], ["1", "2"]])
def test_both_ways_refuse_the_same_lengths(ways, lengths):
    messages = []
    for ways["closed"] in (False, True):
        with pytest.raises(ragged.errors.LengthsError) as caught:
            build("LSTM")(draw(4, 2, 3), lengths=lengths)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_both_ways_give_the_same_results_and_gradients(ways, cell, options, with_state):
    layer, x = build(cell, **options), draw(4, 2, 3).requires_grad_()
    state = given_state(layer, 4 if options.get("batch_first") else 2) if with_state else None
    theirs = getattr(torch.nn, cell)(3, 5, **options).double()
    theirs.load_state_dict(layer.state_dict())

    def run(layer):
        results = flat(layer(x, state))
        leaves = [x, *layer.parameters()]
        return results + list(torch.autograd.grad(sum((r**2).sum() for r in results), leaves))

    short = run(layer)
    assert ways["short"] == 1
    ways["closed"] = True
    long = run(layer)
    assert ways["short"] == 1
    for got, same, right in zip(short, long, run(theirs), strict=True):
        assert torch.equal(got, same)
        assert got.stride() == same.stride()
        torch.testing.assert_close(got, right, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("cell", CELLS)
def test_the_neutral_layer_takes_it_too(ways, cell):
    with ragged.use_backend("torch"):
        layer = getattr(ragged, cell)(3, 5, seed=0)
    x = draw(2, 4, 3, dtype=torch.float32)
    short = flat(layer(x))
    assert ways["short"] == 1
    ways["closed"] = True
    assert all(map(torch.equal, short, flat(layer(x))))


def test_dropout_between_layers_is_that_of_the_long_way(ways):
    layer, x = build("GRU", num_layers=3, dropout=0.5), draw(4, 2, 3)
    torch.manual_seed(0)
    short = flat(layer(x))
    ways["closed"] = True
    torch.manual_seed(0)
    assert all(map(torch.equal, short, flat(layer(x))))
    assert ways["short"] == 1


AROUND = {
    "a policy": lambda layer, x: layer(x, lengths=ragged.Lengths([4, 2], policy="never")),
    "one sequence": lambda layer, x: layer(x[:, 0]),
    "half precision": lambda layer, x: layer.half()(x.half()),
    "autocast": lambda layer, x: _autocast(layer, x),
    "vmap": lambda layer, x: torch.vmap(lambda x: flat(layer(x))[0])(x[None]),
    "jvp": lambda layer, x: torch.func.jvp(lambda x: flat(layer(x))[0], (x,), (x,)),
    "no rows": lambda layer, x: layer(x[:, :0]),
    "meta": lambda layer, x: layer.to("meta")(x.to("meta")),
    "recorded": lambda layer, x: torch.jit.trace(layer, x, check_trace=False),
}


def _autocast(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer.float()(x.float())


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", AROUND)
def test_what_is_not_plain_goes_the_long_way(ways, name):
    AROUND[name](build("LSTM"), draw(4, 2, 3))
    assert ways["short"] == 0


def test_without_kernels_there_is_no_short_way(ways, monkeypatch):
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    build("LSTM")(draw(4, 2, 3))
    assert ways["short"] == 0


WRONG = {
    "features": lambda layer, x: layer(x[..., :2]),
    "dtype": lambda layer, x: layer(x.float()),
    "integers": lambda layer, x: layer(x.long()),
    "state's shape": lambda layer, x: layer(x, (x[:1], x[:1])),
    "state's dtype": lambda layer, x: layer(x, (torch.zeros(1, 2, 5),) * 2),
    "no pair": lambda layer, x: layer(x, torch.zeros(1, 2, 5).double()),
    "a weight's dtype": lambda layer, x: _with_half_bias(layer)(x),
    "start": lambda layer, x: layer(x, start="middle"),
    "sparse": lambda layer, x: layer(x.to_sparse()),
}


@pytest.mark.parametrize("state", [(1,), (1, 1), [1]])
def test_a_gru_takes_no_tuple_for_its_state(ways, state):
    with pytest.raises(RaggedError):
        build("GRU")(draw(4, 2, 3), type(state)(torch.zeros(1, 2, 5).double() for _ in state))
    assert ways["short"] == 0


def _with_half_bias(layer):
    layer.bias_hh_l0 = torch.nn.Parameter(layer.bias_hh_l0.detach().half())
    return layer


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_as_ever(ways, name):
    with pytest.raises(RaggedError):
        WRONG[name](build("LSTM"), draw(4, 2, 3))
    assert ways["short"] == 0


@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize("module", [ragged_torch.LSTM, ragged_torch.GRU, ragged_torch.Recurrent])
@pytest.mark.parametrize(("value", "said"), [(torch.ones(1), r"of shape \(1,\)"), (None, "None")])
def test_parameters_that_no_longer_fit_are_refused(monkeypatch, module, kernels, value, said):
    monkeypatch.setenv("RAGGED_KERNELS", kernels)
    layer = (
        module("LSTM", 3, 5) if module is ragged_torch.Recurrent else module(3, 5, batch_first=True)
    )
    layer.bias_hh_l0 = None if value is None else torch.nn.Parameter(value)
    with pytest.raises(
        ShapeError, match=rf"`parameters\['bias_hh_l0'\]` is {said}; expected shape"
    ):
        layer(torch.ones(2, 4, 3), lengths=[4, 2])


def test_what_does_not_lie_in_order_is_read_as_it_stands(ways):
    layer = build("LSTM", num_layers=2)
    x, h = draw(2, 4, 3).transpose(0, 1), draw(5, 2, 2).permute(2, 1, 0)
    c = torch.view_as_complex(torch.stack([h, h], -1)).conj().imag  # negated as it is read
    short = flat(layer(x, (h, c)))
    assert ways["short"] == 1
    ways["closed"] = True
    long = flat(layer(x.contiguous(), (h.contiguous(), -h)))
    assert all(map(torch.equal, short, long))
    assert all(result.is_contiguous() for result in short)


def test_replaced_weights_are_those_that_run(ways):
    layer, x = build("GRU"), draw(4, 2, 3)
    before = layer(x)[0]
    torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    with torch.no_grad():
        layer.parametrizations.weight_hh_l0.original0.mul_(2)
    assert ways["short"] == 1
    after = flat(layer(x))
    assert not torch.equal(after[0], before)
    ways["closed"] = True
    assert all(map(torch.equal, after, flat(layer(x))))


def test_a_call_in_inference_mode_leaves_nothing_that_training_cannot_keep(ways):
    layer, x = build("GRU"), draw(7, 2, 3)
    direct._full.cache_clear()
    with torch.inference_mode():
        layer(x)
    flat(layer(x))[0].sum().backward()
    assert ways["short"] == 2
    assert layer.weight_ih_l0.grad.abs().max() > 0


def test_short_calls_are_differentiable_again(ways):
    layer, x = build("LSTM"), draw(3, 2, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: flat(layer(x))[0], (x,))
    assert ways["short"] > 0


def test_a_layer_goes_through_pickle_and_back(ways):
    layer, x = build("LSTM"), draw(4, 2, 3)
    again = pickle.loads(pickle.dumps(layer))
    assert all(map(torch.equal, flat(layer(x)), flat(again(x))))
    assert ways["short"] == 2


def test_kernels_are_called_as_often_as_there_are_layers_and_directions(monkeypatch):
    names, call = [], cpp._call

    def counted(name, *rest, **options):
        names.append(name)
        return call(name, *rest, **options)

    monkeypatch.setattr(cpp, "_call", counted)
    build("LSTM", **OPTIONS["stacked both ways"])(draw(4, 2, 3))
    assert names == ["recurrent_forward"] * 4
