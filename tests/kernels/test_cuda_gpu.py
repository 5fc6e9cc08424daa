"""The CUDA kernels on a GPU, where there is one: the first thing to run on a new kind.

No GPU has run it yet; `make test-cuda` does.
"""

from itertools import product

import pytest

from ragged.kernels.cuda import cubins, plans
from ragged.kernels.cuda.driver import load_driver
from ragged.recurrent.dispatch import LayerCall

torch = pytest.importorskip("torch")
glue = pytest.importorskip("ragged_torch.recurrent.cuda_kernels")
trial = pytest.importorskip("ragged_torch.recurrent.cuda_trial")
pytestmark = pytest.mark.skipif(
    not (cubins.is_available() and load_driver()), reason="no GPU here, or no NVRTC"
)
CASES = [*product(plans.GATES, (5, 64, 100, 128, 256, 512), ["float32"], [8])]
CASES += product(["LSTM", "GRU"], (64, 128), ["bfloat16", "float16"], [8])
CASES += product(plans.GATES, (100,), ["float32"], [256, 1024])  # several rows go together


@pytest.mark.parametrize(("cell", "hidden", "dtype", "rows"), CASES)
def test_kernels_are_right_on_this_gpu(cell, hidden, dtype, rows):
    target, device = glue.find_target(0), torch.device("cuda", 0)
    if not plans.has_plan(cell, hidden, target.device.gpu):
        pytest.skip("this GPU has no kernel of this size")
    call = LayerCall("cuda", dtype, hidden_size=hidden, rows=rows, width=8, mode=cell)
    question = trial.ask(target, call)
    held = trial.TorchTrial(question, target, device, other=lambda arrays: ())
    assert held.find_error() <= 1
    assert held.time_kernel() > 0
