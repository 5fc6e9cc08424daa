"""The scripts of examples/ run as they are."""

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_examples_run(script: Path) -> None:
    text = script.read_text()
    for framework in ("torch", "jax", "flax"):
        if f"import {framework}\n" in text or f"from {framework} " in text:
            pytest.importorskip(framework)
    assert runpy.run_path(str(script), run_name="__main__")["__doc__"]
