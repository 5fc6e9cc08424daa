"""The scripts of the pages, each copied and run in a fresh environment, in an empty folder."""

import json
import re
import socket
import subprocess
import textwrap
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from ragged.cli.main import main
from tests.docs import environments

DOCS = Path(__file__).parents[2] / "docs"
SCRIPT = re.compile(r'^( *)```\w+ title="(.+?)"\n(.*?)^\1```', re.MULTILINE | re.DOTALL)


def scripts(page: str) -> dict[str, str]:
    """The scripts of a page by their titles."""
    found = SCRIPT.findall((DOCS / page).read_text())
    return {name: textwrap.dedent(code) for _, name, code in found}


START = scripts("index.md")
EXTRAS = {"torch_layer.py": "torch", "flax_layer.py": "jax", "forecast.sh": "torch,train"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> str:
    pytest.importorskip("hatchling")
    return environments.build_wheel(tmp_path_factory.mktemp("wheel"))


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_script(name: str, folder: Path, wheel: str) -> str:
    """Copy a script of the start page, and run it where only its extras are installed."""
    for framework in {"torch", "flax"} & {*name.split("_"), *EXTRAS[name].split(",")}:
        pytest.importorskip(framework)
    package = f"ragged-sequences[{EXTRAS[name]}] @ {wheel}"
    environment = environments.create(folder / "environment", package)
    (folder / name).write_text(START[name])
    command = ["python"] if name.endswith(".py") else ["bash", "-eu"]
    return run([*command, name], folder, environment)


def test_the_start_page_names_the_extras_of_its_scripts() -> None:
    assert list(START) == list(EXTRAS)
    page = (DOCS / "index.md").read_text() + (DOCS.parent / "README.md").read_text()
    assert all(f'".[{extras}]"' in page for extras in EXTRAS.values())


@pytest.mark.parametrize("name", ["torch_layer.py", "flax_layer.py"])
def test_a_layer_in_a_module_of_ones_own(name, tmp_path, wheel) -> None:
    said = re.findall(r"^print\(.*\)  # (.*)$", START[name], re.MULTILINE)
    assert run_script(name, tmp_path, wheel).splitlines() == said == ["True"]


@pytest.fixture(scope="module")
def forecast(tmp_path_factory, wheel) -> Path:
    """The folder in which the start page's third script has run."""
    pytest.importorskip("jsonargparse")
    folder = tmp_path_factory.mktemp("forecast")
    run_script("forecast.sh", folder, wheel)
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


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_the_server_gives_the_forecast_of_predict(forecast, tmp_path, monkeypatch) -> None:
    for needed in ("onnxruntime", "onnxscript"):
        pytest.importorskip(needed)
    monkeypatch.chdir(forecast)
    (exported,) = Path().glob("runs/level/*")
    options = ["--format", "onnx", "--output", str(tmp_path / "served")]
    assert main(["export", str(exported), *options]) == 0
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = scripts("guides/deployment.md")["server.py"]
    assert len(code.splitlines()) <= 45
    (tmp_path / "server.py").write_text(code.replace("8000", str(port)))
    environment = environments.create(tmp_path / "environment", "onnxruntime", "numpy")
    server = subprocess.Popen(
        ["python", "server.py"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL
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
