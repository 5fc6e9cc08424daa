"""The code, the links and the paths of README.md, CONTRIBUTING.md and docs/."""

import ast
import contextlib
import io
import re
import shlex
import textwrap
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import ragged.backend
from ragged.cli import commands
from ragged.cli import main as cli
from ragged.cli.main import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
# Indented in tabs; with a title it is a script, for test_scripts.py; what it prints may follow.
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```\n(?:\n\1```text\n(.*?)^\1```)?", re.M | re.S)
BLOCKS = [
    pytest.param(textwrap.dedent(code), textwrap.dedent(output), id=f"{name}-{place}")
    for name, text in TEXTS.items()
    for place, (_, code, output) in enumerate(BLOCK.findall(text))
]
CODE = re.compile(r"^( *)```(?!text)\w+[^\n]*\n(.*?)^\1```", re.M | re.S)
CHARACTERS = 92  # of a line of code, beside both menus on a screen of 1280 pixels
COMMANDS = [
    command
    for text in TEXTS.values()
    for block in re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
    for command in re.findall(r"^ragged .*?(?=  +#| >|$)", block, re.M)
]
# By `make docs`.
MADE = (
    "docs/diagrams/",
    "docs/notebooks/",
    "docs/reference/yaml",
    "docs/reference/transformations",
)
ALWAYS = ("torch", "flax")
PEERS = (*ALWAYS, "keras", "haiku", "onnxruntime", "pandas", "polars", "sklearn", "optuna",
         "pytorch_forecasting", "darts")  # fmt: skip


def claims(code: str) -> list[str]:
    """What the comments behind `print`, or on the line below, say that it prints."""
    lines, said = code.splitlines(), []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            last = node.end_lineno
            behind = lines[last - 1][node.end_col_offset :]
            below = lines[last] if last < len(lines) else ""
            said += [(last, text[2:]) for text in (behind.strip() or below,) if text[:2] == "# "]
    return [text for _, text in sorted(said)]


def test_there_are_examples() -> None:
    assert len(BLOCKS) > 45
    tabs = [name for name, text in TEXTS.items() if re.search(r'^=== "', text, re.M)]
    assert all(re.search(r"^    ```python", TEXTS[name], re.M) for name in tabs)
    assert len(tabs) > 4


@pytest.mark.parametrize(("code", "output"), BLOCKS)
def test_examples_run_and_print_what_they_say(code, output, monkeypatch) -> None:
    for peer in PEERS:
        is_used = peer in ALWAYS or re.search(rf"^(import|from) .*\b{peer}\b", code, re.M)
        if is_used and find_spec(peer) is None:
            pytest.skip(f"{peer} is not installed")
    monkeypatch.setattr(ragged.backend, "_default", None)
    monkeypatch.delenv("RAGGED_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_BACKEND", "jax" if find_spec("jax") else "torch")
    printed = _run(code)
    said = claims(code)
    assert not (said and output)
    if said:
        assert printed.splitlines() == said
    if output:
        assert printed == output


def _run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "page"})
    return printed.getvalue()


def test_a_claim_is_found_on_its_line_or_below() -> None:
    code = 'x = 1  # one\nprint(x)  # 1\nprint(\n    x\n)\n# 2\nprint(3)\nprint("#")  # #\n'
    assert claims(code) == ["1", "2", "#"]


@pytest.mark.parametrize("name", TEXTS)
def test_lines_of_code_are_seen_whole(name: str) -> None:
    for indent, code in CODE.findall(TEXTS[name]):
        for line in code.splitlines():
            assert len(line) - len(indent) <= CHARACTERS, line


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str, monkeypatch, need) -> None:
    need("jsonargparse")
    for name in ("train", "resume", "evaluate", "report", "predict", "backtest", "export", "info"):
        monkeypatch.setattr(commands, name, lambda *given, **named: None)
    monkeypatch.setattr(cli, "_run_conformance", lambda **named: 0)
    with contextlib.suppress(SystemExit):  # of --print_config
        assert main(shlex.split(command)[1:]) == 0


def test_make_targets_and_modules_exist() -> None:
    text = "\n".join(TEXTS.values())
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)) <= targets
    for module in re.findall(r"python -m ((?:benchmarks|tests)[\w.]*)", text):
        assert find_spec(module), module


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_and_headings(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = ((ROOT / name).parent / path if path else ROOT / name).resolve()
        if str(target.relative_to(ROOT)).startswith(MADE):
            continue
        assert target.exists(), f"{name}: {link}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
            assert heading in anchors, f"{name}: {link}"


@pytest.mark.parametrize("name", TEXTS)
def test_paths_in_the_text_are_files(name: str) -> None:
    rooms = "ragged|backends|conformance|benchmarks|tests|docs|examples"
    for path in re.findall(rf"`((?:{rooms})/[\w./*]+)`", TEXTS[name]):
        assert list(ROOT.glob(path.rstrip("/"))), f"{name}: {path}"


def test_sections_of_the_readme_are_there() -> None:
    titles = re.findall(r"^#+ (.*)$", TEXTS["README.md"], re.MULTILINE)
    named = [
        t for text in TEXTS.values() for t in re.findall(r"^<!-- README: (.+) -->$", text, re.M)
    ]
    assert named
    assert set(named) <= set(titles)


def test_every_example_is_listed() -> None:
    for script in (ROOT / "examples").glob("*.py"):
        assert f"(../examples/{script.name})" in TEXTS["docs/examples.md"]


YAML = re.findall(r"```yaml\n(.*?)```", TEXTS["docs/guides/data.md"], re.DOTALL)


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
    """As docs/guides/data.md says it, in fewer than ten lines, on both backends."""
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
    (run,) = Path("runs/torch").iterdir()
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert all(f"R² of {target}" in page for target in ("level", "turbidity"))
