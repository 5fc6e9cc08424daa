import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import ragged.backend
from ragged.cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 8


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


YAML = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def test_a_table_of_ones_own_becomes_a_page(tmp_path, monkeypatch, need) -> None:
    """As the README says it, in fewer than ten lines, on both backends."""
    need("torch", "jax")
    (text,) = YAML
    assert len(text.splitlines()) < 10
    monkeypatch.chdir(tmp_path)
    rng, lines = np.random.default_rng(0), ["well,time,rain,level,turbidity"]
    for well, steps in enumerate(rng.integers(5, 30, 8)):
        for step in range(steps):
            rain, level, turbidity = rng.random(3)
            time = f"2026-0{well + 1}-01T{step // 4:02d}:{15 * (step % 4):02d}"
            lines.append(f"w{well},{time},{rain:.3f},{level:.3f},{turbidity:.3f}")
    Path("wells.csv").write_text("\n".join(lines))
    Path("wells.yaml").write_text(text)
    for name in ("torch", "jax"):
        options = {"backend": name, "name": name, "trainer.max_epochs": 1}
        options["model.init_args.hidden_size"] = 4
        assert (
            main(["train", "--config", "wells.yaml", *(f"--{k}={v}" for k, v in options.items())])
            == 0
        )
        (run,) = Path("runs", name).iterdir()
        assert main(["report", str(run)]) == 0
        page = (run / "report.html").read_text()
        assert all(f"R² of {target}" in page for target in ("level", "turbidity"))
