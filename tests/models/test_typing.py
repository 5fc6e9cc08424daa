"""What type checkers see of models and losses: their calls, their options and what is refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A line that must be refused says so; an `ignore` that hides nothing is an error too.
SNIPPET = """
from typing import Any, assert_type

import ragged
from ragged.models import XTFT, EncoderDecoderLSTM, Forecast, TemporalFusionTransformer, XTFTConfig

past, future = [[[1.0, 2.0]]], [[[3.0], [4.0]]]
model = ragged.models.XTFT(2, 1, hidden_size=4, seed=0)
assert_type(model, XTFT)
assert_type(model(past, future, need_weights=True), Forecast)
assert_type(model.config, XTFTConfig)
assert_type(model.config.num_heads, int)
assert_type(XTFT.describe(2, 1).seed, int | None)
model.parameters()
TemporalFusionTransformer(2, 1, context_length=4)(past, future, static=[[1.0]])


def of_any(module: object) -> None:
    if isinstance(module, EncoderDecoderLSTM):
        assert_type(module.config.head_hidden_size, int | None)


XTFT(2, 1, hiden_size=4)  # type: ignore[call-arg]
XTFT(2, "1")  # type: ignore[arg-type]
EncoderDecoderLSTM(2, 1)(past, future, need_weights=True)  # type: ignore[call-arg]
TemporalFusionTransformer(2, 1)  # type: ignore[call-arg]

ragged.losses.mse(past, past, lengths=[1], reduction="sum")
ragged.losses.quantile(past, future, quantiles=(0.1, 0.9), weights=[1.0])
ragged.losses.quantile.total_and_count(past, future, quantiles=(0.1, 0.9), lengths=[1])
ragged.losses.huber(past, past, delta="1")  # type: ignore[arg-type]
ragged.losses.huber(past, past, epsilon=1.0)  # type: ignore[call-arg]
ragged.losses.mse.total_and_count(past, past, length=[1])  # type: ignore[call-arg]
"""


def snippet_at(folder: Path) -> Path:
    path = folder / "snippet.py"
    path.write_text(SNIPPET)
    return path


def said_by(*command: object) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout + done.stderr


def test_mypy_follows_models_and_losses(tmp_path):
    pytest.importorskip("mypy")
    options = ("--warn-unused-ignores", "--config-file", ROOT / "pyproject.toml")
    said = said_by(sys.executable, "-m", "mypy", *options, snippet_at(tmp_path))
    assert said == "Success: no issues found in 1 source file\n"


def test_pyright_follows_models_and_losses(tmp_path):
    pyright = shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed")
    settings = f'{{"extraPaths": ["{ROOT}"], "reportUnnecessaryTypeIgnoreComment": "error"}}'
    (tmp_path / "pyrightconfig.json").write_text(settings)
    snippet_at(tmp_path)
    said = said_by(pyright, "--pythonpath", sys.executable, "--project", tmp_path)
    assert said.splitlines()[-1] == "0 errors, 0 warnings, 0 informations"


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_model_is_known_whatever_its_backend(backend):
    pytest.importorskip("torch" if backend == "torch" else "flax")
    import ragged
    from ragged.models import XTFT, EncoderDecoderLSTM, Model, XTFTConfig

    with ragged.use_backend(backend):
        model = XTFT(2, 1, hidden_size=4, seed=0)
    assert isinstance(model, XTFT)
    assert isinstance(model, Model)
    assert not isinstance(model, EncoderDecoderLSTM)
    assert isinstance(model.config, XTFTConfig)
    assert not isinstance(model.config, XTFT)
