"""What imports what: no framework by accident, the layers, and one framework alone."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import ragged

ROOT = Path(ragged.__file__).resolve().parents[1]
FRAMEWORKS = {
    "torch": {"torch"},
    "jax": {"jax", "jaxlib", "flax", "optax"},
}
EVERY = {"torch", "torch._dynamo", "jax", "jaxlib", "flax", "optax", "ragged_torch", "ragged_jax"}
FRAMEWORKS_OF = {"ragged_torch": "torch", "ragged_jax": "flax"}
NOT_IMPORTED = {"ragged.__main__", "ragged_conformance.plugin"}  # they run something
IN_CHECKOUT = (ROOT / "backends").is_dir()
needs_checkout = pytest.mark.skipif(not IN_CHECKOUT, reason="reads the source tree")

# Makes the named packages as unimportable, and as unfindable, as if they were not installed.
BLOCKER = """
import importlib.machinery, sys
blocked = {blocked!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
        return None
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *, timeout: int = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    env.pop("RAGGED_BACKEND", None)
    return subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env={**env, **environment},
        check=False,
    )


def loaded_by(statement: str) -> set[str]:
    """The frameworks and backends that a fresh interpreter has loaded after a statement."""
    done = run(f"{statement}\nimport sys\nprint(*sorted(set(sys.modules) & {EVERY!r}))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def without(framework: str, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(BLOCKER.format(blocked=FRAMEWORKS[framework]) + code, **environment)


@pytest.mark.parametrize(
    ("statements", "needed"),
    [
        ("import ragged; ragged.Lengths([1, 2]); ragged.available_backends()", "numpy"),
        (
            "import ragged.data, ragged.models, ragged.training, ragged.io.checkpoint\n"
            "import ragged.cli.main; ragged.cli.main.create_parser()",
            "jsonargparse",
        ),
    ],
)
def test_ragged_loads_no_framework(statements, needed):
    pytest.importorskip(needed)
    assert loaded_by(statements) == set()


def test_jax_does_not_load_torch():
    pytest.importorskip("flax")
    loaded = loaded_by("import ragged_jax")
    assert {"jax", "ragged_jax"} <= loaded
    assert loaded.isdisjoint({*FRAMEWORKS["torch"], "ragged_torch"})


def test_a_call_on_torch_loads_neither_its_compiler_nor_jax():
    pytest.importorskip("torch")
    loaded = loaded_by(
        "import torch, ragged\n"
        "packed = ragged.pack_sequences(torch.ones(2, 3, 2), [3, 1])\n"
        "with ragged.use_backend('torch'): ragged.LSTM(2, 2)(torch.ones(2, 3, 2), [3, 1])\n"
        "ragged.unpack_to_fixed_length(packed, [3, 1], 3)"
    )
    assert loaded == {"torch", "ragged_torch"}


@needs_checkout
def test_the_contracts_on_imports_can_fail(tmp_path):
    pytest.importorskip("importlinter")
    settings = (ROOT / "pyproject.toml").read_text()
    broken = settings.replace('  "ragged.errors",\n]', "]").replace(
        '  "ragged.__main__",', '  "ragged.errors",\n  "ragged.__main__",'
    )
    assert broken != settings
    (tmp_path / "pyproject.toml").write_text(broken)
    for folder, status in ((ROOT, 0), (tmp_path, 1)):
        done = subprocess.run(
            [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()",
             "--no-cache", "--config", str(folder / "pyproject.toml")],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr


@needs_checkout
def test_the_checkout_leaks_no_tests_or_backends_folder(tmp_path):
    code = (
        "import importlib.util as u, sys\n"
        "sys.path = [p for p in sys.path if p]\n"
        "print([n for n in ('tests', 'backends', 'conformance', 'benchmarks') if u.find_spec(n)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.strip() == "[]"


# A sample of the suite: each loss is the same code of `ragged`, and compiles programs of its own,
# as each size of a layer does. Figures know no framework, and are most of a tiny run's time.
ALONE = """
import sys, tempfile
import ragged
assert ragged.available_backends() == ({name!r},), ragged.available_backends()
assert ragged.get_backend().name == {name!r}
from ragged.cli.main import main
from ragged.report import figures
assert figures.save_loss_curves and figures.save_forecasts
figures.save_loss_curves = figures.save_forecasts = lambda *given: None
assert main([
    "train", "--config", "magnet", "--backend", {name!r}, "--runs", tempfile.mkdtemp(),
    "--data.source.init_args.cycles", "6", "--data.source.init_args.max_steps", "40",
    "--model.init_args.hidden_size", "4", "--model.init_args.num_layers", "1",
    "--trainer.max_epochs", "1", "--trainer.device", "cpu",
]) == 0
import pytest
found = pytest.main([
    "conformance/ragged_conformance/test_recurrent.py",
    "conformance/ragged_conformance/test_losses.py",
    "-x", "-p", "no:cacheprovider", "-k",
    "test_state_is_zero and one or test_width_zero or mse and (nothing_valid or add_up)",
])
assert not {other!r} & set(sys.modules)
raise SystemExit(found)
"""


@needs_checkout
@pytest.mark.parametrize(("name", "other"), [("torch", "jax"), ("jax", "torch")])
def test_one_framework_alone_is_the_default_trains_and_passes_the_suite(name, other):
    pytest.importorskip("torch" if name == "torch" else "flax")
    pytest.importorskip("jsonargparse")
    code = ALONE.format(name=name, other=FRAMEWORKS[other])
    done = without(other, code, PYTHONPATH=str(ROOT / "conformance"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test events" in done.stdout
    assert re.search("[1-9][0-9]* passed", done.stdout)
    assert "failed" not in done.stdout


@pytest.mark.parametrize(("name", "other"), [("torch", "jax"), ("jax", "torch")])
def test_a_missing_framework_is_refused_with_the_remedy(name, other):
    code = f"import ragged\nragged.set_backend({other!r})"
    done = without(other, code)
    assert done.returncode == 1
    assert f"`name` is {other!r}" in done.stderr
    assert f"pip install 'ragged-sequences[{other}]'" in done.stderr


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    """`ragged.a.b` is the module where there is one: an attribute, an import and a mock agree."""
    hidden = []
    for name in ("ragged", "ragged_torch", "ragged_jax", "ragged_conformance"):
        if name in FRAMEWORKS_OF:
            pytest.importorskip(FRAMEWORKS_OF[name])
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if module.name in NOT_IMPORTED or ".test_" in module.name:
                continue
            importlib.import_module(module.name)
            above, _, own = module.name.rpartition(".")
            if not isinstance(getattr(importlib.import_module(above), own), types.ModuleType):
                hidden += [module.name]
    assert not hidden


@pytest.mark.parametrize(
    "folder",
    ["ragged", "backends/ragged_torch", "backends/ragged_jax", "conformance/ragged_conformance"],
)
@needs_checkout
def test_each_package_says_that_it_is_typed(folder: str) -> None:
    assert (ROOT / folder / "py.typed").is_file()


@needs_checkout
def test_the_version_is_written_once() -> None:
    said = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert said
    assert said.group(1) == ragged.__version__
    assert not re.search(r"^version *=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
