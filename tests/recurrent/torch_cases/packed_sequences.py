"""Packed sequences, given to a layer and taken from it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch.nn.utils import rnn

from tests.recurrent.torch_cases.case import NAMES, Cases, build, normal, outcome, refused

cases = Cases("test/nn/test_packed_sequence.py")
INPUT, HIDDEN, LENGTHS = 3, 4, [2, 5, 1, 5]


def rows() -> list[Any]:
    """Rows in no order of length."""
    return [normal(length, INPUT) for length in LENGTHS]


@cases.equal("test_type_casts", "`packed.double()` and the others; integers are refused")
def _(module: Any) -> Iterator[Any]:
    packed = rnn.pack_sequence(rows(), enforce_sorted=False)
    for cast, dtype in (("double", torch.float64), ("float", torch.float32)):
        yield build(module, "LSTM", INPUT, HIDDEN, dtype=dtype)(getattr(packed, cast)())
    for cast in ("long", "int", "short", "char", "byte"):
        layer = build(module, "LSTM", INPUT, HIDDEN)
        yield refused(lambda layer=layer, cast=cast: layer(getattr(packed, cast)()))


@cases.equal("test_total_length", "outputs unpacked to a given length")
def _(module: Any) -> Iterator[Any]:
    y, _ = build(module, "GRU", INPUT, HIDDEN)(rnn.pack_sequence(rows(), enforce_sorted=False))
    for batch_first, more in product((True, False), (0, 1, 8)):
        yield rnn.pad_packed_sequence(y, batch_first, total_length=5 + more)
    for length in (-1, 0, 4):
        yield refused(lambda length=length: rnn.pad_packed_sequence(y, total_length=length))


@cases.equal("test_to", "`packed.to(...)` and `packed.cpu()`, of what goes in and comes out")
def _(module: Any) -> Iterator[Any]:
    for is_sorted in (True, False):
        given = sorted(rows(), key=len, reverse=True) if is_sorted else rows()
        packed = rnn.pack_sequence(given, enforce_sorted=is_sorted)
        y, _ = build(module, "RNN", INPUT, HIDDEN)(packed.to("cpu"))
        yield y, y.to("cpu") is y, y.cpu() is y, y.to(torch.float32)


@cases.equal("test_pack_sequence", "rows packed in order, or sorted as they are packed")
def _(module: Any) -> Iterator[Any]:
    for name, is_sorted in product(NAMES, (True, False)):
        given = sorted(rows(), key=len, reverse=True) if is_sorted else rows()
        layer = build(module, name, INPUT, HIDDEN, 2)
        packed = rnn.pack_sequence(given, enforce_sorted=is_sorted)
        yield outcome(layer, packed, None, given)


@cases.equal("test_unpack_sequence", "outputs unpacked as a list of rows")
def _(module: Any) -> Iterator[Any]:
    y, _ = build(module, "LSTM", INPUT, HIDDEN)(rnn.pack_sequence(rows(), enforce_sorted=False))
    yield rnn.unpack_sequence(y)


@cases.equal("test_pack_padded_sequence", "padded rows packed; the gradient at padding is 0")
def _(module: Any) -> Iterator[Any]:
    for batch_first, is_sorted in product((True, False), repeat=2):
        lengths = sorted(LENGTHS, reverse=True) if is_sorted else torch.tensor(LENGTHS)
        x = normal(4, 5, INPUT) if batch_first else normal(5, 4, INPUT)
        packed = rnn.pack_padded_sequence(x, lengths, batch_first, is_sorted)
        layer = build(module, "LSTM", INPUT, HIDDEN, bidirectional=True)
        y, _, *gradients = outcome(layer, packed, None, [x])
        yield y, gradients, rnn.pad_packed_sequence(y, batch_first)


TORCHS = "torch's own packing, before a layer is called"
cases.not_run("test_wrong_order", "rows that are not sorted, said to be", TORCHS)
cases.not_run("test_pad_sequence", "rows padded to one tensor", TORCHS)
cases.not_run("test_pad_sequence_with_tensor_sequences", "rows given as a tensor", TORCHS)
cases.not_run("test_pad_sequence_with_non_iterable_sequences", "what is no rows", TORCHS)
cases.not_run("test_unpad_sequence", "a padded tensor cut into rows", TORCHS)
cases.not_run("test_to_memory_format", "the memory format of a convolution", "not of layers")
cases.not_run(
    "test_pack_sequence_batch_sizes_throw",
    "`batch_sizes` on a GPU",
    TORCHS,
    "test/test_nn.py",
)
cases.not_run(
    "test_pack_padded_pad_packed_trace",
    "packing traced without a layer",
    TORCHS,
    "test/jit/test_tracer.py",
)
