"""A trial of a CUDA kernel in torch, with host threads that play the GPU and a given clock."""

import pytest

from ragged import kernels
from ragged.kernels.cuda import cubins, layer
from ragged.kernels.cuda.verdicts import Judge, checked_lengths
from ragged.recurrent.dispatch import LayerCall
from tests.kernels.cuda_fake import keep_verdicts_in

pytestmark = pytest.mark.skipif(kernels.find_compiler() is None, reason="no C++ compiler here")
torch = pytest.importorskip("torch")
trial = pytest.importorskip("ragged_torch.recurrent.cuda_trial")
from ragged_torch.recurrent.cuda_kernels import Target  # noqa: E402


@pytest.fixture
def make(fake_driver_of, monkeypatch, tmp_path):
    """A trial of a cell: the question and itself; what would run instead takes 2 seconds."""
    keep_verdicts_in(tmp_path, monkeypatch)
    monkeypatch.setattr(cubins, "digest_sources", lambda: "these")

    def clock(run):
        clock.other = False
        run()
        return 2.0 if clock.other else 1.0

    def other(arrays):
        clock.other = True
        return trial._run_plain(arrays)

    def make_trial(cell):
        target = Target(fake_driver_of(cell).device, lambda: 7)
        call = LayerCall("cuda", "float32", hidden_size=5, rows=8, width=4, mode=cell)
        question = trial.ask(target, call)
        return question, trial.TorchTrial(question, target, torch.device("cpu"), other, clock)

    return make_trial


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_a_right_kernel_is_found_right(make, monkeypatch, cell):
    _, held = make(cell)
    draw, rows = held._draw, []
    monkeypatch.setattr(held, "_draw", lambda of, *told: rows.append(len(of)) or draw(of, *told))
    assert held.find_error() < 0.1
    assert rows == [*map(len, checked_lengths(8))] == [5, 8]


def test_the_verdict_is_about_the_batch_and_leaves_the_generator_alone(make):
    question, held = make("LSTM")
    assert question[:3] == (f"torch {torch.__version__}", "Played GPU", 13000)
    assert question[4:] == ("LSTM", 5, "float32", 8, 4)
    before = torch.get_rng_state()
    verdict = Judge().decide(question, held)
    assert (verdict.trusted, verdict.kernel, verdict.other) == (True, 1, 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("wrong", [0.01, float("nan")])
def test_a_wrong_kernel_is_found_out(make, monkeypatch, wrong):
    question, held = make("LSTM")
    right = layer.multiply_x
    monkeypatch.setattr(layer, "multiply_x", lambda *given: right(*given) + wrong)
    with pytest.warns(RuntimeWarning, match="never used"):
        assert not Judge().decide(question, held).trusted
