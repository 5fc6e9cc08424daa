"""Compiled and exported calls as the first ones of a process, where no backend is loaded yet."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

CALL = """
import torch, ragged
from ragged import backend

x, lengths = torch.arange(30.0).reshape(3, 5, 2), torch.tensor([3, 0, 5])


def fresh(function, *arguments, compile=True):
    "Compare the first call there ever was with an eager one."
    backend._loaded.clear()
    if compile:
        run = torch.compile(function, fullgraph=True, backend="eager")
    else:
        run = torch.export.export(function, arguments, strict=True).module()
    found = [run(*arguments), run(*arguments)]
    torch.testing.assert_close(found, [function(*arguments)] * 2)


assert "ragged_torch" not in sys.modules
fresh(lambda p, n: ragged.losses.mse(p, p + 1, lengths=n), x, lengths)
fresh(lambda n: ragged.create_padding_mask(n, 5), lengths)
fresh(lambda x, n: ragged.align_encoder_sequences(x, n), x, lengths)
try:
    never = torch.compile(lambda x: x + ragged.create_padding_mask([3], 5), backend="eager")
    never(x[0].T)
except Exception as error:
    assert "no backend is chosen" in str(error) or len(ragged.available_backends()) == 1, error

import ragged_torch

layer = ragged_torch.Recurrent("LSTM", 2, 3, bidirectional=True, seed=0)
fresh(layer, x, lengths)
fresh(layer, x, lengths, compile=False)
parameters = dict(layer.named_parameters())
fresh(lambda x, n: ragged.lstm(parameters, x, n)[0], x, lengths)
ragged.set_backend("torch")
fresh(lambda x: x + ragged.create_padding_mask([5, 2, 0], 5)[..., None], x)
print("all right")
"""


def test_a_compiled_call_may_be_the_first_one():
    environment = {name: value for name, value in os.environ.items() if name != "RAGGED_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys" + CALL],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all right\n"
