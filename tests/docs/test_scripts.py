"""The scripts of the pages, each copied and run in a fresh process, in an empty folder."""

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = re.compile(r'^( *)```\w+ title="(.+?)"\n(.*?)^\1```', re.MULTILINE | re.DOTALL)


def scripts(page: str) -> dict[str, str]:
    """The scripts of a page by their titles."""
    found = SCRIPT.findall((DOCS / page).read_text())
    return {name: textwrap.dedent(code) for _, name, code in found}


START = scripts("index.md")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """An environment in which `python` and `ragged` are this Python's."""
    folder = tmp_path_factory.mktemp("bin")
    for name, arguments in (("python", ""), ("ragged", "-m ragged")):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        command.chmod(0o755)
    kept = {n: v for n, v in os.environ.items() if n != "RAGGED_BACKEND"}
    return {**kept, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_start_page_has_three_scripts() -> None:
    assert list(START) == ["torch_layer.py", "flax_layer.py", "forecast.sh"]


@pytest.mark.parametrize(
    ("name", "framework"), [("torch_layer.py", "torch"), ("flax_layer.py", "flax")]
)
def test_a_layer_in_a_module_of_ones_own(name, framework, tmp_path, environment) -> None:
    pytest.importorskip(framework)
    (tmp_path / name).write_text(START[name])
    said = re.findall(r"^print\(.*\)  # (.*)$", START[name], re.MULTILINE)
    assert run(["python", name], tmp_path, environment).splitlines() == said == ["True"]


@pytest.fixture(scope="module")
def forecast(tmp_path_factory, environment) -> Path:
    """The folder in which the start page's third script has run."""
    pytest.importorskip("torch")
    pytest.importorskip("jsonargparse")
    folder = tmp_path_factory.mktemp("forecast")
    (folder / "forecast.sh").write_text(START["forecast.sh"])
    run(["bash", "-eu", "forecast.sh"], folder, environment)
    return folder


def read_forecast(path: Path) -> np.ndarray:
    return np.array([float(line.split(",")[-1]) for line in path.read_text().splitlines()[1:]])


def test_a_forecast_from_a_csv(forecast) -> None:
    values = read_forecast(forecast / "forecast.csv")
    assert values.shape == (10,)
    level = read_forecast(forecast / "level.csv")
    assert level.min() < values.min() < values.max() < level.max() + 1
    (scores,) = forecast.glob("runs/level/*/scores.json")
    assert "EncoderDecoderLSTM" in scores.read_text()


def test_the_server_gives_the_forecast_of_predict(forecast, environment) -> None:
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed)
    (exported,) = forecast.glob("runs/level/*")
    run(
        ["ragged", "export", str(exported), "--format", "onnx", "--output", "served"],
        forecast,
        environment,
    )
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = scripts("guides/deployment.md")["server.py"]
    assert len(code.splitlines()) <= 45
    (forecast / "server.py").write_text(code.replace("8000", str(port)))
    server = subprocess.Popen(
        ["python", "server.py"], cwd=forecast, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        level = read_forecast(forecast / "level.csv")[-40:].tolist()
        answer = ask(port, {"level": level, "horizon": 10})
        np.testing.assert_allclose(
            answer, read_forecast(forecast / "forecast.csv"), rtol=1e-3, atol=1e-4
        )
        assert len(ask(port, {"level": level[-3:], "horizon": 2})) == 2
    finally:
        server.terminate()
        server.wait()


def ask(port: int, request: dict[str, object]) -> list[float]:
    """Send it, as soon as the server answers."""
    content = json.dumps(request).encode()
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://localhost:{port}", content, timeout=10) as answer:
                return json.load(answer)
        except ConnectionError:
            time.sleep(0.1)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionError):
                raise
            time.sleep(0.1)
    raise AssertionError("the server does not answer")
