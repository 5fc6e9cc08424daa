"""`make test-cuda` and `make bench-cuda`, as far as they can be read without a GPU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from ragged import backend
from ragged.lengths import Lengths
from ragged.recurrent import explain

ROOT = Path(__file__).parents[2]
MOST = 600  # seconds, in all


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("target", ["test-cuda", "bench-cuda"])
def test_a_gpu_is_taken_for_ten_minutes_at_most_with_what_is_installed_there(target):
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    text = done.stdout.replace("\\\n", " ")
    loop = "".join(re.findall(r"for backend in .*?done", text))  # once for each of the two
    limits = [*re.findall(r"timeout (\d+)", text), *re.findall(r"timeout (\d+)", loop)]
    assert 0 < sum(map(int, limits)) <= MOST, limits
    assert "--system-site-packages" in text or (ROOT / ".venv-cuda" / "installed").exists()
    assert ".venv/bin" not in text
    for path in re.findall(r"(?:tests|conformance)/[\w/]+(?:\.py)?", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"-m ((?:tests|benchmarks)\.[\w.]+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_wasted_is_that_of_the_measured_device_and_layer(monkeypatch, device):
    epochs = pytest.importorskip("benchmarks.epochs")
    asked = []

    def implementation(backend, lengths, *call):
        asked.append(call)
        return "padded"

    monkeypatch.setattr(explain, "recurrent_implementation", implementation)
    monkeypatch.setattr(backend, "get_backend", lambda: None)
    side = Lengths([1, 3])
    made = [SimpleNamespace(encoder_lengths=side, decoder_lengths=side)]
    assert epochs.waste(made, device, 64) == {"arrays": 0.5, "computed": 0.5}
    assert {*asked} == {(device, 64)}


def test_a_framework_that_does_not_see_the_gpu_is_told_and_left_out(monkeypatch):
    names = "machine", "suite", "cases", "memory", "report"
    machine, suite, cases, memory, report = (
        pytest.importorskip(f"benchmarks.{name}") for name in names
    )

    def load(name):
        if name == "jax":
            raise ImportError("libcudart.so: not found")
        return SimpleNamespace(devices=lambda: ("cuda", "cpu"))

    monkeypatch.setattr(machine, "load_backend", load)
    seen, reasons = machine.find_frameworks("cuda")
    assert (seen, reasons) == (("torch",), {"jax": "ImportError: libcudart.so: not found"})
    contestants = suite.Suite(cases.CASES[0], "cuda", {}, seen).names()
    assert {name.split()[0] for name in contestants} == {"torch"}
    measured = []
    monkeypatch.setattr(memory, "_in_process", lambda *job: measured.append(job[2]) or {})
    memory.measure("cuda", True, seen)
    assert {name.split()[0] for name in measured} == {"torch"}
    epochs = {"epochs": {"storms": []}, "left out": reasons}
    text = report.markdown({"machine": {}, "seconds": 0, **epochs}, "cuda")
    assert "Without jax: ImportError: libcudart.so: not found." in text
    monkeypatch.setattr(machine, "load_backend", lambda name: load("torch"))
    assert machine.find_frameworks("tpu") == ((), dict.fromkeys((*seen, "jax"), "it sees no tpu"))


class EndedError(Exception):
    """The time limit of a run."""


def test_a_benchmark_that_is_ended_leaves_what_it_measured_and_says_what_is_missing(
    monkeypatch, tmp_path
):
    names = "run", "grid", "plots"
    run, grid, plots = (pytest.importorskip(f"benchmarks.{name}") for name in names)
    cases = iter([{"case": "a", "programs": {}, "points": []}])

    def measure_case(*_):
        for case in cases:
            return case
        raise EndedError

    monkeypatch.setattr(grid, "measure_case", measure_case)
    monkeypatch.setattr(plots, "write", lambda *_: None)
    monkeypatch.setattr(run, "_settle", lambda device: None)
    monkeypatch.setattr("sys.argv", ["run", "--out", str(tmp_path), "--no-keras"])
    with pytest.raises(EndedError):
        run.main()
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert (len(found["grid"]), found["missing"]) == (1, ["grid", "memory", "epochs"])
    assert "not all of grid, memory, epochs is here" in (tmp_path / "cpu.md").read_text()
