"""What surrounds a layer: precision, compilers, copies."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import ragged_torch
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.recurrent.torch_cases.case import (
    NAMES,
    Cases,
    build,
    normal,
    outcome,
    refused,
    state,
)

cases = Cases("test/test_modules.py")
INPUT, HIDDEN = 3, 4


@cases.equal("test_factory_kwargs", "the device and the dtype of the parameters")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer = build(module, name, INPUT, HIDDEN, device="meta", dtype=torch.float32)
        yield dict(layer.named_parameters())
        yield layer(torch.ones(2, 2, INPUT, device="meta"))


@cases.equal("test_to_empty", "parameters given memory after they were on no device")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer = build(module, name, INPUT, HIDDEN, device="meta").to_empty(device="cpu")
        layer.reset_parameters()
        yield layer.state_dict(), layer(normal(2, 2, INPUT))


@cases.equal("test_repr", "what a layer prints of itself")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        yield repr(build(module, name, INPUT, HIDDEN))
        yield repr(build(module, name, INPUT, HIDDEN, 2, dropout=0.5, bidirectional=True))


@cases.equal("test_pickle", "a pickled layer, and a copied one")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer, x = build(module, name, INPUT, HIDDEN, 2), normal(3, 2, INPUT)
        yield [each(x) for each in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer))]


@cases.equal("test_save_load", "a `state_dict` saved and loaded")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer, other = (build(module, name, INPUT, HIDDEN) for _ in range(2))
        file = io.BytesIO()
        torch.save(layer.state_dict(), file)
        file.seek(0)
        yield str(other.load_state_dict(torch.load(file))), other(normal(3, 2, INPUT))
        less = dict(list(layer.state_dict().items())[1:])
        yield type(refused(lambda other=other, less=less: other.load_state_dict(less)))


@cases.equal("test_non_contiguous_tensors", "inputs and states that are slices")
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        layer = build(module, name, INPUT, HIDDEN, 2)
        x = normal(4, 2, 2 * INPUT)[..., ::2]
        hx = state(layer, 2, lambda *shape: normal(*shape, 2)[..., 0])
        yield outcome(layer, x, hx)


@cases.equal(
    "test_autocast_rnn",
    "bfloat16 parameters: float32 inputs are refused, but under autocast",
    "test/test_autocast.py",
)
def _(module: Any) -> Iterator[Any]:
    layer = build(module, "LSTM", 1, 2, 2, dtype=torch.bfloat16)
    x, hx = torch.randn(3, 2, 1), tuple(torch.randn(2, 2, 2) for _ in range(2))
    yield refused(lambda: layer(x, hx))
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else torch's own LSTM fails
        with torch.amp.autocast("cpu"):
            yield layer(x, hx)


class PacksItself(nn.Module):
    """Packs, runs a layer and pads."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.layer(pack_padded_sequence(x, lengths))
        return pad_packed_sequence(y)[0]


@cases.equal(
    "test_rnn_trace_override",
    "`torch.jit.trace` of packing, a layer and padding, run for other lengths and rows",
    "test/jit/test_tracer.py",
)
def _(module: Any) -> Iterator[Any]:
    for name in NAMES:
        model = PacksItself(build(module, name, INPUT, HIDDEN, 2))
        call = torch.randn(4, 2, INPUT).double(), torch.tensor([4, 2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of sizes that are only checked
            traced = torch.jit.trace(model, call)
        for steps, lengths in ((4, [4, 2]), (3, [3, 3]), (6, [6, 3, 1])):
            x = normal(steps, len(lengths), INPUT)
            y = traced(x, torch.tensor(lengths))
            yield y, torch.autograd.grad(y.square().sum(), [x, *model.parameters()])


SCRIPT = "`torch.jit.script` refuses ours, whose forward has keyword-only arguments"
for test, name, covers in (
    ("test_nn_GRU", "GRU", "`torch.jit.script` of a GRU"),
    ("test_nn_LSTM", "LSTM", "`torch.jit.script` of an LSTM"),
    ("test_nn_LSTM_with_layers", "LSTM", "`torch.jit.script` of an LSTM of several layers"),
):

    @cases.differs(test, covers, SCRIPT, "test/test_jit.py")
    def _(name: str = name) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch.jit is deprecated
            with pytest.raises(torch.jit.frontend.NotSupportedError):
                torch.jit.script(getattr(ragged_torch, name)(INPUT, HIDDEN, 2))


cases.not_run(
    "test_autocast_rnn",
    "cuDNN's layers under autocast",
    "on a GPU alone; on a CPU it is the one of `test_autocast.py`",
    "test/test_cuda.py",
)
