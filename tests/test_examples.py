"""The scripts of examples/ run as they are."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of:UserWarning")  # in Lightning
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_examples_run(script: Path) -> None:
    text = script.read_text()
    for package in ("torch", "jax", "flax", "pandas", "optuna", "pytorch_forecasting"):
        if re.search(rf'^(import|from) {package}\b|backend="{package}"', text, re.MULTILINE):
            pytest.importorskip(package)
    assert runpy.run_path(str(script), run_name="__main__")["__doc__"]
