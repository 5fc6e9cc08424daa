"""`replace_recurrent` on models as they are found: before and after equal, in place, told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import ragged

torch = pytest.importorskip("torch")

import ragged_torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

LENGTHS = torch.tensor([7, 2, 5, 1])


class Tagger(nn.Module):
    """Words, packed, to a tag each."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.tags = nn.Linear(10, 3)

    def forward(self) -> Tensor:
        words = torch.arange(28).reshape(4, 7) % 20
        packed = pack_padded_sequence(
            self.embed(words), LENGTHS, batch_first=True, enforce_sorted=False
        )
        return self.tags(pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0])


class Translator(nn.Module):
    """A sequence read by a GRU, and another written step by step with attention."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(4, 5), nn.GRU(4 + 5, 5)
        self.words = nn.Linear(5, 4)

    def forward(self) -> Tensor:
        packed = pack_padded_sequence(torch.randn(7, 4, 4), LENGTHS, enforce_sorted=False)
        states, h = self.encoder(packed)
        states, _ = pad_packed_sequence(states)
        hidden = torch.arange(7)[:, None] >= LENGTHS
        word, written = torch.zeros(1, 4, 4), []
        for _ in range(3):
            scores = (states * h).sum(-1).masked_fill(hidden, -torch.inf)
            context = (scores.softmax(0)[..., None] * states).sum(0, keepdim=True)
            y, h = self.decoder(torch.cat([word, context], -1), h)
            word = self.words(y)
            written.append(word)
        return torch.cat(written)


class Classifier(nn.Module):
    """The last states of both directions of an RNN, to a class."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(4, 5, nonlinearity="relu", bidirectional=True, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(0.0), nn.Linear(10, 2))

    def forward(self) -> Tensor:
        packed = pack_padded_sequence(torch.randn(4, 7, 4), LENGTHS, True, enforce_sorted=False)
        return self.head(torch.cat(list(self.rnn(packed)[1]), -1))


class Policy(nn.Module):
    """A recurrent policy that clears its state where an episode starts, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.LSTM(4, 5)
        self.actor = nn.Linear(5, 2)

    def forward(self) -> Tensor:
        observations, starts = torch.randn(6, 3, 4), torch.rand(6, 3) < 0.3
        h = c = torch.zeros(1, 3, 5)
        actions = []
        for observation, start in zip(observations, starts, strict=True):
            alive = ~start[None, :, None]
            y, (h, c) = self.memory(observation[None], (h * alive, c * alive))
            actions.append(self.actor(y))
        return torch.cat(actions)


class Speech(nn.Module):
    """Time-major frames through a stack of layers, two of which are one."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.GRU(5, 5)
        self.layers = nn.ModuleList([nn.GRU(4, 5), shared, shared])
        self.letters = nn.Linear(5, 3)

    def forward(self) -> Tensor:
        x = torch.randn(9, 2, 4)
        for layer in self.layers:
            x, _ = layer(x)
        return self.letters(x)


MODELS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "tagger": (Tagger, {"lstm"}),
    "translator": (Translator, {"encoder", "decoder"}),
    "classifier": (Classifier, {"rnn"}),
    "policy": (Policy, {"memory"}),
    "speech": (Speech, {"layers.0", "layers.1", "layers.2"}),
}


def run(model: nn.Module) -> list[Tensor]:
    """Outputs, and the gradients of all parameters."""
    torch.manual_seed(1)
    y = model()
    return [y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))]


@pytest.mark.parametrize("name", MODELS)
def test_models_give_what_they_gave(name: str) -> None:
    build, layers = MODELS[name]
    torch.manual_seed(0)
    model = build()
    parameters = dict(model.named_parameters())
    expected = run(model)
    report = ragged_torch.replace_recurrent(model)
    assert set(report.replaced) == layers
    assert not report.left
    assert not any(isinstance(module, nn.RNNBase) for module in model.modules())
    for one, other in zip(run(model), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    now = dict(model.named_parameters())
    assert list(now) == list(parameters)
    assert all(now[each] is parameters[each] for each in parameters), "optimisers hold them"
    assert ragged_torch.replace_recurrent(model) == ((), {})
    copied = copy.deepcopy(model)
    torch.testing.assert_close(run(copied), run(model))


def test_hooks_flags_and_attributes_stay() -> None:
    model = nn.Sequential(nn.LSTM(2, 3, dropout=0.5, num_layers=2)).eval()
    calls: list[str] = []
    model[0].register_forward_hook(lambda *_: calls.append("after"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[0].note = "kept"
    model[0].weight_hh_l0.requires_grad_(False)
    ragged_torch.replace_recurrent(model)
    model(torch.zeros(4, 1, 2))
    assert calls == ["before", "after"]
    assert (model[0].note, model[0].training, model[0].dropout) == ("kept", False, 0.5)
    assert not model[0].weight_hh_l0.requires_grad
    assert type(model[0]) is ragged_torch.LSTM


class Listed(nn.Module):
    """Layers in a list, each registered by a name of its own besides."""

    def __init__(self) -> None:
        super().__init__()
        self.rnns = [nn.LSTM(2, 2, num_layers=2, dropout=0.9), nn.LSTM(2, 2)]
        for k, rnn in enumerate(self.rnns):
            self.add_module(f"rnn{k}", rnn)

    def forward(self, x: Tensor) -> Tensor:
        for rnn in self.rnns:
            x, _ = rnn(x)
        return x


def test_all_that_refers_to_a_layer_has_it_swapped() -> None:
    model, x = Listed(), torch.ones(3, 1, 2)
    assert ragged_torch.replace_recurrent(model).replaced == ("rnn0", "rnn1")
    assert [type(rnn) for rnn in model.rnns] == [ragged_torch.LSTM] * 2
    model.eval()
    assert torch.equal(model(x), model(x)), "the list's layers know that training is over"
    layer = nn.GRU(2, 3)
    expected, _ = layer(x)
    assert str(ragged_torch.replace_recurrent(layer)) == "the model: replaced"
    assert isinstance(layer, ragged_torch.GRU)
    torch.testing.assert_close(layer(x)[0], expected)


class Renamed(nn.GRU):
    """A subclass that overrides nothing."""


class Changed(nn.GRU):
    def forward(self, *inputs: Any) -> Any:
        return super().forward(*inputs)


def test_what_cannot_be_swapped_is_left_and_told() -> None:
    patched = nn.LSTM(2, 3)
    patched.forward = lambda *inputs: None  # type: ignore[method-assign]
    normed = nn.utils.parametrizations.weight_norm(nn.LSTM(2, 3), "weight_hh_l0")
    parts = {"renamed": Renamed(2, 3), "changed": Changed(2, 3), "patched": patched}
    model = nn.ModuleDict({**parts, "normed": normed})
    report = ragged_torch.replace_recurrent(model)
    assert report.replaced == ("renamed",)
    assert set(report.left) == {"changed", "patched", "normed"}
    assert "overrides forward" in report.left["changed"]
    assert "overrides forward" in report.left["patched"]
    assert "parametrized" in report.left["normed"]
    assert "changed: left, Changed overrides forward" in str(report)
    assert str(ragged_torch.replace_recurrent(nn.Linear(2, 3))) == "no recurrent layer"


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(ragged.errors.ArgumentError, match=r"`model` is .* expected a torch.nn.Mod"):
        ragged_torch.replace_recurrent({"layer": nn.LSTM(2, 3)})  # type: ignore[arg-type]
