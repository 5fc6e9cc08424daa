"""PyTorch's own cases on `torch.nn` and on ours, and the page that lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from tests.recurrent.torch_cases import CASES, page

RUN = [pytest.param(case.run, id=case.test) for case in CASES if case.run is not None]


@pytest.mark.parametrize("run", RUN)
def test_outcomes_are_what_the_page_says(run: Any) -> None:
    run()


def test_the_page_lists_the_cases() -> None:
    names = [(case.file, case.test) for case in CASES]
    assert len(names) == len(set(names)), "each test of PyTorch stands there once"
    assert (Path(__file__).parents[2] / "docs/why/torch-cases.md").read_text() == page()
