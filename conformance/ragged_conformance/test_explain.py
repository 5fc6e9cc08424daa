"""The choice of an implementation, as `explain` prints it and as the backend makes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

import ragged
from ragged.implementations import Implementation, choose, reasons
from ragged.recurrent.dispatch import LayerCall, computed_steps
from ragged.recurrent.explain import recurrent_implementation, recurrent_reasons
from ragged_conformance.adapter import Adapter
from ragged_conformance.cases import LENGTHS, POLICIES

pytestmark = pytest.mark.operation("explain")
FEW_LONG = [90] * 2 + [10] * 30


def printed(capsys: Any, lengths: object, **options: Any) -> list[str]:
    ragged.explain(lengths, **options)
    return list(capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("policy", POLICIES)
def test_explain_names_what_runs_and_why_the_others_do_not(
    adapter: Adapter, capsys: Any, policy: str
) -> None:
    head, *lines = printed(capsys, FEW_LONG, policy=policy)
    assert head == "32 rows, width 90: 480 tokens, 83 % of the padded batch is padding"
    lengths = ragged.Lengths(FEW_LONG, policy=policy)
    reason_by_name = recurrent_reasons(adapter.backend, lengths, "cpu", hidden_size=128)
    assert [line.split()[0] for line in lines] == list(reason_by_name)
    chosen = next(name for name, reason in reason_by_name.items() if reason is None)
    why = "first in order" if policy == "auto" else f"since policy={policy!r}"
    for line, (name, reason) in zip(lines, reason_by_name.items(), strict=True):
        expected = f"runs, {why}" if name == chosen else reason or f"{chosen} comes first"
        assert line.split(maxsplit=1)[1] == expected


CELLS = [("LSTM", 0), ("LSTM", 2), ("GRU", 0), ("RNN_TANH", 0), ("RNN_RELU", 0)]
DTYPES = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("case", LENGTHS)
@pytest.mark.parametrize("policy", POLICIES)
def test_something_runs_whatever_the_call(adapter: Adapter, case: str, policy: str) -> None:
    lengths = ragged.Lengths(LENGTHS[case], policy=policy)
    for device, dtype, (mode, proj_size) in product(("cpu", "cuda"), DTYPES, CELLS):
        options: dict[str, Any] = {"hidden_size": 3, "proj_size": proj_size, "mode": mode}
        reason_by_name = recurrent_reasons(adapter.backend, lengths, device, dtype, **options)
        assert None in reason_by_name.values()
        runs_kernels = reason_by_name.get("kernels", "") is None
        assert not runs_kernels or (device, policy, proj_size) == ("cpu", "auto", 0)


@pytest.mark.parametrize("mode", ["GRU", "RNN_TANH", "RNN_RELU"])
def test_explain_knows_every_cell(adapter: Adapter, capsys: Any, mode: str) -> None:
    _, *lines = printed(capsys, FEW_LONG, mode=mode)
    reason_by_name = recurrent_reasons(adapter.backend, ragged.Lengths(FEW_LONG), "cpu", mode=mode)
    assert [line.split()[0] for line in lines] == list(reason_by_name)
    assert sum(line.split(maxsplit=1)[1] == "runs, first in order" for line in lines) == 1


def test_lengths_keep_their_own_policy(adapter: Adapter, capsys: Any) -> None:
    lines = printed(capsys, ragged.Lengths(FEW_LONG, policy="never"), policy="always")
    assert any(line.endswith("runs, since policy='never'") for line in lines)


def test_explain_takes_no_rows(adapter: Adapter, capsys: Any) -> None:
    head, *_ = printed(capsys, [])
    assert head.startswith("0 rows, width 0: 0 tokens")


def test_without_a_compiler_no_kernels_run(
    adapter: Adapter, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGGED_KERNELS", "0")
    lines = printed(capsys, FEW_LONG)
    assert "no C++ compiler was found, or RAGGED_KERNELS=0" in lines[1]
    assert recurrent_implementation(adapter.backend, ragged.Lengths(FEW_LONG), "cpu") != "kernels"


def test_the_first_without_a_reason_runs(adapter: Adapter) -> None:
    def make(name: str, reason: str | None) -> Implementation[LayerCall]:
        return Implementation(name, lambda call: reason, None)

    call = LayerCall("cpu", "float32")
    listed: Sequence[Implementation[LayerCall]] = [
        make("a", "not here"),
        make("b", None),
        make("c", None),
    ]
    assert choose(listed, call).name == "b"
    assert reasons(listed, call) == {"a": "not here", "b": None, "c": None}


def test_steps_computed_are_tokens_or_the_padded_batch(adapter: Adapter) -> None:
    lengths = ragged.Lengths(FEW_LONG, 96)
    for name in recurrent_reasons(adapter.backend, lengths, "cpu"):
        expected = 480 if name in ("kernels", "cuda_kernels", "packed") else 32 * 96
        assert computed_steps(name, lengths) == expected


@pytest.mark.operation("explain_attention")
def test_attention_is_explained(
    adapter: Adapter, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lines(*lengths: Any, **options: Any) -> list[str]:
        ragged.explain_attention(*lengths, **options)
        return list(capsys.readouterr().out.splitlines())

    head, *both = lines([4, 0, 2], [6, 3, 1], causal=True)
    seen = "19 pairs are seen, 26 % of the padded batch's"  # 3 + 4 + 5 + 6, and 1 of the last row
    assert head == f"3 rows: 6 queries, 10 keys, {seen}"
    assert both == ["kernels  runs, first in order", "plain    kernels comes first"]
    assert "30 pairs are seen" in lines([4, 0, 3], [6, 3, 2])[0]
    assert "13 pairs are seen" in lines([4], causal=True, diagonal=1)[0]
    assert lines([], [])[0].startswith("0 rows: 0 queries, 0 keys, 0 pairs")
    for options, reason in (
        ({"need_weights": True}, "they keep no weights, which were asked for"),
        ({"device": "cuda"}, "they run on a CPU alone"),
        ({}, "no C++ compiler was found, or RAGGED_KERNELS=0"),
    ):
        if not options:
            monkeypatch.setenv("RAGGED_KERNELS", "0")
        _, *both = lines([4], **options)
        assert both == [f"kernels  {reason}", "plain    runs, first in order"]
    with pytest.raises(ragged.errors.LengthsError, match="`k_lengths` is 1 lengths; expected 2"):
        ragged.explain_attention([1, 2], [3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` is 0; expected 1 or more"),
        ({"input_size": 0}, "`input_size` is 0; expected 1 or more"),
        ({"proj_size": 128}, r"`proj_size` is 128; expected 0 \(none\) or below hidden_size 128"),
        ({"device": "tpu"}, "`device` is 'tpu'; expected one of"),
        ({"dtype": "int8"}, "`dtype` is 'int8'; expected one of"),
        ({"mode": "RNN"}, "`mode` is 'RNN'; expected one of"),
        ({"mode": "GRU", "proj_size": 2}, "`proj_size` is 2; expected 0: only LSTMs have one"),
        ({"policy": "fast"}, "`policy` is 'fast'; expected one of"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    adapter: Adapter, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ragged.RaggedError, match=message):
        ragged.explain([3, 1], **options)
