"""The conformance suite as a product: third parties, partial backends, limits and the report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("jsonargparse")

from ragged_conformance import command, programs
from ragged_conformance.report import Record, lines, merge, render, summarize

from ragged.cli.main import main

THIRD_PARTY = Path(__file__).parents[1] / "third_party"
LACKING = (  # sorted
    "Recurrent, TrainingStep, attend, attention_reasons, create_model, export_formats, "
    "export_model, get_parameters, init_process_group, load_exported, predict, "
    "recurrent_reasons, set_parameters, to"
)

# The rest imports a framework, to find that there is nothing to run, or says the same again.
OF_NUMPY = "not metamorphic and not torch and not jax and not flax"


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a module with the third party's backend installed, from somewhere else."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(THIRD_PARTY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def suite(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a part of the suite on the third party's backend."""
    options = ("--backend", "numpy", "-p", "no:cacheprovider", *arguments)
    return run("pytest", "--pyargs", *options, cwd=cwd, **environment)


def test_a_third_partys_backend_passes_what_it_claims_and_hears_what_it_lacks(tmp_path):
    done = run(
        "ragged", "conformance", "--backend=numpy", "--dtype=float64", "--report=report",
        cwd=tmp_path, PYTEST_ADDOPTS=f"-k '{OF_NUMPY}'",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"backend 'numpy' lacks {LACKING}\n" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (described,) = report["runs"]
    assert described["backends"]["numpy"]["lacks"] == LACKING.split(", ")
    assert described["tests"]["failed"] == 0
    proved = {row["operation"]: row for row in report["operations"] if row["backend"] == "numpy"}
    for operation in ("lstm", "gru", "rnn", "pack_sequences", "align_sequences", "losses.mse"):
        assert proved[operation]["passed"] > 0, operation
    assert 0 < proved["lstm"]["largest_error"] <= 1
    assert proved["LSTM"]["passed"] == 0
    assert proved["LSTM"]["skipped"] > 0
    reasons = {row["reason"] for row in report["skipped"]}
    assert "backend 'numpy' lacks `Recurrent`; expected it in its module. Add it." in reasons
    assert "the conformance adapter of 'numpy' has no `differentiate`" in reasons
    page = (tmp_path / "report" / "report.html").read_text()
    assert "all green" in page
    assert LACKING in page


def test_a_partial_backend_cannot_be_chosen(tmp_path):
    code = "import ragged; ragged.set_backend('numpy')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(THIRD_PARTY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"BackendError: set_backend(): backend 'numpy' lacks {LACKING}; exp" in done.stderr


def test_a_backend_is_found_by_its_import_path(tmp_path):
    done = suite("ragged_conformance.test_masks", "--backend", "numpy_backend", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "backend 'numpy_backend' lacks" in done.stdout


def test_a_fault_turns_the_suite_red_and_says_how_to_see_it_again(tmp_path):
    fault = {"NUMPY_BACKEND_OFF_BY": "1"}
    tests = "ragged_conformance.test_recurrent_function"
    done = suite(
        tests, "--report", "report", "-k", "mixed", "--dtype=float64", cwd=tmp_path, **fault
    )
    assert done.returncode == 1, done.stdout + done.stderr
    failure = json.loads((tmp_path / "report" / "report.json").read_text())["failures"][0]
    assert "the largest error is" in failure["reason"]
    assert failure["reproduce"] in done.stdout
    assert "red" in (tmp_path / "report" / "report.html").read_text()
    again = failure["reproduce"].replace("python -m", f"{sys.executable} -m")
    environment = {**os.environ, "PYTHONPATH": str(THIRD_PARTY)}
    for broken, code in ((fault, 1), ({}, 0)):
        repeated = subprocess.run(
            again, shell=True, cwd=tmp_path, env={**environment, **broken}, check=False
        )
        assert repeated.returncode == code


@pytest.mark.parametrize(("test", "code"), [("unknown_alignment*", 1), ("no_such_test*", 0)])
def test_a_limit_that_no_longer_fails_is_an_error(tmp_path, test, code):
    done = suite(
        "ragged_conformance.test_masks", "-c", os.devnull, cwd=tmp_path,
        NUMPY_BACKEND_LIMITS=f"test_masks.py::test_{test}",
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert ("[XPASS(strict)] not written yet https://example.org/1" in done.stdout) == bool(code)


def test_a_limit_that_holds_is_no_failure(tmp_path):
    done = suite(
        "ragged_conformance.test_recurrent_function", "-k", "mixed", "--report", "report",
        cwd=tmp_path, NUMPY_BACKEND_OFF_BY="1",
        NUMPY_BACKEND_LIMITS="test_recurrent_function.py::*",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["failures"] == []
    assert report["known_limits"][0]["reason"] == "not written yet https://example.org/1"


def test_pytest_sees_nothing_of_the_suite_unless_asked(tmp_path):
    (tmp_path / "test_other.py").write_text("def test_other(request):\n    assert True\n")
    done = run("pytest", "--backend", "jax", "test_other.py", cwd=tmp_path)
    assert "unrecognized arguments: --backend" in done.stderr
    code = "import sys, ragged_conformance.entry; print(sorted(set(sys.modules) & {'numpy'}))"
    quiet = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert quiet.stdout == "[]\n"


def test_unknown_dtypes_and_devices_are_refused(capsys):
    assert main(["conformance", "--dtype", "int8"]) == 2
    assert "conformance(): `dtype` is 'int8'; expected one of ('float64'" in capsys.readouterr().err
    assert main(["conformance", "--device", "abacus"]) == 2
    assert "`device` is 'abacus'; expected one of ('cpu', 'cuda')" in capsys.readouterr().err


def test_every_dtype_has_its_own_process():
    assert command._runs("jax", ("float64", "float32")) == [
        ["--backend", "jax", "--dtype", "float64"],
        ["--backend", "jax", "--dtype", "float32"],
    ]


def test_a_report_escapes_what_it_shows_and_joins_its_runs():
    where = {"dtype": "float32", "device": "cpu", "backends": {}}
    records = [
        Record("a", ("lstm",), "jax", "passed", error=0.5),
        Record("b", ("lstm",), "jax", "failed", "<script>", 2.0, "python"),
        Record("c", ("LSTM",), "torch", "skipped", "no reason"),
    ]
    joined = merge([summarize(where, records), summarize(where, [])])
    assert [row["largest_error"] for row in joined["operations"]] == [None, 2.0]
    page = render(joined)
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "1 passed, 1 failed, 1 skipped" in page


def test_a_report_shows_what_became_of_each_transformation():
    where = {"dtype": "float32", "device": "cpu", "backends": {}}
    outcomes = [("passed", "equal"), ("passed", "refused: DerivativeError"), ("failed", "")]
    records = [
        Record("t", ("LSTM",), "torch", outcome, transformation=("func.grad", f"LSTM {i}", said))
        for i, (outcome, said) in enumerate(outcomes)
    ]
    report = merge([summarize(where, [*records, Record("a", ("lstm",), "torch", "passed")])])
    page, text = render(report), "\n".join(lines(report))
    assert (
        "<td>func.grad</td><td>equal</td><td>refused: DerivativeError</td><td>failed</td>" in page
    )
    assert "LSTM 0: equal, LSTM 1: refused: DerivativeError, LSTM 2: failed" in text


def test_programs_are_forgotten_before_a_process_can_map_no_more(tmp_path, monkeypatch):
    forgotten: list[str] = []
    jax = SimpleNamespace(clear_caches=lambda: forgotten.append("programs"))
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(programs, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(programs, "LIMIT", tmp_path / "limit")
    (tmp_path / "limit").write_text("20\n")
    for taken, expected in ((10, []), (11, ["programs"])):
        (tmp_path / "maps").write_text("7f00-7f01 r-xp\n" * taken)
        for _ in range(programs.TESTS_BETWEEN):
            programs.forget_if_crowded()
        assert forgotten == expected
