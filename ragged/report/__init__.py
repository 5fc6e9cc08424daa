"""The report: one page about a run."""

from __future__ import annotations

from pathlib import Path

from ragged.backend import get_backend
from ragged.evaluation.metrics import format_score
from ragged.io.checkpoint import write_file
from ragged.report.charts import percent
from ragged.report.figures import style
from ragged.report.page import cards, render
from ragged.report.report_data import ReportData
from ragged.report.sections import make_sections
from ragged.report.svg import STYLE
from ragged.runs.folder import Run, read_metrics, read_versions

__all__ = ["write_report"]


def write_report(run: Run) -> Path:
    """Write `report.html` into a run's folder and return its path.

    The page is self-contained: it uses no network and no script. It is reproducible, byte by byte,
    with the same versions of packages.

    Args:
        run: as `open_run` gives it, of the chosen backend.

    Raises:
        CheckpointError: a file of the run that is missing or damaged; it is named.
    """
    # Whatever is missing is told before anything is computed.
    report = ReportData(run, read_metrics(run.folder), read_versions(run.folder))
    with style(**STYLE):
        page = render(
            run.module.config.model,
            f"{'/'.join(run.folder.resolve().parts[-2:])} · "
            f"{type(run.data.source).__name__} · read with {get_backend().name}",
            cards(_cards(report)),
            make_sections(report),
        )
    path = run.folder / "report.html"
    write_file(path, page.encode())
    return path


def _cards(report: ReportData) -> list[tuple[str, str, str]]:
    """Return the main results, with a comparison."""
    evaluation = report.evaluation
    values = []
    for name, target in evaluation.targets.items():
        baseline = target.scores[evaluation.best_baseline(name)]
        scores = target.scores[evaluation.model]
        for measure, value, reference in (
            ("R²", scores.r2, baseline.r2),
            ("RMSE", scores.rmse, baseline.rmse),
        ):
            note = f"best baseline: {format_score(reference)}"
            values.append((format_score(value), f"{measure} of {name}", note))
        if target.coverage is not None:
            share = percent(target.coverage)
            values.append((share, "in the 10..90 % band", "of the truths; made for 80\u00a0%"))
    random, _, as_run = report.padding_costs
    filler = percent(as_run.total_fraction)
    values.append((filler, "filler computed", f"in random order: {percent(random.total_fraction)}"))
    return values
