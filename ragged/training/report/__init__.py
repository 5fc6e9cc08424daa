"""The report: one page with everything there is to see of a run."""

from __future__ import annotations

from pathlib import Path

from ragged.backend import get_backend
from ragged.checkpoint import write_file
from ragged.training.figures import style
from ragged.training.report.drawing import percent
from ragged.training.report.material import Material
from ragged.training.report.page import cards, render
from ragged.training.report.sections import make_sections
from ragged.training.report.svg import STYLE
from ragged.training.runs import Run

__all__ = ["write_report"]


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's folder and return its path.

    The page needs nothing but itself: no network, no script. The same run read by the same
    packages gives the same bytes.

    Args:
        run: as `open_run` gives it, of the chosen backend.

    Raises:
        CheckpointError: a file of the run that is missing or damaged; it is named.
    """
    material = Material(run)
    with style(**STYLE):
        page = render(
            type(run.module.config).__name__,
            f"{'/'.join(run.folder.resolve().parts[-2:])} · "
            f"{type(run.data.source).__name__} · read with {get_backend().name}",
            cards(_cards(material)),
            make_sections(material),
        )
    path = run.folder / "report.html"
    write_file(path, page.encode())
    return path


def _cards(material: Material) -> list[tuple[str, str, str]]:
    """What matters most, with what to compare it with."""
    evaluation = material.evaluation
    found = []
    for name, target in evaluation.targets.items():
        best = evaluation.best_baseline(name)
        own, other = target.scores[evaluation.model], target.scores[best]
        found.append((f"{own.r2:.3f}", f"R² of {name}", f"best baseline: {other.r2:.3f}"))
        if target.coverage is not None:
            share = percent(target.coverage)
            found.append((share, "in the 10..90 % band", "of the truths; made for 80\u00a0%"))
    random, _, scheduled = material.work
    filler = (percent(scheduled.total_waste), "filler computed")
    found.append((*filler, f"in random order: {percent(random.total_waste)}"))
    seconds = sum(record["seconds"] for record in material.metrics)
    tokens = sum(r["tokens_per_second"] * r["seconds"] for r in material.metrics)
    speed = f"{tokens / seconds:,.0f}" if seconds else "-"
    found.append((speed, "tokens per second", f"{len(material.metrics)} epochs, {seconds:.0f} s"))
    return found
