"""JAX's training steps for CUDA, lowered and compiled on a machine without a GPU."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("flax")

import jax
import jax.numpy as jnp

from tests.cuda import jax_programs
from tests.cuda.test_jax_precision import precisions

# The most kernels that a gradient may launch outside of loops. The other models, of which some take
# a minute, are compiled by `python -m tests.cuda.jax_programs`.
MOST = {"AttentionLSTM": 115}
MOST_OF_UPDATE = 40
CPU_KERNELS = 'custom_call @"recurrent_', 'custom_call @"gated_'
MOST_IN_A_STEP = 6  # of a scan over time: 2 forward, and as many again where it keeps what it needs


@pytest.mark.parametrize("model", jax_programs.SIZES)
def test_steps_are_exact_and_hold_no_callback_and_no_kernel_of_the_cpu(model: str) -> None:
    step, of_gradient, of_update = jax_programs.step_of(model)
    for program, arguments in ((step._differentiated, of_gradient), (step._applied, of_update)):
        traced = jax.jit(program).trace(*arguments)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        assert "stablehlo." in text
        assert "callback" not in text
        assert not any(kernel in text for kernel in CPU_KERNELS)
        assert precisions(text) <= {"HIGHEST, HIGHEST"}
    if model == "TemporalFusionTransformer":
        here = jax.jit(step._differentiated).trace(*of_gradient).lower().as_text()
        assert all(kernel in here for kernel in CPU_KERNELS), "they have other names now"


def test_a_step_copies_its_batch_by_one_call_and_nothing_unseen(monkeypatch) -> None:
    step, *_ = jax_programs.step_of("EncoderDecoderLSTM")
    monkeypatch.setattr(step, "_differentiate", jax.jit(lambda params, *_: (jnp.ones(()), params)))
    monkeypatch.setattr(step, "_apply", jax.jit(lambda *given: (given[:3], True)))
    batches, put = list[Any](), jax.device_put

    def note(tree: Any, *where: Any) -> Any:
        batches.extend([sorted(tree)] if isinstance(tree, dict) else [])
        return put(tree, *where)

    with monkeypatch.context() as noted, jax.transfer_guard("disallow"):
        noted.setattr(jax, "device_put", note)
        loss = step.launch(jax_programs.batch_of(step.model))
    assert float(loss) == 1
    assert batches == [["decoder_lengths", "encoder_lengths", "future", "past", "target"]]


def test_steps_compile_for_an_h100() -> None:
    if (reason := jax_programs.reason_against()) is not None:
        pytest.skip(reason)
    programs = jax_programs.compile_steps([*MOST, jax_programs.CUDNN])
    for model, most in MOST.items():
        gradient, update = (programs[f"{model}, {kind}"] for kind in ("gradient", "update"))
        assert gradient.kernels <= most
        assert max(gradient.loops) <= MOST_IN_A_STEP
        assert set(gradient.calls) <= {"__cublas$gemm", "__cublas$lt$matmul"}
        assert update.kernels <= MOST_OF_UPDATE
        assert update.loops == update.calls == []
    by_cudnn = programs[jax_programs.CUDNN]
    assert (by_cudnn.loops, by_cudnn.calls) == ([], ["cudnn_rnn_bwd_ffi", "cudnn_rnn_ffi"])
