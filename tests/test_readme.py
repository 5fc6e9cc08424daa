import contextlib
import io
import re
from pathlib import Path

import pytest

import ragged.backend

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1][:40])
def test_examples_run_and_print_what_they_say(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("flax")
    monkeypatch.setattr(ragged.backend, "_default", None)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, {})
    promised = re.search(r"print\(.*#\s*(4\.2|\(\d[\d, ]*\))", block)
    if promised:
        assert promised.group(1) in printed.getvalue().replace(".2000", ".2")
