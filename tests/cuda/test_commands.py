"""`make test-cuda` and `make bench-cuda`, as far as they can be read without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

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
