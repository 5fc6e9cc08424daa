"""ONNX: the layer's operator in ONNX's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from onnxscript import opset20 as op

from ragged.errors import OptionError
from ragged.export.program import Input
from ragged_torch.recurrent.onnx_op import OPERATORS

INT32 = 6  # of onnx.TensorProto


def to_onnx(
    program: torch.export.ExportedProgram,
    inputs: Mapping[str, Input] | None = None,
    outputs: Sequence[str] = ("output",),
) -> bytes:
    """Translate a recorded program into the content of one file.

    Args:
        program: of one of ragged's models, or of a module with one of its recurrent layers.
        inputs: the names of the open axes of its inputs; else they are numbered.
        outputs: the names of its outputs.

    Raises:
        OptionError: a layer has a projection or resets, unlike ONNX's.
    """
    for node in program.graph.nodes:
        if node.target is torch.ops.ragged.recurrent_layer.default:
            _check_exportable(node.args[8], node.args[12])
    exported = torch.onnx.export(
        program,
        dynamo=True,
        verbose=False,
        opset_version=20,
        output_names=list(outputs),
        custom_translation_table=translations(),
    )
    assert exported is not None
    model: Any = exported.model_proto
    if inputs is not None:
        _name_axes(model.graph, inputs)
    content: bytes = model.SerializeToString()
    return content


def translations() -> dict[Any, Any]:
    """Return the translation of the layer's operator for torch's exporter."""
    return {torch.ops.ragged.recurrent_layer.default: recurrent_layer}


def _check_exportable(weight_hr: Any, resets: Any) -> None:
    """Refuse a layer that ONNX's own layers cannot be."""
    for argument, value, got in (("proj_size", weight_hr, "above 0"), ("resets", resets, "given")):
        if value is not None:
            expected, remedy = "none, as in ONNX's layers", "Export with format='torch'."
            raise OptionError.of("export_model", argument, got, expected, remedy)


def _name_axes(graph: Any, inputs: Mapping[str, Input]) -> None:
    """Name the axes as in `inputs`; the exporter numbers them."""
    dims = {value.name: value.type.tensor_type.shape.dim for value in (*graph.input, *graph.output)}
    names = {
        dim.dim_param: str(axis)
        for value, (shape, _) in inputs.items()
        for dim, axis in zip(dims[value], shape, strict=True)
        if dim.dim_param
    }
    for dim in (dim for value_dims in dims.values() for dim in value_dims if dim.dim_param):
        dim.dim_param = names[dim.dim_param]
    del graph.value_info[:]  # inferred from the inputs and outputs


def recurrent_layer(
    x: Any,
    lengths: Any,
    h0: Any,
    c0: Any,
    weight_ih: Any,
    weight_hh: Any,
    bias_ih: Any,
    bias_hh: Any,
    weight_hr: Any = None,
    mode: str = "LSTM",
    reverse: bool = False,
    train: bool = False,
    resets: Any = None,
    start: str = "zeros",
) -> tuple[Any, ...]:
    """Translate `ragged::recurrent_layer` to ONNX's own layers.

    Runtimes need not keep the state of a row of length 0, nor ignore NaN at padding: both are
    selected here.
    """
    _check_exportable(weight_hr, resets)
    operator, order, attributes = OPERATORS[mode]
    hidden = weight_hh.shape[0] // len(order)
    blocks = np.arange(len(order) * hidden).reshape(len(order), hidden)
    rows = op.Constant(value_ints=blocks[list(order)].flatten().tolist())

    def reordered(gates: Any) -> Any:
        return op.Gather(gates, rows, axis=0)

    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    first, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[-1])
    width = op.Squeeze(op.Shape(x, start=1, end=2))
    count = op.Unsqueeze(lengths, last)
    valid = op.Unsqueeze(op.Less(op.Range(zero, width, one), count), last)
    zero_float = op.Constant(value_float=0.0)
    states = (h0, c0) if mode == "LSTM" else (h0,)
    y, *final = getattr(op, operator)(
        op.Transpose(op.Where(valid, x, zero_float), perm=[1, 0, 2]),
        op.Unsqueeze(reordered(weight_ih), first),
        op.Unsqueeze(reordered(weight_hh), first),
        op.Unsqueeze(op.Concat(reordered(bias_ih), reordered(bias_hh), axis=0), first),
        op.Cast(op.Max(lengths, one), to=INT32),
        *(op.Unsqueeze(state, first) for state in states),
        hidden_size=hidden,
        direction="reverse" if reverse else "forward",
        **attributes,
    )
    y = op.Transpose(op.Squeeze(y, op.Constant(value_ints=[1])), perm=[1, 0, 2])
    has_steps = op.Greater(count, zero)
    h, *c = (
        op.Where(has_steps, op.Squeeze(new, first), old)
        for new, old in zip(final, states, strict=True)
    )
    return op.Where(valid, y, zero_float), h, c[0] if c else c0, zero_float  # nothing is kept
