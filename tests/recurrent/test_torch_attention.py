"""Attention of nested tensors, beside torch's own and beside padded rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ragged_torch import nested_attention

import ragged
from ragged.errors import ArgumentError, LengthsError, ShapeError

Q, K = (3, 1, 4), (5, 2, 1)
HEADS, SIZE = 2, 3


def nested(lengths: tuple[int, ...], *features: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn: Any = {"dtype": torch.float64, "generator": generator}
    rows = [torch.randn(length, *features, **drawn) for length in lengths]
    return torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)


@pytest.fixture
def rows() -> dict[str, Any]:
    """Queries, keys and values of three rows."""
    return {
        "q": nested(Q, HEADS, SIZE, seed=1),
        "k": nested(K, HEADS, SIZE, seed=2),
        "v": nested(K, HEADS, SIZE, seed=3),
    }


def test_nested_rows_give_what_torch_gives_of_each(rows: dict[str, Any]) -> None:
    out = nested_attention(**rows)
    assert out.layout is torch.jagged
    out.values().square().sum().backward()
    for row, found in enumerate(out.unbind()):
        q, k, v = (x.unbind()[row].detach().requires_grad_() for x in rows.values())
        heads_first = (x.transpose(0, 1) for x in (q, k, v))
        expected = torch.nn.functional.scaled_dot_product_attention(*heads_first).transpose(0, 1)
        torch.testing.assert_close(found, expected)
        expected.square().sum().backward()
        for name, x in zip("qkv", (q, k, v), strict=True):
            torch.testing.assert_close(rows[name].grad.unbind()[row], x.grad, msg=name)


def test_nested_rows_have_every_option_of_padded_ones(rows: dict[str, Any]) -> None:
    shared = nested(K, SIZE, seed=4)
    options: dict[str, Any] = {"causal": True, "diagonal": 1, "dropout": 0.3, "seed": 5}
    options |= {"scale": 0.4, "need_weights": True}
    out, weights = nested_attention(rows["q"], rows["k"], shared, **options)
    q, k, v = (x.to_padded_tensor(0.0) for x in (rows["q"], rows["k"], shared))
    expected, expected_weights = ragged.attention(q, k, v, Q, K, **options)
    padded = torch.nn.utils.rnn.pad_sequence(out.unbind(), batch_first=True)
    torch.testing.assert_close(padded, expected)
    torch.testing.assert_close(weights, expected_weights)
    torch.testing.assert_close(nested_attention(q, k, v, Q, K, **options)[0], expected)


def holes() -> torch.Tensor:
    start, length = torch.tensor([0, 1, 0]), torch.tensor([3, 1, 4])
    padded = torch.ones(3, 5, HEADS, SIZE, dtype=torch.float64)
    return torch.nested.narrow(padded, 1, start, length, layout=torch.jagged)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one that is padded": (
        {"k": torch.ones(3, 5, HEADS, SIZE, dtype=torch.float64)},
        ShapeError,
        "`k` is no nested tensor; expected one of layout torch.jagged",
    ),
    "values of other rows": (
        {"v": nested(Q, HEADS, SIZE, seed=3)},
        LengthsError,
        "`v` is of other lengths; expected those of k",
    ),
    "rows with holes": ({"q": holes()}, ShapeError, "`q` is rows with holes"),
    "lengths beside them": ({"q_lengths": [3, 1, 4]}, ArgumentError, "`q_lengths` is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_batch_of_nested_rows_is_refused(rows: dict[str, Any], case: str) -> None:
    changed, error, text = REFUSED[case]
    with pytest.raises(error, match=text):
        nested_attention(**rows | changed)
