"""Dense kernels over the pieces of a schedule, each row's state held once it has ended.

On the CPU in float32 a layer is one autograd function around oneDNN's kernels, forward and
backward; elsewhere it is composed of torch's own dense calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ragged.backend import load_backend
from ragged.lengths import Lengths
from ragged.ops.alignment import flip, select_valid
from ragged.schedule import Piece
from ragged_torch.arrays import asarray, name
from ragged_torch.recurrent.scan import pull
from ragged_torch.transforms import in_memory

Weights = dict[str, Tensor]

HOLD = 1e4  # sigmoid(-HOLD) is exactly 0 and sigmoid(HOLD) exactly 1, in every float dtype
LSTM_MODE = 2  # of aten's rnn functions


def run_layer(
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    pieces: Sequence[Piece],
    h0: Tensor,
    c0: Tensor,
    *,
    reverse: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one layer in one direction: y, and h and c after the last step of each row it reads."""
    backend = load_backend(name)
    if _has_operator(weights, x) and not (lengths.is_full and len(pieces) == 1):
        y, c = _operator(weights, x, lengths, pieces, h0, c0, reverse)
        return y, _last(y, lengths, h0, reverse=reverse), c
    x = flip(backend, x, lengths) if reverse else x
    if lengths.is_full and len(pieces) == 1:
        y, h, c = _dense(weights, x.transpose(0, 1), h0, c0)
        y = y.transpose(0, 1)
    else:
        y, c = _composed(weights, x, lengths, pieces, h0, c0)
        h = _last(y, lengths, h0)
    return (flip(backend, y, lengths) if reverse else y), h, c


def _last(y: Tensor, lengths: Lengths, h0: Tensor, *, reverse: bool = False) -> Tensor:
    """Gather h where each row's reading ends; a row of length 0 keeps its own."""
    count = asarray(lengths.host, like=y)[:, None]
    last = torch.zeros_like(count) if reverse else (count - 1).clamp(min=0)
    found = y.gather(1, last[..., None].expand(-1, 1, y.shape[2]))[:, 0]
    return torch.where(count > 0, found, h0)


def _composed(
    weights: Weights, x: Tensor, lengths: Lengths, pieces: Sequence[Piece], h0: Tensor, c0: Tensor
) -> tuple[Tensor, Tensor]:
    """Run each piece by torch's own dense call; autograd does the rest."""
    where = _Sorted.of(asarray(lengths.host), lengths.width, *_edges(pieces), reverse=False)
    order = where.order
    h, c = h0[order], c0[order]
    x = select_valid(load_backend(name), x, lengths)[order].transpose(0, 1)
    weights = {**weights, "weight_ih": _with_hold(weights["weight_ih"])}
    ys, cs = [], []
    for piece in where.pieces:
        rows = piece.rows
        part, ended = x[piece.start : piece.stop, :rows], where.beyond(piece).to(x)
        y, h, c_end = _dense(weights, torch.cat([part, ended], -1), h[:rows], c[:rows])
        ys.append(nn.functional.pad(y, (0, 0, 0, len(order) - rows)))
        cs.append(c[rows:])
        c = c_end
    y = torch.cat(ys)
    y = nn.functional.pad(y, (0, 0, 0, 0, 0, lengths.width - len(y))).transpose(0, 1)
    rank = order.argsort()
    return select_valid(load_backend(name), y[rank], lengths), torch.cat([c, *cs[::-1]])[rank]


def _dense(weights: Weights, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Run `x (time, batch, features)` whole."""
    y, h, c = torch.lstm(
        x,
        (h[None], c[None]),
        list(weights.values()),
        has_biases="bias_ih" in weights,
        num_layers=1,
        dropout=0.0,
        train=torch.is_grad_enabled(),
        bidirectional=False,
        batch_first=False,
    )
    return y, h[0], c[0]


def _with_hold(weight_ih: Tensor) -> Tensor:
    """Append weights for an input that is 1 once a row has ended: h is 0 then and c kept.

    Gates i and o shut and gate f opens for good, so that c passes unchanged, forwards and
    backwards, in any dense kernel.
    """
    hold = weight_ih.new_tensor([-HOLD, HOLD, 0.0, -HOLD])
    return torch.cat([weight_ih, hold.repeat_interleave(len(weight_ih) // 4)[:, None]], 1)


def _edges(pieces: Sequence[Piece]) -> tuple[list[int], list[int]]:
    """The pieces as an operator takes them: their row counts and where they stop."""
    return [piece.rows for piece in pieces], [piece.stop for piece in pieces]


def _has_operator(weights: Weights, x: Tensor) -> bool:
    known = x.dtype == torch.float32 and x.device.type == "cpu" and "weight_hr" not in weights
    mkldnn = torch.backends.mkldnn
    return known and mkldnn.is_available() and bool(mkldnn.enabled)


def _operator(
    weights: Weights,
    x: Tensor,
    lengths: Lengths,
    pieces: Sequence[Piece],
    h0: Tensor,
    c0: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    zeros = x.new_zeros(4 * h0.shape[1])
    inputs = (
        *(x, asarray(lengths.host), h0, c0, weights["weight_ih"], weights["weight_hh"]),
        *(weights.get("bias_ih", zeros), weights.get("bias_hh", zeros)),
    )
    train = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, c, _ = _Segments.apply(*inputs, *_edges(pieces), reverse, train)
    return y, c


class _Sorted(NamedTuple):
    """The sorted rows and their pieces, as both passes walk them."""

    order: Tensor
    source: Tensor  # (steps, rows): where each step stands in the flat (batch * time) array
    ended: Tensor  # (steps, rows): where a row is computed beyond its end
    pieces: list[Piece]

    @classmethod
    def of(
        cls, lengths: Tensor, width: int, rows: list[int], stops: list[int], reverse: bool
    ) -> _Sorted:
        order = lengths.argsort(descending=True, stable=True)
        pieces = list(map(Piece, rows, [0, *stops[:-1]], stops))
        step, count = torch.arange(stops[-1], device="cpu")[:, None], lengths[order]
        step_read = (count - 1 - step).clamp(min=0) if reverse else step
        return cls(order, order * width + step_read, step >= count, pieces)

    def beyond(self, piece: Piece) -> Tensor:
        """Where a piece computes steps that its rows do not have: `(steps, rows, 1)`."""
        return self.ended[piece.start : piece.stop, : piece.rows, None]

    def take(self, x: Tensor, piece: Piece) -> Tensor:
        """A piece of `x (batch, time, features)`, time first and 0 where a row has ended."""
        source = self.source[piece.start : piece.stop, : piece.rows]
        part = x.reshape(-1, x.shape[2]).index_select(0, source.reshape(-1))
        return part.view(*source.shape, -1).masked_fill_(self.beyond(piece), 0.0)

    def put(self, flat: Tensor, piece: Piece, part: Tensor) -> None:
        """Undo `take`, into `(batch * time + 1, features)`; the last row is not looked at."""
        source = self.source[piece.start : piece.stop, : piece.rows]
        place = source.masked_fill(self.beyond(piece)[..., 0], len(flat) - 1)
        flat.index_copy_(0, place.reshape(-1), part.reshape(-1, flat.shape[1]))


def _unflatten(flat: Tensor, like: Tensor) -> Tensor:
    return flat[:-1].view(*like.shape[:2], -1)


def _forward(
    x: Tensor,
    lengths: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    rows: list[int],
    stops: list[int],
    reverse: bool,
    train: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Run one layer in one direction over `x (batch, time, features)`: y, c, and what is saved."""
    where = _Sorted.of(lengths, x.shape[1], rows, stops, reverse)
    weights = (_with_hold(weight_ih), weight_hh, bias_ih, bias_hh)
    y = x.new_zeros(len(x) * x.shape[1] + 1, h0.shape[1])
    c_final = c0.clone()
    h, c = h0[where.order][None], c0[where.order][None]
    saved = [h, c] if train else []
    for piece in where.pieces:
        steps = torch.cat([where.take(x, piece), where.beyond(piece).to(x)], -1)
        with torch.set_grad_enabled(train):  # without it the kernel keeps no workspace
            part, h, c, workspace = torch.ops.aten.mkldnn_rnn_layer(
                *(steps, *weights, *_first(piece.rows, h, c), False, [], LSTM_MODE),
                *(h0.shape[1], 1, True, False, False, train),
            )
        h, c = h.detach(), c.detach()
        where.put(y, piece, part)
        c_final.index_copy_(0, where.order[: piece.rows], c[0])
        saved += [steps, part.detach(), c, workspace.detach()] if train else []
    return _unflatten(y, x), c_final, saved


def _backward(
    grad_y: Tensor,
    grad_c: Tensor,
    lengths: Tensor,
    weights: list[Tensor],
    rows: list[int],
    stops: list[int],
    reverse: bool,
    saved: list[Tensor],
) -> tuple[Tensor, ...]:
    """Return the gradients of x, h0, c0 and the four weights."""
    where = _Sorted.of(lengths, grad_y.shape[1], rows, stops, reverse)
    held = (_with_hold(weights[0]), *weights[1:])
    features = weights[0].shape[1]
    grad_x = grad_y.new_zeros(len(lengths) * grad_y.shape[1] + 1, features)
    grads = [torch.zeros_like(weight) for weight in held]
    grad_h = torch.zeros_like(grad_c)[None]  # of the sorted rows, from the pieces after this one
    grad_c = grad_c[where.order][None]
    for piece, before, (steps, part, c, workspace) in _backwards(where.pieces, saved):
        found = torch.ops.aten.mkldnn_rnn_layer_backward(
            *(steps, *held, *_first(piece.rows, *before), part, part[-1:], c),
            *(where.take(grad_y, piece), *_first(piece.rows, grad_h, grad_c)),
            *(False, LSTM_MODE, c.shape[2], 1, True, True, False, [], False, workspace),
        )
        where.put(grad_x, piece, found[0][..., :features])
        for grad, share in zip(grads, found[1:5], strict=True):
            grad += share
        grad_h[:, : piece.rows], grad_c[:, : piece.rows] = found[5], found[6]
    rank = where.order.argsort()
    grad_x = _unflatten(grad_x, grad_y)
    return grad_x, grad_h[0][rank], grad_c[0][rank], grads[0][:, :features].clone(), *grads[1:]


def _first(rows: int, *states: Tensor) -> tuple[Tensor, ...]:
    return tuple(state[:, :rows].contiguous() for state in states)


def _backwards(
    pieces: list[Piece], saved: list[Tensor]
) -> Iterator[tuple[Piece, tuple[Tensor, Tensor], list[Tensor]]]:
    """Walk the pieces from the last, each with the state before it and what it saved."""
    kept = [saved[place : place + 4] for place in range(2, len(saved), 4)]
    before = [(saved[0], saved[1]), *((part[-1:], c) for _, part, c, _ in kept)]
    yield from reversed(list(zip(pieces, before[:-1], kept, strict=True)))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    ctx.set_materialize_grads(False)  # or what is saved gets a gradient of zeros, as large as it
    ctx.width, ctx.static = inputs[0].shape[1], inputs[8:11]
    x, lengths, *others = inputs[:8]
    ctx.save_for_backward(lengths, x, *others, *output[2])


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_c: Tensor | None, _: Any
) -> tuple[Any, ...]:
    lengths, *tensors = ctx.saved_tensors  # once: checkpointing recomputes what is asked for twice
    inputs, saved = tensors[:7], tensors[7:]
    _, _, c0, *weights = inputs
    rows, stops, reverse = ctx.static
    grad_c = torch.zeros_like(c0) if grad_c is None else grad_c
    if grad_y is None:
        grad_y = c0.new_zeros(len(lengths), ctx.width, c0.shape[1])
    if torch.is_grad_enabled() or not in_memory(grad_y, grad_c, *inputs):
        valid, grad_h = Lengths.unchecked(lengths, ctx.width), torch.zeros_like(c0)
        found = pull(inputs, (grad_y, grad_h, grad_c), valid, reverse=reverse)
    else:
        found = _backward(grad_y, grad_c, lengths, weights, rows, stops, reverse, saved)
    return found[0], None, *found[1:], None, None, None, None


class _Segments(torch.autograd.Function):
    """Both passes; not an operator, whose dispatcher costs most of 1 ms."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
        return _forward(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        _save(ctx, inputs, output)

    backward = staticmethod(_differentiate)
