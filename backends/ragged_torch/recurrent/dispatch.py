"""Which implementation runs a layer on torch, in order of preference.

What a compiler or an exporter records is one operator (`custom_op`), whose body asks this list too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ragged.backend import load_backend
from ragged.implementations import Implementation, choose, no_reason, reasons
from ragged.kernels import available
from ragged.kernels.cuda.plans import Gpu
from ragged.lengths import Lengths
from ragged.recurrent.dispatch import (
    CPU_KERNELS,
    CUDA_KERNELS,
    OF_ANY_LAYOUT,
    OF_RESETS,
    LayerCall,
    cuda_kernels_reason,
    describe_batch,
    kernels_reason,
    policy_reason,
)
from ragged.recurrent.shape import RecurrentShape
from ragged_torch.arrays import is_compiling, name
from ragged_torch.precision import allows_tf32
from ragged_torch.recurrent import cpp, cuda_kernels, packed, padded, scan
from ragged_torch.recurrent.cuda_trial import Arrays, find_verdict
from ragged_torch.recurrent.layouts import from_padded, to_padded
from ragged_torch.recurrent.resets import run_pieces
from ragged_torch.recurrent.stack import LayerInputs, State
from ragged_torch.transforms import (
    FakeTensor,
    has_subclass,
    has_tangents,
    is_functionalized,
    is_recorded,
    is_transformed,
)

# What torch does around a call, said as the reason why an implementation does not run it.
RECORDED = "a compiler or an exporter records one operator"
FORWARD_MODE = "forward mode goes through plain operations alone"
WRAPPED = "tensors that handle operators themselves take plain ones alone"
RECORDED_TRANSFORM = "a transformation is recorded, which takes plain operations alone"
TRANSFORMED = "a transformation of torch.func is under way, which it has no rule for"

# Forward and backward, one thread: see benchmarks/README.md, "Without kernels".
LEAST_PADDING, LEAST_WORK = 0.8, 4096
# Not measured: packing has to sort and move all tokens, and spares a GPU little below it.
LEAST_PADDING_ON_GPU = 0.1


def _kernels_reason(call: LayerCall) -> str | None:
    if call.surrounding not in (None, TRANSFORMED):  # first: compilers do not follow the others
        return call.surrounding
    if is_single_step(call):
        return "they would prepare the weights for a single step, which torch's own need not"
    return kernels_reason(call, _has_kernels)


def takes_step_by_torch(mode: str) -> bool:
    """Whether torch's own kernels are faster than ours at a single step of a cell."""
    return mode != "LSTM"


def is_single_step(call: LayerCall) -> bool:
    """Whether all rows have one step, of a cell that torch's own kernels compute in one go."""
    is_full = call.width == 1 and call.tokens == call.rows > 0
    is_exact = call.dtype in ("float32", "float64")
    return (
        is_full
        and is_exact
        and takes_step_by_torch(call.mode)
        and (call.device, call.policy) == ("cpu", "auto")
    )


def _has_kernels(mode: str, dtype: str) -> bool:
    return cpp.has_kernels(mode, getattr(torch, dtype))


def _cuda_kernels_reason(call: LayerCall) -> str | None:
    if call.surrounding is not None:
        return call.surrounding
    tf32, verdict = allows_tf32(), partial(find_verdict, other=_run_other)
    return cuda_kernels_reason(call, _find_gpu, verdict, tf32=tf32)


def _find_gpu(call: LayerCall) -> Gpu | None:
    target = cuda_kernels.find_target(call.device_index)
    return target.device.gpu if target else None


def _run_other(arrays: Arrays) -> tuple[Tensor, ...]:
    """Run the batch of a trial by what would run it if there were no CUDA kernels."""
    x, (h, c), weights, lengths, call = arrays
    parameters = {f"{key}_l0": value for key, value in zip(scan.WEIGHTS, weights, strict=True)}
    shape = RecurrentShape(x.shape[2], h.shape[1], mode=call.mode)
    inputs = LayerInputs(shape, parameters, x, lengths, (h[None], c[None]))
    others = [each for each in IMPLEMENTATIONS if each.name != CUDA_KERNELS]
    y, (h, c) = choose(others, describe(x, shape, lengths)).run(inputs)
    return y, h[0], c[0]


def _dense_reason(call: LayerCall, takes: Sequence[str]) -> str | None:
    """Say why torch's own kernels, packed or padded, do not run a call."""
    if call.surrounding is not None:
        return call.surrounding
    if not call.rows or not call.width or call.tokens == 0:
        return "there is no step, which torch's kernels refuse"
    return policy_reason(call, takes)


def _packed_reason(call: LayerCall) -> str | None:
    reason = _dense_reason(call, ("auto", "always"))
    if reason is not None or call.policy == "always":
        return reason
    if call.tokens is None:
        return "the lengths are on a device, and to read them would wait for it"
    if not call.padding:
        return "no row has padding"
    if call.device != "cpu" and call.padding < LEAST_PADDING_ON_GPU and call.mode != "RNN_RELU":
        return f"padded is taken on a GPU below {LEAST_PADDING_ON_GPU:.0%} padding"
    work = call.rows * call.hidden_size
    if call.device == "cpu" and (call.padding < LEAST_PADDING or work < LEAST_WORK):
        least = f"{LEAST_PADDING:.0%} padding and rows * hidden_size of {LEAST_WORK}"
        return f"slower on a CPU than padded below {least}"
    return None


def _padded_reason(call: LayerCall) -> str | None:
    reason = _dense_reason(call, ("auto", "never"))
    if reason is None and call.mode == "RNN_RELU" and (call.padding or call.tokens is None):
        return "a relu has no bound: what it makes of padding may overflow"
    return reason


IMPLEMENTATIONS: tuple[Implementation[LayerCall], ...] = (
    Implementation(CPU_KERNELS, _kernels_reason, cpp.run),
    Implementation(CUDA_KERNELS, _cuda_kernels_reason, cuda_kernels.run),
    Implementation("packed", _packed_reason, packed.run),
    Implementation("padded", _padded_reason, padded.run),
    Implementation("scan", no_reason, scan.run),
)


def recurrent_reasons(call: LayerCall) -> dict[str, str | None]:
    """Say why each implementation, in order, does not run a call; None = it can."""
    return reasons(IMPLEMENTATIONS, call)


def run_by_choice(inputs: LayerInputs, surrounding: str | None = None) -> tuple[Tensor, State]:
    """Run a call by the first implementation that can; y lies as x does."""
    if surrounding is None and inputs.x.is_cuda and not inputs.lengths.is_full:
        inputs = inputs._replace(lengths=inputs.lengths.on_device(load_backend(name), inputs.x))
    call = describe(inputs.x, inputs.shape, inputs.lengths, surrounding, inputs.layout)
    chosen = choose(IMPLEMENTATIONS, call)
    if inputs.resets is not None and chosen.name not in OF_RESETS:
        return run_pieces(partial(run_by_choice, surrounding=surrounding), inputs)
    of_any_layout = chosen.name in OF_ANY_LAYOUT
    return chosen.run(inputs) if of_any_layout else run_padded(chosen.run, inputs)


def run_padded(
    run: Callable[[LayerInputs], tuple[Tensor, State]], inputs: LayerInputs
) -> tuple[Tensor, State]:
    """Run a call of any layout by what takes padded rows alone."""
    x, layout, lengths, resets = inputs.x, inputs.layout, inputs.lengths, inputs.resets
    if resets is not None:
        resets = resets._replace(at=to_padded(resets.at, layout, lengths))
    padded = inputs._replace(x=to_padded(x, layout, lengths), layout="padded", resets=resets)
    y, state = run(padded)
    return from_padded(y, layout, lengths, x.shape[0]), state


def find_surrounding(lengths: Lengths, tensors: Sequence[Tensor]) -> str | None:
    """Say what torch does around a call: one of the reasons above, or None.

    Args:
        lengths: of the call.
        tensors: x, and all others that the call is given.
    """
    x = tensors[0]
    if is_compiling():  # an operator of our own would lose derivatives there
        return RECORDED_TRANSFORM if has_tangents() or is_transformed() else RECORDED
    if has_tangents():
        return FORWARD_MODE
    if has_subclass(tensors):
        return WRAPPED
    if is_transformed():
        return RECORDED_TRANSFORM if is_recorded() or is_functionalized() else TRANSFORMED
    if lengths.is_traced or is_recorded() or isinstance(x, FakeTensor) or x.device.type == "meta":
        return RECORDED
    return None


def describe(
    x: Tensor,
    shape: RecurrentShape,
    lengths: Lengths | None = None,
    surrounding: str | None = None,
    layout: str = "padded",
) -> LayerCall:
    """Describe a call to those who choose.

    Args:
        x: its input.
        shape: the layer's sizes and cell.
        lengths: of the rows; None = they are not known yet, and "auto" is their policy.
        surrounding: what torch does around the call.
        layout: how its tokens lie.
    """
    device, dtype = x.device.type, str(x.dtype).removeprefix("torch.")
    known: dict[str, Any] = {"device": device, "dtype": dtype, "surrounding": surrounding}
    known |= {"hidden_size": shape.hidden_size, "proj_size": shape.proj_size, "mode": shape.mode}
    known |= {"device_index": x.device.index or 0, "layout": layout}
    if lengths is not None and surrounding is None:
        if not lengths.is_traced:
            return describe_batch(lengths, **known)
        known |= {"rows": len(lengths), "width": lengths.width}
    policy = "auto" if lengths is None else lengths.policy
    compiler = surrounding in (None, TRANSFORMED) and available()
    return LayerCall(policy=policy, compiler=compiler, **known)
