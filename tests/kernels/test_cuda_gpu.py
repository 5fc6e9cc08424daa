"""The CUDA kernels on a GPU, where there is one: the first thing to run on a new kind.

    python -m pytest tests/kernels/test_cuda_gpu.py

No GPU has run it yet.
"""

import pytest

from ragged.kernels.cuda import cubins, plans

torch = pytest.importorskip("torch")
glue = pytest.importorskip("ragged_torch.recurrent.cuda_kernels")
trial = pytest.importorskip("ragged_torch.recurrent.cuda_trial")
pytestmark = pytest.mark.skipif(
    not (torch.cuda.is_available() and cubins.is_available()), reason="no GPU here, or no NVRTC"
)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("hidden", [5, 64, 100, 128, 256, 512])
@pytest.mark.parametrize("cell", plans.GATES)
def test_kernels_are_right_on_this_gpu(cell, hidden, dtype):
    target, device = glue.find_target(0), torch.device("cuda", 0)
    if not plans.has_plan(cell, hidden, target.device.gpu):
        pytest.skip("this GPU has no kernel of this size")
    x = torch.zeros(8, 8, 2, dtype=getattr(torch, dtype))
    question = trial.ask(target, 0, cell, hidden, x)
    held = trial.TorchTrial(question, target, device, other=lambda arrays: ())
    assert held.find_error() <= 1
    assert held.time_kernel() > 0
