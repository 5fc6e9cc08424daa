"""Our CUDA kernels in the dispatch, run by threads of the host: a trial first, then its winner."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ragged import kernels

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
torch = pytest.importorskip("torch")

from ragged_torch.precision import use_tf32  # noqa: E402
from ragged_torch.recurrent import cuda_kernels, cuda_trial  # noqa: E402
from ragged_torch.recurrent.dispatch import recurrent_reasons  # noqa: E402

from ragged.kernels.cuda import cubins  # noqa: E402
from ragged.kernels.cuda.verdicts import Judge  # noqa: E402
from ragged.recurrent.dispatch import LayerCall  # noqa: E402
from tests.cuda.pretended_device import is_loaded  # noqa: E402
from tests.cuda.test_layers import CLOSE, make_input, make_layer, results_of  # noqa: E402

CALL = LayerCall("cuda", "float32", hidden_size=4, rows=3, width=4, tokens=6)
NAME = "cuda_kernels"


class Clock:
    """Runs what it times, and tells a kernel by its launches."""

    def __init__(self, device: Any, kernel: float) -> None:
        self.device, self.kernel, self.rounds = device, kernel, 0

    def __call__(self, run: Any) -> float:
        before = self.device.launches
        run()
        self.rounds += 1
        return self.kernel if self.device.launches > before else 1.0


@pytest.fixture
def played(monkeypatch, tmp_path):
    """Play a GPU: its kernels take this many times as long as what would run instead."""
    from tests.kernels.cuda_fake import keep_verdicts_in
    from tests.kernels.played_suite import PlayedDevice

    def play(ratio: float = 0.5) -> Clock:
        device: Any = PlayedDevice()
        device.name, device.driver = "Played GPU", SimpleNamespace(version=13000)
        target, clock = cuda_kernels.Target(device, lambda: 0), Clock(device, ratio)
        for module in (cuda_kernels, cuda_trial):
            monkeypatch.setattr(module, "find_target", lambda index: target)
        monkeypatch.setattr(cuda_trial.TorchTrial.__init__, "__defaults__", (clock,))
        return clock

    keep_verdicts_in(tmp_path, monkeypatch)
    monkeypatch.setattr(cubins, "is_available", lambda: True)
    monkeypatch.setattr(cubins, "digest_sources", lambda: "these")
    monkeypatch.setattr(cuda_trial, "JUDGE", Judge())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return play


def test_without_a_gpu_there_is_none_to_run_them(monkeypatch):
    monkeypatch.setattr(cuda_kernels, "find_target", lambda index: None)
    assert "no driver and NVRTC" in recurrent_reasons(CALL)[NAME]
    assert recurrent_reasons(CALL._replace(device="cpu"))[NAME] == "they run on a GPU alone"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"proj_size": 2}, "no projection"),
        ({"policy": "always"}, "asks for packing"),
        ({"dtype": "float64"}, "compute no float64"),
        ({"hidden_size": 2000}, "find room"),
        ({"rows": 2**20, "width": 2**11}, "fewer than 2147483648 places"),
        ({"surrounding": "something around"}, "something around"),
    ],
)
def test_what_they_cannot_run_needs_no_trial(played, changed, reason):
    clock = played()
    assert reason in recurrent_reasons(CALL._replace(**changed))[NAME]
    with use_tf32(True):
        assert "TF32" in recurrent_reasons(CALL)[NAME]
    assert not clock.rounds


def test_tokens_end_to_end_are_counted_without_padding():
    call = CALL._replace(rows=2**20, width=2**11)
    assert (call.places, call._replace(layout="jagged").places) == (2**31, 6)
    assert call._replace(layout="jagged", tokens=None).places == 2**31


@pytest.mark.parametrize(
    ("kind", "counts"),
    [(kind, [2, 0, 4]) for kind in ("LSTM, both directions", "GRU, both directions")]
    + [("LSTM, both directions", [4, 4, 4])],
)
def test_a_layer_runs_them_after_one_trial(cuda, played, kind, counts):
    clock = played()
    expected = results_of(make_layer(kind, "cpu"), make_input(3, "cpu"), counts)
    layer, x = make_layer(kind, cuda), make_input(3, cuda)
    with torch.no_grad():  # a trial needs gradients nevertheless
        layer(x, counts)
    assert clock.rounds == 10
    before = clock.device.launches
    for found, wanted in zip(results_of(layer, x, counts), expected, strict=True):
        torch.testing.assert_close(found, wanted, **CLOSE)
    passes = 2 * layer.shape.num_layers * len(layer.shape.directions)
    assert clock.device.launches - before == passes
    assert clock.rounds == 10


def test_compiled_calls_run_them_too(cuda, played):
    clock = played()
    layer, x = make_layer("LSTM", cuda), make_input(3, cuda)
    lengths = torch.tensor([2, 0, 4], device=cuda)
    expected, _ = layer(x, lengths)
    before = clock.device.launches
    run = torch.compile(lambda x, n: layer(x, n)[0], backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(run(x, lengths), expected, **CLOSE)
    assert clock.device.launches > before


def test_slower_ones_give_way_to_cudnn(cuda, played):
    clock = played(ratio=2.0)
    layer, x = make_layer("LSTM", cuda), make_input(3, cuda)
    layer(x, [2, 0, 4])
    before = clock.device.launches
    layer(x, [2, 0, 4])
    assert clock.device.launches == before
    if is_loaded:
        assert recurrent_reasons(CALL)[NAME].startswith("on this GPU they take 2.00 times as long")


def test_no_trial_is_held_while_a_graph_is_captured(cuda, played, monkeypatch):
    clock = played()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert "while a CUDA graph is captured" in recurrent_reasons(CALL)[NAME]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert recurrent_reasons(CALL)[NAME] is None
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert recurrent_reasons(CALL)[NAME] is None
    assert clock.rounds == 10
