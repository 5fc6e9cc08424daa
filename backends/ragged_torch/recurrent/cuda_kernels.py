"""Kernels of our own on a GPU: one launch a layer, direction and pass, on torch's current stream.

Nothing is read back from the device: lengths and tables stay there. No GPU has run them yet; the
tests run them by threads of the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from array_api_compat import torch as xp
from torch import Tensor

from ragged.backend import load_backend
from ragged.errors import DeviceError, DtypeError, ShapeError
from ragged.kernels.cuda import layer
from ragged.kernels.cuda.calls import CALLS, Rows
from ragged.kernels.cuda.driver import Device, load_driver
from ragged.kernels.cuda.plans import STORED, SUMS, plan_launch
from ragged.lengths import Lengths
from ragged.recurrent.cells import CELLS
from ragged_torch.arrays import name
from ragged_torch.precision import allows_tf32, float32_products
from ragged_torch.recurrent.cpp import Call, differentiable_vjp, input_shapes
from ragged_torch.recurrent.scan import WEIGHTS
from ragged_torch.recurrent.stack import (
    LayerInputs,
    Resets,
    Result,
    State,
    Weights,
    run_directions,
    take_apart,
    with_biases,
)

_Arrays = Mapping[str, Tensor | None]


class Target(NamedTuple):
    """Where kernels are launched.

    Args:
        device: the GPU.
        stream: gives the handle of the stream that torch launches on now.
    """

    device: Device
    stream: Callable[[], int]


@cache
def find_target(index: int) -> Target | None:
    """Find the GPU that torch gives an index; None where kernels cannot be launched."""
    driver = load_driver()
    if driver is None or torch.version.hip is not None:
        return None
    device = driver.device(index)
    return Target(device, lambda: torch.cuda.current_stream(index).cuda_stream)


def run(inputs: LayerInputs, target: Target | None = None) -> tuple[Tensor, State]:
    """Run all layers over tokens of any layout; a target of None is the GPU of x.

    Lengths whose values cannot be read are bounded on the device: a row whose length is wrong
    gives NaN.

    Raises:
        LengthsError: lengths that can be read, and are not all between 0 and the width.
    """
    target = target or find_target(inputs.x.device.index)
    assert target is not None, "the dispatch asks before"
    told: Any = {"layout": inputs.layout, "resets": inputs.resets, "target": target}
    run_one = partial(_run_direction, **told)
    return run_directions(run_one, inputs)


def _run_direction(
    mode: str,
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool,
    layout: str,
    resets: Resets | None,
    target: Target,
) -> Result:
    weights = with_biases(weights, x)
    count = lengths.to(load_backend(name), x).to(torch.int32)
    at, start = take_apart(resets)
    call = Call(mode, lengths.width, reverse, layout, start)
    if lengths.is_traced:  # nobody has checked them
        places = math.prod(x.shape[:-1])
        count, wrong = layer.bound_lengths(xp, layout, count, lengths.width, places)
        h0 = torch.where(wrong[:, None], torch.nan, h0)
    else:
        _ = lengths.host  # read once, and refused where they cannot be
    return run_layer(x, h0, c0, [weights[each] for each in WEIGHTS], count, call, target, at)


def run_layer(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weights: Sequence[Tensor],
    lengths: Tensor,
    call: Call,
    target: Target,
    resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction, with its first derivatives.

    Args:
        x: `(batch, time, features)` or as the layout says.
        h0: `(batch, hidden)`.
        c0: `(batch, hidden)`; `(batch, 0)` for a cell without c.
        weights: weight_ih, weight_hh, bias_ih, bias_hh of `torch.nn`.
        lengths: `(batch,)` int32 on the device, each from 0 to the width.
        call: what else there is to be told.
        target: where to launch.
        resets: boolean, in the shape of the tokens of x, on the device; None = none.

    Returns:
        y, h and c.

    Raises:
        DeviceError, DtypeError, ShapeError: tensors that are not these.
        KernelError: there is no kernel for them, or the driver refuses it.
    """
    arrays = (x, h0, c0, *weights)
    _check(arrays, lengths, call)
    return _Layer.apply(*arrays, lengths, call, target, resets)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        ctx.tf32 = allows_tf32()
        with float32_products(tf32=ctx.tf32):
            return _forward(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        with float32_products(tf32=ctx.tf32):
            return *_backward(ctx, *gradients), *(None,) * 4


def _forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
    x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, lengths, call, target, resets = inputs
    places, hidden = math.prod(x.shape[:-1]), h0.shape[1]
    tables = layer.make_tables(xp, call.layout, lengths, call.width, places, x.device)
    flat, state = x.reshape(places, x.shape[-1]), _states(call, h0, c0)
    of_x = layer.multiply_x(xp, flat, weight_ih, bias_ih)
    y = x.new_zeros(places, hidden)
    h, c = (x.new_empty(each.shape) for each in (h0, c0))
    keeps = CELLS[call.mode].kept * hidden if any(ctx.needs_input_grad) else 0
    kept = x.new_empty(places, keeps, dtype=torch.float32) if keeps else None
    ctx.rows = lengths, call, target, resets, tables
    given = {"of_x": of_x, "h0": state[0], "c0": state[1]}
    given |= {"weight_hh": weight_hh, "bias_hh": bias_hh}
    found = {"y": y, "h": h, "c": c if c.numel() else None, "kept": kept}
    _launch("Forward", ctx.rows, y, given, found)
    ctx.save_for_backward(*inputs[:7], y, kept)
    return y.reshape(*x.shape[:-1], hidden), h, c


def _backward(ctx: Any, dy: Tensor, dh: Tensor, dc: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, y, kept = ctx.saved_tensors
    x, h0, c0, weight_ih, weight_hh, *_ = inputs
    lengths, call, _, resets, tables = ctx.rows
    if torch.is_grad_enabled():
        return differentiable_vjp(inputs, (dy, dh, dc), lengths, resets, call)
    places, hidden = y.shape
    state, dstate = _states(call, h0, c0), _states(call, dh, dc)
    dsums, before = y.new_zeros(places, SUMS[call.mode] * hidden), torch.zeros_like(y)
    dh0, dc0 = (x.new_empty(each.shape) for each in (h0, c0))
    given = {"weight_hh": weight_hh, "h0": state[0], "c0": state[1], "y": y, "kept": kept}
    given |= {"dy": dy, "dh": dstate[0], "dc": dstate[1]}
    results = {"dsums": dsums, "h_before": before, "dh0": dh0}
    results["dc0"] = dc0 if dc0.numel() else None
    _launch("Backward", ctx.rows, y, given, results)
    arrays = x.reshape(places, x.shape[-1]), weight_ih, dsums, before, tables.valid
    wants_x = ctx.needs_input_grad[0]
    found = layer.differentiate(xp, call.mode, *arrays, wants_x=wants_x)
    weights = found.weight_ih, found.weight_hh, found.bias_ih, found.bias_hh
    dx = found.x.reshape(x.shape) if wants_x else None
    return dx, dh0, dc0, *weights


def _launch(direction: str, of_rows: Any, y: Tensor, given: _Arrays, found: _Arrays) -> None:
    """Launch a pass; this is the one place where addresses leave Python.

    What was made for the call is written as it lies; all else may be copied.
    """
    lengths, call, (device, stream), resets, tables = of_rows
    batch, stored = len(lengths), str(y.dtype).removeprefix("torch.")
    size = device.gpu, device.processors, stored
    plan, clusters = plan_launch(call.mode, direction, y.shape[1], batch, *size)
    of_call = [tables.row_base, tables.step_base, _readable(lengths), tables.order]
    of_call.append(_readable(resets))
    rows = Rows(*map(_address, of_call), batch, call.reverse, call.start == "initial")
    readable = {key: _readable(array) for key, array in given.items()}
    addresses = {key: _address(array) for key, array in (readable | dict(found)).items()}
    device.launch(plan, CALLS[direction](rows=rows, **addresses), clusters, stream())


def _readable(tensor: Tensor | None) -> Tensor | None:
    """Copy what does not lie in memory as it reads."""
    if tensor is None:
        return None
    tensor = tensor.contiguous()
    return tensor.clone() if tensor.is_neg() or tensor._is_zerotensor() else tensor


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _states(call: Call, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor | None]:
    return h, c if "c" in CELLS[call.mode].states else None


def _check(arrays: Sequence[Tensor], lengths: Tensor, call: Call) -> None:
    x, h0, c0, *_ = arrays
    remedy = "Let another implementation run it."
    if any(array.device != x.device for array in (*arrays, lengths)):
        devices = sorted({str(array.device) for array in (*arrays, lengths)})
        raise DeviceError.of("recurrent kernel", "inputs", devices, "one device", remedy)
    dtypes = {str(array.dtype).removeprefix("torch.") for array in arrays}
    if len(dtypes) > 1 or not dtypes <= STORED.keys() or lengths.dtype != torch.int32:
        got = f"{sorted(dtypes)}, lengths {lengths.dtype}"
        expected = f"one of {[*STORED]}, lengths int32"
        raise DtypeError.of("recurrent kernel", "inputs", got, expected, remedy)
    shapes = [tuple(array.shape) for array in arrays]
    if shapes != (needed := [*input_shapes(call, x, h0, c0, lengths)]):
        raise ShapeError.of("recurrent kernel", "inputs", shapes, needed, remedy)
