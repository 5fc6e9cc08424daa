"""Faults in what both backends share of a run, which tests beside the conformance suite see."""

from __future__ import annotations

from tests.mutants.mutant import fault

EPOCHS, BOOKS, SCORES = (
    "data/test_epochs.py",
    "training/test_bookkeeping.py",
    "evaluation/test_metrics.py",
)
CONVERT = "recurrent/test_convert.py::test"
HORIZONS = "forecasting/test_horizons.py::test"
MODULE = "ragged.data.module:EncoderDecoderDataModule"
FIT = "ragged.training.loop:TrainLoop"
BASELINES = "baselines_know_training_and_validation_and_are_scored_on_the_test"
PLATEAU = "ragged.training.lr_schedules:ReduceLROnPlateau.multiplier"
DIVERGED = f"{BOOKS}::test_divergence_lists_the_rows_of_its_step_and_no_filling_ones"
STEPS = f"{BOOKS}::test_every_row_is_in_one_step_of_each_epoch_and_the_last_one_may_be_smaller"
PADDING = "report/test_report_padding.py::test_padding_is_counted_three_ways[torch]"

FAULTS = (
    fault(
        "quantiles left to cross",
        "ragged.models.quantiles:sort_quantiles",
        "(sort or xp.sort)(by_target)",
        "by_target",
        "models/test_quantiles.py::test_quantiles_never_cross_and_their_loss_never_grows",
    ),
    fault(
        "the row that is forecast left out of the calibration's count",
        "ragged.evaluation.calibration:rank",
        "(count + 1)",
        "count",
        "evaluation/test_calibration.py::test_a_new_row_is_inside_as_often_as_is_promised",
    ),
    fault(
        "a season begins one step late",
        "ragged.evaluation.baselines:_seasonal_naive",
        "np.arange(steps) % season",
        "(np.arange(steps) + 1) % season",
        f"{SCORES}::test_a_rows_own_past_is_forecast_without_a_driver",
    ),
    fault(
        "storms split in time as stocks are",
        "ragged.data.layout:run_in_parallel",
        "sum(spans) > PARALLEL *",
        "sum(spans) > 0 *",
        "data/test_layout.py::test_series_that_run_at_the_same_time_are_split_in_time",
    ),
    fault(
        "last cut between buckets left out",
        "ragged.data.buckets:cheapest_cuts",
        "int(np.argmin(totals)) + 1",
        "1",
        "data/test_buckets.py::test_cuts_between_buckets_are_the_best_there_are",
    ),
    fault(
        "an export says that the logarithm is the decimal one",
        "ragged.data.normalization:Normalization.formulas",
        "t.formula for chain",
        't.formula.replace("ln", "log10") for chain',
        "data/test_transforms.py::test_the_formulas_of_an_export_are_what_is_computed[[Log()]]",
    ),
    fault(
        "all targets of a row jittered alike",
        f"{MODULE}.train_epoch",
        "(len(cuts), self.target_features))",
        "(len(cuts), 1)).repeat(self.target_features, axis=1)",
        f"{EPOCHS}::test_each_target_of_each_row_is_jittered_by_itself",
    ),
    fault(
        "validation and test normalised by themselves too",
        f"{MODULE}._training_events",
        "for section in self.splits[0]",
        "for sections in self.splits for section in sections",
        "data/test_batches.py::test_normalisation_sees_training_events_only",
    ),
    fault(
        "baselines fitted on the test rows",
        "ragged.evaluation.evaluate:evaluate_model",
        "*data.validation.rows]",
        "*data.validation.rows, *rows]",
        f"{SCORES}::test_{BASELINES}",
    ),
    fault(
        "threshold of a plateau ignored",
        PLATEAU,
        "lowest - margin",
        "lowest",
        "training/test_lr_schedules.py::test_a_plateau_is_cut[threshold]",
    ),
    fault(
        "least rate of a plateau ignored",
        PLATEAU,
        "max(factor * self.factor, self.min_lr_ratio)",
        "factor * self.factor",
        "training/test_lr_schedules.py::test_a_plateau_is_cut[never below final]",
    ),
    fault(
        "training loss weighted by batches",
        f"{FIT}._finish",
        "elements = sum(batch.count for batch in group)",
        "elements = len(group)",
        f"{BOOKS}::test_the_loss_of_an_epoch_is_the_mean_over_its_elements",
    ),
    fault(
        "rows that fill a batch listed as diverged",
        f"{FIT}._diverged",
        "for row in b.rows if row >= 0",
        "for row in b.rows",
        f"{DIVERGED}[1]",
        f"{DIVERGED}[2]",
    ),
    fault(
        "the last, smaller step of an epoch lost",
        "ragged.training.loop:_grouped",
        "return iter(lambda: tuple(islice(iterator, size)), ())",
        "return zip(*[iterator] * size)",
        STEPS,
    ),
    fault("every epoch in one order", f"{FIT}._batches", "=self.state.epoch", "=0", STEPS),
    fault(
        "a forecast that rolls on sees the truth",
        "ragged.forecasting.rolling:_until_forecast",
        "columns[name][split:] = np.nan",
        "columns[name][stop:] = np.nan",
        f"{HORIZONS}_no_forecast_sees_what_came_after_its_origin",
    ),
    fault(
        "training anew on what came after",
        "ragged.forecasting.backtest:backtest",
        "events[index].until(split)",
        "events[index].until(split + 1)",
        f"{HORIZONS}_refitting_trains_on_what_came_before",
    ),
    fault(
        "the first forecast time taken for the origin",
        "ragged.forecasting.tables:forecast_table",
        "split - 1, split)",
        "split, split + 1)",
        f"{HORIZONS}_a_backtest_is_a_prediction_from_each_origin",
    ),
    fault(
        "days of 24 hours where clocks change",
        "ragged.data.tables.future:dates_after",
        'frequency.unit == "" and frequency.size % DAY',
        'frequency.unit == ""',
        "data/test_future.py::test_regular_dates_go_on[days where clocks change]",
    ),
    fault(
        "waste counted twice",
        "ragged.report.padding:PaddingCost.total_fraction",
        "float(1 -",
        "float(2 - 2 *",
        PADDING,
    ),
    fault(
        "padding counted though the loss is masked",
        f"{FIT}._batches",
        "if self.trainer.use_loss_masking",
        "if not self.trainer.use_loss_masking",
        "training/test_loss_masking.py::test_without_masking_padding_counts_and_filling_rows_do_not[torch]",
    ),
    fault(
        "the least likely class taken for the label",
        "ragged.evaluation.metrics:_labels",
        "argmax",
        "argmin",
        f"{SCORES}::test_accuracy_is_the_share_of_labels_that_are_right[torch]",
    ),
    fault(
        "a GRU's bias inside r * (...) dropped where a cell has none",
        "ragged.recurrent.convert.flax:to_flax",
        "source.bias_hh[n].any()",
        "False",
        f"{CONVERT}_what_a_cell_cannot_hold_is_refused[n bias in nnx]",
    ),
    fault(
        "the 1 that haiku adds to f left in",
        "ragged.recurrent.convert.haiku:to_haiku",
        "source.bias_ih + (source.bias_hh - _one_for_f(source.bias_hh))",
        "source.bias_ih + source.bias_hh",
        f"{CONVERT}_haiku_cores_take_the_steps_of_torch[LSTM]",
    ),
    fault(
        "small biases lost in the 1 that haiku adds to f",
        "ragged.recurrent.convert.haiku:to_haiku",
        "source.bias_ih + (source.bias_hh - _one_for_f(source.bias_hh))",
        "(source.bias_ih + source.bias_hh) - _one_for_f(source.bias_hh)",
        f"{CONVERT}_haiku_cores_take_the_steps_of_torch[LSTM]",
    ),
    fault(
        "a projection dropped",
        "ragged.recurrent.convert.layer:Layer.from_torch",
        'if f"weight_hr{suffix}" in parameters:',
        "if False:",
        f"{CONVERT}_what_a_cell_cannot_hold_is_refused[projection]",
    ),
)
