"""Faults in the schedules, which both backends follow."""

from __future__ import annotations

from tests.mutants.mutant import Fault, fault
from tests.mutants.names import schedule

PACKED = fault(
    "rows leave the batch a step early",
    "ragged.schedule:exact_stairs",
    "alive = descending[descending > 0]",
    "alive = descending[descending > 0] - 1",
    schedule("every_valid_step_is_computed_once", "always-mixed"),
)
COMMON = (
    fault(
        "padded batches lose their last step",
        "ragged.schedule:candidates",
        "Piece(batch, 0, width)",
        "Piece(batch, 0, width - 1)",
        schedule("every_valid_step_is_computed_once", "never-mixed"),
    ),
    fault(
        "dearest schedule taken",
        "ragged.schedule:_plan",
        "min(found.values()",
        "max(found.values()",
        schedule("auto_takes_the_cheapest", "one long, many short"),
    ),
    fault(
        "thin products counted as full ones",
        "ragged.schedule:candidates",
        "costs.step + row * (rows + costs.thin)",
        "costs.step + row * rows",
        schedule("auto_takes_the_cheapest", "mixed"),
    ),
    fault(
        "last cut left out",
        "ragged.schedule:cheapest_cuts",
        "int(np.argmin(totals)) + 1",
        "1",
        "test_schedule.py::test_cuts_are_the_best_there_are[{backend}]",
    ),
    fault(
        "policy of given lengths ignored",
        "ragged.schedule:_asked",
        "lengths if isinstance(lengths, Lengths) else",
        "",
        "test_schedule.py::test_lengths_keep_their_own_policy[{backend}]",
    ),
    fault(
        "reason for a schedule not told",
        "ragged.schedule:explain",
        "policy={valid.policy!r}",
        "policy",
        "test_schedule.py::test_explain_names_what_is_taken_and_why[{backend}]",
    ),
)


def faults_of(backend: str) -> tuple[Fault, ...]:
    """The faults for one backend: torch alone packs."""
    return (PACKED, *COMMON) if backend == "torch" else COMMON
