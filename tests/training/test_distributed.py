"""Many workers are one: the same losses and parameters, by processes and by devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragged.backend import load_backend
from ragged.data import Sample, Series, collate
from ragged.errors import OptionError
from ragged.training.distributed import shard_batch

SCRIPT = Path(__file__).with_name("distributed_script.py")


def trained(name: str, **environment: str) -> list[dict[str, Any]]:
    """Train in a process of its own; give what each that speaks there says."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for model, values in expected.items():
        assert found[model].keys() == values.keys()
        for name, value in values.items():
            np.testing.assert_allclose(found[model][name], value, rtol=1e-9, atol=1e-12)


def test_two_torch_processes_are_one(need):
    need("torch")
    together, alone = trained("torch")  # one of the two workers speaks
    assert_equal(together, alone)


def test_two_jax_devices_are_one(need):
    need("jax")
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    together, alone = trained("jax", JAX_ENABLE_X64="1", XLA_FLAGS=flags)
    assert_equal(together, alone)


def test_a_count_of_workers_without_a_rank_is_refused(need, monkeypatch):
    need("torch")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    text = (
        r"init_process_group\(\): `WORLD_SIZE` is set without RANK.*Start the workers by torchrun"
    )
    with pytest.raises(OptionError, match=text), load_backend("torch").init_process_group():
        pass


def make_batch(lengths: list[tuple[int, int]], batch_size: int) -> Any:
    event, rows = Series("", np.arange(1.0), {}), []
    for k, steps in enumerate(lengths):
        past, future = (np.full((count, 1), float(k)) for count in steps)
        rows.append(Sample(past, future, future, event, split=steps[0]))
    return collate(rows, batch_size=batch_size)


def test_tokens_are_shared_out_evenly_and_rows_once():
    batch = make_batch([(100, 0), (9, 9), (10, 10), (2, 1), (30, 31), (0, 0)], batch_size=7)
    parts = shard_batch(batch, 2)
    assert [len(part.rows) for part in parts] == [4, 4]
    rows = np.concatenate([part.rows for part in parts])
    assert sorted(rows[rows >= 0]) == [0, 1, 2, 3, 4, 5]
    tokens = [p.encoder_lengths.tokens + p.decoder_lengths.tokens for p in parts]
    assert sum(tokens) == 202
    assert sorted(tokens) == [100, 102]  # the long row has a part of its own
    for part in parts:
        for place, row in enumerate(part.rows):
            lengths = part.encoder_lengths.host[place], part.decoder_lengths.host[place]
            if row < 0:
                assert lengths == (0, 0)
                assert not part.past[place].any()
                continue
            assert lengths == (batch.encoder_lengths.host[row], batch.decoder_lengths.host[row])
            np.testing.assert_array_equal(part.past[place], batch.past[row])
            np.testing.assert_array_equal(part.target[place], batch.target[row])
    assert sum(part.count for part in parts) == batch.count


def test_more_workers_than_rows_leave_some_without():
    parts = shard_batch(make_batch([(3, 2)], batch_size=1), 3)
    assert sorted(part.count for part in parts) == [0, 0, 2]
    assert all(part.past.shape == parts[0].past.shape for part in parts)


def test_one_worker_takes_the_batch_itself():
    batch = make_batch([(3, 2)], batch_size=1)
    assert shard_batch(batch, 1)[0] is batch


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("torch", r"`devices` is 9; expected 1 on torch\. Start more processes: torchrun"),
        ("jax", r"`devices` is 9; expected 1 to \d, the cpu devices that JAX sees"),
    ],
)
def test_more_devices_than_there_are_are_refused(need, name, text):
    need(name)
    from ragged import losses
    from ragged.models import EncoderDecoderLSTM
    from ragged.training.optimizers import SGD

    backend = load_backend(name)
    model = backend.create_model(EncoderDecoderLSTM.describe(1, 1, hidden_size=2, seed=0))
    with pytest.raises(OptionError, match=text):
        backend.TrainingStep(model, losses.mse, SGD(), devices=9)
