"""The sections of the report: charts of a run, with text and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragged.evaluation.evaluate import label
from ragged.evaluation.metrics import calibration_lines
from ragged.report import charts
from ragged.report.charts import percent
from ragged.report.configuration import configuration_facts
from ragged.report.errors import ErrorsBy, errors_by_length, errors_by_step
from ragged.report.explanations import attention_of, coarsen, mean_selection
from ragged.report.figures import Axes, Panel, make_panels
from ragged.report.page import (
    Columns,
    Section,
    details,
    facts,
    heading,
    paragraph,
    plot,
    side_by_side,
    table,
)
from ragged.report.report_data import ReportData
from ragged.runs.versions import describe_environment

NO_TEST = paragraph("There is no test row with a known truth.")


def make_sections(report: ReportData) -> list[Section]:
    """All sections, in the order of the page."""
    makers: tuple[Callable[[ReportData], Section], ...] = (
        _scores, _forecasts, _errors, _explanation, _training, _padding, _lengths, _configuration,
    )  # fmt: skip
    return [make(report) for make in makers]


def _scores(report: ReportData) -> Section:
    evaluation, parts = report.evaluation, []
    for target in evaluation.targets.values():
        ranked = target.best_first()
        names = [name for name, _ in ranked]
        columns: Columns = {
            "forecast": names,
            "R²": [score.r2 for _, score in ranked],
            "RMSE": [score.rmse for _, score in ranked],
            "MAE": [score.mae for _, score in ranked],
        }
        parts.append(table(columns, names.index(evaluation.model), target.label))
        parts += [paragraph(line[0].upper() + line[1:] + ".") for line in calibration_lines(target)]
    summary = (
        f"{len(evaluation.rows)} test rows, all forecasts on the same steps and in the target's "
        "unit; the baselines are fitted on the rows before them."
    )
    return Section("Scores", parts or [NO_TEST], summary)


def _forecasts(report: ReportData) -> Section:
    parts: list[str] = []
    for index, target in enumerate(report.evaluation.targets):
        panels, axes = make_panels(report.run.data, report.evaluation, target)
        parts += _heading(report, axes.target)
        plots = [
            shown
            for rank, panel in zip(report.evaluation.examples(target), panels, strict=True)
            for shown in _panel_plots(panel, axes, f"{index + 1}-{rank}")
        ]
        parts.append(side_by_side(*plots))
    summary = "The best, the median and the worst test row, by RMSE."
    return Section("Forecasts", parts or [NO_TEST], summary)


def _panel_plots(panel: Panel, axes: Axes, name: str) -> list[str]:
    """A row over time, and its loop where there is a driver."""
    columns = _panel_columns(panel)
    text = f"{axes.target}: truth and forecast over {axes.time}."
    over_time = charts.forecast(panel, axes)
    plots = [plot(over_time, f"forecast-{name}", panel.title, text, columns, panel.title)]
    if axes.driver is not None:
        del columns["time"]
        text = f"{axes.target}: truth and forecast over {axes.driver}."
        title = f"{panel.title}, over {axes.driver}"
        over_driver = charts.loop(panel, axes)
        plots.append(
            plot(over_driver, f"loop-{name}", title, text, columns, "The same, as a loop.")
        )
    return plots


def _panel_columns(panel: Panel) -> dict[str, Sequence[Any]]:
    """The numbers of a panel, empty cells where there is no forecast."""
    empty = [""] * panel.context
    times = panel.time.tolist() if panel.time.dtype.kind == "f" else panel.time.astype(str).tolist()
    columns: dict[str, Sequence[Any]] = {"time": times}
    if panel.driver is not None:
        columns["driver"] = panel.driver.tolist()
    columns["truth"] = panel.truth.tolist()
    columns["forecast"] = [*empty, *panel.forecast.tolist()]
    if panel.band is not None:
        columns["q0.1"], columns["q0.9"] = ([*empty, *edge.tolist()] for edge in panel.band)
    return columns


def _errors(report: ReportData) -> Section:
    evaluation, parts = report.evaluation, []
    for index, target in enumerate(evaluation.targets):
        truths = [row.truth(target) for row in evaluation.rows]
        points = {evaluation.model: [forecast.point[:, index] for forecast in evaluation.forecasts]}
        for name in (evaluation.best_baseline(target), "persistence"):
            points[name] = evaluation.baselines[target][name]
        name, axis = label(report.run.data, target), _axis(report, target)
        by_step, by_length = (group(truths, points) for group in (errors_by_step, errors_by_length))
        step_plot = plot(
            charts.error_by_step(by_step, axis),
            f"error-by-step-{index + 1}",
            f"RMSE of {name} by horizon step",
            _described(by_step, "steps ahead"),
            _error_columns(by_step, "step"),
            "How far ahead the step is; below, how many truths each value rests on.",
        )
        length_plot = plot(
            charts.error_by_length(by_length, axis),
            f"error-by-length-{index + 1}",
            f"RMSE of {name} by length of the horizon",
            _described(by_length, "steps long"),
            _error_columns(by_length, "length"),
            "Rows in groups of similar length, about as many in each.",
        )
        parts += [*_heading(report, name), side_by_side(step_plot, length_plot)]
    return Section("Where the errors are", parts or [NO_TEST])


def _axis(report: ReportData, target: str) -> str:
    unit = report.run.data.source.units.get(target)
    return f"RMSE [{unit}]" if unit else "RMSE"


def _heading(report: ReportData, name: str) -> list[str]:
    """The name of a target, where there are several."""
    return [heading(name)] if len(report.evaluation.targets) > 1 else []


def _described(errors: ErrorsBy, unit: str) -> str:
    ends = (
        f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, values in errors.rmse.items()
    )
    return f"From {errors.first[0]} to {errors.last[-1]} {unit}: {'; '.join(ends)}."


def _error_columns(errors: ErrorsBy, key: str) -> Columns:
    names = {f"RMSE of {name}": values.tolist() for name, values in errors.rmse.items()}
    counts = errors.counts.tolist()
    return {f"first {key}": errors.first.tolist(), f"last {key}": errors.last.tolist(),
            "truths": counts, **names}  # fmt: skip


def _explanation(report: ReportData) -> Section:
    parts = [*_selection(report), *_attention(report)]
    nothing = paragraph("This model has no attention and selects no variables.")
    return Section("What the forecasts come from", parts or [nothing])


def _selection(report: ReportData) -> list[str]:
    run, rows = report.run, report.evaluation.rows
    selections = mean_selection(run.module, rows, run.data.roles, **report.batch_options)
    if not selections:
        return []
    plots = [
        plot(
            charts.selection(side, weights),
            f"variable-selection-{side.replace(' ', '-')}",
            f"Variable selection, {side}",
            ", ".join(f"{name} {percent(value)}" for name, value in weights.items()) + ".",
            {"variable": list(weights), "mean weight": list(weights.values())},
        )
        for side, weights in selections.items()
    ]
    text = (
        "How much of each variable the model lets in: the mean weight over all valid steps of "
        "the test rows."
    )
    return [paragraph(text), side_by_side(*plots)]


def _attention(report: ReportData) -> list[str]:
    evaluation = report.evaluation
    targets = list(evaluation.targets)
    examples = evaluation.examples(targets[0]) if targets else {}
    rows = [evaluation.rows[index] for index, _ in examples.values()]
    plots = []
    attentions = attention_of(report.run.module, rows, **report.batch_options)
    for rank, attention in zip(examples, attentions, strict=False):
        weights, factor = coarsen(attention, charts.CELLS)
        first = [1 + factor * index for index in range(max(weights.shape))]
        keys = map(str, first[: weights.shape[1]])
        plots.append(
            plot(
                charts.attention(attention, f"{rank} row"),
                f"attention-{rank}",
                f"Attention of the {rank} test row",
                f"{weights.shape[0]} by {weights.shape[1]} weights; the first {attention.context} "
                f"of {attention.weights.shape[1]} steps looked at are context.",
                {
                    "horizon step": first[: len(weights)],
                    **dict(zip(keys, weights.T.tolist(), strict=True)),
                },
            )
        )
    text = (
        "Attention, the mean over the heads, cut at the rows' true lengths: what a step of the "
        "horizon looks at, a stronger colour for more. Left of the dotted line is the context."
    )
    return [paragraph(text), side_by_side(*plots, narrow=True)] if plots else []


def _training(report: ReportData) -> Section:
    records, best = report.metrics, report.run.epoch
    values = [record["validation_loss"] for record in records]
    seconds = sum(record["seconds"] for record in records)
    speeds = [record["tokens_per_second"] for record in records]
    columns = {key: [record[key] for record in records] for key in records[0]} if records else {}
    parts = [
        side_by_side(
            plot(
                charts.losses(records, best, report.loss),
                "losses",
                "Losses over the epochs",
                f"The validation loss goes from {values[0]:.3g} to {values[-1]:.3g}; epoch {best} "
                "is kept.",
                columns,
                f"The mean over {report.averaged_over}; training with dropout, validation without.",
            ),
            plot(
                charts.throughput(records),
                "throughput",
                "Tokens a second over the epochs",
                f"From {min(speeds):,.0f} to {max(speeds):,.0f} tokens a second.",
                {key: columns[key] for key in ("epoch", "seconds", "tokens_per_second")},
                "Valid steps trained on, encoder and decoder, a second; padding does not count.",
            ),
        )
    ]
    summary = f"{len(records)} epochs in {seconds:.0f} s; epoch {best} is the one that was kept."
    return Section("Training", parts, summary)


def _padding(report: ReportData) -> Section:
    costs = report.padding_costs
    numbers: dict[str, Sequence[Any]] = {"batch": range(1, len(costs[0].tokens) + 1)}
    for cost in costs:
        numbers[cost.name] = np.sort(cost.padding_fraction)[::-1].tolist()
    columns: Columns = {
        "batches": [cost.name for cost in costs],
        "steps computed": [int(cost.computed.sum()) for cost in costs],
        "valid": [int(cost.tokens.sum()) for cost in costs],
        "filler": [f"{100 * cost.total_fraction:.1f} %" for cost in costs],
    }
    figure = plot(
        charts.padding(costs),
        "padding",
        "Filler in each batch of an epoch",
        "; ".join(f"{c.name}: {percent(c.total_fraction)} filler" for c in costs) + ".",
        numbers,
    )
    parts = [side_by_side(figure), table(columns)]
    summary = (
        "How much of what the LSTMs of an epoch compute is filler: in batches as they come, in "
        "the buckets that training used, and as the backend's LSTMs run them."
    )
    return Section("Padding", parts, summary)


def _lengths(report: ReportData) -> Section:
    data = report.run.data
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    splits = {name: rows for name, rows in splits.items() if len(rows)}
    sides, bins = {}, {}
    for index, side in enumerate(("context (encoder)", "horizon (decoder)")):
        longest = max(int(rows.lengths[:, index].max()) for rows in splits.values())
        bins[side] = np.unique(np.linspace(0, longest + 1, 41).round())
        sides[side] = {
            name: np.histogram(rows.lengths[:, index], bins[side])[0]
            for name, rows in splits.items()
        }
    plots = [
        plot(
            charts.lengths(side, counts, bins[side]),
            f"lengths-{side.split()[0]}",
            f"Histogram of lengths, {side}",
            "How many rows of each split have which length.",
            {
                "from": bins[side][:-1].astype(int).tolist(),
                "to": (bins[side][1:] - 1).astype(int).tolist(),
                **{name: counts[name].tolist() for name in splits},
            },
        )
        for side, counts in sides.items()
    ]
    columns: Columns = {
        "rows": list(splits),
        "how many": [len(rows) for rows in splits.values()],
        "valid steps": [rows.tokens for rows in splits.values()],
        "shortest": [int(rows.lengths.sum(axis=1).min()) for rows in splits.values()],
        "median": [int(np.median(rows.lengths.sum(axis=1))) for rows in splits.values()],
        "longest": [int(rows.lengths.sum(axis=1).max()) for rows in splits.values()],
    }
    parts = [side_by_side(*plots), table(columns)]
    return Section("Lengths", parts, "Context and horizon of the rows of each split, in steps.")


def _configuration(report: ReportData) -> Section:
    run = report.run
    trained, here = report.versions, describe_environment(report.device)
    names = list(dict.fromkeys([*trained, *here]))
    versions: Columns = {
        "": names,
        "trained with": [str(trained.get(name, "-")) for name in names],
        "read with": [here.get(name, "-") for name in names],
    }
    yaml = (run.folder / "config.yaml").read_text()
    return Section(
        "Configuration",
        [
            facts(configuration_facts(report)),
            table(versions, text=True),
            details("config.yaml", yaml),
        ],
    )
