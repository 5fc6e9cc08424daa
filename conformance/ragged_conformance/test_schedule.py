"""Schedules: they cover every valid step, cost what they say, and `auto` takes the cheapest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import ragged
from ragged.schedule import Costs, Piece, candidates, plan
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LENGTHS, POLICIES

DENSE = Costs(call=1.0, step=0.1, rate=1e-3, thin=2.0, gates=0.0, pieces=4)
SIZES = {"hidden_size": 4, "input_size": 4}
CASES = {
    **LENGTHS,
    "one long, many short": [90] * 2 + [10] * 30,
    "uniform": np.random.default_rng(0).integers(0, 40, 50).tolist(),
}
cases = pytest.mark.parametrize("case", CASES)


def alive(lengths: Sequence[int], step: int) -> int:
    """Count the rows that have a step, one by one."""
    return sum(1 for length in lengths if length > step)


def seconds(pieces: tuple[Piece, ...]) -> float:
    """The cost model, written out."""
    work = 4 * (4 + 4)
    return sum(
        1.0 + (piece.stop - piece.start) * (0.1 + 1e-3 * work * (piece.rows + 2.0))
        for piece in pieces
    )


@pytest.mark.operation("schedule")
@cases
@pytest.mark.parametrize("policy", POLICIES)
def test_every_valid_step_is_computed_once(adapter: Adapter, case: str, policy: str) -> None:
    lengths = CASES[case]
    made = ragged.schedule(lengths, policy=policy)
    step = 0
    for piece in made.pieces:
        assert piece.start == step
        for step in range(piece.start, piece.stop):
            assert alive(lengths, step) <= piece.rows <= len(lengths)
        step = piece.stop
    assert step >= max(lengths, default=0)
    assert made.computed >= sum(lengths)
    if made.kind == "packed":
        assert made.computed == sum(lengths)


@pytest.mark.operation("schedule")
@cases
def test_auto_takes_the_cheapest(adapter: Adapter, case: str) -> None:
    lengths = ragged.Lengths(CASES[case])
    found = candidates(lengths, DENSE, **SIZES)
    for kind in ("padded", "segments"):
        assert found[kind].seconds == pytest.approx(seconds(found[kind].pieces))
    taken = plan(lengths, DENSE, **SIZES)
    if not lengths.is_full:
        assert taken.seconds == min(each.seconds for each in found.values())


@pytest.mark.operation("schedule")
def test_cuts_are_the_best_there_are(adapter: Adapter) -> None:
    lengths = [16, 11, 9, 9, 4, 3, 1, 1]
    best = min(
        seconds(tuple(map(Piece, (alive(lengths, e) for e in edges[:-1]), edges, edges[1:])))
        for count in range(1, 5)
        for inner in combinations(range(1, 16), count - 1)
        for edges in [(0, *inner, 16)]
    )
    found = candidates(ragged.Lengths(lengths), DENSE, **SIZES)["segments"]
    assert found.seconds == pytest.approx(best)


@pytest.mark.operation("schedule")
def test_lengths_keep_their_own_policy(adapter: Adapter) -> None:
    assert ragged.schedule(ragged.Lengths([90] * 2 + [10] * 30, policy="never")).kind == "padded"


@pytest.mark.operation("explain")
def test_explain_names_what_is_taken_and_why(adapter: Adapter, capsys: Any) -> None:
    ragged.explain([90] * 2 + [10] * 30, policy="never")
    shown = capsys.readouterr().out
    assert "32 rows, width 90: 480 tokens, 83 % of the padded batch is padding" in shown
    taken = [line for line in shown.splitlines() if "<- taken: policy='never'" in line]
    assert len(taken) == 1
    assert taken[0].split()[:6] == ["padded", "1", "90", "2880", "500", "%"]


@pytest.mark.operation("explain")
def test_explain_takes_no_rows(adapter: Adapter, capsys: Any) -> None:
    ragged.explain([])
    assert "0 rows, width 0: 0 tokens" in capsys.readouterr().out


@pytest.mark.operation("schedule")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` is 0; expected 1 or more"),
        ({"device": "tpu"}, "`device` is 'tpu'; expected one of"),
        ({"policy": "fast"}, "`policy` is 'fast'; expected one of"),
    ],
)
def test_what_cannot_be_scheduled_is_refused(
    adapter: Adapter, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ragged.RaggedError, match=message):
        ragged.schedule([3, 1], **options)
