"""The code, the links and the paths of README.md, CONTRIBUTING.md and docs/."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

import ragged.backend
from ragged.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
README = TEXTS["README.md"]
BLOCKS = [
    pytest.param(block, id=f"{name}-{place}")
    for name, text in TEXTS.items()
    for place, block in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]


def test_there_are_examples() -> None:
    assert len(BLOCKS) == 35
    assert README.count("```python") == 5


@pytest.mark.parametrize("block", BLOCKS)
def test_examples_run_and_print_what_they_say(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("flax")
    monkeypatch.setattr(ragged.backend, "_default", None)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block, {"__name__": "page"})
    for said in re.findall(r"^ *print\(.*\)  # (.*)$", block, re.MULTILINE):
        assert said in printed.getvalue().replace(".2000", ".2")


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), f"{name}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert heading in anchors, f"{name}: {link}"


@pytest.mark.parametrize("name", TEXTS)
def test_paths_in_the_text_are_files(name: str) -> None:
    rooms = "ragged|backends|conformance|benchmarks|tests|docs"
    for path in re.findall(rf"`((?:{rooms})/[\w./*]+)`", TEXTS[name]):
        assert list(ROOT.glob(path.rstrip("/"))), f"{name}: {path}"


def test_the_readme_links_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))
    assert linked == {name for name in TEXTS if name.startswith("docs/")}


YAML = [block for t in TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", t, re.DOTALL)]


def test_six_lines_train_on_a_table_with_dates(tmp_path, monkeypatch, need) -> None:
    need("torch")
    assert len(YAML[0].splitlines()) <= 6
    monkeypatch.chdir(tmp_path)
    lines = [f"{1949 + n // 12}-{n % 12 + 1:02d},{100 + n}" for n in range(40)]
    Path("airline.csv").write_text("\n".join(["month,passengers", *lines]))
    Path("airline.yaml").write_text(YAML[0])
    options = ["--trainer.max_epochs=1", "--model.init_args.hidden_size=4"]
    assert main(["train", "--config", "airline.yaml", *options]) == 0


def test_a_table_of_ones_own_becomes_a_page(tmp_path, monkeypatch, need) -> None:
    """As docs/data.md says it, in fewer than ten lines, on both backends."""
    need("torch", "jax")
    text = YAML[1]
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
