"""Train on public data sets as they are shipped, with a few lines of YAML, and write what happened.

pip install ".[torch,train,first-try]" && pip install --no-deps sktime
python -m benchmarks.first_try --backend torch --out benchmarks/results

Of sktime only the files are needed, and it allows no pandas as new as ours.
"""

from __future__ import annotations

import argparse
import io
import re
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.first_try_sets import LICENCES, SETS, PublicSet
from benchmarks.report import table

RESULTS = Path(__file__).parent / "results"
HEADS = ("set", "package", "lines", "at the first try", "then", "training", "test", "s")
MAX_LINES = 6


@dataclass(frozen=True)
class Attempt:
    """What a run said: its exit code and its words."""

    code: int
    said: str
    seconds: float

    def sizes(self, split: str) -> str:
        """The rows and the steps of a split."""
        found = re.search(rf"{split}: ([\d,]+ rows?, [\d,]+ steps?)", self.said)
        return found[1] if found else ""


def main() -> None:
    """Try what was asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("torch", "jax"), default="torch")
    parser.add_argument("--model", default="EncoderDecoderLSTM")
    parser.add_argument("--only", default="", help="the sets whose name holds this")
    parser.add_argument("--max_epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="a folder for the table")
    chosen = parser.parse_args()
    options = ["--backend", chosen.backend, f"--trainer.max_epochs={chosen.max_epochs}"]
    options += [
        "--model.init_args.hidden_size=8",
        "--trainer.device=cpu",
        "--data.init_args.batch_size=256",
    ]
    rows = []
    with TemporaryDirectory() as folder:
        for public in SETS:
            if chosen.only in public.name:
                rows.append(try_set(public, Path(folder), chosen.model, options))
                print(" | ".join(map(str, rows[-1])), flush=True)
    text = page(rows, chosen.backend, chosen.model)
    print(text)
    if chosen.out is not None:
        (chosen.out / f"first_try_{chosen.backend}.md").write_text(text)


def try_set(public: PublicSet, folder: Path, model: str, options: Sequence[str]) -> list[Any]:
    """Return the row of the table for a set: what came of the first try, and of the second."""
    path = public.locate()
    if path is None:
        return [
            public.name,
            public.package,
            "",
            "left out: its package is not installed",
            "",
            "",
            "",
            "",
        ]
    lines, settings = yaml_lines(path, public.arguments, model), dict[str, str]()
    first = last = attempt(lines, folder, options)
    for name, value in public.setting.items():
        if last.code and re.search(rf"\b{name}\b", last.said):
            settings[name] = value
            lines = yaml_lines(path, {**public.arguments, **settings}, model)
            last = attempt(lines, folder, options)
    outcome = "trained"
    if first.code:
        refused = first.said[first.said.find("ragged: error:") :].removeprefix("ragged: error: ")
        outcome = f"refused: {refused.splitlines()[0].replace(str(path), path.name)}"
    said = ", ".join(f"`{name}: {value}`" for name, value in settings.items())
    setting = said + (", trained" if settings and not last.code else "")
    sizes = [last.sizes("training"), last.sizes("test")]
    count = f"{len(lines)}{' (too many)' if len(lines) > MAX_LINES else ''}"
    return [public.name, public.package, count, outcome, setting, *sizes, f"{last.seconds:.1f}"]


def yaml_lines(path: Path, arguments: dict[str, Any], model: str) -> list[str]:
    """Return the configuration that a user writes."""
    import yaml

    given = {"path": str(path), **arguments}
    flow = yaml.safe_dump(given, default_flow_style=True, width=10**6, sort_keys=False).strip()
    return [
        f"model: {model}",
        "data.source:",
        "  class_path: Tables",
        f"  init_args: {flow}",
    ]


def attempt(lines: Sequence[str], folder: Path, options: Sequence[str]) -> Attempt:
    """Train, and return what was said."""
    from ragged.cli.main import main as ragged

    config = folder / "first_try.yaml"
    config.write_text("\n".join(lines) + "\n")
    said, start = io.StringIO(), time.perf_counter()
    with redirect_stdout(said), redirect_stderr(said):
        code = ragged(["train", "--config", str(config), "--runs", str(folder / "runs"), *options])
    return Attempt(code, said.getvalue(), time.perf_counter() - start)


def page(rows: Sequence[Sequence[Any]], backend: str, model: str) -> str:
    """Return the table with its heading."""
    trained = sum(row[3] == "trained" for row in rows)
    later = sum(str(row[4]).endswith("trained") for row in rows)
    packages = ", ".join(f"{name} ({licence})" for name, licence in LICENCES.items())
    return (
        f"# Public data sets at the first try, {model} on {backend}\n\n"
        f"Of {len(rows)} sets as they are shipped {trained} trained at the first try, and {later} "
        "with the setting that the refusal named. `lines` are those of the YAML file; `training` "
        "and `test` give their sizes, `s` the seconds of the last run.\n\n"
        f"Packages and their licences: {packages}.\n\n" + table(HEADS, rows) + "\n"
    )


if __name__ == "__main__":
    main()
