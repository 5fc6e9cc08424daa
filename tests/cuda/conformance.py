"""Parts of the conformance suite on what stands in for a GPU: `python -m tests.cuda.conformance`.

Writes one report that lists the CPU, the pretended device, and CUDA kernels on threads of the host.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ragged_conformance import report

ROOT = Path(__file__).parents[2]
SUITE = "conformance/ragged_conformance"
LAYERS = "not (compile or EncoderDecoder or Attention or Transformer or XTFT)"
CHOSEN = f"(oracle or alone or rows or cannot_speak or form_of_lengths) and {LAYERS}"
HOST_THREADS = "cpu: CUDA kernels on host threads"


class Run(NamedTuple):
    """One run of a part of the suite.

    Args:
        module: what is run: pytest, or `tests.cuda`, which loads the pretended device first.
        tests: files of the suite.
        options: of pytest.
    """

    module: str
    tests: tuple[str, ...]
    options: tuple[str, ...]


RUNS = {
    "cpu": Run("pytest", ("recurrent", "jagged"), ()),
    "cuda: a pretended device": Run(
        "tests.cuda", ("promises", "recurrent"), ("-k", CHOSEN, "--device", "cuda")
    ),
    HOST_THREADS: Run(
        "pytest",
        ("recurrent", "jagged"),
        ("-p", "tests.kernels.played_suite", "--device-name", HOST_THREADS, "-k", "not many_rows"),
    ),
}


def run(device: str) -> tuple[dict[str, Any], str]:
    """Run a part of the suite on a device by its name there: the report, and the output."""
    module, tests, options = RUNS[device]
    files = [f"{SUITE}/test_{each}.py" for each in tests]
    plain = ["--backend", "torch", "-p", "no:cacheprovider", "-p", "no:xdist"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, *files, *plain, *options, "--report", folder],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        written = Path(folder) / "report.json"
        assert written.exists(), done.stdout + done.stderr
        return json.loads(written.read_text()), done.stdout + done.stderr


if __name__ == "__main__":
    made = report.merge([run(device)[0] for device in RUNS])
    report.write(Path(sys.argv[1]), made)
    print("\n".join(report.lines(made)))
    sys.exit(bool(made["failures"]))
